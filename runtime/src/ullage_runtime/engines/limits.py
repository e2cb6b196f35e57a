"""What this process may use: CPU and memory as its control groups allow them, v1 and v2.

The files are read below a root that tests replace. A container sees its own group as the root of
the file system, a plain process sees the whole tree; both places are read and the least wins.
"""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")

_UNLIMITED = 1 << 60
"""v1 writes a page-aligned 2^63 where there is no limit."""


def cpu_quota(root: Path = CGROUP_ROOT, proc: Path = PROC) -> int:
    """Return how many CPUs this process may keep busy: at least one, never the host's count."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [q for folder in group_folders("cpu", root, proc) if (q := _cpus(folder)) is not None]
    # A quota of 1.5 CPUs keeps one thread busy; two would be throttled together.
    return max(1, int(min([float(allowed or 1), *quotas])))


def memory_limit(root: Path = CGROUP_ROOT, proc: Path = PROC) -> int | None:
    """Return the bytes of memory this process may use, or None without a limit."""
    limits = [
        value
        for folder in group_folders("memory", root, proc)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (value := _number(folder / name)) is not None and value < _UNLIMITED
    ]
    return min(limits, default=None)


def group_folders(controller: str, root: Path, proc: Path) -> Iterator[Path]:
    """Yield this process's group folders for a controller, the innermost first."""
    for line in text_of(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if ".." in path:
            path = ""  # outside of what this namespace can see
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        if controllers and not base.is_dir():
            base = root / controller
        group = base / path.lstrip("/")
        while group != base and base in group.parents:
            yield group
            group = group.parent
        yield base


def _cpus(folder: Path) -> float | None:
    fields = text_of(folder / "cpu.max").split()
    if len(fields) == 2 and fields[0].isdigit():  # noqa: PLR2004 - quota and period
        return int(fields[0]) / int(fields[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is not None and quota > 0 and period:
        return quota / period
    return None


def _number(path: Path) -> int | None:
    text = text_of(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def text_of(path: Path) -> str:
    """Return what a file says, or nothing where there is none."""
    try:
        return path.read_text()
    except OSError:  # the file is there or not according to the kernel's version
        return ""
