"""Which revisions of a model are kept, what became of them, and what is asked of pods for it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.facts import (
    World,
    changed,
    condition,
    heard,
    pod,
    report,
    resource,
    revision,
    told,
)
from tests.unit.reconcile.test_model import now, placed, says
from ullage_api.conditions import Reason
from ullage_api.desired import desired_revision
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.revision import HISTORY, Outcome
from ullage_api.kinds.rollout import Transition
from ullage_api.names import ROLLBACK_ANNOTATION
from ullage_api.wire.pod_report import ReportedModel
from ullage_operator.reconcile.findings import MESSAGE_LIMIT
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.pool import decide_pool


def version(number: int, member: ModelDeployment | None = None, **spec: Any) -> ModelDeployment:
    """Return the model with another file, as a later generation."""
    given = {"model": {"uri": f"file:v{number}.gguf"}, **spec}
    made: ModelDeployment = changed(member or resource(), generation=number, **given)
    return made


def entry(member: ModelDeployment, active: Any, target: Any, **fields: Any) -> ReportedModel:
    return ReportedModel(
        **{
            "name": member.metadata.name,
            "uid": member.metadata.uid,
            "generation": member.metadata.generation,
            "residency": Residency.RESIDENT if active else Residency.DISK,
            "reason": Reason.SERVING,
            "weights_ready": True,
            "active": active,
            "target": target,
            **fields,
        }
    )


def failure(member: ModelDeployment, active: Any, **fields: Any) -> ReportedModel:
    bad = {"reason": Reason.INVALID_MODEL, "message": "cut short", "final": True}
    return entry(member, active, told(member), **bad, **fields)


def pass_on(world: World) -> World:
    """Let the pool's key tell the pods."""
    world.carry_out(decide_pool(world.pool()))
    return world


def good(member: ModelDeployment, world: World | None = None) -> World:
    """Return a world in which a version answers, and all is written."""
    world = world or placed(member)
    world.add(replace_status(world, member))
    pass_on(world)
    says(world, entry(member, told(member), told(member)))
    now(world)
    return pass_on(world)


def replace_status(world: World, member: ModelDeployment) -> ModelDeployment:
    before = world.members.get(member.metadata.name)
    return member.model_copy(update={"status": before.status if before else None})


def failed(member: ModelDeployment, world: World) -> World:
    """Let a version fail beside what answers."""
    active = world.members["chat"].status
    world.add(replace_status(world, member))
    pass_on(world)
    before = next(r for r in world.revisions.values() if r.name == active.active_revision)  # type: ignore[union-attr]
    stays = revision(before.name, uri=before.spec.uri, sha256=before.spec.sha256)
    says(world, failure(member, stays))
    now(world)
    return pass_on(world)


def asked_back(world: World, name: str | None) -> World:
    member = world.members["chat"]
    annotations = {ROLLBACK_ANNOTATION: name} if name else {}
    metadata = member.metadata.model_copy(update={"annotations": annotations})
    return pass_on(world.add(member.model_copy(update={"metadata": metadata})))


def status(world: World) -> Any:
    return world.members["chat"].status


V1, V2, V3 = version(1), version(2), version(3)


def test_a_revision_is_named_once_its_digest_is_known_and_kept_with_its_outcome() -> None:
    world = placed(V1)
    fetching = entry(V1, None, None, reason=Reason.FETCHING, weights_ready=False)
    assert now(says(world, fetching)).applies[-1].manifest["kind"] != "ControllerRevision"
    loading = entry(V1, None, told(V1), reason=Reason.LOADING, residency=Residency.LOADING)
    (write,) = now(says(world, loading)).applies
    assert write.manifest["kind"] == "ControllerRevision"
    assert write.manifest["metadata"]["name"] == f"chat-{told(V1).revision}"
    assert [o["uid"] for o in write.manifest["metadata"]["ownerReferences"]] == ["uid-chat"]
    assert write.manifest["data"] == {
        **desired_revision(V1).to_wire(),
        "sha256": told(V1).sha256,
    }
    assert [(r.name, r.outcome) for r in status(world).revisions] == [(told(V1).revision, None)]
    now(says(world, entry(V1, told(V1), told(V1))))
    (shown,) = status(world).revisions
    assert (shown.outcome, shown.uri) == (Outcome.GOOD, "file:v1.gguf")
    assert decide_model(world.model()).is_empty


def test_while_it_is_compared_or_watched_it_is_not_good_yet() -> None:
    world = good(V1)
    world.add(replace_status(world, V2))
    pass_on(world)
    watched = entry(V2, told(V2), told(V2), transition=Transition.IN_PROGRESS)
    now(says(world, watched))
    assert [r.outcome for r in status(world).revisions] == [None, Outcome.GOOD]
    assert status(world).transition is Transition.IN_PROGRESS
    now(says(world, entry(V2, told(V2), told(V2), transition=Transition.UP_TO_DATE)))
    assert [r.outcome for r in status(world).revisions] == [Outcome.GOOD, Outcome.GOOD]


