"""Argo CD's view of our kinds: their health scripts, run by a real Lua over every state.

The objects in Argo's own layout are what the operator writes in each state; `make golden` records
them anew after a change that is meant.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.support.argo_health import CHARTS, FOLDER, health
from tests.support.facts import (
    World,
    collection,
    coming,
    embedder,
    heard,
    known,
    pod,
    profile,
    reindex,
    report,
    resource,
    serving,
    silent,
    told,
)
from tests.unit.reconcile import test_collection as stocks
from tests.unit.reconcile import test_reindex as jobs
from tests.unit.reconcile import test_revisions as stories
from tests.unit.reconcile.test_model import now, placed, says, served
from ullage_api.conditions import Reason
from ullage_api.kinds.base import KubeModel, Resource
from ullage_api.kinds.collection_status import VectorCollectionStatus
from ullage_api.kinds.model_status import ModelDeploymentStatus
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.reindex_status import ReindexJobStatus, ReindexTarget
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pod_report import CollectionState
from ullage_operator.reconcile.observed import ProfileView

UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"


def decided(world: World) -> World:
    now(world)
    return world


def loading() -> World:
    return decided(says(placed(), coming(resource(), Reason.LOADING, "loading revision r1")))


def rejected() -> World:
    message = "needs 14.2 GiB; the pool's budget is 9.8 GiB"
    return decided(says(placed(), coming(resource(), Reason.WILL_NEVER_FIT, message, final=True)))


def unknown_pool() -> World:
    world = World(profile=ProfileView(None, known=("default",))).add(resource())
    return decided(world)


def suspended() -> World:
    return decided(placed(resource(suspend=True)))


def idle() -> World:
    world = served()
    member = world.members["chat"]
    return decided(says(world, serving(member, active=None, reason=Reason.IDLE, residency="Disk")))


def warm() -> World:
    world = served()
    member = world.members["chat"]
    kept = serving(member, active=None, reason=Reason.WARM, residency="Warm", host_bytes=21 << 20)
    return decided(says(world, kept))


def silenced() -> World:
    world = served()
    world.reports[0] = silent()
    return decided(world)


def pods_away() -> World:
    world = served()
    world.pods[0] = pod(ready=False)
    return decided(world)


def swapping() -> World:
    world = stories.good(stories.V1)
    world.add(stories.replace_status(world, stories.V2))
    stories.pass_on(world)
    new, old = told(stories.V2), told(stories.V1)
    said = {"reason": Reason.LOADING, "transition": Transition.IN_PROGRESS}
    return decided(says(world, stories.entry(stories.V2, old, new, **said)))


def unseen() -> World:
    world = stories.good(stories.V1)
    return world.add(stories.replace_status(world, stories.V2))


def blocked() -> World:
    return stories.failed(stories.V2, stories.good(stories.V1))


def rolled_back() -> World:
    world = swapping()
    new, old = told(stories.V2), told(stories.V1)
    said = {
        "reason": Reason.ROLLED_BACK,
        "message": "12 of 100 requests failed, 1 of 100 before",
        "transition": Transition.ROLLED_BACK,
        "final": True,
    }
    return decided(says(world, stories.entry(stories.V2, old, new, **said)))


def held_by_hand() -> World:
    world = stories.good(stories.V2, stories.good(stories.V1))
    stories.asked_back(world, told(stories.V1).revision)
    old = told(stories.V1)
    return decided(says(world, stories.entry(stories.V2, old, old)))


def failing() -> World:
    world = served()
    member = world.members["chat"]
    said = coming(member, Reason.CRASH_LOOPING, "the engine's process died 5 times")
    world.reports[0] = heard(report(said, document=world.desired))
    return decided(world)


def new_collection() -> World:
    return World().add_collections(collection())


def dropping() -> World:
    return stocks.decided(stocks.deleted(stocks.says(stocks.world(deletionPolicy="Delete"))))


def crowded() -> World:
    world = World(profile=known(profile(replicas={"min": 1, "max": 2})))
    return stocks.decided(world.add(embedder()).add_collections(collection()))


def being_reindexed(phase: ReindexPhase, reason: Reason = Reason.REINDEXING) -> World:
    target = ReindexTarget(generation=1)
    return stocks.reindexed(stocks.world(), phase, reason=reason, target=target)


COLLECTIONS: dict[str, tuple[str, Callable[[], World]]] = {
    "new": ("Progressing", new_collection),
    "waiting_for_pods": (
        "Progressing",
        lambda: stocks.decided(World().add(embedder()).add_collections(collection())),
    ),
    "opening": (
        "Progressing",
        lambda: stocks.says(
            stocks.world(),
            state=CollectionState.OPENING,
            message="it waits for model 'embed'",
            physical=None,
        ),
    ),
    "serving": ("Healthy", lambda: stocks.says(stocks.world())),
    "indexing": ("Healthy", lambda: stocks.says(stocks.world(), is_indexed=False)),
    "needs_reindex": (
        "Degraded",
        lambda: stocks.says(stocks.world(), differences=("distance is Cosine, wanted is Dot",)),
    ),
    "being_reindexed": ("Progressing", lambda: being_reindexed(ReindexPhase.COPYING)),
    "reindex_rolled_back": (
        "Degraded",
        lambda: being_reindexed(ReindexPhase.CANCELLED, Reason.ROLLED_BACK),
    ),
    "store_away": (
        "Degraded",
        lambda: stocks.says(
            stocks.world(), state=CollectionState.FAILED, message="connection refused"
        ),
    ),
    "refused": ("Degraded", crowded),
    "deleting": ("Progressing", dropping),
}


def job_is(phase: ReindexPhase, reason: Reason = Reason.REINDEXING, **fields: Any) -> World:
    world = jobs.told()
    jobs.say(world, phase, reason=reason, **fields)
    return world


def orphaned_job() -> World:
    world = World().add_collections(collection("other")).add_reindexes(reindex())
    jobs.settle(world)
    return world


REINDEXES: dict[str, tuple[str, Callable[[], World]]] = {
    "new": ("Progressing", lambda: World().add_reindexes(reindex())),
    "unknown_collection": ("Degraded", orphaned_job),
    "queued": ("Progressing", lambda: job_is(ReindexPhase.QUEUED, Reason.TARGET_BUSY)),
    "copying": ("Progressing", lambda: job_is(ReindexPhase.COPYING)),
    "paused": ("Suspended", lambda: job_is(ReindexPhase.PAUSED, Reason.SUSPENDED)),
    "awaits_approval": (
        "Suspended",
        lambda: job_is(ReindexPhase.READY_TO_SWITCH, Reason.WAITING_FOR_APPROVAL),
    ),
    "soaking": ("Progressing", lambda: job_is(ReindexPhase.SOAKING, Reason.SOAKING, switched=True)),
    "succeeded": (
        "Healthy",
        lambda: job_is(ReindexPhase.SUCCEEDED, Reason.SUCCEEDED, switched=True),
    ),
    "cancelled": ("Healthy", lambda: job_is(ReindexPhase.CANCELLED, Reason.CANCELLED)),
    "failed": ("Degraded", lambda: job_is(ReindexPhase.FAILED, Reason.VERIFICATION_FAILED)),
}

MODELS: dict[str, tuple[str, Callable[[], World]]] = {
    "new": ("Progressing", lambda: World().add(resource())),
    "unseen_change": ("Progressing", unseen),
    "waiting_for_pods": ("Progressing", lambda: decided(placed())),
    "loading": ("Progressing", loading),
    "serving": ("Healthy", served),
    "idle": ("Healthy", idle),
    "warm": ("Healthy", warm),
    "silent": ("Healthy", silenced),
    "pods_away": ("Progressing", pods_away),
    "suspended": ("Suspended", suspended),
    "unknown_pool": ("Degraded", unknown_pool),
    "never_fits": ("Degraded", rejected),
    "crash_looping": ("Degraded", failing),
    "swapping": ("Progressing", swapping),
    "blocked": ("Degraded", blocked),
    "rolled_back": ("Degraded", rolled_back),
    "held_by_hand": ("Suspended", held_by_hand),
}


KINDS = {
    "ModelDeployment": MODELS,
    "VectorCollection": COLLECTIONS,
    "ReindexJob": REINDEXES,
}
CASES = [(kind, state) for kind, states in KINDS.items() for state in states]
STATUSES: dict[str, type[KubeModel]] = {
    "ModelDeployment": ModelDeploymentStatus,
    "VectorCollection": VectorCollectionStatus,
    "ReindexJob": ReindexJobStatus,
}


def plain(kind: str, world: World) -> dict[str, Any]:
    members: dict[str, Callable[[], Resource]] = {
        "ModelDeployment": lambda: world.members["chat"],
        "VectorCollection": lambda: world.collections["notes"],
        "ReindexJob": lambda: world.reindexes[jobs.JOB],
    }
    member = members[kind]()
    found = member.to_wire()
    found["metadata"] = {
        name: value
        for name, value in found["metadata"].items()
        if name in {"name", "namespace", "generation", "annotations"} and value
    }
    return found


@pytest.mark.parametrize(("kind", "state"), CASES)
def test_argo_sees_each_state_as_it_is(kind: str, state: str) -> None:
    expected, build = KINDS[kind][state]
    found = plain(kind, build())
    seen = health(kind, found)
    assert seen["status"] == expected, seen
    path = FOLDER / kind / "testdata" / f"{state}.yaml"
    text = yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True)
    if UPDATE:
        path.write_text(text)
    assert path.read_text() == text, "meant? run `make golden`"


@pytest.mark.parametrize("kind", KINDS)
def test_argos_own_list_of_tests_is_complete_and_says_what_the_script_says(kind: str) -> None:
    folder = FOLDER / kind
    files = [f"testdata/{state}.yaml" for state in sorted(KINDS[kind])]
    said = {path: health(kind, yaml.safe_load((folder / path).read_text())) for path in files}
    if UPDATE:
        tests = [{"healthStatus": said[path], "inputPath": path} for path in files]
        text = yaml.safe_dump({"tests": tests}, sort_keys=False, width=100, allow_unicode=True)
        (folder / "health_test.yaml").write_text(text)
    listed = yaml.safe_load((folder / "health_test.yaml").read_text())["tests"]
    assert {test["inputPath"]: test["healthStatus"] for test in listed} == said
    assert {p.name for p in (folder / "testdata").iterdir()} == {f"{s}.yaml" for s in KINDS[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_patch_for_argos_config_map_has_the_script_and_only_what_the_crd_has(kind: str) -> None:
    patch = yaml.safe_load((CHARTS / "ullage/files/argocd/argocd-cm.yaml").read_text())["data"]
    script = patch[f"resource.customizations.health.ullage.dev_{kind}"]
    assert script.rstrip() == (FOLDER / kind / "health.lua").read_text().rstrip()
    said = patch[f"resource.customizations.ignoreResourceUpdates.ullage.dev_{kind}"]
    known_fields = STATUSES[kind].model_json_schema(by_alias=True)["properties"]
    for pointer in yaml.safe_load(said)["jsonPointers"]:
        _, status, name = pointer.split("/")
        assert status == "status"
        assert name in known_fields
