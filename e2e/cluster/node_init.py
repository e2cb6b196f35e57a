"""The first process of a node: it makes the node's world, and while it lives that world does.

It runs in new mount, network and process namespaces. Everything the node's programs mount, route,
filter and start is inside them, so ending this one process makes the kernel undo all of it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

# Folders that the node's programs write to by name; each is given a private one.
PRIVATE_FOLDERS = {"run": "/run", "lib": "/var/lib", "log": "/var/log"}

# A kubelet sets these for the whole kernel. Here it finds them set already, in files that stand
# before the real ones, and the machine keeps its own values.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

READY = "ready"
DNS_ADDRESS = "169.254.20.10"


def main() -> None:
    """Make the node's world in the folder that is the only argument, and keep it until the end."""
    # The first process of a namespace receives only signals that it handles or waits for.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    folder = Path(sys.argv[1])
    _mount("--make-rprivate", "/")
    _mount("--make-rshared", "/")
    _settings(folder)
    _command("ip", "link", "set", "lo", "up")
    _command("ip", "address", "add", f"{DNS_ADDRESS}/32", "dev", "lo")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for name, path in PRIVATE_FOLDERS.items():
        private = folder / name
        private.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(private), path)
    (folder / READY).touch()
    # Orphans of this process namespace become children of this process; ignored, none lingers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.sigwait({signal.SIGTERM})


def _settings(folder: Path) -> None:
    for name, value in KERNEL_SETTINGS.items():
        target = Path("/proc/sys") / name
        if target.exists():
            source = folder / "sysctl" / name
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(f"{value}\n")
            _mount("--bind", str(source), str(target))


def _command(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _mount(*arguments: str) -> None:
    # mount keeps notes in /run, which at first is still the machine's.
    _command("mount", "--no-mtab", *arguments)


if __name__ == "__main__":
    main()
