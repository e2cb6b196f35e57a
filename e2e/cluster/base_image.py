"""The image that others start from, made of Debian packages where no image registry answers."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.binaries import say
from e2e.cluster.cache import building, cache_root, content_key
from e2e.cluster.docker import require_root
from e2e.cluster.errors import ClusterError
from e2e.cluster.packages import BASE_PROGRAMS, SYSTEM_PATH, require
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from e2e.cluster.docker import Docker

__all__ = ["OFFICIAL_IMAGE", "python_image"]

OFFICIAL_IMAGE = "python:3.11-slim-bookworm"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
# Debian's Python is the same 3.11.
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
LEFT_OUT = (
    "dev",
    "proc",
    "sys",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
PULL_SECONDS = 300.0
DEBOOTSTRAP_SECONDS = 1200.0
IMPORT_SECONDS = 300.0


def python_image(builder: Docker) -> str:
    """Return the image to build on: what `ULLAGE_PYTHON_IMAGE` names, the official one, or ours.

    The value `debootstrap` asks for ours even where a registry answers.
    """
    wanted = os.environ.get("ULLAGE_PYTHON_IMAGE", "")
    if wanted not in {"", "debootstrap"}:
        return wanted
    if not wanted and _has_official(builder):
        return OFFICIAL_IMAGE
    return _own(builder)


def base_key(today: dt.date) -> str:
    """Return the key of our own base image: made anew each month, for Debian's security updates."""
    month = f"{today:%Y-%m}"
    return f"{month}-{content_key(SUITE, *PACKAGES, *LEFT_OUT)[:8]}"


def _has_official(builder: Docker) -> bool:
    if builder.has_image(OFFICIAL_IMAGE):
        return True
    try:
        builder.run("pull", "--quiet", OFFICIAL_IMAGE, timeout=PULL_SECONDS)
    except ClusterError as error:
        reason = str(error).rpartition(": ")[2]
        say(f"{OFFICIAL_IMAGE} cannot be pulled ({reason}): the base is made of Debian packages")
        return False
    return True


def _own(builder: Docker) -> str:
    key = base_key(dt.datetime.now(tz=dt.UTC).date())
    reference = f"ullage-python:{key}"
    if not builder.has_image(reference):
        archive = _archive(key)
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        builder.run("import", "--change", path, str(archive), reference, timeout=IMPORT_SECONDS)
    return reference


def _archive(key: str) -> Path:
    target = cache_root() / "images" / f"base-{key}"
    if not target.exists():
        require_root()
        require(BASE_PROGRAMS, purpose="the base image")
        say(f"making a base image of Debian {SUITE} packages: one to two minutes, once a month")
        with building(target) as folder, tempfile.TemporaryDirectory(dir=folder) as name:
            root = Path(name) / "root"
            run(
                [
                    "debootstrap",
                    "--variant=minbase",
                    f"--include={','.join(PACKAGES)}",
                    SUITE,
                    root,
                    MIRROR,
                ],
                timeout=DEBOOTSTRAP_SECONDS,
                env={**os.environ, "PATH": SYSTEM_PATH},
            )
            _pack(root, folder / "root.tar")
        for old in set(target.parent.glob("base-*")) - {target}:
            shutil.rmtree(old)
    return target / "root.tar"


def _pack(root: Path, archive: Path) -> None:
    """Pack a root file system, empty where an image needs nothing: documents, caches, devices."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = any(entry.name.startswith(f"{folder}/") for folder in LEFT_OUT)
        return None if inside or entry.name.endswith("/__pycache__") else entry

    with tarfile.open(archive, "w") as output:
        for path in sorted(root.iterdir()):
            output.add(path, arcname=path.name, filter=wanted)
