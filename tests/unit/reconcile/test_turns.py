"""Over several pods a revision is rolled out one pod at a time, and what fails stops there."""

from typing import Any

from tests.support.facts import World, heard, pod, report, told
from tests.unit.reconcile.test_model import now, placed, says
from tests.unit.reconcile.test_revisions import (
    V1,
    V2,
    V3,
    asked_back,
    entry,
    failure,
    pass_on,
    replace_status,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.revision import Outcome
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pool_desired import DesiredModel

PODS = 3


def wide(member: ModelDeployment, **spec: Any) -> ModelDeployment:
    """Return the member with as many replicas as the pool has pods."""
    update = member.spec.model_copy(update={"replicas": PODS, **spec})
    return member.model_copy(update={"spec": update})


OLD, NEW, NEWER = wide(V1), wide(V2), wide(V3)


def asked(world: World) -> DesiredModel:
    (model,) = world.desired.models
    return model


def serves(world: World, member: ModelDeployment, *ordinals: int, **fields: Any) -> None:
    """Have pods answer with what a spec asks for, and let everything be written."""
    for ordinal in ordinals:
        given = {"transition": Transition.UP_TO_DATE, **fields}
        says(world, entry(member, told(member), told(member), **given), ordinal=ordinal)
    settle(world)


def stays(world: World, old: ModelDeployment, new: ModelDeployment, *ordinals: int) -> None:
    """Have pods answer with what came before, while the spec asks for something else."""
    for ordinal in ordinals:
        said = entry(new, told(old), None, transition=Transition.IN_PROGRESS, weights_ready=False)
        says(world, said, ordinal=ordinal)
    settle(world)


def settle(world: World) -> None:
    now(world)
    pass_on(world)


def all_have(member: ModelDeployment) -> World:
    """Return a world of three pods, all of which have a version for good."""
    world = placed(member, pods=PODS)
    pass_on(world)
    serves(world, member, *range(PODS))
    return world


def wants(world: World, member: ModelDeployment) -> World:
    return pass_on(world.add(replace_status(world, member)))


def test_nobody_waits_where_there_is_nothing_yet_that_could_answer_meanwhile() -> None:
    world = placed(OLD, pods=PODS)
    assert asked(world).ordinals == (0, 1, 2)
    assert asked(world).waiting == ()
    assert asked(all_have(OLD)).waiting == ()


def test_one_pod_after_the_other_takes_a_new_revision_the_lowest_first() -> None:
    world = wants(all_have(OLD), NEW)
    assert asked(world).waiting == (1, 2)
    stays(world, OLD, NEW, 1, 2)
    says(world, entry(NEW, told(NEW), told(NEW), transition=Transition.IN_PROGRESS), ordinal=0)
    settle(world)
    assert asked(world).waiting == (1, 2), "it is only watched there yet"
    serves(world, NEW, 0)
    assert asked(world).waiting == (2,)
    serves(world, NEW, 1)
    assert asked(world).waiting == ()
    status = world.members["chat"].status
    assert status is not None
    assert status.transition is Transition.IN_PROGRESS
    serves(world, NEW, 2)
    assert asked(world).waiting == ()
    assert world.members["chat"].status is not None
    assert world.members["chat"].status.transition is Transition.UP_TO_DATE


def test_the_pool_is_looked_at_when_the_next_pods_turn_has_come() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    serves(world, NEW, 0)
    said = entry(NEW, told(NEW), told(NEW), transition=Transition.UP_TO_DATE)
    plan = now(says(world, said, ordinal=1))
    assert not plan.applies
    assert plan.concerns_pool
    pass_on(world)
    assert not now(world).concerns_pool


def test_a_revision_that_fails_on_the_first_pod_goes_no_further() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    says(world, failure(NEW, told(OLD), transition=Transition.BLOCKED_BY_FAILED_LOAD), ordinal=0)
    settle(world)
    assert asked(world).waiting == (1, 2)
    assert asked(world).failure is not None
    status = world.members["chat"].status
    assert status is not None
    assert status.transition is Transition.BLOCKED_BY_FAILED_LOAD
    assert status.ready_replicas == PODS


def test_one_that_fits_nowhere_on_the_first_pod_goes_no_further_either() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    never = failure(NEW, told(OLD)).model_copy(update={"reason": Reason.WILL_NEVER_FIT})
    says(world, never, ordinal=0)
    settle(world)
    assert asked(world).failure is None, "each pod finds out for itself"
    assert asked(world).waiting == (1, 2)


def test_a_newer_spec_begins_anew_with_one_pod() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    serves(world, NEW, 0)
    wants(world, NEWER)
    assert asked(world).waiting == (1, 2)


def test_a_spec_that_goes_back_concerns_only_the_pods_that_had_gone_on() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    serves(world, NEW, 0)
    again = OLD.model_copy(update={"metadata": OLD.metadata.model_copy(update={"generation": 9})})
    wants(world, again)
    assert asked(world).waiting == ()


def test_going_back_by_hand_happens_everywhere_at_once() -> None:
    world = wants(all_have(OLD), NEW)
    serves(world, NEW, *range(PODS))
    asked_back(world, told(OLD).revision)
    assert asked(world).target.uri == "file:v1.gguf"
    assert asked(world).waiting == ()


def test_a_change_of_limits_makes_nobody_wait() -> None:
    world = all_have(OLD)
    later = OLD.model_copy(update={"metadata": OLD.metadata.model_copy(update={"generation": 7})})
    assert asked(wants(world, later)).waiting == ()


def test_a_pod_that_takes_no_requests_is_not_the_one_to_begin() -> None:
    world = all_have(OLD)
    world.pods[0] = pod(0, ready=False)
    assert asked(wants(world, NEW)).waiting == (0, 2)


def test_an_operator_that_has_heard_nobody_yet_asks_for_what_it_asked_before() -> None:
    world = wants(all_have(OLD), NEW)
    before, reports = world.desired, dict(world.reports)
    world.reports.clear()
    pass_on(world)
    assert world.desired == before
    world.reports.update(reports)
    stays(world, OLD, NEW, 1, 2)
    serves(world, NEW, 0)
    world.reports.clear()
    pass_on(world)
    assert asked(world).waiting == (2,)


def test_a_new_place_takes_what_has_shown_itself_without_waiting() -> None:
    world = placed(OLD.model_copy(update={"spec": OLD.spec.model_copy(update={"replicas": 1})}))
    world.profile = all_have(OLD).profile
    serves(world, OLD, 0)
    wants(world, OLD)
    assert asked(world).ordinals == (0, 1, 2)
    assert asked(world).waiting == ()


def test_a_new_place_waits_while_its_revision_has_yet_to_show_itself() -> None:
    world = wants(all_have(OLD), NEW)
    world.reports[1] = heard(report(ordinal=1, document=world.desired))
    pass_on(world)
    assert asked(world).waiting == (1, 2)
    assert asked(world).last_good is not None
    assert asked(world).last_good == last_good(world)


def last_good(world: World) -> Any:
    good = [r for r in world.revisions.values() if r.outcome is Outcome.GOOD]
    return max(good, key=lambda r: r.number).spec


def test_a_model_that_sleeps_with_what_is_wanted_holds_nobody_up() -> None:
    world = wants(all_have(OLD), NEW)
    stays(world, OLD, NEW, 1, 2)
    asleep = {"residency": Residency.DISK, "reason": Reason.IDLE}
    said = entry(NEW, None, told(NEW), transition=Transition.UP_TO_DATE, **asleep)
    serves(world, NEW, 0)
    says(world, said, ordinal=0)
    settle(world)
    assert asked(world).waiting == (2,)


def test_what_was_found_good_is_not_compared_on_every_pod_once_more() -> None:
    canary = {"canary": {"steps": [{"weight": 10, "seconds": 60}]}, "watchSeconds": 9}
    member = ModelDeployment.model_validate(
        NEW.to_wire() | {"spec": NEW.spec.to_wire() | {"rollout": canary}}
    )
    world = wants(all_have(OLD), member)
    assert asked(world).rollout.canary is not None
    stays(world, OLD, member, 1, 2)
    serves(world, member, 0)
    assert asked(world).rollout.canary is None
    assert asked(world).rollout.watch_seconds == 9
