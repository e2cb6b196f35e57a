"""One file of a source, into its blob: what the cache has, what the source says, and the rest."""

from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

import structlog

from ullage_api.profile import RuntimeSettings
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.sources.download import Download, Wanted
from ullage_runtime.models.sources.failures import checksum_mismatch, too_large, unavailable
from ullage_runtime.models.sources.keeping import hold
from ullage_runtime.models.sources.known import Copy, copy_of, remember
from ullage_runtime.models.sources.listing import RemoteFile
from ullage_runtime.models.sources.partial import Partial
from ullage_runtime.models.sources.responses import Validators
from ullage_runtime.models.sources.surroundings import Surroundings
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.web import Web

logger = structlog.get_logger(__name__)

Told = Callable[[int, int | None], None]


class Blobs:
    """Finished files by digest."""

    def __init__(self, around: Surroundings, settings: RuntimeSettings, told: Told) -> None:
        self._around = around
        self._settings = settings
        self._told = told

    async def find(self, sha256: str, what: str) -> CachedModel | None:
        """Return the blob of a digest if it is whole; a damaged one is removed."""
        store = self._around.store
        path = store.blob(sha256)
        if not await in_thread(path.exists):
            return None
        with await in_thread(hold, store, sha256) as found:
            if not await in_thread(path.exists):
                return None
            actual, size = await self._around.digests.of(path, self._told)
            if actual != sha256:
                logger.warning("damaged_blob_removed", path=str(path), actual=actual)
                await in_thread(path.unlink)
                return None
            if size > self._settings.max_model_bytes:
                raise too_large(what, size, self._settings.max_model_bytes)
            return found.model(path, sha256, size)


class FileFetch:
    """The fetch of one file; `key` is what it is known by in the cache: its address."""

    def __init__(
        self,
        around: Surroundings,
        settings: RuntimeSettings,
        web: Web,
        told: Told,
        *,
        uri: str,
        name: str = "",
        commit: str | None = None,
        inspect: Inspect | None = None,
    ) -> None:
        self._around = around
        self._settings = settings
        self._web = web
        self._told = told
        self._uri = uri
        self._name = name
        self._commit = commit
        self._inspect = inspect
        self._key = f"{uri}\n{name}" if name else uri
        self._blobs = Blobs(around, settings, told)

    async def run(self, file: RemoteFile, sha256: str | None, label: str) -> CachedModel:
        """Return a file complete and verified; `sha256` is what somebody says it must have."""
        limit = self._settings.max_model_bytes
        if file.size is not None and file.size > limit:
            raise too_large(label, file.size, limit)
        if sha256 and file.sha256 and file.sha256 != sha256:
            raise checksum_mismatch(label, expected=sha256, actual=file.sha256)
        digest = sha256 or file.sha256
        validators = Validators(etag=file.etag) if file.etag else None
        if digest and (found := await self._blobs.find(digest, label)):
            await self._remember(found, validators or Validators())
            return found
        copy = await copy_of(self._around, self._key, partial(self._blobs.find, what=label))
        if copy and not sha256 and file.etag and copy.entry.etag == file.etag:
            return copy.model
        return await self._downloaded(file, digest, copy, validators)

    async def _downloaded(
        self,
        file: RemoteFile,
        digest: str | None,
        copy: Copy | None,
        validators: Validators | None,
    ) -> CachedModel:
        cached = Validators()
        if copy and not digest and not file.etag:
            cached = Validators(copy.entry.etag, copy.entry.last_modified)
        wanted = Wanted(
            url=file.url,
            access=file.access,
            headers=file.headers,
            hints=file.hints,
            suffix=PurePosixPath(self._name).suffix if self._name else ".gguf",
            sha256=digest,
            cached=cached,
        )
        store, limits = self._around.store, self._around.limits
        part = Partial(store.part(self._uri, self._name), self._key, sync_bytes=limits.sync_bytes)
        download = Download(
            wanted,
            web=self._web,
            part=part,
            limits=limits,
            max_bytes=self._settings.max_model_bytes,
            make_room=self._around.room.make,
            told=self._told,
            inspect=self._inspect,
        )
        if not await download.run():
            if copy is None:
                raise unavailable(f"{file.url}: the server says 'not modified' of a file unseen")
            await self._remember(copy.model, Validators(copy.entry.etag, copy.entry.last_modified))
            return copy.model
        with await in_thread(hold, store, part.sha256) as found:
            path = await in_thread(store.adopt, part.path, part.sha256)
            model = found.model(path, part.sha256, part.size)
        await in_thread(self._around.digests.remember, path, part.sha256)
        await self._remember(model, validators or part.validators)
        await in_thread(part.remove)
        return model

    async def _remember(self, model: CachedModel, validators: Validators) -> None:
        await remember(self._around, self._key, model, validators, self._commit)