def test_a_failed_revision_says_why_and_pods_are_told_what_was_good() -> None:
    world = failed(V2, good(V1))
    newest, before = status(world).revisions
    assert (newest.outcome, newest.reason) == (Outcome.FAILED, "InvalidModel")
    assert before.outcome is Outcome.GOOD
    assert status(world).transition is Transition.BLOCKED_BY_FAILED_LOAD
    assert (status(world).active_revision, status(world).target_revision) == (
        told(V1).revision,
        told(V2).revision,
    )
    (model,) = world.desired.models
    assert model.last_good is not None
    assert (model.last_good.uri, model.last_good.sha256) == ("file:v1.gguf", told(V1).sha256)
    assert model.failure is not None
    assert (model.failure.reason, model.failure.message) == (Reason.INVALID_MODEL, "cut short")


def test_the_engines_last_words_are_in_status_as_far_as_there_is_room() -> None:
    world = good(V1)
    world.add(replace_status(world, V2))
    pass_on(world)
    for words in ("missing tensor 'x'", "y" * 5000):
        message = f"it cannot be loaded; the engine's last words: {words}"
        now(
            says(
                world,
                entry(
                    V2,
                    told(V1),
                    told(V2),
                    reason=Reason.LOAD_FAILED,
                    message=message,
                    transition=Transition.BLOCKED_BY_FAILED_LOAD,
                ),
            )
        )
        shown = condition(status(world).to_wire(), "Progressing").message
        assert shown[:100] == message[:100]
        assert len(shown) <= MESSAGE_LIMIT
        assert status(world).transition is Transition.BLOCKED_BY_FAILED_LOAD


def test_a_fresh_pod_that_serves_the_last_good_one_is_not_up_to_date() -> None:
    world = failed(V2, good(V1))
    stays = told(V1)
    fresh = entry(V2, stays, None, reason=Reason.INVALID_MODEL, message="cut short", final=True)
    now(says(world, fresh))
    assert status(world).transition is Transition.BLOCKED_BY_FAILED_LOAD
    assert condition(status(world).to_wire(), "Ready").status == "True"
    assert condition(status(world).to_wire(), "Progressing").reason == "InvalidModel"


def test_a_change_of_the_spec_lets_a_failed_revision_be_tried_again() -> None:
    world = failed(V2, good(V1))
    world.add(replace_status(world, version(3, model={"uri": "file:v2.gguf"})))
    pass_on(world)
    assert world.desired.models[0].failure is None


def test_a_model_too_large_is_tried_by_each_pod_for_itself() -> None:
    world = good(V1)
    world.add(replace_status(world, V2))
    pass_on(world)
    big = {"reason": Reason.WILL_NEVER_FIT, "message": "14 GiB", "final": True}
    now(says(world, entry(V2, told(V1), told(V2), **big)))
    pass_on(world)
    assert world.desired.models[0].failure is None
    assert status(world).revisions[0].reason == "WillNeverFit"


def test_a_failure_for_a_passing_cause_is_no_outcome() -> None:
    world = good(V1)
    world.add(replace_status(world, V2))
    pass_on(world)
    now(says(world, entry(V2, told(V1), told(V2), reason=Reason.LOAD_FAILED)))
    assert [r.outcome for r in status(world).revisions] == [None, Outcome.GOOD]


def test_what_the_pods_went_back_from_has_failed() -> None:
    world = good(V1)
    world.add(replace_status(world, V2))
    pass_on(world)
    back = {"transition": Transition.ROLLED_BACK, "reason": Reason.ROLLED_BACK, "final": True}
    now(says(world, entry(V2, told(V1), told(V2), **back)))
    assert status(world).transition is Transition.ROLLED_BACK
    assert status(world).revisions[0].reason == "RolledBack"


def test_the_history_is_bounded_and_keeps_what_is_in_use() -> None:
    world = good(V1)
    for number in range(2, 2 * HISTORY):
        world = failed(version(number), world)
    assert len(world.revisions) == HISTORY
    assert status(world).active_revision == told(V1).revision
    assert f"chat-{told(V1).revision}" in world.revisions
    assert len(status(world).revisions) == HISTORY


def test_revisions_of_a_model_that_had_the_name_before_are_removed_and_mean_nothing() -> None:
    world = failed(V2, good(V1))
    old = dict(world.revisions)
    new = V2.model_copy(
        update={"metadata": V2.metadata.model_copy(update={"uid": "uid-new"}), "status": None}
    )
    world.members = {"chat": new}
    pass_on(world)
    (model,) = world.desired.models
    assert (model.last_good, model.failure) == (None, None)
    plan = decide_model(world.model())
    assert {d.name for d in plan.deletes} == set(old)


def test_a_revision_that_is_still_going_is_waited_for() -> None:
    world = good(V1)
    (name, record) = next(iter(world.revisions.items()))
    assert record.child is not None
    world.revisions[name] = replace(record, child=replace(record.child, deleting=True))
    plan = decide_model(world.model())
    assert plan.applies == ()
    assert plan.requeue_after is not None


