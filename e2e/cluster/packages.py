"""The Debian packages that a node and the image builder need, installed where they are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.binaries import say
from e2e.cluster.cache import locked
from e2e.cluster.errors import MissingRequirementError
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BASE_PROGRAMS", "BUILDER_PROGRAMS", "NODE_PROGRAMS", "cni_folder", "missing", "require"]

# What must be there, and the package that brings it.
NODE_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
}
BUILDER_PROGRAMS = {"dockerd": "docker.io", "docker": "docker.io", "runc": "runc"}
BASE_PROGRAMS = {"debootstrap": "debootstrap"}
CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
# Debian keeps programs of the administrator where an ordinary user's PATH may not look.
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
INSTALL_SECONDS = 900.0


def require(programs: Mapping[str, str], *, purpose: str) -> None:
    """Make sure that these programs are here: install them, or say what to install.

    Raises:
        MissingRequirementError: they are missing, and this is not root on a machine with apt.
    """
    packages = missing(programs)
    if not packages:
        return
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        message = f"{purpose} needs these Debian packages, or what they hold: {names}"
        raise MissingRequirementError(message)
    say(f"installing what {purpose} needs: apt-get install {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    with locked("apt", timeout=INSTALL_SECONDS):
        run(["apt-get", "update"], timeout=INSTALL_SECONDS, env=environment)
        run(install, timeout=INSTALL_SECONDS, env=environment)
    left = missing(programs)
    if left:
        message = f"{purpose}: still missing after installing: {' '.join(left)}"
        raise MissingRequirementError(message)


def missing(programs: Mapping[str, str]) -> list[str]:
    """Return the packages of those programs that are not here, each once."""
    return sorted({package for name, package in programs.items() if not _is_here(name)})


def cni_folder() -> Path:
    """Return where the network plugins lie."""
    for folder in CNI_FOLDERS:
        if (folder / "ptp").exists():
            return folder
    message = "no network plugins: install the package containernetworking-plugins"
    raise MissingRequirementError(message)


def _is_here(name: str) -> bool:
    if name.startswith("/"):
        return any((folder / Path(name).name).exists() for folder in CNI_FOLDERS)
    return shutil.which(name, path=SYSTEM_PATH) is not None
