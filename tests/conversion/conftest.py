"""Conversions need PyTorch and transformers, gigabytes of them: `make conversion` installs them.

Where they are not installed there is nothing here to run.
"""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
