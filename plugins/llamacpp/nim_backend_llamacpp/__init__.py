"""GGUF models served by llama.cpp, on CPUs and, with a build for them, on GPUs."""
