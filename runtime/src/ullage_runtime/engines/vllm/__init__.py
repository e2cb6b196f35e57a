"""vLLM: safetensors folders of generative models, computed by vLLM inside the worker's process."""
