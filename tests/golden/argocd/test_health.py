"""Argo CD's view of a model: its health script, run by a real Lua over objects of every state.

The objects in Argo's own layout are what the operator writes in each state; `make golden` records
them anew after a change that is meant.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from tests.support.facts import (
    World,
    coming,
    heard,
    pod,
    report,
    resource,
    serving,
    silent,
    told,
)
from tests.unit.reconcile import test_revisions as stories
from tests.unit.reconcile.test_model import now, placed, says, served
from ullage_api.conditions import Reason
from ullage_api.kinds.model_status import ModelDeploymentStatus
from ullage_api.kinds.rollout import Transition
from ullage_operator.reconcile.observed import ProfileView

CHARTS = Path(__file__).resolve().parents[3] / "charts"
FOLDER = CHARTS / "argocd/resource_customizations/ullage.dev/ModelDeployment"
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


STATES: dict[str, tuple[str, Callable[[], World]]] = {
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


def plain(world: World) -> dict[str, Any]:
    member = world.members["chat"]
    found = member.to_wire()
    found["metadata"] = {
        name: value
        for name, value in found["metadata"].items()
        if name in {"name", "namespace", "generation", "annotations"} and value
    }
    return found


def health(found: dict[str, Any]) -> dict[str, str]:
    """Run the script as Argo CD does: on Lua 5.1, with the object as the global `obj`."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    allowed = {"obj", "ipairs", "pairs", "tostring", "tonumber", "type", "string", "table", "math"}
    for name in list(lua.globals()):
        if name not in allowed:
            lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(found, recursive=True)
    return dict(lua.execute((FOLDER / "health.lua").read_text()))


def recorded() -> dict[str, Any]:
    listed = yaml.safe_load((FOLDER / "health_test.yaml").read_text())["tests"]
    return {test["inputPath"]: test["healthStatus"] for test in listed}


@pytest.mark.parametrize("state", STATES)
def test_argo_sees_each_state_as_it_is(state: str) -> None:
    expected, build = STATES[state]
    found = plain(build())
    seen = health(found)
    assert seen["status"] == expected, seen
    path = FOLDER / "testdata" / f"{state}.yaml"
    text = yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True)
    if UPDATE:
        path.write_text(text)
    assert path.read_text() == text, "meant? run `make golden`"


def test_argos_own_list_of_tests_is_complete_and_says_what_the_script_says() -> None:
    files = {f"testdata/{state}.yaml": state for state in STATES}
    said = {path: health(yaml.safe_load((FOLDER / path).read_text())) for path in sorted(files)}
    if UPDATE:
        tests = [{"healthStatus": said[path], "inputPath": path} for path in sorted(files)]
        text = yaml.safe_dump({"tests": tests}, sort_keys=False, width=100, allow_unicode=True)
        (FOLDER / "health_test.yaml").write_text(text)
    assert recorded() == said
    assert {p.name for p in (FOLDER / "testdata").iterdir()} == {f"{s}.yaml" for s in STATES}


def test_the_patch_for_argos_config_map_has_the_script_and_only_what_the_crd_has() -> None:
    patch = yaml.safe_load((CHARTS / "ullage/files/argocd/argocd-cm.yaml").read_text())["data"]
    kind = "ullage.dev_ModelDeployment"
    script = patch[f"resource.customizations.health.{kind}"]
    assert script.rstrip() == (FOLDER / "health.lua").read_text().rstrip()
    ignored = yaml.safe_load(patch[f"resource.customizations.ignoreResourceUpdates.{kind}"])
    known = ModelDeploymentStatus.model_json_schema(by_alias=True)["properties"]
    for pointer in ignored["jsonPointers"]:
        _, status, name = pointer.split("/")
        assert status == "status"
        assert name in known
