"""vLLM is gigabytes, which `make vllm` installs; elsewhere there is nothing here to run."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
