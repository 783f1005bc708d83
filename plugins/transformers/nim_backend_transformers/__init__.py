"""Models in safetensors files served by ``transformers serve``, wherever torch runs."""
