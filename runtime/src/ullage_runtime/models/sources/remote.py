"""One fetch over the network: what the cache has, what the source says, and the way between.

A digest in the spec is the whole truth: the content of that digest is used without asking anybody.
Without one, the source is asked each time whether the model is still the same; if it cannot be
asked, the copy at hand is used, so that a pod restarts while its source is down. If the source
says that the model is gone or forbidden, that is an error.
"""

from functools import partial
from pathlib import Path

import structlog

from ullage_api.profile import RuntimeSettings
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.sources import locks
from ullage_runtime.models.sources.archives import Unpacking
from ullage_runtime.models.sources.failures import checksum_mismatch, too_large
from ullage_runtime.models.sources.files import Blobs, FileFetch, Told
from ullage_runtime.models.sources.hub import HubSource
from ullage_runtime.models.sources.known import Copy, copy_of, remember
from ullage_runtime.models.sources.listing import Listing, RemoteSource
from ullage_runtime.models.sources.needed import needed
from ullage_runtime.models.sources.oci import OciSource
from ullage_runtime.models.sources.progress import Progress
from ullage_runtime.models.sources.responses import Validators
from ullage_runtime.models.sources.s3 import S3Source
from ullage_runtime.models.sources.surroundings import Surroundings
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.treecache import TreeCache
from ullage_runtime.models.sources.trees import Tree, TreeFile
from ullage_runtime.models.sources.uris import HubUri, OciUri, RemoteUri, S3Uri, WebUri
from ullage_runtime.models.sources.web import Web
from ullage_runtime.models.sources.webfile import WebSource

logger = structlog.get_logger(__name__)


def source_of(uri: RemoteUri, around: Surroundings) -> RemoteSource:
    """Return the source of an address."""
    match uri:
        case WebUri():
            return WebSource(uri)
        case HubUri():
            return HubSource(uri, around.hub, around.limits)
        case S3Uri():
            return S3Source(uri, around.s3, around.credentials, around.limits)
        case OciUri():
            return OciSource(uri, around.credentials, around.limits)


