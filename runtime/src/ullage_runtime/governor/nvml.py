"""NVIDIA GPUs and their MIG slices, by the driver's own account (NVML)."""

from collections.abc import Iterator
from typing import Any, Final

import structlog

from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.governor.devices import Device, DeviceError, OffLoop, Reading, own_processes

_log = structlog.get_logger(__name__)

THROTTLING: Final = (
    ("nvmlClocksEventReasonHwSlowdown", "hardware"),
    ("nvmlClocksEventReasonHwThermalSlowdown", "hardware_thermal"),
    ("nvmlClocksEventReasonHwPowerBrakeSlowdown", "power_brake"),
    ("nvmlClocksEventReasonSwThermalSlowdown", "thermal"),
    ("nvmlClocksEventReasonSwPowerCap", "power_cap"),
)
"""The driver's reasons for low clocks that mean heat or power, with our words for them."""


class GpuMemory:
    """One GPU, or one MIG slice of a GPU; `nvml` has pynvml's functions."""

    kind = DeviceKind.GPU

    def __init__(self, nvml: Any, handle: Any, device_id: str, board: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._board = board
        """The whole GPU: heat and power are no matter of slices."""
        self.id = device_id
        self.name = _text(nvml.nvmlDeviceGetName(handle))
        self._total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        self._off_loop = OffLoop(device_id)

    def total(self) -> int:
        """Return the bytes of device memory."""
        return self._total

    async def read(self) -> Reading:
        """Return what is so now; raises DeviceError."""
        return await self._off_loop(self.read_now)

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:  # noqa: ARG002
        """Return what the driver says of the process, or the estimate where it does not know it.

        Process ids in a container are not the driver's, so the latter is the rule there.
        """
        try:
            known = await self._off_loop(self._processes)
        except DeviceError as error:
            _log.warning("device.unreadable", device=self.id, why=str(error))
            return estimated
        return known.get(pid, estimated)

    def read_now(self) -> Reading:
        """Return what is so now; raises DeviceError."""
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError as error:
            raise DeviceError(f"the driver says: {error}") from error
        known = self._processes()
        own = known.keys() & own_processes()
        return Reading(
            total=int(memory.total),
            used=int(memory.used),
            own=sum(known[pid] for pid in own) if own else None,
            throttling=self._throttling(),
        )

    def _processes(self) -> dict[int, int]:
        """Return what each process takes, as far as the driver knows."""
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError as error:
            _log.debug("device.no_processes", device=self.id, why=str(error))
            return {}
        return {int(p.pid): int(p.usedGpuMemory) for p in found if p.usedGpuMemory}

    def _throttling(self) -> tuple[str, ...]:
        try:
            reasons = self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._board)
        except self._nvml.NVMLError as error:
            _log.debug("device.no_clock_reasons", device=self.id, why=str(error))
            return ()
        return tuple(word for name, word in THROTTLING if reasons & getattr(self._nvml, name))


def gpus(nvml: Any) -> Iterator[Device]:
    """Yield every GPU this process may use; of one that is cut into MIG slices, its slices."""
    nvml.nvmlInit()
    for index in range(nvml.nvmlDeviceGetCount()):
        board = nvml.nvmlDeviceGetHandleByIndex(index)
        if _is_sliced(nvml, board):
            yield from _slices(nvml, board, index)
        else:
            yield GpuMemory(nvml, board, f"gpu{index}", board)


def _is_sliced(nvml: Any, board: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(board)
    except nvml.NVMLError:  # a GPU that knows no slices says so this way
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _slices(nvml: Any, board: Any, index: int) -> Iterator[Device]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number)
        except nvml.NVMLError:  # numbers are not handed out in order
            continue
        yield GpuMemory(nvml, handle, f"gpu{index}.mig{number}", board)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
