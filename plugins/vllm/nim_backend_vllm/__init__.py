"""vLLM as a serving backend: describes the process ``vllm serve``, and never imports it."""