def test_going_back_holds_the_revision_until_the_spec_changes() -> None:
    world = good(V2, good(V1))
    asked_back(world, told(V1).revision)
    (model,) = world.desired.models
    assert (model.target.uri, model.target.sha256) == ("file:v1.gguf", told(V1).sha256)
    now(world)
    assert status(world).transition is Transition.IN_PROGRESS
    plan = now(says(world, entry(V2, told(V1), told(V1))))
    assert status(world).transition is Transition.ROLLED_BACK
    assert status(world).active_revision == told(V1).revision
    assert status(world).target_revision == told(V2).revision
    progressing = condition(status(world).to_wire(), "Progressing")
    assert (progressing.status, progressing.reason) == ("False", "RolledBack")
    assert [e.reason for e in plan.events] == ["RolledBack"]
    assert decide_model(world.model()).is_empty

    annotations = world.members["chat"].metadata.annotations
    newer = version(3, model={"uri": "file:v2.gguf"}, serving={"maxQueue": 3})
    metadata = newer.metadata.model_copy(update={"annotations": annotations})
    world.add(replace_status(world, newer).model_copy(update={"metadata": metadata}))
    pass_on(world)
    assert world.desired.models[0].target.uri == "file:v2.gguf"
    now(says(world, entry(newer, told(V2), told(V2))))
    assert status(world).transition is Transition.UP_TO_DATE


def test_removing_the_annotation_brings_the_specs_revision_back_and_setting_it_holds_again() -> (
    None
):
    world = good(V2, good(V1))
    for _ in range(2):
        asked_back(world, told(V1).revision)
        assert world.desired.models[0].target.uri == "file:v1.gguf"
        now(says(world, entry(V2, told(V1), told(V1))))
        asked_back(world, None)
        assert world.desired.models[0].target.uri == "file:v2.gguf"
        now(says(world, entry(V2, told(V2), told(V2))))
        assert status(world).transition is Transition.UP_TO_DATE


def test_an_unknown_revision_changes_nothing_and_the_known_ones_are_named() -> None:
    world = good(V2, good(V1))
    sequence = world.desired.sequence
    asked_back(world, "nonsense")
    plan = now(world)
    assert world.desired.sequence == sequence
    said = condition(status(world).to_wire(), "Progressing")
    assert (said.status, said.reason) == ("False", "UnknownRevision")
    assert f"{told(V2).revision} (Good), {told(V1).revision} (Good)" in said.message
    assert [(e.reason, e.warning) for e in plan.events] == [("UnknownRevision", True)]
    assert condition(status(world).to_wire(), "Ready").status == "True"
    asked_back(world, None)
    now(world)
    assert condition(status(world).to_wire(), "Progressing").reason == "UpToDate"


def test_each_transition_is_told_once_and_in_order() -> None:
    world = good(V1)
    heard_of: list[str] = []

    def look(*entries: ReportedModel) -> None:
        heard_of.extend(e.reason for e in now(says(world, *entries)).events)

    world.add(replace_status(world, V2))
    pass_on(world)
    loading = {"reason": Reason.LOADING, "transition": Transition.IN_PROGRESS}
    for _ in range(3):
        look(entry(V2, told(V1), told(V2), **loading))
    for _ in range(3):
        look(failure(V2, told(V1), transition=Transition.BLOCKED_BY_FAILED_LOAD))
    world.add(replace_status(world, V3))
    pass_on(world)
    for _ in range(3):
        look(entry(V3, told(V1), told(V3), **loading))
    for _ in range(3):
        look(entry(V3, told(V3), told(V3), transition=Transition.UP_TO_DATE))
    assert [r for r in heard_of if r not in {"Loading", "Fetched"}] == [
        "InProgress",
        "BlockedByFailedLoad",
        "InvalidModel",
        "InProgress",
        "UpToDate",
    ]


@pytest.mark.parametrize("minutes", [1, 600])
def test_at_rest_nothing_is_written(minutes: int) -> None:
    world = good(V2, good(V1))
    world.now += timedelta(minutes=minutes)
    assert decide_model(world.model()).is_empty
    assert decide_pool(world.pool()).is_empty


def test_a_second_pod_that_fails_what_the_first_serves_leaves_it_good() -> None:
    world = placed(V1, pods=2)
    world.pods[1] = pod(1)
    twice = V1.model_copy(update={"spec": V1.spec.model_copy(update={"replicas": 2})})
    world.add(twice)
    pass_on(world)
    world.reports[0] = heard(
        report(entry(twice, told(V1), told(V1)), ordinal=0, document=world.desired)
    )
    world.reports[1] = heard(report(failure(twice, None), ordinal=1, document=world.desired))
    now(world)
    assert [r.outcome for r in status(world).revisions] == [Outcome.GOOD]
