"""What every fetch of a cache shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ullage_runtime.models.sources.dialing import Dialing
from ullage_runtime.models.sources.digests import Digests
from ullage_runtime.models.sources.disk import DiskRoom
from ullage_runtime.models.sources.hub import HubAccess
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.s3 import S3Access
from ullage_runtime.models.sources.store import Store


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every fetch of a cache shares."""

    store: Store
    limits: Limits
    dialing: Dialing
    hub: HubAccess
    s3: S3Access
    digests: Digests
    room: DiskRoom
    clock: Callable[[], float]
    credentials: Path | None = None
    """Folder with one credential per file, named after its host."""
