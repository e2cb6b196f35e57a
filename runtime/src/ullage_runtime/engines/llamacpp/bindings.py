"""llama-cpp-python's ctypes bindings; importing them loads llama.cpp."""

import importlib.metadata
from typing import Any, Final

from ullage_runtime.engines.llamacpp.package import bundled

llama_cpp: Any = bundled("llama_cpp")
"""Everything of llama.h; the names are llama.cpp's own."""

VERSION: Final = importlib.metadata.version("llama-cpp-python")
