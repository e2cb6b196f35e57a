"""NVIDIA GPUs and their MIG slices, by the driver's own account (NVML)."""

import os
from collections.abc import Iterator
from typing import Any, Final

import structlog

from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.governor.devices import Device, DeviceError, OffLoop, Reading, processes_of

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

    def __init__(self, nvml: Any, handle: Any, device_id: str, board: Any, cuda_name: str) -> None:
        self._nvml = nvml
        self._handle = handle
        self._board = board
        """The whole GPU: heat and power are no matter of slices."""
        self.id = device_id
        self.cuda_name = cuda_name
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
        """Return what the driver says of the processes, or the estimate where it knows none.

        Process ids in a container are not the driver's, so the latter is the rule there.
        """
        try:
            taken = await self._off_loop(lambda: self._taken_by(pid))
        except DeviceError as error:
            _log.warning("device.unreadable", device=self.id, why=str(error))
            return estimated
        return estimated if taken is None else taken

    def _taken_by(self, pid: int) -> int | None:
        known = self._processes()
        own = known.keys() & processes_of(pid)
        return sum(known[each] for each in own) if own else None

    def read_now(self) -> Reading:
        """Return what is so now; raises DeviceError."""
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError as error:
            raise DeviceError(f"the driver says: {error}") from error
        known = self._processes()
        own = known.keys() & processes_of(os.getpid())
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


def gpus(nvml: Any, visible: str | None = None) -> Iterator[Device]:
    """Yield every GPU this process may use; of one that is cut into MIG slices, its slices.

    `visible` is what `CUDA_VISIBLE_DEVICES` says, which the driver does not heed; None names all.
    """
    nvml.nvmlInit()
    named = None if visible is None else {name.strip() for name in visible.split(",")}
    for index in range(nvml.nvmlDeviceGetCount()):
        board = nvml.nvmlDeviceGetHandleByIndex(index)
        if _is_sliced(nvml, board):
            found = tuple(_slices(nvml, board, index))
        else:
            found = (GpuMemory(nvml, board, f"gpu{index}", board, str(index)),)
        of_board = {str(index), _text(nvml.nvmlDeviceGetUUID(board))}
        for gpu in found:
            if named is None or named & {gpu.cuda_name, *of_board}:
                yield gpu


def _is_sliced(nvml: Any, board: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(board)
    except nvml.NVMLError:  # a GPU that knows no slices says so this way
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _slices(nvml: Any, board: Any, index: int) -> Iterator[GpuMemory]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number)
        except nvml.NVMLError:  # numbers are not handed out in order
            continue
        # Numbers name whole GPUs, and of a cut one its first slice.
        name = _text(nvml.nvmlDeviceGetUUID(handle))
        yield GpuMemory(nvml, handle, f"gpu{index}.mig{number}", board, name)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
