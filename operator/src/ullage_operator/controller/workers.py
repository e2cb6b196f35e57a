"""Workers: tasks that take keys from the queue and reconcile them, whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ullage_operator.controller.errors import (
    ConflictError,
    ReconcileError,
    RefusedError,
    TransientError,
)
from ullage_operator.controller.keys import Key
from ullage_operator.controller.ports import Metrics
from ullage_operator.controller.queue import WorkQueue

log = structlog.get_logger(__name__)

RECONCILE_SECONDS: Final = 120.0
"""Longest that one reconcile may take; every call within has a shorter deadline of its own."""


async def work(
    queue: WorkQueue[Key],
    reconcile: Callable[[Key], Awaitable[None]],
    metrics: Metrics,
    *,
    workers: int,
) -> None:
    """Reconcile due keys with so many workers, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(workers):
            tasks.create_task(_worker(queue, reconcile, metrics), name=f"worker-{number}")


async def _worker(
    queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[None]], metrics: Metrics
) -> None:
    while True:
        key = await queue.get()
        started = asyncio.get_running_loop().time()
        outcome = "cancelled"
        try:
            outcome = await _attempt(queue, reconcile, key)
        finally:
            queue.done(key)
            metrics.reconciled(key.kind.value, outcome, asyncio.get_running_loop().time() - started)


async def _attempt(
    queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[None]], key: Key
) -> str:
    """Reconcile one key and return the outcome; what failed is due again after its pause."""
    names = {"kind": key.kind.value, "namespace": key.namespace, "name": key.name}
    wait = 0.0
    try:
        async with asyncio.timeout(RECONCILE_SECONDS):
            await reconcile(key)
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, TransientError):
            wait = cause.retry_after or 0.0
        outcome = _outcome(cause)
        pause = queue.retry(key, at_least=wait)
        if outcome == "bug":
            log.exception("reconcile broke", **names, again_in=round(pause, 1), exc_info=error)
        else:
            log.warning(
                "reconcile failed",
                **names,
                outcome=outcome,
                error=str(cause) or type(cause).__name__,
                again_in=round(pause, 1),
            )
        return outcome
    queue.forget(key)
    return "done"


def _first(error: BaseException) -> BaseException:
    """Return the error that a task group's group is about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _outcome(error: BaseException) -> str:
    match error:
        case TransientError():
            return "transient"
        case ConflictError():
            return "conflict"
        case RefusedError():
            return "refused"
        case ReconcileError():
            return "failed"
        case TimeoutError():
            return "timeout"
        case _:
            return "bug"
