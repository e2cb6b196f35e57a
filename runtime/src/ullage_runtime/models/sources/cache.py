"""The model cache: from an address to verified files."""

import time
from collections.abc import Callable
from pathlib import Path

from ullage_api.profile import RuntimeSettings
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.sources.dialing import Dialing
from ullage_runtime.models.sources.digests import Digests
from ullage_runtime.models.sources.disk import DiskRoom
from ullage_runtime.models.sources.failures import unavailable
from ullage_runtime.models.sources.flights import Flights
from ullage_runtime.models.sources.hub import HubAccess
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.local import local_model
from ullage_runtime.models.sources.progress import Progress, ProgressCallback
from ullage_runtime.models.sources.remote import RemoteFetch
from ullage_runtime.models.sources.s3 import S3Access
from ullage_runtime.models.sources.store import Store
from ullage_runtime.models.sources.surroundings import Surroundings
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.uris import FileUri, parsed


class ModelCache:
    """Fetches models and keeps them beneath one folder; a `ModelSourcePort`.

    `credentials` is a folder with one credential per file, named after the host that gets it.
    Above `max_bytes`, or when its volume is full, what was used least recently leaves the cache.
    Several processes, also of several pods, may share the cache. There is nothing to close: a
    fetch that ends, or is cancelled, leaves nothing open.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: Limits | None = None,
        dialing: Dialing | None = None,
        hub: HubAccess | None = None,
        s3: S3Access | None = None,
        credentials: Path | None = None,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        store, limits = Store(root), limits or Limits()
        self._around = Surroundings(
            store=store,
            limits=limits,
            dialing=dialing or Dialing(),
            hub=hub or HubAccess(),
            s3=s3 or S3Access(),
            room=DiskRoom(store, limits, max_bytes),
            digests=Digests(store, limits),
            clock=clock,
            credentials=credentials,
        )
        self._flights = Flights()

    async def fetch(
        self,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        progress: ProgressCallback,
        inspect: Inspect | None = None,
        precision: PrecisionType = PrecisionType.AUTO,
    ) -> CachedModel:
        """Return the model of an address, complete and verified.

        `progress` is told the bytes there are and the total, if known, on the event loop. Raises
        LoadError. Callers who want the same at once share one fetch; a cancelled one keeps what
        has come, for the next, and so does one that `inspect` ends.
        """

        async def work(told: ProgressCallback) -> CachedModel:
            return await self._fetched(uri, sha256, settings, told, inspect, precision)

        same = (uri, sha256, settings, inspect, precision)
        return await self._flights.join(same, work, progress)

    async def _fetched(
        self,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        told: ProgressCallback,
        inspect: Inspect | None,
        precision: PrecisionType,
    ) -> CachedModel:
        source = parsed(uri)
        around = self._around
        progress = Progress(told, around.limits.progress_seconds, time.monotonic)
        try:
            await in_thread(around.store.prepare)
            if isinstance(source, FileUri):
                model = await local_model(
                    source, sha256, settings, around.digests, progress.update, precision
                )
            else:
                fetch = RemoteFetch(around, uri, sha256, settings, progress, inspect, precision)
                model = await fetch.run(source)
        except OSError as error:
            raise unavailable(
                f"the cache in {around.store.root} cannot be used: {error}"
            ) from error
        progress.finish(model.size)
        return model
