"""The wheel of llama.cpp, compiled once per machine and used by checkouts and images alike.

`python3 -m e2e.cluster.llama_wheel restore UV` installs the kept wheel into `.venv`, so that
`uv sync` finds it there and has nothing to compile; `… keep UV` keeps what `uv sync` compiled;
`… kept` prints the kept wheel's path, for environments that are made otherwise.
uv's own cache does not do: it forgets what it compiled whenever the index serves the source
without an unchanging validator, and ten minutes of compiling are too many to do twice.

Needs nothing but Python itself: it runs before anything is installed.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from e2e.cluster.cache import building, cache_root, content_key, locked

__all__ = ["keep", "kept", "restore"]

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "llama-cpp-python"
LOCK_SECONDS = 60.0
COMMAND_SECONDS = 120.0


def kept(repository: Path = REPOSITORY) -> Path | None:
    """Return the wheel kept for what this checkout locks, if there is one."""
    return next(iter(_folder(repository).glob("*.whl")), None)


def restore(uv: str, repository: Path = REPOSITORY) -> bool:
    """Install the kept wheel where the environment does not have just that; tell whether.

    uv takes an installed version for the right one, whatever it was compiled from. So one of other
    settings leaves the environment here, and `uv sync` finds its place empty.
    """
    environment = repository / ".venv"
    installed = _installed(repository)
    if installed is not None and _note(repository) == key(repository):
        return False
    wheel = kept(repository)
    if wheel is None:
        if installed is not None:
            where = ("--python", str(environment))
            _run(uv, "pip", "uninstall", "--quiet", *where, PACKAGE, cwd=repository)
        print("llama.cpp will be compiled for every kind of CPU, once: 10 minutes on 2 cores")
        return False
    if not environment.exists():
        _run(uv, "venv", "--quiet", cwd=repository)
    # By name, not by path: a wheel that came from a path is not what the lock speaks of.
    wanted = f"{PACKAGE}=={_locked(repository)['version']}"
    source = ("--python", str(environment), "--no-index", "--find-links", str(wheel.parent))
    options = ("--quiet", "--no-deps", "--reinstall-package", PACKAGE)
    _run(uv, "pip", "install", *options, *source, wanted, cwd=repository)
    _note_file(repository).write_text(key(repository))
    print("llama.cpp: the wheel compiled earlier on this machine is used")
    return True


def keep(uv: str, repository: Path = REPOSITORY) -> bool:
    """Keep the wheel that uv compiled and installed, unless one is kept already; tell whether."""
    installed = _installed(repository)
    if kept(repository) is not None or installed is None:
        return False
    cache = Path(_run(uv, "cache", "dir", cwd=repository).strip())
    version = _locked(repository)["version"]
    ours = _libraries((installed / "RECORD").read_text())
    for wheel in cache.glob(f"sdists-v*/pypi/{PACKAGE}/{version}/**/*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            theirs = _libraries(archive.read(f"{installed.name}/RECORD").decode())
        if theirs == ours and runs_on_every_cpu(wheel):
            with (
                locked("llama-wheel", timeout=LOCK_SECONDS),
                building(_folder(repository)) as new,
            ):
                shutil.copy2(wheel, new / wheel.name)
            _note_file(repository).write_text(key(repository))
            return True
    return False


def runs_on_every_cpu(wheel: Path) -> bool:
    """Return whether a wheel holds llama.cpp's variants to choose from at run time."""
    with zipfile.ZipFile(wheel) as archive:
        variants = [name for name in archive.namelist() if "ggml-cpu-" in name]
    return len(variants) > 1


def key(repository: Path = REPOSITORY) -> str:
    """Return the name of all that the wheel depends on: source, settings, machine and C library."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    settings = project["tool"]["uv"]["config-settings-package"][PACKAGE]
    source = _locked(repository)["sdist"]["hash"]
    return content_key(
        source, repr(sorted(settings.items())), platform.machine(), *platform.libc_ver()
    )


def _folder(repository: Path) -> Path:
    return cache_root().parent / "wheels" / key(repository)


def _installed(repository: Path) -> Path | None:
    """Return where the environment describes its llama.cpp of the locked version, if it has one."""
    name = f"{PACKAGE.replace('-', '_')}-{_locked(repository)['version']}.dist-info"
    return next((repository / ".venv").glob(f"lib*/python*/site-packages/{name}"), None)


def _note_file(repository: Path) -> Path:
    """Return the file that says which wheel the environment's llama.cpp came from."""
    return repository / ".venv" / ".llama-cpp-python"


def _note(repository: Path) -> str:
    file = _note_file(repository)
    return file.read_text() if file.exists() else ""


def _libraries(record: str) -> set[str]:
    """Return a RECORD's lines about libraries: their paths, digests and sizes."""
    return {line for line in record.splitlines() if ".so" in line.split(",")[0]}


def _locked(repository: Path) -> dict[str, Any]:
    lock = tomllib.loads((repository / "uv.lock").read_text())
    found: dict[str, Any] = next(p for p in lock["package"] if p["name"] == PACKAGE)
    return found


def _run(*command: str, cwd: Path) -> str:
    return subprocess.run(
        command, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS
    ).stdout


def main(arguments: list[str]) -> int:
    """Run `restore UV`, `keep UV` or `kept`; return the exit status."""
    match arguments:
        case ["restore", uv]:
            restore(uv)
        case ["keep", uv]:
            keep(uv)
        case ["kept"]:
            wheel = kept()
            if wheel is None:
                sys.stderr.write("no wheel of llama.cpp is kept: run `make setup` first\n")
                return 1
            print(wheel)
        case _:
            sys.stderr.write("usage: python3 -m e2e.cluster.llama_wheel restore|keep UV, or kept\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
