"""Which devices this machine has."""

import structlog

from ullage_runtime.governor.devices import Device
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.governor.nvml import gpus

_log = structlog.get_logger(__name__)


def detected_devices() -> tuple[Device, ...]:
    """Return the devices of this machine; the first is the one that models are accounted on."""
    host = HostMemory()
    try:
        import pynvml

        return (*gpus(pynvml), host)
    except Exception as error:  # noqa: BLE001 - whatever is missing, it means: no usable GPU
        _log.debug("devices.no_gpu", why=str(error))
        return (host,)
