"""Which devices this machine has."""

import os

import structlog

from ullage_runtime.governor.devices import Device
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.governor.nvml import gpus

_log = structlog.get_logger(__name__)


def detected_devices() -> tuple[Device, ...]:
    """Return the devices of this machine that this process may use."""
    host = HostMemory()
    try:
        import pynvml

        return (*gpus(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES")), host)
    except Exception as error:  # noqa: BLE001 - whatever is missing, it means: no usable GPU
        _log.debug("devices.no_gpu", why=str(error))
        return (host,)
