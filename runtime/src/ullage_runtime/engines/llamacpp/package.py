"""llama-cpp-python's modules, without the package around them.

Importing the package runs its high-level API as well: numpy, a disk cache, a log callback of its
own. Measured, that is 15 MiB of memory per worker, and six times the bindings' own import time.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any, Final

_PACKAGE: Final = "llama_cpp"


def bundled(name: str) -> Any:
    """Import a module of the package, under a package that is not run."""
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("llama-cpp-python is not installed", name=_PACKAGE)
    package = types.ModuleType(_PACKAGE)
    package.__path__ = spec.submodule_search_locations
    sys.modules[_PACKAGE] = package
    try:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    finally:
        # Whoever imports the package itself in this process must get the whole of it.
        del sys.modules[_PACKAGE]
