"""What the operator does about a collection, and what it says of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import yaml

from tests.support.facts import (
    NAMESPACE,
    World,
    collection,
    embedder,
    heard,
    known,
    opened,
    pod,
    profile,
    reindex,
    reindexing,
    report,
    resource,
    silent,
)
from ullage_api.conditions import Condition, ConditionType, Reason, find
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.reindex_status import ReindexJobStatus, ReindexTarget
from ullage_api.names import COLLECTION_FINALIZER
from ullage_api.wire.pod_report import CollectionState
from ullage_operator.reconcile.collection import decide_collection
from ullage_operator.reconcile.observed import ProfileView
from ullage_operator.reconcile.plan import Verb
from ullage_operator.reconcile.pool import decide_pool

CLAIM = ("PersistentVolumeClaim", "ullage-default-collections")


def world(**spec: Any) -> World:
    """A pool with a model that embeds and a collection, whose pod is up."""
    made = World().add(embedder()).add_collections(collection(**spec))
    made.carry_out(decide_pool(made.pool()))
    made.pods[0] = pod()
    return made


def says(made: World, **fields: Any) -> World:
    """Have the pod report the collection, and the operator write what it makes of it."""
    entry = opened(made.collections["notes"], **fields)
    said = report(document=made.desired, collections=(entry,))
    made.reports[0] = heard(said)
    return decided(made)


def reindexed(made: World, phase: ReindexPhase, **fields: Any) -> World:
    """Have the pod report a job of the collection, which is not yet as its spec wants it."""
    differences = ("model is 'old', the spec says 'embed'",)
    entry = opened(made.collections["notes"], differences=differences)
    job = reindexing(reindex(), phase, **fields)
    made.reports[0] = heard(report(document=made.desired, collections=(entry,), reindexes=(job,)))
    return decided(made)


def decided(made: World) -> World:
    made.carry_out(decide_pool(made.pool()))
    made.carry_out(decide_collection(made.collection()), "notes")
    return made


def condition(made: World, kind: str) -> Condition:
    status = made.collections["notes"].status
    assert status is not None
    found = find(status.conditions or (), kind)
    assert found is not None
    return found


def told(made: World, kind: str) -> tuple[str, str]:
    found = condition(made, kind)
    return found.status, found.reason


def mounts(made: World) -> dict[str, str]:
    container = made.objects["StatefulSet", "ullage-default"]["spec"]["template"]["spec"]
    return {m["name"]: m["mountPath"] for m in container["containers"][0]["volumeMounts"]}


# --- The pool ---------------------------------------------------------------------------------


def test_a_collection_is_in_the_document_and_owns_the_pool_with_the_models() -> None:
    made = world()
    assert [c.name for c in made.desired.collections] == ["notes"]
    references = made.objects["StatefulSet", "ullage-default"]["metadata"]["ownerReferences"]
    assert [(r["kind"], r["name"]) for r in references] == [
        ("ModelDeployment", "embed"),
        ("VectorCollection", "notes"),
    ]


def test_the_volume_is_made_once_and_nobody_owns_it() -> None:
    made = world()
    claim = made.objects[CLAIM]
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "10Gi"}}
    assert "storageClassName" not in claim["spec"]
    assert mounts(made)["collections"] == "/var/lib/ullage/collections"
    made.profile = known(profile(collections={"size": "20Gi", "storageClass": "fast"}))
    plan = decide_pool(made.pool())
    assert "PersistentVolumeClaim" not in {a.manifest["kind"] for a in plan.applies}


def test_the_profile_says_how_large_the_volume_is_and_of_which_class() -> None:
    made = World(profile=known(profile(collections={"size": "1Gi", "storageClass": "fast"})))
    made.add(embedder()).add_collections(collection())
    made.carry_out(decide_pool(made.pool()))
    spec = made.objects[CLAIM]["spec"]
    assert (spec["storageClassName"], spec["resources"]["requests"]["storage"]) == ("fast", "1Gi")


def test_a_pool_without_collections_has_no_volume() -> None:
    made = World().add(resource())
    made.carry_out(decide_pool(made.pool()))
    assert CLAIM not in made.objects
    assert "collections" not in mounts(made)


def test_the_last_collection_leaves_and_the_pod_keeps_the_volume() -> None:
    made = world()
    made.collections.clear()
    made.carry_out(decide_pool(made.pool()))
    assert not made.desired.collections
    assert mounts(made)["collections"] == "/var/lib/ullage/collections"


def test_a_pool_of_several_pods_refuses_collections_and_says_why() -> None:
    made = World(profile=known(profile(replicas={"min": 1, "max": 2})))
    made.add(embedder()).add_collections(collection())
    decided(made)
    assert not made.desired.collections
    assert CLAIM not in made.objects
    assert told(made, "Accepted") == ("False", "PoolHasReplicas")
    assert told(made, "Ready") == ("False", "PoolHasReplicas")
    assert "replicas.max 1" in condition(made, "Accepted").message


# --- Conditions -------------------------------------------------------------------------------


def test_a_collection_that_answers_says_what_it_has() -> None:
    made = says(world())
    assert told(made, "Accepted") == ("True", "Accepted")
    assert told(made, "Ready") == ("True", "Serving")
    assert told(made, "InSync") == ("True", "InSync")
    assert told(made, "Indexed") == ("True", "Indexed")
    status = made.collections["notes"].status
    assert status is not None
    assert status.model is not None
    assert (status.points, status.documents, status.epoch) == (12, 3, 1)
    assert (status.model.name, status.model.dimensions) == ("embed", 384)
    assert (status.profile, status.store) == ("Balanced", "Embedded")
    assert status.url == f"http://ullage-default.{NAMESPACE}.svc/v1/collections/notes"


def test_an_unknown_pool_is_named_with_those_there_are() -> None:
    made = World(profile=ProfileView(None, known=("small",))).add_collections(collection())
    made.carry_out(decide_collection(made.collection()), "notes")
    assert told(made, "Accepted") == ("False", "UnknownPool")
    assert "small" in condition(made, "Accepted").message


def test_a_model_that_is_missing_is_named_with_those_there_are() -> None:
    made = World().add(embedder("other")).add_collections(collection())
    decided(made)
    assert told(made, "Accepted") == ("False", "UnknownModel")
    assert "other" in condition(made, "Accepted").message
    assert [c.name for c in made.desired.collections] == ["notes"]
    made.add(embedder())
    decided(made)
    assert told(made, "Accepted") == ("True", "Accepted")


def test_a_model_that_does_not_embed_is_no_model_for_it() -> None:
    made = World().add(resource("embed")).add_collections(collection())
    decided(made)
    assert told(made, "Accepted") == ("False", "UnknownModel")


def test_an_alias_that_an_older_collection_has_is_refused_and_all_else_is_served() -> None:
    made = world(aliases=["docs", "own"])
    older = collection("older", aliases=["docs"])
    created = older.metadata.model_copy(update={"creation_timestamp": "2026-11-19T10:00:00Z"})
    made.add_collections(older.model_copy(update={"metadata": created}))
    decided(made)
    assert told(made, "Accepted") == ("False", Reason.NAME_TAKEN)
    message = condition(made, "Accepted").message
    assert message.startswith("'docs' is already a name of collection 'older' in this pool")
    aliases = {each.name: each.spec.aliases for each in made.desired.collections}
    assert aliases == {"notes": ["own"], "older": ["docs"]}


def test_the_aliases_that_a_pod_serves_are_told_and_one_that_its_store_refuses() -> None:
    made = says(world(aliases=["docs"]), aliases=("docs",))
    status = made.collections["notes"].status
    assert status is not None
    assert status.aliases == ["docs"]
    assert told(made, "InSync") == ("True", Reason.IN_SYNC)
    says(made, aliases=("docs",), alias_problem="the store has alias 'docs' for 'other' already")
    assert told(made, "InSync") == ("False", Reason.NAME_TAKEN)
    assert "for 'other' already" in condition(made, "InSync").message


def test_what_is_being_opened_is_neither_ready_nor_broken() -> None:
    made = says(
        world(), state=CollectionState.OPENING, message="it waits for model 'embed'", physical=None
    )
    assert told(made, "Ready") == ("Unknown", "Opening")
    assert told(made, "InSync") == ("Unknown", "Pending")
    assert "embed" in condition(made, "Ready").message


def test_a_store_that_is_away_makes_it_not_ready() -> None:
    made = says(world(), state=CollectionState.FAILED, message="connection refused")
    assert told(made, "Ready") == ("False", "StoreUnavailable")
    assert condition(made, "Ready").message == "connection refused"


def test_what_only_a_reindex_changes_is_named_and_it_goes_on_serving() -> None:
    made = says(world(), differences=("distance is Cosine, wanted is Dot",))
    assert told(made, "InSync") == ("False", "NeedsReindex")
    assert "distance is Cosine, wanted is Dot" in condition(made, "InSync").message
    assert told(made, "Ready") == ("True", "Serving")


def test_an_index_that_is_being_built_says_so() -> None:
    made = says(world(), is_indexed=False)
    assert told(made, "Indexed") == ("False", "Indexing")
    assert told(made, "Ready") == ("True", "Serving")


def test_a_pod_that_is_away_leaves_the_counts_and_makes_it_unknown() -> None:
    made = says(world())
    made.pods[0] = pod(ready=False, trouble="Unschedulable", trouble_message="no volume")
    made.carry_out(decide_collection(made.collection()), "notes")
    assert told(made, "Ready") == ("Unknown", "WaitingForPods")
    assert "Unschedulable: no volume" in condition(made, "Ready").message
    status = made.collections["notes"].status
    assert status is not None
    assert status.points == 12


def test_a_silent_pod_is_believed_to_be_as_it_was() -> None:
    made = says(world())
    made.reports[0] = silent()
    made.carry_out(decide_collection(made.collection()), "notes")
    assert told(made, "Ready") == ("True", "ReportsMissing")


def test_counts_are_written_twice_a_minute_at_most_and_transitions_at_once() -> None:
    made = says(world())
    entry = opened(made.collections["notes"], points=99)
    made.reports[0] = heard(report(document=made.desired, collections=(entry,)))
    made.now += timedelta(seconds=10)
    plan = decide_collection(made.collection())
    assert plan.status is None
    assert plan.requeue_after == 20
    worse = entry.model_copy(update={"state": CollectionState.FAILED, "message": "refused"})
    made.reports[0] = heard(report(document=made.desired, collections=(worse,)))
    plan = decide_collection(made.collection())
    assert plan.status is not None
    assert plan.status["points"] == 12
    made.now += timedelta(seconds=20)
    plan = decide_collection(made.collection())
    assert plan.status is not None
    assert plan.status["points"] == 99


def test_what_a_pod_says_of_another_collection_of_the_name_counts_for_nothing() -> None:
    made = says(world(), uid="another")
    assert told(made, "Ready") == ("Unknown", "Pending")


# --- Deletion ---------------------------------------------------------------------------------


def finalizers(made: World) -> list[str]:
    return made.collections["notes"].metadata.finalizers


def deleted(made: World) -> World:
    old = made.collections["notes"]
    update = {"deletion_timestamp": "2026-11-20T11:00:00Z"}
    made.collections["notes"] = old.model_copy(
        update={"metadata": old.metadata.model_copy(update=update)}
    )
    return made


def test_retained_data_holds_nothing_up() -> None:
    made = says(world())
    assert finalizers(made) == []
    made = deleted(made)
    assert decide_collection(made.collection()).is_empty
    assert not decide_pool(made.pool()).document.collections  # type: ignore[union-attr]


def test_deleted_data_goes_before_the_resource_does() -> None:
    made = says(world(deletionPolicy="Delete"))
    assert finalizers(made) == [COLLECTION_FINALIZER]
    deleted(made)
    made.members.clear()  # `kubectl delete -f` takes the model away at once
    decided(made)
    assert [(c.name, c.dropped) for c in made.desired.collections] == [("notes", True)]
    assert told(made, "Ready") == ("False", "Deleting")
    assert condition(made, "Ready").message == "deletionPolicy is Delete: waiting for its pod"
    references = made.objects["StatefulSet", "ullage-default"]["metadata"]["ownerReferences"]
    assert [r["name"] for r in references] == ["notes"]
    gone = opened(made.collections["notes"], state=CollectionState.DROPPED)
    made.reports[0] = heard(report(document=made.desired, collections=(gone,)))
    (write,) = decide_collection(made.collection()).applies
    assert (write.verb, write.manifest["metadata"]["finalizers"]) == (Verb.APPLY, [])


def test_a_changed_mind_about_deletion_takes_the_finalizer_off() -> None:
    made = says(world(deletionPolicy="Delete"))
    old = made.collections["notes"]
    spec = old.spec.model_copy(update={"deletion_policy": None})
    made.collections["notes"] = old.model_copy(update={"spec": spec})
    made.carry_out(decide_collection(made.collection()), "notes")
    assert finalizers(made) == []


def test_a_collection_that_never_was_is_let_go() -> None:
    made = World(profile=known(profile(replicas={"min": 1, "max": 2})))
    made.add(embedder()).add_collections(collection(deletionPolicy="Delete"))
    decided(made)
    assert finalizers(made) == [COLLECTION_FINALIZER]
    deleted(made)
    made.carry_out(decide_collection(made.collection()), "notes")
    assert finalizers(made) == []


# --- Rest -------------------------------------------------------------------------------------


def test_a_plan_carried_out_leaves_nothing_to_do() -> None:
    states: list[dict[str, Any]] = [
        {"state": state, "message": "m", "differences": differences, "is_indexed": is_indexed}
        for state in CollectionState
        for differences in ((), ("a is b, wanted is c",))
        for is_indexed in (None, False, True)
    ]
    for fields in states:
        made = says(world(deletionPolicy="Delete"), **fields)
        assert decide_collection(made.collection()).is_empty, fields
        assert decide_pool(made.pool()).is_empty, fields
        status = made.collections["notes"].status
        assert status is not None
        assert {c.reason for c in status.conditions or ()} <= set(Reason)


def test_events_tell_what_has_become_so_once() -> None:
    made = world()
    made.carry_out(decide_collection(made.collection()), "notes")
    entry = opened(made.collections["notes"], differences=("x is 1, wanted is 2",))
    made.reports[0] = heard(report(document=made.desired, collections=(entry,)))
    plan = decide_collection(made.collection())
    assert [(e.reason, e.warning) for e in plan.events] == [
        ("Serving", False),
        ("NeedsReindex", True),
    ]
    made.carry_out(plan, "notes")
    assert decide_collection(made.collection()).events == ()
    made.reports[0] = replace(made.reports[0], age_seconds=61.0)
    assert [e.reason for e in decide_collection(made.collection()).events] == ["ReportsMissing"]


# --- Reindex jobs -----------------------------------------------------------------------------


def test_what_needs_a_reindex_is_told_with_the_manifest_of_one() -> None:
    made = says(world(), differences=("model is 'old', the spec says 'embed'",))
    assert told(made, "InSync") == ("False", "NeedsReindex")
    said = condition(made, "InSync").message
    proposal = yaml.safe_load(said[said.index("{") :])
    assert proposal["metadata"] == {"name": "notes-1"}
    assert ReindexJob.model_validate(proposal).spec.collection == "notes"


def test_a_job_under_way_is_told_of_and_nothing_is_proposed() -> None:
    made = reindexed(world(), ReindexPhase.COPYING)
    assert told(made, "InSync") == ("False", "Reindexing")
    assert condition(made, "InSync").message.startswith("ReindexJob 'to-new' brings it")


def test_what_was_rolled_back_stays_so_until_the_spec_changes() -> None:
    target = ReindexTarget(generation=1)
    undone = {"reason": Reason.ROLLED_BACK, "target": target}
    made = reindexed(world(), ReindexPhase.CANCELLED, **undone)
    assert told(made, "InSync") == ("False", "RolledBack")
    differences = ("model is 'old', the spec says 'embed'",)
    assert told(says(made, differences=differences), "InSync") == ("False", "RolledBack")
    old = made.collections["notes"]
    metadata = old.metadata.model_copy(update={"generation": 2})
    made.collections["notes"] = old.model_copy(update={"metadata": metadata})
    assert told(says(decided(made), differences=differences), "InSync")[1] == "NeedsReindex"


def test_what_was_rolled_back_stays_so_although_its_pod_has_forgotten_the_job() -> None:
    target = ReindexTarget(generation=1)
    made = reindexed(world(), ReindexPhase.ROLLING_BACK, target=target)
    assert told(made, "InSync") == ("False", "Reindexing")
    over = Condition(
        type=ConditionType.COMPLETE,
        status="False",
        reason=Reason.ROLLED_BACK,
        message="spec.rollback is true",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    status = ReindexJobStatus(phase=ReindexPhase.CANCELLED, target=target, conditions=[over])
    made.add_reindexes(reindex().model_copy(update={"status": status}))
    differences = ("model is 'old', the spec says 'embed'",)
    assert told(says(made, differences=differences), "InSync") == ("False", "RolledBack")
