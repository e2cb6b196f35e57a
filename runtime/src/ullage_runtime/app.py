"""The composition root: makes the parts of a runtime process, starts and ends them in order."""

import asyncio
import contextlib
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

import ullage_runtime
from ullage_api.wire.pod_report import ReportedRetrieval
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.addresses import bound_socket
from ullage_runtime.door import WorkerDoor
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.governor.policy import MemoryOverrides
from ullage_runtime.http.apps import TokenFile, internal_app, public_app
from ullage_runtime.http.auth import KeyRing
from ullage_runtime.http.draining import Drain
from ullage_runtime.http.forwarding import Forwarder
from ullage_runtime.http.internal.service import DesiredDocuments
from ullage_runtime.http.limits import Limits
from ullage_runtime.http.metrics import Metrics
from ullage_runtime.http.responses.keeping import KeptResponses
from ullage_runtime.http.responses.store import Bounds, ResponseStore
from ullage_runtime.http.retrieval.embedding import PoolEmbedder
from ullage_runtime.http.retrieval.ranking import PoolRanker
from ullage_runtime.http.services import GoBack, Services
from ullage_runtime.models.caches import Caches
from ullage_runtime.models.journal import FileJournal
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import Models
from ullage_runtime.models.shelf import SHELF_FILE, Shelf
from ullage_runtime.models.sources import ModelCache
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.metrics import RetrievalMetrics
from ullage_runtime.retrieval.opening import keys_in
from ullage_runtime.retrieval.reindex.children import Children
from ullage_runtime.retrieval.reindex.reindexes import Reindexes
from ullage_runtime.retrieval.reindex.remaking import ModelRemaker
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.reindex.wire import Load
from ullage_runtime.retrieval.sessions.sessions import Sessions
from ullage_runtime.server import Server
from ullage_runtime.settings import Settings

log = structlog.stdlib.get_logger(__name__)

