"""What a model's status says, and when it says it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.facts import (
    MIB,
    NAMESPACE,
    World,
    changed,
    coming,
    condition,
    heard,
    known,
    pod,
    profile,
    report,
    resource,
    revision,
    serving,
    silent,
    with_status,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import Eviction
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import DeviceKind, ReportedDevice
from ullage_operator.reconcile.model import decide_model, file_name
from ullage_operator.reconcile.observed import PoolNote, ProfileView
from ullage_operator.reconcile.plan import Plan, Verb
from ullage_operator.reconcile.pool import decide_pool

GIB = 1 << 30


def placed(*members: Any, pods: int = 1, **asked: Any) -> World:
    """Return a world whose pool has placed its models on pods that are up."""
    size = {"replicas": {"min": pods, "max": pods}, **asked}
    world = World(profile=known(profile(**size))).add(*(members or (resource(),)))
    world.carry_out(decide_pool(world.pool()))
    for ordinal in range(pods):
        world.pods[ordinal] = pod(ordinal)
        world.reports[ordinal] = heard(report(ordinal=ordinal, document=world.desired))
    world.carry_out(decide_pool(world.pool()))
    return world


def says(world: World, *entries: Any, ordinal: int = 0, age: float = 1.0) -> World:
    document = world.desired
    world.reports[ordinal] = heard(report(*entries, ordinal=ordinal, document=document), age)
    return world


def served(**spec: Any) -> World:
    """Return a world in which the model has served, and its status says so."""
    member = resource(**spec)
    world = says(placed(member), serving(member))
    world.carry_out(decide_model(world.model()), "chat")
    return world


def now(world: World, name: str = "chat") -> Plan:
    plan = decide_model(world.model(name))
    world.carry_out(plan, name)
    return plan


def ready(world: World, name: str = "chat") -> tuple[str, str]:
    status = world.members[name].status
    found = condition(status.to_wire() if status else {}, "Ready")
    return found.status, found.reason


def test_a_new_model_gets_its_service_and_a_first_status() -> None:
    world = World().add(resource())
    plan = decide_model(world.model())
    (write,) = plan.applies
    assert (write.verb, write.object_name) == (Verb.CREATE, "Service chat-model")
    assert write.manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-chat"
    assert condition(plan, "Ready").status == "Unknown"
    assert condition(plan, "Ready").reason == "Pending"
    assert plan.status is not None
    assert plan.status["url"] == f"http://chat-model.{NAMESPACE}.svc/v1"
    assert plan.status["model"] == "chat.gguf"


def test_a_model_that_serves_says_what_it_takes_and_where_it_is() -> None:
    member = resource()
    world = says(placed(member), serving(member))
    plan = now(world)
    assert ready(world) == ("True", "Serving")
    status = plan.status
    assert status is not None
    assert status["activeRevision"] == status["targetRevision"] == "r1"
    assert status["memory"] == {
        "residency": "Resident",
        "estimatedBytes": 24 * MIB,
        "residentBytes": 25 * MIB,
        "resident": "25.0 MiB",
    }
    assert status["engine"] == "LlamaCpp"
    assert status["placements"] == [
        {"pod": "ullage-default-0", "residency": "Resident", "revision": "r1"}
    ]
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["selector"] == "ullage.dev/pool=default,models.ullage.dev/chat=holds"
    assert condition(plan, "Progressing").reason == "UpToDate"
    assert condition(plan, "WeightsReady").message == f"20.0 MiB, sha256 {'a' * 64}"


def test_a_status_that_already_says_so_is_not_written() -> None:
    world = served()
    assert decide_model(world.model()).is_empty


def test_bytes_that_waver_are_not_written() -> None:
    world = served()
    member = world.members["chat"]
    says(world, serving(member, active=revision(resident_bytes=25 * MIB - 3000)))
    assert decide_model(world.model()).is_empty


@pytest.mark.parametrize(
    "reason",
    [Reason.FETCHING, Reason.LOADING, Reason.WAITING_FOR_MEMORY, Reason.SOURCE_UNAVAILABLE],
)
def test_ready_is_unknown_until_a_first_revision_has_served(reason: Reason) -> None:
    member = resource()
    world = says(placed(member), coming(member, reason, "words"))
    now(world)
    assert ready(world) == ("Unknown", reason.value)
    assert condition(world.members["chat"].status.to_wire(), "Progressing").status == "True"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "reason",
    [
        Reason.INVALID_MODEL,
        Reason.CHECKSUM_MISMATCH,
        Reason.WILL_NEVER_FIT,
        Reason.SOURCE_UNAVAILABLE,
    ],
)
def test_ready_is_false_when_only_a_change_of_the_spec_can_help(reason: Reason) -> None:
    member = resource()
    world = says(placed(member), coming(member, reason, "needs 14.2 GiB", final=True))
    plan = now(world)
    assert ready(world) == ("False", reason.value)
    assert condition(plan, "Ready").message == "needs 14.2 GiB"
    assert condition(plan, "Progressing").status == "False"
    assert [(e.reason, e.warning) for e in plan.events if e.reason == reason] == [(reason, True)]


@pytest.mark.parametrize("reason", [Reason.LOAD_FAILED, Reason.CRASH_LOOPING])
def test_ready_is_false_while_an_engine_keeps_failing_and_progress_goes_on(reason: Reason) -> None:
    member = resource()
    world = says(placed(member), coming(member, reason, "signal 11"))
    plan = now(world)
    assert ready(world) == ("False", reason.value)
    assert condition(plan, "Progressing").status == "True"


def test_a_failed_target_leaves_ready_true_while_the_old_revision_serves() -> None:
    world = served()
    member = world.add(changed(world.members["chat"], model={"uri": "file:bad.gguf"}))
    chat = member.members["chat"]
    failed = serving(
        chat,
        reason=Reason.INVALID_MODEL,
        final=True,
        message="not a GGUF file",
        target=revision("r2", uri="file:bad.gguf"),
    )
    plan = now(says(world, failed))
    assert ready(world) == ("True", "Serving")
    found = condition(plan, "Progressing")
    assert (found.status, found.reason) == ("False", "InvalidModel")
    assert "not a GGUF file" in found.message
    assert plan.status is not None
    assert (plan.status["activeRevision"], plan.status["targetRevision"]) == ("r1", "r2")


def test_words_about_an_older_spec_do_not_count() -> None:
    member = resource()
    world = says(placed(member), coming(member, Reason.INVALID_MODEL, final=True))
    now(world)
    assert ready(world) == ("False", "InvalidModel")
    world.add(changed(world.members["chat"], model={"uri": "file:good.gguf"}))
    plan = now(world)
    assert ready(world) == ("Unknown", "Pending")
    assert plan.status is not None
    assert plan.status["observedGeneration"] == 2


def test_a_report_about_a_predecessor_of_the_same_name_does_not_count() -> None:
    member = resource()
    world = says(placed(member), serving(member, uid="uid-of-another"))
    now(world)
    assert ready(world) == ("Unknown", "Pending")


def test_suspension_never_makes_ready_false() -> None:
    world = served()
    world.add(changed(world.members["chat"], suspend=True))
    now(world)
    assert ready(world) == ("True", "Suspended")
    fresh = World().add(resource(suspend=True))
    now(fresh)
    assert ready(fresh) == ("Unknown", "Suspended")


def test_a_suspended_model_is_on_disk_only_once_its_pod_says_so() -> None:
    world = served()
    world.add(changed(world.members["chat"], suspend=True))
    world.carry_out(decide_pool(world.pool()))
    plan = now(world)
    assert plan.status is not None
    assert plan.status["memory"]["residency"] == "Resident"
    says(world, coming(world.members["chat"], Reason.SUSPENDED))
    plan = now(world)
    assert plan.status is not None
    assert plan.status["memory"]["residency"] == "Disk"
    assert "residentBytes" not in plan.status["memory"]


def test_zero_replicas_count_as_suspended() -> None:
    world = served()
    world.add(changed(world.members["chat"], replicas=0))
    plan = now(world)
    assert "spec.replicas is 0" in condition(plan, "Ready").message
    found = condition(plan, "Progressing")
    assert (found.status, found.reason) == ("False", "Suspended")


def test_a_model_that_comes_back_stays_ready_for_requests_wait() -> None:
    world = served()
    member = world.members["chat"]
    now(says(world, coming(member, Reason.LOADING, residency=Residency.LOADING)))
    assert ready(world) == ("True", "Loading")


def test_a_pool_whose_pods_are_away_is_unknown_and_remembers() -> None:
    world = served()
    world.pods[0] = replace(world.pods[0], ready=False)
    plan = now(world)
    assert ready(world) == ("Unknown", "WaitingForPods")
    assert plan.status is not None
    assert plan.status["activeRevision"] == "r1"
    assert plan.status["readyReplicas"] == 0


def test_pods_that_keep_dying_are_a_failure_with_numbers() -> None:
    world = served()
    world.pods[0] = replace(
        world.pods[0],
        ready=False,
        restarts=7,
        trouble="CrashLoopBackOff",
        trouble_message="last ended with OOMKilled, exit code 137",
    )
    plan = now(world)
    assert ready(world) == ("False", "CrashLooping")
    assert "7 restarts" in condition(plan, "Ready").message
    assert "OOMKilled" in condition(plan, "Ready").message


def test_a_pod_that_cannot_start_says_why() -> None:
    world = placed()
    world.pods[0] = replace(
        world.pods[0],
        ready=False,
        trouble="ImagePullBackOff",
        trouble_message="image x cannot be pulled",
    )
    plan = now(world)
    assert "image x cannot be pulled" in condition(plan, "Ready").message


def test_old_reports_are_no_all_clear_and_no_failure_either() -> None:
    world = served()
    says(world, serving(world.members["chat"]), age=61)
    plan = now(world)
    assert ready(world) == ("True", "ReportsMissing")
    assert condition(plan, "Progressing").status == "Unknown"
    assert any(e.warning and e.reason == "ReportsMissing" for e in plan.events)
    assert plan.status is not None
    assert plan.status["memory"]["residency"] == "Resident"
    assert plan.status["readyReplicas"] == 1
    assert decide_model(world.model()).is_empty


def test_a_model_that_never_served_is_unknown_when_reports_are_missing() -> None:
    world = placed()
    world.reports[0] = silent()
    now(world)
    assert ready(world) == ("Unknown", "ReportsMissing")


def test_a_restarted_operator_waits_for_the_pods_before_it_says_anything() -> None:
    world = served()
    world.reports[0] = silent(awaited=0.5)
    plan = decide_model(world.model())
    assert plan.is_empty
    assert plan.requeue_after == 1.0


def test_a_new_model_does_not_wait_for_reports_to_be_noticed() -> None:
    world = placed()
    world.reports[0] = silent(awaited=0.5)
    now(world)
    assert ready(world) == ("Unknown", "Pending")


def test_an_unknown_pool_lists_the_known_ones() -> None:
    world = World(profile=ProfileView(None, known=("default", "gpu"))).add(resource())
    plan = now(world)
    assert ready(world) == ("False", "UnknownPool")
    assert (
        condition(plan, "Accepted").message
        == "there is no pool 'default'; known pools: default, gpu"
    )
    assert not plan.applies


def test_a_broken_profile_without_a_predecessor_says_what_is_wrong() -> None:
    world = World(profile=ProfileView(None, "image: missing", exists=True)).add(resource())
    plan = now(world)
    assert "image: missing" in condition(plan, "Accepted").message
    assert condition(plan, "Accepted").reason == "UnknownPool"


def test_a_profile_that_breaks_later_is_a_warning() -> None:
    world = served()
    world.profile = ProfileView(None, "image: missing", exists=True)
    plan = now(world)
    found = condition(plan, "Accepted")
    assert (found.status, found.reason) == ("True", "ProfileMissing")
    assert ready(world) == ("True", "Serving")
    assert [e.reason for e in plan.events] == ["ProfileMissing"]
    assert plan.events[0].warning


def test_the_older_of_two_models_with_one_alias_wins_and_is_named() -> None:
    world = World().add(
        resource("new", second=5, aliases=["light"]), resource("old", aliases=["light"])
    )
    plan = decide_model(world.model("new"))
    found = condition(plan, "Accepted")
    assert (found.status, found.reason) == ("False", "AliasTaken")
    assert "'old'" in found.message
    assert condition(decide_model(world.model("old")), "Accepted").status == "True"


def test_a_name_that_is_taken_is_told_with_the_object() -> None:
    world = World(taken=("Service chat-model",)).add(resource())
    plan = decide_model(world.model())
    assert condition(plan, "Ready").reason == "NameTaken"
    assert "Service chat-model" in condition(plan, "Ready").message
    assert plan.requeue_after == 30.0


def test_a_full_pool_is_told_to_those_it_concerns() -> None:
    world = World(note=PoolNote(Reason.POOL_FULL, "full", ("other",))).add(resource())
    assert condition(decide_model(world.model()), "Accepted").status == "True"
    world.note = PoolNote(Reason.POOL_FULL, "full", ("chat",))
    assert condition(decide_model(world.model()), "Accepted").reason == "PoolFull"


def test_a_profile_that_the_api_server_refuses_leaves_what_runs() -> None:
    world = served()
    world.note = PoolNote(Reason.PROFILE_MISSING, "the API server refused StatefulSet x: 422")
    plan = now(world)
    assert condition(plan, "Accepted").message.startswith("the API server refused")
    assert ready(world) == ("True", "Serving")


def test_progress_of_a_fetch_is_shown_in_tenths() -> None:
    member = resource()
    world = placed(member)
    words = set()
    for percent in range(101):
        entry = coming(
            member,
            Reason.FETCHING,
            fetched_bytes=percent * GIB // 100,
            fetch_total_bytes=GIB,
        )
        words.add(condition(decide_model(says(world, entry).model()), "Ready").message)
    assert len(words) == 11
    assert "fetching, 40 % of 1.0 GiB" in words


def test_some_of_several_pods_on_the_target_is_a_rollout() -> None:
    member = resource(replicas=2)
    world = placed(member, pods=2)
    says(world, serving(member))
    says(world, serving(member, target=revision("r2")), ordinal=1)
    plan = now(world)
    found = condition(plan, "Progressing")
    assert (found.status, found.reason) == ("True", "RollingOut")
    assert found.message == "1 of 2 pods serve the target"


def test_more_replicas_than_the_pool_has_pods_is_said() -> None:
    member = resource(replicas=5)
    world = says(placed(member), serving(member))
    plan = now(world)
    assert "5 replicas are asked for" in condition(plan, "Progressing").message


def test_each_transition_is_one_event_and_pending_is_none() -> None:
    member = resource()
    world = placed(member)
    first = now(world)
    assert [e.reason for e in first.events] == ["Accepted"]
    second = now(says(world, serving(member)))
    assert sorted(e.reason for e in second.events) == ["Fetched", "Serving", "UpToDate"]
    assert not any(e.warning for e in second.events)


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    world = served()
    before = condition(world.members["chat"].status.to_wire(), "Ready")  # type: ignore[union-attr]
    world.now = world.now.replace(hour=15)
    world.add(changed(world.members["chat"], serving={"maxQueue": 1}))
    member = world.members["chat"]
    plan = now(says(world, serving(member)))
    assert condition(plan, "Ready").last_transition_time == before.last_transition_time


def test_a_model_that_is_being_deleted_is_left_alone() -> None:
    member = resource()
    meta = member.metadata.model_copy(update={"deletion_timestamp": "2026-11-20T11:00:00Z"})
    world = World().add(member.model_copy(update={"metadata": meta}))
    assert decide_model(world.model()).is_empty


def test_a_service_that_is_being_deleted_is_waited_for() -> None:
    world = served()
    now(world)
    world.services["chat"] = replace(world.services["chat"], deleting=True)
    plan = decide_model(world.model())
    assert plan.is_empty
    assert plan.requeue_after == 1.0


def test_status_of_another_hand_is_put_right() -> None:
    world = served()
    raw = world.members["chat"].status.to_wire() | {"readyReplicas": 9}  # type: ignore[union-attr]
    world.members["chat"] = with_status(world.members["chat"], raw)
    plan = decide_model(world.model())
    assert plan.status is not None
    assert plan.status["readyReplicas"] == 1


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:guide-v1.gguf", "guide-v1.gguf"),
        ("file:///models/a/b.gguf", "b.gguf"),
        ("https://example.com/m/x.gguf?download=true#y", "x.gguf"),
        ("hf://owner/repo/sub/q4.gguf@main", "q4.gguf"),
        ("hf://owner/repo/q4.gguf", "q4.gguf"),
    ],
)
def test_a_uri_is_shown_as_its_files_name(uri: str, name: str) -> None:
    assert file_name(uri) == name


def test_a_pod_that_is_ending_is_said_to_be() -> None:
    world = served()
    world.pods[0] = replace(world.pods[0], deleting=True)
    assert condition(now(world), "Ready").message == "pod ullage-default-0 is ending"


def test_a_model_that_moves_into_memory_is_loading_whatever_its_pod_calls_it() -> None:
    member = resource()
    world = placed(member)
    entry = coming(member, Reason.PENDING, residency=Residency.LOADING)
    now(says(world, entry))
    assert ready(world) == ("Unknown", "Loading")


def test_weights_known_for_an_older_spec_say_nothing_of_the_new_one() -> None:
    world = served()
    world.add(changed(world.members["chat"], model={"uri": "file:another.gguf"}))
    assert condition(now(world), "WeightsReady").status == "Unknown"


def test_what_answers_for_an_older_spec_is_not_yet_up_to_date() -> None:
    world = served()
    old = world.members["chat"]
    world.add(changed(old, engine={"contextLength": 64}))
    found = condition(now(says(world, serving(old))), "Progressing")
    assert (found.status, found.reason) == ("True", "Pending")
    assert "generation 2" in found.message
    assert ready(world) == ("True", "Serving")


def left(member: Any, second: int = 0, reason: Reason = Reason.IDLE, **fields: Any) -> Any:
    """Return a model that has shown that it serves, and left memory."""
    gone = Eviction(
        time=f"2026-11-20T12:00:{second:02d}Z", rule="Demand", beneficiary="other", bytes=25 * MIB
    )
    target = revision(uri=member.spec.model.uri, resident_bytes=None)
    return coming(
        member,
        reason,
        "left memory",
        weights_ready=True,
        target=target,
        last_eviction=gone,
        **fields,
    )


def test_a_model_that_waits_in_host_memory_is_ready_and_tells_what_that_takes() -> None:
    world = served()
    member = world.members["chat"]
    kept = left(member, reason=Reason.WARM, residency="Warm", host_bytes=25 * MIB)
    plan = now(says(world, kept))
    assert ready(world) == ("True", "Warm")
    assert condition(plan, "Progressing").reason == "UpToDate"
    assert plan.status is not None
    memory = plan.status["memory"]
    assert (memory["residency"], memory["hostBytes"]) == ("Warm", 25 * MIB)
    assert "residentBytes" not in memory
    assert [placement["residency"] for placement in plan.status["placements"]] == ["Warm"]


def test_a_model_that_left_memory_is_ready_and_tells_why_it_left() -> None:
    world = served()
    member = world.members["chat"]
    plan = now(says(world, left(member)))
    assert ready(world) == ("True", "Idle")
    assert condition(plan, "Progressing").reason == "UpToDate"
    assert "with the next request" in condition(plan, "Progressing").message
    status = plan.status
    assert status is not None
    assert status["memory"]["residency"] == "Disk"
    assert "residentBytes" not in status["memory"]
    assert status["memory"]["lastEviction"] == {
        "time": "2026-11-20T12:00:00Z",
        "rule": "Demand",
        "for": "other",
        "bytes": 25 * MIB,
    }
    assert status["activeRevision"] == "r1", "it is what the next request gets"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    evicted = [e for e in plan.events if e.reason == "Evicted"]
    assert [e.warning for e in evicted] == [False]
    assert evicted[0].message.startswith("left memory for model other: 25.0 MiB, rule Demand")
    assert decide_model(world.model()).is_empty


def test_each_eviction_is_one_event_and_the_last_one_stays_in_status() -> None:
    world = served()
    member = world.members["chat"]
    now(says(world, left(member)))
    back = left(member).last_eviction
    assert [e.reason for e in now(says(world, serving(member, last_eviction=back))).events] == [
        "Serving"
    ]
    plan = now(says(world, left(member, 30)))
    assert [e.reason for e in plan.events if e.reason == "Evicted"] == ["Evicted"]
    after = now(says(world, serving(member)))
    assert after.status is not None
    assert after.status["memory"]["lastEviction"]["time"] == "2026-11-20T12:00:30Z"
    assert not [e for e in after.events if e.reason == "Evicted"]


def test_a_model_that_waits_for_memory_after_it_has_served_stays_ready() -> None:
    world = served()
    waits = coming(world.members["chat"], Reason.WAITING_FOR_MEMORY, "needs 14.2 GiB")
    now(says(world, waits))
    assert ready(world) == ("True", "WaitingForMemory")


def test_what_computes_a_model_and_how_long_loads_took_is_in_status() -> None:
    took = revision(
        device="NVIDIA H200", layers_offloaded=33, layers_total=33, load_seconds=12.3456
    )
    member = resource()
    plan = now(says(placed(member), serving(member, active=took, target=took)))
    assert plan.status is not None
    assert plan.status["acceleration"] == {
        "device": "NVIDIA H200",
        "layersOffloaded": 33,
        "layersTotal": 33,
    }
    assert plan.status["performance"] == {"loadSeconds": "12"}


def test_the_time_of_a_load_alone_writes_nothing_and_comes_with_the_next_change() -> None:
    member = resource()
    cold, again = revision(load_seconds=1.61), revision(load_seconds=1.83)
    world = says(placed(member), serving(member, active=cold, target=cold))
    now(world)
    says(world, serving(member, active=again, target=again))
    assert decide_model(world.model()).is_empty
    plan = now(says(world, left(member)))
    assert plan.status is not None
    assert plan.status["performance"] == {"loadSeconds": "1.6"}, "who has left is as it was"
    back = again.model_copy(update={"promote_seconds": 0.204})
    plan = now(says(world, serving(member, active=back, target=back)))
    assert plan.status is not None
    assert plan.status["performance"] == {"loadSeconds": "1.8", "promoteSeconds": "0.20"}
    now(says(world, left(member)))
    plan = now(says(world, serving(member, active=again, target=again)))
    assert plan.status is not None
    assert plan.status["performance"]["promoteSeconds"] == "0.20", "the last one that there was"
    newer = revision("r2", load_seconds=3)
    plan = now(says(world, serving(member, active=newer, target=newer)))
    assert plan.status is not None
    assert plan.status["performance"] == {"loadSeconds": "3.0"}, "another revision's own"


@pytest.mark.parametrize(
    ("layers", "offloaded", "has_gpu", "why"),
    [
        (20, 0, False, "although engine.gpuLayers is 20"),
        (-1, 0, True, "although engine.gpuLayers is -1"),
        (None, 0, True, "although it has a GPU"),
        (None, 0, False, ""),
        (None, 33, True, ""),
        (20, 20, True, ""),
        (0, 0, True, ""),
    ],
)
def test_a_cpu_where_a_gpu_should_compute_is_said_and_is_no_failure(
    layers: int | None, offloaded: int, why: str, *, has_gpu: bool
) -> None:
    member = resource(engine={"gpuLayers": layers})
    world = placed(member)
    shown = revision(device="CPU (haswell)", layers_offloaded=offloaded, layers_total=33)
    gpu = ReportedDevice(
        id="gpu0", kind=DeviceKind.GPU, total_bytes=1, budget_bytes=1, used_bytes=0, ledger_bytes=0
    )
    entry = serving(member, active=shown, target=shown)
    world.reports[0] = heard(
        report(entry, document=world.desired, devices=(gpu,) if has_gpu else ())
    )
    plan = now(world)
    assert ready(world) == ("True", "DeviceFallback" if why else "Serving")
    assert why in condition(plan, "Ready").message
    warned = [e.reason for e in plan.events if e.warning]
    assert warned == (["DeviceFallback"] if why else [])
