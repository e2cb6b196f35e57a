"""The machine a benchmark ran on, as far as it bears on the numbers."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.environment import EMBEDDERS, LOCK
from ullage_runtime.engines.limits import cpu_quota


def described() -> dict[str, Any]:
    """Return the machine's processor, memory and system."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "quota": cpu_quota(),
        "memoryBytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "loadBefore": [round(value, 2) for value in psutil.getloadavg()],
        "versions": {name: version(name) for name in ("ullage-runtime", "llama-cpp-python")},
        "opponents": _locked(LOCK, "xllamacpp", "llama-cpp-python")
        | _locked(EMBEDDERS, "sentence-transformers", "infinity-emb", "torch"),
    }


def _locked(lock: Path, *names: str) -> dict[str, str]:
    pairs = (line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    return {name: number for name, number in pairs if name in names}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
