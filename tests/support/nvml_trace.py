"""A recorded NVML trace, played back behind pynvml's own functions.

A trace is what `record` writes on a machine with GPUs: for each moment, what each call answered.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from tests.support.fake_models import FakeSource, VirtualClock
from ullage_runtime.governor.nvml import gpus
from ullage_runtime.models.pool import ModelPool

TWO_H100 = Path(__file__).parent / "traces" / "two_h100.json"
"""A whole GPU, and one that is cut into two slices."""


@dataclass(frozen=True)
class Handle:
    board: int
    slice: int | None = None


class NvmlTrace:
    """pynvml's functions as far as devices use them; `moment` says which answers are due."""

    NVMLError = pynvml.NVMLError
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE

    def __init__(self, path: Path) -> None:
        trace = json.loads(path.read_text())
        self._boards: list[Any] = trace["boards"]
        self.moments: int = len(trace["moments"])
        self._answers: list[dict[str, Any]] = trace["moments"]
        self.moment = 0
        self.pids: dict[int, int] = {}
        """Recorded process ids that stand for those of the process that plays the trace."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlClocksEventReason"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:  # noqa: N802 - pynvml's name, like those below
        assert self._boards, "a trace has GPUs"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:  # noqa: N802
        return Handle(index)

    def nvmlDeviceGetName(self, handle: Handle) -> str:  # noqa: N802
        board = self._boards[handle.board]
        named = board if handle.slice is None else board["slices"][str(handle.slice)]
        return str(named["name"])

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:  # noqa: N802
        if handle.slice is None:
            return f"GPU-{handle.board}"
        return f"MIG-{handle.board}-{handle.slice}"

    def nvmlDeviceGetMigMode(self, handle: Handle) -> tuple[int, int]:  # noqa: N802
        mode = self._boards[handle.board]["mig"]
        if mode is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return mode, mode

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int:  # noqa: N802
        return int(self._boards[handle.board]["maxSlices"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, number: int) -> Handle:  # noqa: N802
        if str(number) not in self._boards[handle.board]["slices"]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return Handle(handle.board, number)

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any:  # noqa: N802
        answer = self._answer(handle, "memory")
        return SimpleNamespace(total=answer["total"], used=answer["used"])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:  # noqa: N802
        return [
            SimpleNamespace(pid=self.pids.get(p["pid"], p["pid"]), usedGpuMemory=p["bytes"])
            for p in self._answer(handle, "processes")
        ]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> int:  # noqa: N802
        return int(self._answer(handle, "clocks"))

    def _answer(self, handle: Handle, call: str) -> Any:
        key = str(handle.board) + ("" if handle.slice is None else f".{handle.slice}")
        answer = self._answers[self.moment][key][call]
        if isinstance(answer, dict) and "error" in answer:
            raise pynvml.NVMLError(answer["error"])
        return answer


@asynccontextmanager
async def gpu_pool(trace: NvmlTrace, *, moment: int) -> AsyncIterator[ModelPool]:
    """Yield a pool without models over a trace's devices, as they were read at a moment."""
    devices = list(gpus(trace))
    trace.moment = moment
    async with ModelPool(
        source=FakeSource(),
        pod_name="ullage-default-0",
        ordinal=0,
        version="0",
        devices=devices,
        clock=VirtualClock(),
    ) as pool:
        yield pool
