"""Kopf's handlers only make keys due; and Kopf is given nothing that it would write."""

import asyncio
import inspect
from typing import Any

import kopf
import pytest

from tests.support.virtual_time import in_virtual_time
from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import WorkQueue
from ullage_operator.handlers import watching as kopf_handlers
from ullage_operator.handlers.intake import Intake, UnhealthyError

watching: Any = kopf_handlers
"""Untyped: Kopf's own types want everything that Kopf would pass."""


async def nothing() -> None:
    """Stop nothing."""


def memo() -> kopf.Memo:
    queue: WorkQueue[Key] = WorkQueue()
    return kopf.Memo(intake=Intake(queue, nothing, lambda: 0.0, 300.0))


async def due(given: kopf.Memo) -> set[Key]:
    queue = given["intake"].queue
    found = set()
    while queue.depth:
        key = await queue.get()
        queue.done(key)
        found.add(key)
    return found


def event(kind: str | None = None, generation: int = 1, **metadata: Any) -> dict[str, Any]:
    given = {"namespace": "n", "name": "chat", "uid": "u", "generation": generation, **metadata}
    return {"type": kind, "object": {"metadata": given, "spec": {"pool": "default"}}}


MODEL, POOL = Key.model("n", "chat"), Key.pool("n", "default")


def test_a_new_model_concerns_itself_and_its_pool_and_a_status_only_itself() -> None:
    async def story() -> None:
        given = memo()
        await watching.modeldeployment(event=event(), memo=given)
        assert await due(given) == {MODEL, POOL}
        await watching.modeldeployment(event=event("MODIFIED"), memo=given)
        assert await due(given) == {MODEL}
        await watching.modeldeployment(event=event("MODIFIED", generation=2), memo=given)
        assert await due(given) == {MODEL, POOL}
        leaving = event("MODIFIED", generation=2, deletionTimestamp="2026-11-20T10:00:00Z")
        await watching.modeldeployment(event=leaving, memo=given)
        assert await due(given) == {MODEL, POOL}
        await watching.modeldeployment(event=event("DELETED", generation=2), memo=given)
        assert await due(given) == {MODEL, POOL}

    in_virtual_time(story())


def test_a_wish_to_go_back_to_a_revision_concerns_the_pool_too() -> None:
    async def story() -> None:
        given = memo()
        await watching.modeldeployment(event=event(), memo=given)
        assert await due(given) == {MODEL, POOL}
        for name in ("5d1f0c22ab", "90b47e1d3c"):
            back = event("MODIFIED", annotations={"ullage.dev/rollback-to": name, "other": name})
            await watching.modeldeployment(event=back, memo=given)
            assert await due(given) == {MODEL, POOL}
        await watching.modeldeployment(
            event=event("MODIFIED", annotations={"ullage.dev/rollback-to": "90b47e1d3c"}),
            memo=given,
        )
        assert await due(given) == {MODEL}

    in_virtual_time(story())


def test_a_pod_or_a_stateful_set_concerns_its_pool() -> None:
    async def story() -> None:
        given = memo()
        await watching.child(event=event(labels={"ullage.dev/pool": "default"}), memo=given)
        assert await due(given) == {POOL}
        await watching.child(event=event(), memo=given)
        assert await due(given) == set()

    in_virtual_time(story())


def test_liveness_fails_when_a_key_has_been_due_for_too_long() -> None:
    async def story() -> None:
        given = memo()
        given["intake"].add(MODEL)
        await asyncio.sleep(299)
        assert (await watching.ages(memo=given))["oldestDue"] == pytest.approx(299)
        await asyncio.sleep(2)
        with pytest.raises(UnhealthyError, match="oldestDue"):
            await watching.ages(memo=given)

    in_virtual_time(story())


def test_liveness_fails_when_nothing_is_polled_any_more() -> None:
    async def story() -> None:
        intake = Intake(WorkQueue(), nothing, lambda: 301.0, 300.0)
        with pytest.raises(UnhealthyError, match="lastPoll"):
            intake.health()

    in_virtual_time(story())


def test_kopf_has_no_handler_that_would_write_onto_objects() -> None:
    registry = watching.REGISTRY
    assert len(registry._watching.get_all_handlers()) == 5
    for writing in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(writing.get_all_handlers()) == []


def test_kopf_calls_no_handler_in_a_thread_where_the_queue_must_not_be_touched() -> None:
    registry = watching.REGISTRY
    for handlers in (registry._activities, registry._watching):
        for handler in handlers.get_all_handlers():
            assert inspect.iscoroutinefunction(handler.fn), handler.id


async def test_kopf_watches_only_children_with_our_label_and_bears_our_name() -> None:
    settings = kopf.OperatorSettings()
    await watching.configure(settings=settings)
    assert set(settings.watching.label_selectors.values()) == {"ullage.dev/pool"}
    assert settings.persistence.finalizer == "kopf.ullage.dev/finalizer"
    assert not settings.posting.enabled
