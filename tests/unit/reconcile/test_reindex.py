"""What the operator does about a reindex job, told by situations."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.facts import (
    NOW,
    World,
    collection,
    embedder,
    heard,
    opened,
    pod,
    reindex,
    reindexing,
    report,
)
from ullage_api.conditions import Condition, Reason, find
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_status import (
    ReindexJobStatus,
    ReindexPoints,
    ReindexTarget,
    ReindexVerification,
)
from ullage_api.names import REINDEX_FINALIZER
from ullage_operator.reconcile.plan import Plan, Verb
from ullage_operator.reconcile.pool import decide_pool
from ullage_operator.reconcile.reindex import decide_reindex, progress

JOB = "to-new"


def told(job: ReindexJob | None = None) -> World:
    """A collection that is served, and a job that its pod was told of."""
    world = World().add(embedder()).add_collections(collection()).add_reindexes(job or reindex())
    world.pods[0] = pod()
    settle(world)
    settle(world)
    settle(world)
    return world


def settle(world: World) -> Plan:
    """Let the pool and the job be looked at once, and the pod acknowledge."""
    world.carry_out(decide_pool(world.pool()))
    plan = decide_reindex(world.reindex())
    world.carry_out(plan, JOB)
    return plan


def say(world: World, phase: ReindexPhase, **fields: Any) -> Plan:
    """Have the pod report the job, and the operator look at it."""
    entry = reindexing(world.reindexes[JOB], phase, **fields)
    known = opened(world.collections["notes"])
    world.reports[0] = heard(
        report(document=world.desired, collections=(known,), reindexes=(entry,))
    )
    plan = decide_reindex(world.reindex())
    world.carry_out(plan, JOB)
    return plan


def status(world: World) -> ReindexJobStatus:
    found = world.reindexes[JOB].status
    assert found is not None
    return found


def condition(world: World, kind: str) -> Condition:
    found = find(status(world).conditions or (), kind)
    assert found is not None
    return found


def summary(world: World) -> tuple[str, str]:
    found = condition(world, "Complete")
    return found.status, found.reason


def test_a_job_is_held_before_a_pod_is_told_of_it() -> None:
    world = World().add(embedder()).add_collections(collection()).add_reindexes(reindex())
    world.carry_out(decide_pool(world.pool()))
    assert list(world.desired.reindexes) == []
    plan = decide_reindex(world.reindex())
    assert plan.concerns_pool
    world.carry_out(plan, JOB)
    assert world.reindexes[JOB].metadata.finalizers == [REINDEX_FINALIZER]
    world.carry_out(decide_pool(world.pool()))
    assert [r.name for r in world.desired.reindexes] == [JOB]
    assert not world.desired.reindexes[0].deleted


def test_a_job_without_its_collection_names_those_there_are() -> None:
    world = World().add_collections(collection("other")).add_reindexes(reindex())
    settle(world)
    assert summary(world) == ("False", "UnknownCollection")
    said = condition(world, "Complete").message
    assert said == "there is no VectorCollection 'notes'; collections here: other"
    plan = decide_reindex(world.reindex())
    assert plan.status is None
    assert plan.requeue_after


def test_a_worker_comes_when_there_is_work_and_goes_with_it() -> None:
    world = told()
    say(world, ReindexPhase.QUEUED, reason=Reason.TARGET_BUSY, message="first goes 'other'")
    assert JOB not in world.workers
    assert summary(world) == ("False", "TargetBusy")
    plan = say(world, ReindexPhase.DUAL_WRITING)
    (made,) = [a for a in plan.applies if a.manifest["kind"] == "Job"]
    assert made.verb is Verb.CREATE
    assert made.manifest["metadata"]["ownerReferences"][0]["kind"] == "ReindexJob"
    assert JOB in world.workers
    assert not say(world, ReindexPhase.COPYING).applies
    plan = say(world, ReindexPhase.PAUSED, reason=Reason.SUSPENDED)
    assert [d.kind for d in plan.deletes] == ["Job"]
    assert condition(world, "Suspended").status == "True"
    assert [a.manifest["kind"] for a in say(world, ReindexPhase.COPYING).applies] == ["Job"]
    assert [d.kind for d in say(world, ReindexPhase.READY_TO_SWITCH).deletes] == ["Job"]


def test_a_worker_of_another_image_is_replaced() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    old = world.workers[JOB]
    world.workers[JOB] = replace(old, child=replace(old.child, spec_hash="another"))
    plan = say(world, ReindexPhase.COPYING)
    assert [d.kind for d in plan.deletes] == ["Job"]
    assert [a.manifest["kind"] for a in say(world, ReindexPhase.COPYING).applies] == ["Job"]


def test_a_worker_that_does_not_run_is_told_of() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    world.workers[JOB] = replace(world.workers[JOB], age_seconds=61.0)
    plan = say(world, ReindexPhase.COPYING)
    assert summary(world) == ("False", "WorkerMissing")
    assert [(e.reason, e.warning) for e in plan.events] == [("WorkerMissing", True)]
    world.workers[JOB] = replace(world.workers[JOB], is_running=True)
    say(world, ReindexPhase.COPYING)
    assert summary(world) == ("False", "Reindexing")


def test_a_worker_that_ended_too_early_is_made_anew() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    world.workers[JOB] = replace(world.workers[JOB], age_seconds=45.0, is_over=True)
    assert [d.kind for d in say(world, ReindexPhase.COPYING).deletes] == ["Job"]
    assert [a.manifest["kind"] for a in say(world, ReindexPhase.COPYING).applies] == ["Job"]


def test_counts_are_written_ten_seconds_apart_and_transitions_at_once() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    world.now = NOW + timedelta(seconds=4)
    points = ReindexPoints(total=100, copied=60)
    plan = say(world, ReindexPhase.COPYING, points=points, message="60 of 100 points are copied")
    assert plan.status is None
    assert plan.requeue_after == pytest.approx(6.0)
    assert status(world).progress == "42%"
    world.now = NOW + timedelta(seconds=10)
    say(world, ReindexPhase.COPYING, points=points)
    assert status(world).progress == "60%"
    world.now = NOW + timedelta(seconds=11)
    assert say(world, ReindexPhase.CATCHING_UP, points=points).status is not None
    assert status(world).phase is ReindexPhase.CATCHING_UP


def test_the_whole_way_is_told_and_a_job_that_is_over_leaves_the_document() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    assert condition(world, "Verified").status == "Unknown"
    found = ReindexVerification(passed=True, compared=100, missing=0)
    target = ReindexTarget(generation=1, physical_collection="notes-2", epoch=2)
    say(
        world,
        ReindexPhase.READY_TO_SWITCH,
        reason=Reason.WAITING_FOR_APPROVAL,
        verification=found,
    )
    assert condition(world, "Verified").status == "True"
    waits = condition(world, "Suspended")
    assert (waits.status, waits.reason) == ("True", "WaitingForApproval")
    plan = say(
        world,
        ReindexPhase.SOAKING,
        reason=Reason.SOAKING,
        verification=found,
        switched=True,
        target=target,
    )
    assert condition(world, "Switched").message == "searches use notes-2"
    assert {e.reason for e in plan.events} == {"Soaking", "Switched"}
    say(
        world,
        ReindexPhase.SUCCEEDED,
        reason=Reason.SUCCEEDED,
        verification=found,
        switched=True,
        target=target,
        finished_at="2026-11-20T12:00:00Z",
    )
    assert summary(world) == ("True", "Succeeded")
    assert status(world).eta_seconds is None
    assert status(world).completion_time == "2026-11-20T12:00:00Z"
    settle(world)
    assert not world.reindexes[JOB].is_held
    settle(world)
    assert world.desired.reindexes == ()
    # Nothing is left to do, whatever the pod still says.
    assert decide_reindex(world.reindex()).is_empty


def test_what_failed_is_told_as_a_warning() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    bad = ReindexVerification(passed=False, missing=2, message="2 points are missing: a, b")
    plan = say(
        world,
        ReindexPhase.FAILED,
        reason=Reason.VERIFICATION_FAILED,
        message="2 points are missing: a, b",
        verification=bad,
    )
    assert condition(world, "Failed").status == "True"
    assert condition(world, "Verified").status == "False"
    assert summary(world) == ("False", "VerificationFailed")
    assert [(e.reason, e.warning) for e in plan.events] == [("VerificationFailed", True)]


def deleted(world: World) -> None:
    job = world.reindexes[JOB]
    metadata = job.metadata.model_copy(update={"deletion_timestamp": "2026-11-20T12:00:00Z"})
    world.reindexes[JOB] = job.model_copy(update={"metadata": metadata})


def test_a_deleted_job_is_cancelled_before_it_goes() -> None:
    world = told()
    say(world, ReindexPhase.COPYING)
    deleted(world)
    plan = say(world, ReindexPhase.COPYING)
    assert plan.concerns_pool
    world.carry_out(decide_pool(world.pool()))
    assert world.desired.reindexes[0].deleted
    say(world, ReindexPhase.CANCELLING)
    assert world.reindexes[JOB].is_held
    say(world, ReindexPhase.CANCELLED, reason=Reason.CANCELLED)
    assert JOB not in world.reindexes


def test_a_job_that_no_pod_was_told_of_goes_at_once() -> None:
    world = World().add(embedder()).add_collections(collection()).add_reindexes(reindex())
    world.carry_out(decide_reindex(world.reindex()), JOB)
    deleted(world)
    world.carry_out(decide_reindex(world.reindex()), JOB)
    assert JOB not in world.reindexes


def test_a_job_that_is_over_is_deleted_when_its_time_is() -> None:
    world = told(reindex(ttl_seconds_after_finished=60))
    say(world, ReindexPhase.CANCELLED, reason=Reason.CANCELLED, finished_at="2026-11-20T12:00:00Z")
    settle(world)
    plan = decide_reindex(world.reindex())
    assert plan.deletes == ()
    assert plan.requeue_after == pytest.approx(60.0)
    world.now = NOW + timedelta(seconds=60)
    (gone,) = decide_reindex(world.reindex()).deletes
    assert (gone.kind, gone.uid) == ("ReindexJob", f"uid-{JOB}")


def test_a_silent_pod_changes_nothing_but_the_summary() -> None:
    world = told()
    say(world, ReindexPhase.SOAKING, reason=Reason.SOAKING, switched=True)
    world.reports[0] = replace(world.reports[0], age_seconds=90.0)
    settle(world)
    assert summary(world) == ("False", "ReportsMissing")
    assert condition(world, "Switched").status == "True"
    assert status(world).phase is ReindexPhase.SOAKING


def test_a_change_to_a_job_that_is_over_is_only_acknowledged() -> None:
    world = told()
    say(world, ReindexPhase.SUCCEEDED, reason=Reason.ALREADY_CURRENT, plan=ReindexPlan.IN_PLACE)
    settle(world)
    job = world.reindexes[JOB]
    metadata = job.metadata.model_copy(update={"generation": 2})
    world.reindexes[JOB] = job.model_copy(update={"metadata": metadata})
    settle(world)
    assert status(world).observed_generation == 2
    assert summary(world) == ("True", "AlreadyCurrent")
    assert decide_reindex(world.reindex()).is_empty


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (ReindexPoints(), None),
        (ReindexPoints(total=0), "100%"),
        (ReindexPoints(total=1000, copied=999), "99%"),
        (ReindexPoints(total=1000, copied=1000), "100%"),
    ],
)
def test_all_is_done_only_when_it_is(points: ReindexPoints, text: str | None) -> None:
    assert progress(points) == text
