"""What /proc says of a process's memory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """What a process takes, in bytes, shared pages in proportion."""

    private: int = 0
    """Its own pages, and those of shared memory."""
    mapped: int = 0
    """Pages of files it has mapped, such as weights."""

    @property
    def total(self) -> int:
        """Everything: mapped weights count, which a container's working set leaves out."""
        return self.private + self.mapped


def memory_share(pid: int, proc: Path = Path("/proc")) -> MemoryShare:
    """Return what a process takes: nothing if it is gone.

    This is Pss_Anon + Pss_Shmem, and Pss_File. Kernels without the split have the sum as Pss, which
    then counts as private.
    """
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return MemoryShare()
    values = {
        fields[0]: int(fields[1]) * 1024
        for fields in (line.split() for line in text.splitlines()[1:])
        if len(fields) > 1
    }
    if "Pss_File:" not in values:
        return MemoryShare(private=values.get("Pss:", 0))
    private = values.get("Pss_Anon:", 0) + values.get("Pss_Shmem:", 0)
    return MemoryShare(private=private, mapped=values["Pss_File:"])


def proportional_set_size(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the bytes of memory a process takes, shared pages in proportion; 0 if it is gone."""
    return memory_share(pid, proc).total