WATCH_SECONDS: Final = 1.0
"""How often the mounted desired document is looked at."""
SAME_SIGNAL_SECONDS: Final = 0.5
"""Signals this close are one: `timeout` and terminals send to a process and to its group."""
ABORT_SECONDS: Final = 3.0
"""How long streams have to say that they end."""
COLLECTIONS_FOLDER: Final = "collections"
"""Name of the folder of collections, in the state folder."""
SESSIONS_FILE: Final = ".sessions.sqlite"
"""Name of the file of sessions, in the folder of collections."""
RESPONSES_FILE: Final = "responses.sqlite"
"""Name of the file of stored responses, in the state folder."""
JOURNAL_FILE: Final = "swaps.sqlite"
"""Name of the file with the steps of swaps, likewise."""
UNLOAD_SECONDS: Final = 5.0
"""How long models have to be unloaded."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running process, apart from its signals."""

    settings: Settings
    services: Services
    documents: DesiredDocuments
    public: Server
    internal: Server | None
    door: WorkerDoor
    workers: Children

    @property
    def models(self) -> Models:
        """The models of this process."""
        return self.services.models

    @property
    def url(self) -> str:
        """Address at which this machine reaches the public API."""
        host = self.settings.host
        if host in {"0.0.0.0", "::", ""}:
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.public.port}"

    async def shut_down(self, hurry: asyncio.Event | None = None) -> None:
        """End in order: no new requests, those there are drain, models go, servers close.

        Setting `hurry` ends the draining at once.
        """
        drain, settings = self.services.drain, self.settings
        hurry = hurry or asyncio.Event()
        drain.leaving = True
        log.info("shutting down", requests=drain.in_flight)
        await _unless(hurry, asyncio.sleep(settings.linger_seconds))
        drain.stopping.set()
        self.public.begin_stop()
        await _unless(hurry, drain.wait_idle(settings.drain_seconds))
        if drain.in_flight:
            log.warning("requests cut off", requests=drain.abort_all())
            await drain.wait_idle(ABORT_SECONDS)
        # Their writers, ingestions and jobs work with models and go before them.
        await self.workers.close()
        await self.door.close()
        await self.services.reindexes.close()
        await self.services.collections.close()
        await self.models.close(UNLOAD_SECONDS)
        drain.over.set()
        await self.public.stop()
        if self.internal is not None:
            await self.internal.stop()
        await self.services.forwarder.close()
        await self.services.responses.close()
        await self.services.sessions.close()
        await self.services.caches.close()
        log.info("ended")


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Await work until it is done or the event is set."""
    task = asyncio.create_task(work)
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        waiter.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    models: Models | None = None,
    *,
    socket_path: pathlib.Path | None = None,
    hurry: asyncio.Event | None = None,
    go_back: GoBack | None = None,
) -> AsyncIterator[Runtime]:
    """Start a runtime and shut it down in the end.

    `models` are those of `model_pool` unless a test brings its own. With `socket_path` the public
    API is served on that Unix socket instead of a port. `go_back` serves earlier revisions, where
    no operator says what is served. Raises AddressInUse or AddressUnusable before any model is
    touched.
    """
    at = socket_path or bound_socket(settings.host, settings.port)
    registry = CollectorRegistry()
    caches = _caches(settings, registry)
    models = models or model_pool(settings, registry, caches)
    services = _services(settings, models, caches, registry, go_back)
    documents = DesiredDocuments(
        models, services.collections, services.reindexes, settings.state_dir
    )
    keys = KeyRing(settings.api_keys_dir) if settings.api_keys_dir else None
    public = Server(public_app(services, keys), at)
    internal = _internal_server(settings, services, documents)
    door = WorkerDoor(lambda token: internal_app(services, documents, token))
    workers = Children(door.address)
    if _starts_workers(settings):
        services.reindexes.want_worker = workers.want
    runtime = Runtime(settings, services, documents, public, internal, door, workers)
    try:
        await public.start()
        if internal is not None:
            await internal.start()
        services.sessions.start()
        if isinstance(models, ModelPool):
            models.in_use = services.collections.embedding_with
            models.retrieval = lambda: ReportedRetrieval(
                services.collections.reported(), services.reindexes.reported()
            )
            services.collections.on_change = models.note_change
            services.reindexes.on_change = models.note_change
            await models.start()
        yield runtime
    finally:
        await runtime.shut_down(hurry)


def _caches(settings: Settings, registry: CollectorRegistry) -> Caches:
    shelf = Shelf(
        settings.state_dir / SHELF_FILE,
        settings.embeddings_disk_cache_max_bytes,
        now=time.time,
        version=ullage_runtime.__version__,
    )
    return Caches(
        embeddings_bytes=settings.embeddings_cache_max_bytes,
        embeddings_seconds=settings.embeddings_cache_seconds,
        answers_bytes=settings.answers_cache_max_bytes,
        searches_bytes=settings.searches_cache_max_bytes,
        shelf=shelf if settings.embeddings_disk_cache_max_bytes else None,
        registry=registry,
    )


def model_pool(settings: Settings, registry: CollectorRegistry, caches: Caches) -> ModelPool:
    """Return the pool of real models, not yet started."""
    return ModelPool(
        source=ModelCache(
            settings.model_cache_dir,
            credentials=settings.credentials_dir,
            max_bytes=settings.model_cache_max_bytes,
        ),
        pod_name=settings.pod_name,
        ordinal=settings.ordinal,
        version=ullage_runtime.__version__,
        memory=MemoryOverrides(
            gpu_max=settings.gpu_memory_max_percent,
            gpu_reserve=settings.gpu_memory_reserve_percent,
            cpu_max=settings.cpu_memory_max_percent,
            cpu_reserve=settings.cpu_memory_reserve_percent,
            cpu_offload=settings.enable_cpu_offload,
            idle_threshold=settings.eviction_idle_threshold_seconds,
        ),
        kind_of=engine_of,
        registry=registry,
        journal=FileJournal(settings.state_dir / JOURNAL_FILE, time.time),
        caches=caches,
    )


def _services(
    settings: Settings,
    models: Models,
    caches: Caches,
    registry: CollectorRegistry,
    go_back: GoBack | None,
) -> Services:
    drain = Drain()
    metrics = Metrics(registry, models.report, ullage_runtime.__version__)
    bounds = Bounds(
        max_bytes=settings.responses_max_bytes,
        max_count=settings.responses_max_count,
        seconds=settings.responses_keep_seconds,
    )
    embedder, searched = PoolEmbedder(models), RetrievalMetrics(registry)
    remaker = ModelRemaker(embedder)
    folder = settings.state_dir / COLLECTIONS_FOLDER
    collections = Collections(
        folder,
        embedder,
        PoolRanker(models),
        searched,
        keys_in(settings.credentials_dir),
        remaker,
    )
    load_of = partial(_load, models, searched)
    registry.register(collections.breakers)
    sessions = Sessions(settings.state_dir / COLLECTIONS_FOLDER / SESSIONS_FILE, time.time)
    collections.on_drop = sessions.forget
    store = ResponseStore(settings.state_dir / RESPONSES_FILE, bounds, time.time)
    return Services(
        models=models,
        settings=settings,
        limits=Limits(settings, lambda: models.desired),
        metrics=metrics,
        drain=drain,
        forwarder=Forwarder(
            pod=settings.pod_name, ordinal=settings.ordinal, metrics=metrics, drain=drain
        ),
        collections=collections,
        reindexes=Reindexes(collections, embedder, remaker, folder, load_of),
        sessions=sessions,
        caches=caches,
        responses=KeptResponses(store, lambda size: metrics.stored(size.count, size.bytes)),
        go_back=go_back,
    )


def _starts_workers(settings: Settings) -> bool:
    if settings.reindex_workers == "auto":
        return settings.internal_token_file is None
    return settings.reindex_workers == "child"


def _load(models: Models, searched: RetrievalMetrics, scene: Scene) -> Load:
    """Return how busy the pod is with what matters more than a reindex."""
    report = models.report()
    count, p95 = searched.recent(scene.name)
    waiting = [m.requests_waiting for m in report.models if m.name in scene.held.models]
    others = [scene.changes.writer(t) for t in scene.routing.write if t != scene.routing.read]
    tip = scene.changes.tip
    return Load(
        search_p95_seconds=p95,
        searches=count,
        queue=sum(waiting),
        level=report.level and report.level.value,
        lag=max((tip - writer.applied for writer in others if writer is not None), default=0),
    )


def _internal_server(
    settings: Settings, services: Services, documents: DesiredDocuments
) -> Server | None:
    if settings.internal_token_file is None:
        return None
    app = internal_app(services, documents, TokenFile(settings.internal_token_file))
    return Server(app, bound_socket(settings.internal_host, settings.internal_port))


async def watch_desired_file(path: pathlib.Path, documents: DesiredDocuments) -> None:
    """Accept the mounted document now and whenever it changes; runs until cancelled.

    Kubernetes swaps a link, so the file's inode tells a change; a document that cannot be read is
    named in the log once and what was accepted before goes on.
    """
    seen: object = None
    while True:
        fingerprint = await asyncio.to_thread(_fingerprint, path)
        if fingerprint != seen:
            seen = fingerprint
            await _accept_file(path, documents)
        await asyncio.sleep(WATCH_SECONDS)


def _fingerprint(path: pathlib.Path) -> object:
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


async def _accept_file(path: pathlib.Path, documents: DesiredDocuments) -> None:
    try:
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        await documents.accept(PoolDesired.model_validate_json(text))
    except (OSError, ValueError, ValidationError) as error:
        log.warning("the mounted desired document is ignored", path=str(path), error=str(error))


async def serve(settings: Settings) -> None:
    """Serve as a pod does until SIGTERM or SIGINT; a second one ends the draining at once."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    loop = asyncio.get_running_loop()
    first = 0.0

    def on_signal() -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif loop.time() - first > SAME_SIGNAL_SECONDS:
            hurry.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with running(settings, hurry=hurry) as runtime:
        log.info(
            "serving",
            url=runtime.url,
            port=runtime.public.port,
            internal_port=runtime.internal.port if runtime.internal else None,
            pod=settings.pod_name,
        )
        await runtime.documents.restore()
        watcher = asyncio.create_task(_watch(settings, runtime))
        try:
            await stop.wait()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def _watch(settings: Settings, runtime: Runtime) -> None:
    if settings.desired_file is not None:
        await watch_desired_file(settings.desired_file, runtime.documents)
