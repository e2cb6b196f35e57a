"""The composition root: everything is made, wired and ended here."""

import asyncio
import signal
from collections.abc import Collection
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from typing import Any, Final

import httpx
import kopf
import structlog

from ullage_api.names import API_VERSION
from ullage_operator.adapters.clock import SystemClock
from ullage_operator.adapters.events import KubeEventRecorder
from ullage_operator.adapters.kube import AioKubeClient, connect
from ullage_operator.adapters.master_key import master_key
from ullage_operator.adapters.metrics import PrometheusMetrics
from ullage_operator.adapters.profiles import ConfigMapProfiles
from ullage_operator.adapters.runtime import Heard, HttpPodReports
from ullage_operator.controller.errors import TransientError
from ullage_operator.controller.gathering import Gatherer
from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import WorkQueue
from ullage_operator.controller.reconciler import Reconciler
from ullage_operator.controller.workers import work
from ullage_operator.handlers.intake import Intake
from ullage_operator.handlers.watching import REGISTRY
from ullage_operator.reconcile.observed import OperatorConfig
from ullage_operator.settings import OperatorSettings

log = structlog.get_logger(__name__)

KINDS: Final = ("ModelDeployment", "VectorCollection", "ReindexJob")
CRD_SECONDS: Final = 120.0
"""How long the operator waits at start for the API server to serve our kinds."""
CRD_PAUSE: Final = 1.0
MOST_PODS: Final = 4096
"""Connections to runtime pods at the same time: one long poll each."""
LEFTOVER_SECONDS: Final = 2.0
"""How long the end waits for tasks that Kopf has started and lost."""


class NotServedError(Exception):
    """The cluster does not know our kinds."""


async def run(settings: OperatorSettings) -> None:
    """Run the operator until SIGTERM, SIGINT or an error that only a restart can mend."""
    async with AsyncExitStack() as stack:
        metrics = PrometheusMetrics()
        server = metrics.serve(settings.listen_address, settings.metrics_port)
        stack.callback(server.close)
        name = f"ullage-operator/{version('ullage-operator')}"
        client = AioKubeClient(await connect(name), metrics)
        stack.push_async_callback(client.close)
        await _until_served(client)
        key = await master_key(client, settings.namespace, settings.key_secret)
        queue: WorkQueue[Key] = WorkQueue()
        stack.callback(queue.close)
        metrics.watch_queue(queue)
        http = await stack.enter_async_context(_http_client(name))
        reports = HttpPodReports(http, metrics, lambda heard: _hear(queue, heard))
        stack.push_async_callback(reports.close)
        profiles = ConfigMapProfiles(
            client,
            settings.namespace,
            settings.profiles_config_map,
            lambda: reconciler.look_at_every_pool(),  # noqa: PLW0108 - it is made below
        )
        config = OperatorConfig(settings.namespace, settings.pod_labels)
        reconciler = Reconciler(
            gatherer=Gatherer(client, reports, profiles, SystemClock(), config, key),
            client=client,
            reports=reports,
            recorder=KubeEventRecorder(client),
            metrics=metrics,
            queue=queue,
        )
        await profiles.load()
        background = [
            asyncio.create_task(profiles.keep_up(), name="profiles"),
            asyncio.create_task(
                work(queue, reconciler.reconcile, metrics, workers=settings.workers), name="workers"
            ),
        ]
        await _watch(settings, queue, profiles, reports, background)


async def _watch(
    settings: OperatorSettings,
    queue: WorkQueue[Key],
    profiles: ConfigMapProfiles,
    reports: HttpPodReports,
    background: list["asyncio.Task[None]"],
) -> None:
    """Let Kopf watch until it is told to end; a background task that breaks ends it as well."""
    stop_flag = asyncio.Event()
    for task in background:
        task.add_done_callback(lambda _: stop_flag.set())
    ours = asyncio.all_tasks()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Kopf puts its own in their place, once it has started: a moment in which none may be lost.
        asyncio.get_running_loop().add_signal_handler(number, stop_flag.set)

    async def stop() -> None:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await reports.close()
        await _cancel_all_but(ours)

    intake = Intake(queue, stop, profiles.poll_age, settings.stuck_seconds)
    log.info("operator starts", namespaces=settings.watch_namespaces or "all")
    await kopf.operator(
        registry=REGISTRY,
        standalone=True,
        clusterwide=not settings.watch_namespaces,
        namespaces=settings.watch_namespaces,
        liveness_endpoint=f"http://{settings.listen_address}:{settings.probe_port}/healthz",
        memo=kopf.Memo(intake=intake),
        stop_flag=stop_flag,
    )
    for task in background:
        with suppress(asyncio.CancelledError):
            task.result()
    log.info("operator has ended")


async def _cancel_all_but(kept: Collection["asyncio.Task[Any]"]) -> None:
    """Cancel what Kopf leaves running when it ends while it still looks at the API's resources.

    Its requests are tasks that it loses sight of. Kopf is about to close their connections, and
    they would call that an error, try again, and hold up the end until Kopf gives them up.
    """
    left = asyncio.all_tasks() - {*kept, asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LEFTOVER_SECONDS)


async def _until_served(client: AioKubeClient) -> None:
    """Wait until the API server serves our kinds; raises NotServedError when it never does."""
    deadline = asyncio.get_running_loop().time() + CRD_SECONDS
    while True:
        try:
            missing = [kind for kind in KINDS if not await client.serves(API_VERSION, kind)]
            if not missing:
                return
            problem = f"the API server does not serve {', '.join(missing)} of {API_VERSION}"
        except TransientError as error:
            problem = str(error)
        if asyncio.get_running_loop().time() > deadline:
            raise NotServedError(f"{problem}; are the CRDs installed?")
        log.warning("waiting for the API server", problem=problem)
        await asyncio.sleep(CRD_PAUSE)


def _hear(queue: WorkQueue[Key], heard: Heard) -> None:
    """Make due what a pod's new report is about."""
    for model in sorted(heard.models):
        queue.add(Key.model(heard.pool.namespace, model))
    for collection in sorted(heard.collections):
        queue.add(Key.collection(heard.pool.namespace, collection))
    for job in sorted(heard.reindexes):
        queue.add(Key.reindex(heard.pool.namespace, job))
    if heard.concerns_pool:
        queue.add(heard.pool)


def _http_client(user_agent: str) -> httpx.AsyncClient:
    """Return the client for runtime pods; they are never behind a proxy."""
    limits = httpx.Limits(max_connections=MOST_PODS, max_keepalive_connections=256)
    return httpx.AsyncClient(trust_env=False, limits=limits, headers={"User-Agent": user_agent})
