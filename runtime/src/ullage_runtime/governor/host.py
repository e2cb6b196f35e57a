"""The pod's own memory: what models are loaded into where there is no GPU."""

import os
from pathlib import Path

import psutil

from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.engines.limits import memory_limit
from ullage_runtime.engines.procfs import MemoryShare, memory_share
from ullage_runtime.governor.control_group import cpu_throttled_seconds, memory_stall
from ullage_runtime.governor.devices import OffLoop, Reading, processes_of

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


class HostMemory:
    """The pod's memory: its control group's limit, or all there is."""

    id = "host"
    kind = DeviceKind.HOST
    name = "memory"
    cuda_name = ""

    def __init__(self, root: Path = CGROUP_ROOT, proc: Path = PROC) -> None:
        self._root, self._proc = root, proc
        self._off_loop = OffLoop("the pod's memory")
        self._throttled = cpu_throttled_seconds(root, proc)

    def total(self) -> int:
        """Return the bytes this pod may use."""
        physical = int(psutil.virtual_memory().total)
        limit = memory_limit(self._root, self._proc)
        return physical if limit is None else min(limit, physical)

    async def read(self) -> Reading:
        """Return what is so now; raises DeviceError."""
        return await self._off_loop(self.read_now)

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:  # noqa: ARG002
        """Return what the process measured."""
        return resident

    def read_now(self) -> Reading:
        """Return what is so now; takes milliseconds, more with large models."""
        total = self.total()
        own = self._own()
        return Reading(
            total=total,
            used=min(total, self._used(total, own)),
            own=own.total,
            throttling=self._throttling(),
            stalled=memory_stall(self._root, self._proc),
        )

    @staticmethod
    def _used(total: int, own: MemoryShare) -> int:
        """Return what is in use of what there is.

        In a container that is what its processes take, mapped weights included. The group's own
        count will not do: it has page cache that nobody needs, and its working set leaves out
        weights that everybody needs. Without a limit, neighbours share the machine: theirs is what
        is not available, and mapped weights are added because the kernel calls them available.
        """
        memory = psutil.virtual_memory()
        if total < memory.total:
            return own.total
        return int(memory.total - memory.available) + own.mapped

    def _own(self) -> MemoryShare:
        shares = [memory_share(pid, self._proc) for pid in processes_of(os.getpid())]
        return MemoryShare(
            private=sum(share.private for share in shares),
            mapped=sum(share.mapped for share in shares),
        )

    def _throttling(self) -> tuple[str, ...]:
        before, self._throttled = self._throttled, cpu_throttled_seconds(self._root, self._proc)
        return ("cpu_quota",) if self._throttled > before else ()
