"""What ``bench/transfer.py`` is made of."""
