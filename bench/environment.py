"""Where opponents are installed, and the llama.cpp builds that servers compute with."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import psutil

from e2e.cluster.cache import building, cache_root, content_key, locked
from e2e.cluster.llama_wheel import kept

HERE: Final = Path(__file__).parent
LOCK: Final = HERE / "opponents.txt"
EMBEDDERS: Final = HERE / "embedders.txt"
PYTHON: Final = "3.11"
LOCK_SECONDS: Final = 1800.0
INSTALL_SECONDS: Final = 1800.0

VARIANT: Final = "haswell"
"""Our build's variant with the features that xllamacpp's wheel is compiled for: AVX2, FMA, F16C."""

_VARIANT_FILE: Final = re.compile(r"libggml-cpu-([\w.]+)\.so")


def bench_cache() -> Path:
    """Return the folder of everything that benchmarks keep between runs."""
    return cache_root().parent / "bench"


def opponents_python() -> Path:
    """Return the interpreter that has the opponents, installing them on the first call.

    llama-cpp-python comes from the wheel that this machine compiled for Ullage: the two then differ
    in their Python alone, and nothing is compiled twice.
    """
    wheel = kept()
    if wheel is None:
        raise SystemExit("llama-cpp-python is not compiled yet; run `make setup`")
    return _installed("opponents", LOCK, wheel)


def embedders_python() -> Path:
    """Return the interpreter that has PyTorch's embedders: 5 GB, installed on the first call."""
    return _installed("embedders", EMBEDDERS)


def _installed(name: str, lock: Path, *wheels: Path) -> Path:
    folder = bench_cache() / f"{name}-{content_key(lock.read_bytes(), *map(str, wheels))}"
    python = folder / "bin" / "python"
    with locked(f"bench-{name}", timeout=LOCK_SECONDS):
        if not python.exists():
            with building(folder) as new:
                _run("venv", "--quiet", "--allow-existing", "--python", PYTHON, str(new))
                where = ("--quiet", "--python", str(new / "bin" / "python"))
                _run("pip", "install", *where, "-r", str(lock))
                for wheel in wheels:
                    _run("pip", "install", *where, "--no-deps", str(wheel))
    return python


def _run(*arguments: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is needed to install the opponents; run `make bench`")
    command = [uv, *arguments]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)  # noqa: S603 - our own arguments


def variant_file(site_packages: Path, variant: str = VARIANT) -> Path | None:
    """Return the library of a CPU variant; None for a build with one compiled in."""
    found = site_packages.glob(f"**/libggml-cpu-{variant}.so")
    return next(found, None)


def only_variant(site_packages: Path, folder: Path) -> Path | None:
    """Make a folder for PYTHONPATH whose llama.cpp has no variant but the common one.

    llama.cpp looks for its variants beside the package, so a link to the package beside a link to
    one variant is all that it takes. None where the build has no variants to choose from.
    """
    library = variant_file(site_packages)
    if library is None:
        return None
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    links = {"llama_cpp": site_packages / "llama_cpp", f"bin/{library.name}": library}
    for name, target in links.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    return folder


def variants_in_use(pid: int) -> list[str]:
    """Return the CPU variants that a process and its children have loaded."""
    found: set[str] = set()
    for process in family(pid):
        try:
            text = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
        except OSError:  # it has ended, or this is no Linux
            continue
        found |= set(_VARIANT_FILE.findall(text))
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have taken."""
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def family(pid: int) -> list[psutil.Process]:
    """Return a process and its children, as far as they still live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
