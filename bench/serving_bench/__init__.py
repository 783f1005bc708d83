"""Programs that ``bench/serving.py`` starts."""
