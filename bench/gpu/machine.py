"""What a GPU run needs of its machine, and what the driver says of it."""

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from bench.gpu.verdicts import Board
from ullage_runtime.governor.devices import Device
from ullage_runtime.governor.nvml import gpus

SMI_SECONDS = 60.0


def smi(*fields: str) -> list[list[str]]:
    """Return what nvidia-smi says of each GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    done = subprocess.run(  # noqa: S603 - our own arguments
        [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=SMI_SECONDS,
    )
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]


def boards(rows: list[list[str]]) -> list[Board]:
    """Return the GPUs of rows of name and MiB."""
    return [Board(name, int(total) << 20) for name, total in rows]


def found_devices() -> list[Device]:
    """Return the GPUs as the governor sees them; raises where there is no driver."""
    import pynvml

    return list(gpus(pynvml))


def offloads() -> bool:
    """Whether the installed llama.cpp can compute on a GPU."""
    import llama_cpp

    from ullage_runtime.engines.llamacpp.library import gpu_name, load_backends

    load_backends()
    return bool(llama_cpp.llama_supports_gpu_offload()) and gpu_name() is not None


def missing(
    devices: Callable[[], list[Any]] = found_devices, offloading: Callable[[], bool] = offloads
) -> list[str]:
    """Return what keeps the list from being run, each with what to do about it."""
    wanting = []
    try:
        if not devices():
            wanting.append("no GPU: the driver lists none; run this where nvidia-smi lists one")
    except Exception as error:  # noqa: BLE001 - pynvml's own, which is not there to be named
        wanting.append(f"no NVIDIA driver: {error}; run this where nvidia-smi works")
    if not offloading():
        wanting.append(
            "no CUDA build of llama-cpp-python: install one, as Dockerfile.runtime does with "
            "ACCELERATOR=cuda"
        )
    return wanting
