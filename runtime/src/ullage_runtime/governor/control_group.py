"""What a control group says of waiting: for memory, and for its share of the CPUs; v1 and v2."""

from pathlib import Path

from ullage_runtime.engines.limits import group_folders, text_of


def memory_stall(root: Path, proc: Path) -> float | None:
    """Return the share of the last 10 s in which some process waited for memory, or None.

    The group's own figure (PSI) where there is one, else the machine's; kernels without PSI have
    neither.
    """
    for folder in group_folders("memory", root, proc):
        found = _avg10(text_of(folder / "memory.pressure"))
        if found is not None:
            return found
    return _avg10(text_of(proc / "pressure" / "memory"))


def cpu_throttled_seconds(root: Path, proc: Path) -> float:
    """Return how long the group's processes have been held back by its CPU quota; 0 without one."""
    for folder in group_folders("cpu", root, proc):
        fields = dict(
            line.split() for line in text_of(folder / "cpu.stat").splitlines() if " " in line
        )
        if "throttled_usec" in fields:
            return int(fields["throttled_usec"]) / 1e6
        if "throttled_time" in fields:
            return int(fields["throttled_time"]) / 1e9
    return 0.0


def _avg10(text: str) -> float | None:
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if kind == "some" and "avg10" in values:
            return float(values["avg10"]) / 100
    return None
