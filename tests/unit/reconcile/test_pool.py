"""What a pool's plan does, and what it leaves alone."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from tests.support.facts import (
    NAMESPACE,
    World,
    changed,
    heard,
    known,
    pod,
    profile,
    report,
    resource,
    revision,
    serving,
)
from ullage_api.conditions import Reason
from ullage_operator.reconcile.observed import ProfileView
from ullage_operator.reconcile.plan import Plan, Verb
from ullage_operator.reconcile.pool import decide_pool, with_conflict


def built(world: World) -> Plan:
    plan = decide_pool(world.pool())
    world.carry_out(plan)
    return plan


def objects(plan: Plan) -> dict[str, Any]:
    return {a.object_name: a.manifest for a in plan.applies}


def test_the_first_member_brings_the_whole_pool_about_in_the_order_it_is_needed() -> None:
    plan = decide_pool(World().add(resource()).pool())
    kinds = [a.manifest["kind"] for a in plan.applies]
    assert kinds == [
        "Secret",
        "ConfigMap",
        "ServiceAccount",
        "Service",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "StatefulSet",
    ]
    verbs = {a.verb for a in plan.applies if a.manifest["kind"] != "Secret"}
    assert verbs == {Verb.CREATE}


def test_a_pool_without_members_is_left_to_garbage_collection() -> None:
    assert decide_pool(World().pool()).is_empty


def test_a_pool_whose_only_member_is_being_deleted_is_left_to_garbage_collection() -> None:
    leaving = resource()
    meta = leaving.metadata.model_copy(update={"deletion_timestamp": "2026-11-20T11:00:00Z"})
    world = World().add(leaving.model_copy(update={"metadata": meta}))
    assert decide_pool(world.pool()).is_empty


def test_a_pool_without_a_profile_is_not_made() -> None:
    world = World(profile=ProfileView(None, "gone", known=("gpu",))).add(resource())
    assert decide_pool(world.pool()).is_empty


def test_every_object_belongs_to_all_members_and_blocks_none_of_them() -> None:
    plan = decide_pool(World().add(resource("b"), resource("a")).pool())
    for manifest in objects(plan).values():
        owners = manifest["metadata"]["ownerReferences"]
        assert [o["uid"] for o in owners] == ["uid-a", "uid-b"]
        assert all(o["blockOwnerDeletion"] is False and "controller" not in o for o in owners)


def test_nothing_is_labelled_with_what_gitops_tools_track_by() -> None:
    member = resource()
    meta = member.metadata.model_copy(
        update={"labels": {"app.kubernetes.io/instance": "x", "argocd.argoproj.io/instance": "x"}}
    )
    plan = decide_pool(World().add(member.model_copy(update={"metadata": meta})).pool())
    for manifest in objects(plan).values():
        labels = manifest["metadata"]["labels"]
        assert not any("instance" in key for key in labels)


def test_pods_meet_the_restricted_standard_and_hold_no_credentials() -> None:
    plan = decide_pool(World().add(resource()).pool())
    spec = objects(plan)["StatefulSet ullage-default"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert objects(plan)["ServiceAccount ullage-default"]["automountServiceAccountToken"] is False


def test_the_grace_period_covers_the_drain() -> None:
    world = World(profile=known(profile(drainSeconds=600))).add(resource())
    spec = objects(decide_pool(world.pool()))["StatefulSet ullage-default"]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 600


def test_keys_and_a_cache_volume_are_there_when_the_profile_asks_for_them() -> None:
    asked = profile(auth={"secretName": "keys"}, cache={"size": "5Gi", "storageClass": "fast"})
    plan = decide_pool(World(profile=known(asked)).add(resource()).pool())
    spec = objects(plan)["StatefulSet ullage-default"]["spec"]
    volumes = {v["name"] for v in spec["template"]["spec"]["volumes"]}
    assert "keys" in volumes
    assert "cache" not in volumes
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_an_admins_environment_variable_replaces_ours() -> None:
    asked = profile(env=[{"name": "ULLAGE_LOG_FORMAT", "value": "pretty"}])
    plan = decide_pool(World(profile=known(asked)).add(resource()).pool())
    spec = objects(plan)["StatefulSet ullage-default"]["spec"]["template"]["spec"]
    env = [e for e in spec["containers"][0]["env"] if e["name"] == "ULLAGE_LOG_FORMAT"]
    assert env == [{"name": "ULLAGE_LOG_FORMAT", "value": "pretty"}]


def test_only_the_operator_the_peers_and_the_workers_reach_the_internal_port() -> None:
    plan = decide_pool(World().add(resource()).pool())
    ingress = objects(plan)["NetworkPolicy ullage-default"]["spec"]["ingress"]
    (guarded,) = [rule for rule in ingress if rule["ports"][0]["port"] == "internal"]
    operator, peers, workers = guarded["from"]
    assert operator["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "ullage-system"
    }
    assert operator["podSelector"]["matchLabels"]
    assert peers["podSelector"]["matchLabels"]["ullage.dev/pool"] == "default"
    assert workers["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "ullage-reindex-worker",
        "ullage.dev/pool": "default",
    }


def test_the_token_is_in_its_secret_and_nowhere_else() -> None:
    world = World().add(resource())
    plan = decide_pool(world.pool())
    token = world.pool().token.value
    encoded = base64.b64encode(token.encode()).decode()
    for name, manifest in objects(plan).items():
        assert (encoded in str(manifest)) == name.startswith("Secret ")
        assert token not in str(manifest)


def test_doing_what_the_plan_says_leaves_nothing_to_do() -> None:
    world = World().add(resource(), resource("b", second=1))
    built(world)
    assert decide_pool(world.pool()).is_empty


def test_another_member_changes_the_owners_of_everything_under_its_uid() -> None:
    world = World().add(resource())
    built(world)
    plan = decide_pool(world.add(resource("b", second=1)).pool())
    assert len(plan.applies) == 8
    for write in plan.applies:
        if write.manifest["kind"] != "Secret":
            assert write.verb is Verb.APPLY
            assert write.manifest["metadata"]["uid"]


def test_the_sequence_rises_only_with_the_content_and_under_the_version_that_was_read() -> None:
    world = World().add(resource())
    built(world)
    assert world.desired.sequence == 1
    world.add(changed(world.members["chat"], serving={"maxQueue": 3}))
    plan = built(world)
    (write,) = [a for a in plan.applies if a.manifest["kind"] == "ConfigMap"]
    assert write.manifest["metadata"]["resourceVersion"]
    assert world.desired.sequence == 2
    assert decide_pool(world.pool()).is_empty


def test_a_lost_config_map_goes_on_above_what_the_pods_have_accepted() -> None:
    world = World().add(resource())
    built(world)
    world.pods[0] = pod(holds=frozenset({"chat"}))
    world.reports[0] = heard(report(acknowledged_hash="other", acknowledged=41))
    world.record = None
    built(world)
    assert world.desired.sequence == 42


def test_a_pod_that_lags_is_pushed_the_document_and_one_that_does_not_is_left_alone() -> None:
    world = World(profile=known(profile(replicas={"min": 2, "max": 2}))).add(resource())
    built(world)
    for ordinal in (0, 1):
        world.pods[ordinal] = pod(ordinal)
    world.reports[0] = heard(report(document=world.desired))
    world.reports[1] = heard(report(ordinal=1))
    plan = decide_pool(world.pool())
    assert plan.push is not None
    assert plan.push.pods == ("ullage-default-1",)
    world.carry_out(plan)
    assert decide_pool(world.pool()).is_empty


def test_pods_say_by_label_which_models_are_placed_on_them() -> None:
    world = World(profile=known(profile(replicas={"min": 2, "max": 2})))
    world.add(resource("a"), resource("b", second=1))
    built(world)
    world.pods = {0: pod(0), 1: pod(1)}
    plan = decide_pool(world.pool())
    labels = {
        a.manifest["metadata"]["name"]: a.manifest["metadata"]["labels"] for a in plan.applies
    }
    assert labels == {
        "ullage-default-0": {"models.ullage.dev/a": "holds"},
        "ullage-default-1": {"models.ullage.dev/b": "holds"},
    }


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    world = World().add(resource())
    built(world)
    key = ("StatefulSet", "ullage-default")
    world.children[key] = replace(world.children[key], deleting=True, spec_hash="old")
    plan = decide_pool(world.pool())
    assert not plan.applies
    assert plan.requeue_after == 1.0
    assert "is being deleted" in plan.why[-1]


def test_objects_of_an_older_operator_are_removed() -> None:
    world = World().add(resource())
    built(world)
    old = replace(world.children["Service", "ullage-default"], name="ullage-default-old", uid="x")
    world.children["Service", "ullage-default-old"] = old
    (delete,) = decide_pool(world.pool()).deletes
    assert (delete.kind, delete.name, delete.uid) == ("Service", "ullage-default-old", "x")


@pytest.mark.parametrize(("age", "applied"), [(5.0, False), (60.0, True)])
def test_the_secret_is_applied_again_when_a_pod_cannot_mount(age: float, applied: bool) -> None:  # noqa: FBT001
    world = World().add(resource())
    built(world)
    world.pods[0] = pod(
        ready=False,
        ip=None,
        trouble="ContainerCreating",
        age_seconds=age,
        holds=frozenset({"chat"}),
    )
    kinds = [a.manifest["kind"] for a in decide_pool(world.pool()).applies]
    assert kinds == (["Secret"] if applied else [])


def test_a_broken_profile_leaves_the_pool_on_the_last_good_one() -> None:
    world = World(profile=known(profile(drainSeconds=77))).add(resource())
    built(world)
    world.profile = ProfileView(None, "image: missing", exists=True)
    assert decide_pool(world.pool()).is_empty


def test_a_model_whose_alias_is_taken_is_not_in_the_document() -> None:
    world = World().add(
        resource("new", second=5, aliases=["light"]), resource("old", aliases=["light"])
    )
    built(world)
    assert [m.name for m in world.desired.models] == ["old"]


def test_a_suspended_model_stays_in_the_document_without_a_place_and_the_pods_stay() -> None:
    world = World().add(resource(suspend=True))
    built(world)
    (model,) = world.desired.models
    assert model.suspended
    assert model.ordinals == ()
    assert world.replicas == 1


def test_the_youngest_models_are_left_out_of_a_full_document_and_told_so() -> None:
    big = {"serving": {"maxQueue": 1}, "aliases": [f"alias-{'x' * 110}-{i}" for i in range(16)]}
    world = World()
    for index in range(600):
        given = {**big, "aliases": [f"{a}-{index}" for a in big["aliases"]]}
        world.add(resource(f"m{index:03d}", second=index % 60, **given))
    plan = decide_pool(world.pool())
    assert plan.note is not None
    assert plan.note.reason is Reason.POOL_FULL
    assert "KiB" in plan.note.message
    data = objects(plan)["ConfigMap ullage-default"]["data"]["desired.json"]
    assert len(data.encode()) <= 900 << 10
    left = set(plan.note.models)
    ages = {name: m.metadata.creation_timestamp for name, m in world.members.items()}
    assert min(ages[n] or "" for n in left) >= max(ages[n] or "" for n in ages.keys() - left)


def test_a_name_that_is_taken_is_told_to_every_member() -> None:
    plan = with_conflict(decide_pool(World().add(resource()).pool()), "Service ullage-default")
    assert plan.note is not None
    assert plan.note.reason is Reason.NAME_TAKEN
    assert plan.note.concerns("chat")
    assert "Service ullage-default" in plan.note.message


def test_placement_follows_what_models_were_measured_to_take() -> None:
    world = World(profile=known(profile(replicas={"min": 2, "max": 2})))
    big, small = resource("big"), resource("small", second=1)
    world.add(big, small)
    built(world)
    assert world.desired.models[0].ordinals != world.desired.models[1].ordinals
    world.pods = {0: pod(0), 1: pod(1)}
    world.reports[0] = heard(report(serving(big, active=revision(resident_bytes=10**9))))
    world.reports[1] = heard(report(serving(small, active=revision(resident_bytes=10))))
    world.add(resource("third", second=2))
    built(world)
    placed = {m.name: m.ordinals for m in world.desired.models}
    assert placed["third"] == placed["small"]
    assert world.pool().namespace == NAMESPACE