class RemoteFetch:
    """One fetch of one address; `run` may be called once."""

    def __init__(
        self,
        around: Surroundings,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        progress: Progress,
        inspect: Inspect | None = None,
        precision: PrecisionType = PrecisionType.AUTO,
    ) -> None:
        self._around = around
        self._store = around.store
        # What the address is known by in the cache: its builds are different models.
        self._uri = uri if precision is PrecisionType.AUTO else f"{uri} in {precision}"
        self._precision = precision
        self._sha256 = sha256
        self._settings = settings
        self._progress = progress
        self._inspect = inspect
        self._began = around.clock()
        self._blobs = Blobs(around, settings, progress.update)
        self._trees = TreeCache(around, progress.update)

    async def run(self, uri: RemoteUri) -> CachedModel:
        """Return the model of an address that was parsed to `uri`; raises LoadError."""
        around = self._around
        source = source_of(uri, around)
        web = Web(around.dialing, self._settings, around.limits, around.credentials)
        if isinstance(uri, WebUri):
            web.check_scheme(uri.url)
        if self._sha256 and (found := await self._found(self._sha256, source)):
            return found

        def watched() -> int | None:
            size = self._store.part_bytes(self._uri)
            self._progress.update(size, None)
            return size

        lock = locks.held(self._store.lock(self._uri), self._around.limits, watched)
        async with lock as waited, web:
            if self._sha256 and (found := await self._found(self._sha256, source)):
                return found
            copy = await copy_of(around, self._uri, partial(self._found, source=source))
            if copy and waited and copy.entry.checked_at >= self._began:
                return copy.model  # fetched by who held the lock before us
            if copy and source.is_pinned and not self._sha256:
                return copy.model
            return await self._asked(source, web, copy)

    async def _asked(self, source: RemoteSource, web: Web, copy: Copy | None) -> CachedModel:
        try:
            listing = await source.listing(web, self._precision)
            if listing.is_single:
                return await self._single(listing, source, web)
            if copy and not self._sha256 and listing.version == copy.entry.etag:
                await self._remember(copy.model, listing)
                return copy.model
            model = await self._several(listing, source, web)
        except LoadError as error:
            if error.final or copy is None or self._sha256:
                raise
            logger.warning(
                "source_not_asked", uri=source.label, why=str(error), sha256=copy.model.sha256
            )
            return copy.model
        await self._remember(model, listing)
        return model

    async def _single(self, listing: Listing, source: RemoteSource, web: Web) -> CachedModel:
        fetch = FileFetch(
            self._around,
            self._settings,
            web,
            self._progress.update,
            uri=self._uri,
            commit=listing.commit,
            inspect=self._inspect,
        )
        return await fetch.run(listing.files[0], self._sha256, source.label)

    async def _several(self, listing: Listing, source: RemoteSource, web: Web) -> CachedModel:
        sizes = [file.size for file in listing.files]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        if sum(known) > self._settings.max_model_bytes:
            raise too_large(source.label, sum(known), self._settings.max_model_bytes)
        models: list[CachedModel] = []  # holds the blobs until the tree is built
        for file in listing.files:
            name = file.name or str(file.sha256)
            told = self._after(sum(model.size for model in models), total)
            # An archive's first bytes are not a model's.
            part = f"{name}.layer" if listing.unpacked is not None else name
            fetch = FileFetch(self._around, self._settings, web, told, uri=self._uri, name=part)
            models.append(await fetch.run(file, file.sha256, f"{source.label} {name}".strip()))
        size = sum(model.size for model in models)
        if size > self._settings.max_model_bytes:
            raise too_large(source.label, size, self._settings.max_model_bytes)
        if listing.unpacked is not None:
            return await self._unpacked(listing, models, source)
        tree = Tree.of(
            TreeFile(file.name, model.sha256, model.size)
            for file, model in zip(listing.files, models, strict=True)
        )
        return await self._built(tree, listing.main, source)

    def _after(self, before: int, total: int | None) -> Told:
        def told(done: int, of_file: int | None) -> None:  # noqa: ARG001 - the callback's signature
            self._progress.update(before + done, total)

        return told

    async def _unpacked(
        self, listing: Listing, layers: list[CachedModel], source: RemoteSource
    ) -> CachedModel:
        label = source.label

        def make_room(missing: int) -> None:
            self._around.room.make(missing, label)

        unpacking = Unpacking(
            self._store,
            listing.unpacked or "",
            max_bytes=self._settings.max_model_bytes,
            make_room=make_room,
        )
        for layer in layers:
            await in_thread(unpacking.add, Path(layer.path), label)
        chosen = needed(list(unpacking.files), source.main, label, self._precision)
        files = [unpacking.files[name] for name in chosen.files]
        if chosen.is_single:
            if self._sha256 and files[0].sha256 != self._sha256:
                raise checksum_mismatch(label, expected=self._sha256, actual=files[0].sha256)
            model = await self._blobs.find(files[0].sha256, label)
        else:
            model = await self._built(Tree.of(files), chosen.main, source)
        if model is None:
            raise AssertionError("a file that was just unpacked is in the cache")
        await in_thread(self._drop_layers, layers, model)
        return model

    def _drop_layers(self, layers: list[CachedModel], model: CachedModel) -> None:
        """Remove the archives, whose content is in the cache twice now."""
        for layer in layers:
            if layer.sha256 != model.sha256:
                Path(layer.path).unlink(missing_ok=True)

    async def _built(self, tree: Tree, main: str | None, source: RemoteSource) -> CachedModel:
        if self._sha256 and tree.sha256 != self._sha256:
            raise checksum_mismatch(source.label, expected=self._sha256, actual=tree.sha256)
        return await self._trees.build(tree, main)

    async def _found(self, sha256: str, source: RemoteSource) -> CachedModel | None:
        """Return the content of a digest from the cache, be it a file or a tree."""
        if found := await self._blobs.find(sha256, source.label):
            return found
        return await self._trees.find(sha256, source.main, source.label, self._precision)

    async def _remember(self, model: CachedModel, listing: Listing) -> None:
        validators = Validators(etag=listing.version)
        await remember(self._around, self._uri, model, validators, listing.commit)
