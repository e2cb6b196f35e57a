"""The engine for GGUF files: llama.cpp through llama-cpp-python's low-level API."""
