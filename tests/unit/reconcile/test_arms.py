"""Two revisions side by side: what status and Events tell of them, in what order, how often."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tests.support.facts import World, told
from tests.unit.reconcile.test_model import now, says
from tests.unit.reconcile.test_revisions import V1, V2, V3, entry, good, pass_on, replace_status
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import ModelDeploymentStatus
from ullage_api.kinds.rollout import SwapStep, Transition
from ullage_api.wire.pod_report import ReportedArm, ReportedModel, ReportedSwap
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.plan import Plan
from ullage_operator.reconcile.snapshot import RESTLESS_SECONDS

OLD, NEW = told(V1), told(V2)


def pair(weight: int, requests: int, *, errors: int = 0) -> tuple[ReportedArm, ...]:
    times = {"token_milliseconds": 18.2, "slow_token_milliseconds": 24.9}
    return (
        ReportedArm(revision=OLD.revision or "", weight=100 - weight, requests=requests, **times),
        ReportedArm(
            revision=NEW.revision or "", weight=weight, requests=requests, errors=errors, **times
        ),
    )


def compared(weight: int, requests: int, **fields: Any) -> ReportedModel:
    """Return what a pod says while the new revision gets a share of the requests."""
    swap = ReportedSwap(
        step=SwapStep.CANARY,
        previous=OLD.revision,
        target=NEW.revision,
        started="2026-11-20T12:00:00Z",
        arms=pair(weight, requests),
    )
    given = {
        "reason": Reason.ROLLING_OUT,
        "message": f"revision {NEW.revision} gets {weight} % of the requests for 60 s",
        "transition": Transition.IN_PROGRESS,
        "swap": swap,
        **fields,
    }
    return entry(V2, OLD, NEW, **given)


def over(before: ReportedModel, **fields: Any) -> ReportedModel:
    swap = before.swap
    assert swap is not None
    update = {"step": None, "seconds": 120.0, **fields.pop("swap", {})}
    return before.model_copy(update={"swap": swap.model_copy(update=update), **fields})


def begun() -> World:
    """Return a world whose spec has just asked for the second version."""
    world = good(V1)
    world.add(replace_status(world, V2))
    return pass_on(world)


def later(world: World, seconds: float) -> World:
    world.now += timedelta(seconds=seconds)
    return world


def status(world: World) -> ModelDeploymentStatus:
    found = world.members["chat"].status
    assert found is not None
    return found


def shares(world: World) -> list[tuple[int, int]]:
    return [(arm.weight, arm.requests) for arm in status(world).arms or ()]


def notes(world: World, said: ReportedModel) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for event in now(says(world, said)).events]


def test_status_shows_both_arms_with_their_share_requests_errors_and_times() -> None:
    world = begun()
    now(says(world, compared(10, 4)))
    (old, new) = status(world).to_wire()["arms"]
    assert old == {
        "revision": OLD.revision,
        "weight": 90,
        "requests": 4,
        "errors": 0,
        "tokenMicrosecondsP50": 18_200,
        "tokenMicrosecondsP95": 24_900,
    }
    assert (new["revision"], new["weight"]) == (NEW.revision, 10)


def test_a_rollout_that_goes_well_tells_its_story_in_order() -> None:
    world, story = begun(), []
    loading = entry(
        V2, OLD, NEW, reason=Reason.LOADING, message="loading", transition=Transition.IN_PROGRESS
    )
    watched = compared(100, 0).model_copy(
        update={"active": NEW, "message": f"revision {NEW.revision} answers and is watched for 9 s"}
    )
    done = over(watched, reason=Reason.SERVING, transition=Transition.UP_TO_DATE)
    for said in (loading, compared(10, 0), compared(50, 0), watched, done, done):
        story += [message for _, message in notes(later(world, 1), said)]
    assert story == [
        f"revision {OLD.revision} answers until the next one takes over",
        "loading",
        f"revision {NEW.revision} gets 10 % of the requests for 60 s",
        f"revision {NEW.revision} gets 50 % of the requests for 60 s",
        f"revision {NEW.revision} answers and is watched for 9 s",
        "1 of 1 pods serve the target",
    ]
    assert status(world).transition is Transition.UP_TO_DATE


def test_one_that_does_worse_is_shown_with_the_figures_that_took_it_back() -> None:
    world = begun()
    now(says(world, compared(10, 1)))
    why = "the new revision was taken back: with 10 % of the requests 3 of its 5 requests failed"
    back = over(
        compared(10, 5),
        reason=Reason.ROLLED_BACK,
        message=why,
        final=True,
        transition=Transition.ROLLED_BACK,
        swap={"arms": pair(10, 5, errors=3)},
    )
    told_now = notes(later(world, 1), back)
    assert told_now == [("RolledBack", f"{why}; the previous revision goes on serving")]
    assert [arm.errors for arm in status(world).arms or ()] == [0, 3]
    assert status(world).active_revision == OLD.revision


def test_within_a_step_figures_are_written_as_seldom_as_what_comes_and_goes() -> None:
    world = begun()
    now(says(world, compared(10, 0)))
    written = world.now
    plan = since(written, says(later(world, 1), compared(10, 7)))
    assert plan.status is None
    assert plan.requeue_after == RESTLESS_SECONDS - 1
    assert shares(world) == [(90, 0), (10, 0)]
    since(written, says(later(world, RESTLESS_SECONDS), compared(10, 9)))
    assert shares(world) == [(90, 9), (10, 9)]
    assert since(world.now, says(later(world, 1), compared(10, 9))).is_empty


def since(written: datetime, world: World) -> Plan:
    """Return what is done when status was last written at a time, and do it."""
    plan = decide_model(replace(world.model(), written=written))
    world.carry_out(plan, "chat")
    return plan


def test_a_new_step_shows_at_once() -> None:
    world = begun()
    now(says(world, compared(10, 0)))
    since(world.now, says(later(world, 1), compared(50, 12)))
    assert shares(world) == [(50, 12), (50, 12)]


def test_what_was_compared_is_shown_until_something_else_is_asked_for() -> None:
    world = begun()
    done = over(compared(50, 40), active=NEW, transition=Transition.UP_TO_DATE)
    now(says(world, done))
    assert shares(world) == [(50, 40), (50, 40)]
    forgotten = entry(V2, NEW, NEW, transition=Transition.UP_TO_DATE)
    now(says(later(world, 60), forgotten))
    assert shares(world) == [(50, 40), (50, 40)], "the pod was restarted"
    world.add(replace_status(world, V3))
    now(says(pass_on(world), coming_third(done)))
    assert status(world).arms is None


def coming_third(done: ReportedModel) -> ReportedModel:
    """Return what a pod says of a third version, while its last swap was the second one's."""
    third: ModelDeployment = V3
    return entry(third, NEW, told(third), reason=Reason.LOADING, message="loading", swap=done.swap)
