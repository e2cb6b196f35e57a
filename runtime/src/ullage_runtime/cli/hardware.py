"""What this machine offers to models: processors, memory, devices, disk."""

import asyncio
import json
import pathlib
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil

from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.engines.limits import cpu_quota, memory_limit
from ullage_runtime.governor.detection import detected_devices
from ullage_runtime.governor.devices import Device, Reading
from ullage_runtime.governor.policy import MemoryOverrides, memory_policy

PROBE_SECONDS: Final = 60
_FLAGS: Final = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8")

# In a process of its own: a library built for another processor dies of a signal, not an exception.
_PROBE: Final = """
import json
from ullage_runtime.engines.llamacpp import library
library.Library(lambda *_: None)
print(json.dumps({"variant": library.cpu_variant(), "gpu": library.gpu_name()}))
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """What llama.cpp would compute with here."""

    works: bool
    variant: str = ""
    """The CPU backend that was picked for this instruction set, such as `zen4`."""
    gpu: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """One device's memory, in bytes."""

    id: str
    name: str
    is_gpu: bool
    total: int
    available: int
    budget: int
    """What models may take of it."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine, or a container on it, has."""

    processor: str
    instructions: tuple[str, ...]
    cores: int
    quota: int
    """Cores that the control group lets this process keep busy."""
    memory_total: int
    memory_limit: int | None
    memory_available: int
    devices: tuple[Memory, ...]
    cache_dir: str
    disk_free: int
    engine: Engine

    def to_wire(self) -> dict[str, Any]:
        """Return everything for scripts."""
        return asdict(self)


def look_around(cache_dir: pathlib.Path) -> Hardware:
    """Return what this machine has; takes a second, since it loads the engine once."""
    memory = psutil.virtual_memory()
    limit = memory_limit()
    return Hardware(
        processor=_processor(),
        instructions=_instructions(),
        cores=psutil.cpu_count() or 1,
        quota=cpu_quota(),
        memory_total=int(memory.total),
        memory_limit=limit,
        memory_available=int(memory.available),
        devices=devices(),
        cache_dir=str(cache_dir),
        disk_free=_disk_free(cache_dir),
        engine=probed_engine(),
    )


def devices() -> tuple[Memory, ...]:
    """Return where models can be loaded; the first is where they go by themselves."""
    return tuple(_memory(device) for device in detected_devices())


def _memory(device: Device) -> Memory:
    reading = asyncio.run(_read(device))
    return Memory(
        id=device.id,
        name=device.name,
        is_gpu=device.kind is DeviceKind.GPU,
        total=reading.total,
        available=max(0, reading.total - reading.used),
        budget=memory_policy(RuntimeSettings(), MemoryOverrides()).models.of(reading.total),
    )


async def _read(device: Device) -> Reading:
    return await device.read()


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith(("model name", "Hardware")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _instructions() -> tuple[str, ...]:
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            present = set(line.split(":", 1)[1].split())
            return tuple(flag for flag in _FLAGS if flag in present)
    return ()


def _cpuinfo() -> list[str]:
    try:
        return pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []


def _disk_free(folder: pathlib.Path) -> int:
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(existing).free


def probed_engine() -> Engine:
    """Return what llama.cpp says of this machine, asked in a process of its own."""
    try:
        done = subprocess.run(  # noqa: S603 - our own code in our own interpreter
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Engine(works=False, problem=f"it did not load within {PROBE_SECONDS} s")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        why = last[-1] if last else f"it ended with status {done.returncode}"
        return Engine(works=False, problem=why)
    found = json.loads(done.stdout.splitlines()[-1])
    return Engine(works=True, variant=found["variant"], gpu=found["gpu"])
