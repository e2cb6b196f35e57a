"""Keys in, a cluster brought about: the controller whole, in virtual time, on a fake API server."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.facts import NOW, heard, known, profile, report, serving, told
from tests.support.fake_kube import Counters, Events, FakeKube, FakeProfiles, FakeReports
from tests.support.virtual_time import in_virtual_time
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.wire.pod_report import ReportedModel
from ullage_operator.controller import reading
from ullage_operator.controller.errors import GoneError, RefusedError, TransientError
from ullage_operator.controller.gathering import Gatherer
from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import Backoff, WorkQueue
from ullage_operator.controller.reconciler import Reconciler
from ullage_operator.controller.workers import work
from ullage_operator.reconcile.observed import OperatorConfig, ProfileView

POOL = Key.pool("team-a", "default")


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{name}", "generation": 1},
        "spec": {"pool": "default", "task": "Chat", "model": {"uri": "file:a.gguf"}, **spec},
    }


def pod(ordinal: int, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"ullage-default-{ordinal}",
            "namespace": "team-a",
            "labels": {"ullage.dev/pool": "default"},
        },
        "spec": {"containers": [{"ports": [{"name": "internal", "containerPort": 9}]}]},
        "status": {"podIP": "10.0.0.1", **status},
    }


def good(member: ModelDeployment) -> ReportedModel:
    return serving(member, active=told(member), target=told(member))


class Clock:
    def now(self) -> datetime:
        return NOW + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Stage:
    kube: FakeKube = field(default_factory=FakeKube)
    reports: FakeReports = field(default_factory=FakeReports)
    events: Events = field(default_factory=Events)
    counters: Counters = field(default_factory=Counters)
    profiles: FakeProfiles = field(default_factory=lambda: FakeProfiles(known(profile())))

    def __post_init__(self) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(backoff=Backoff(first=1, jitter=0))
        gatherer = Gatherer(
            self.kube,
            self.reports,
            self.profiles,
            Clock(),
            OperatorConfig("ullage-system"),
            b"k" * 32,
        )
        self.reconciler = Reconciler(
            gatherer=gatherer,
            client=self.kube,
            reports=self.reports,
            recorder=self.events,
            metrics=self.counters,
            queue=self.queue,
            spread=min,
        )

    def add(self, *resources: dict[str, Any]) -> None:
        for raw in resources:
            self.kube.put(raw)
            self.queue.add(Key.model("team-a", raw["metadata"]["name"]))
            self.queue.add(POOL)

    def ready(self, name: str) -> tuple[str, str]:
        status = self.kube.objects["ModelDeployment", "team-a", name]["status"]
        (found,) = [c for c in status["conditions"] if c["type"] == "Ready"]
        return found["status"], found["reason"]

    async def runs(self, seconds: float = 0.5) -> None:
        task = asyncio.create_task(
            work(self.queue, self.reconciler.reconcile, self.counters, workers=3)
        )
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def played(story: Callable[[Stage], Coroutine[Any, Any, None]]) -> Stage:
    async def whole() -> Stage:
        stage = Stage()
        await story(stage)
        stage.queue.close()
        return stage

    return in_virtual_time(whole())


def test_a_model_brings_its_pool_about_and_gets_a_status() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        await stage.runs()
        assert stage.ready("chat") == ("Unknown", "WaitingForPods")
        assert stage.kube.names("Service") == [
            "chat-model",
            "ullage-default",
            "ullage-default-pods",
        ]
        assert {outcome for _, outcome in stage.counters.outcomes} <= {"done", "cancelled"}

    played(story)


def test_what_becomes_of_a_revision_is_kept_and_pods_are_told_at_once() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        stage.kube.put(pod(0, conditions=[{"type": "Ready", "status": "True"}]))
        await stage.runs()
        before = ModelDeployment.model_validate(
            stage.kube.objects["ModelDeployment", "team-a", "chat"]
        )
        record = reading.pool_record(stage.kube.objects["ConfigMap", "team-a", "ullage-default"])
        said = report(good(before), document=record.desired)
        stage.reports.views[POOL] = (heard(said),)
        stage.queue.add(Key.model("team-a", "chat"))
        await stage.runs()
        (name,) = stage.kube.names("ControllerRevision")
        assert name == f"chat-{told(before).revision}"
        _, document = stage.reports.pushed[-1]
        assert document.models[0].last_good is not None
        assert document.models[0].last_good.sha256 == told(before).sha256

    played(story)


def test_looking_again_writes_nothing() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        await stage.runs()
        stage.kube.writes.clear()
        stage.queue.add(POOL)
        stage.queue.add(Key.model("team-a", "chat"))
        await stage.runs()
        assert stage.kube.writes == []

    played(story)


def test_a_pool_is_looked_at_again_after_a_while_although_nothing_happened() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        await stage.runs()
        stage.kube.remove("Service", "team-a", "ullage-default")
        stage.kube.remove("Service", "team-a", "chat-model")
        await stage.runs(700)
        assert stage.kube.names("Service") == [
            "chat-model",
            "ullage-default",
            "ullage-default-pods",
        ]

    played(story)


def test_a_foreign_service_is_told_and_tried_again_until_it_is_gone() -> None:
    async def story(stage: Stage) -> None:
        foreign = {"kind": "Service", "metadata": {"name": "chat-model", "namespace": "team-a"}}
        stage.kube.put(foreign)
        stage.add(model("chat"))
        await stage.runs()
        assert stage.ready("chat") == ("False", "NameTaken")
        stage.kube.remove("Service", "team-a", "chat-model")
        await stage.runs(40)
        assert stage.ready("chat") == ("Unknown", "WaitingForPods")

    played(story)


def test_a_foreign_object_of_the_pool_is_told_to_every_member() -> None:
    async def story(stage: Stage) -> None:
        foreign = {
            "kind": "StatefulSet",
            "metadata": {"name": "ullage-default", "namespace": "team-a"},
        }
        stage.kube.put(foreign)
        stage.add(model("one"), model("two"))
        await stage.runs()
        assert stage.ready("one") == stage.ready("two") == ("False", "NameTaken")
        stage.kube.remove("StatefulSet", "team-a", "ullage-default")
        await stage.runs(40)
        assert stage.ready("one") == ("Unknown", "WaitingForPods")

    played(story)


def test_beside_a_foreign_document_nothing_is_made_that_would_mount_it() -> None:
    async def story(stage: Stage) -> None:
        foreign = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "ullage-default", "namespace": "team-a"},
        }
        stage.kube.put(foreign)
        stage.add(model("one"))
        await stage.runs()
        assert stage.ready("one") == ("False", "NameTaken")
        assert stage.kube.names("StatefulSet") == []
        assert stage.reports.pushed == []

    played(story)


def test_what_the_server_refuses_is_told_and_the_rest_is_done() -> None:
    def refuse(verb: str, manifest: Any) -> None:
        if manifest["kind"] == "NetworkPolicy":
            raise RefusedError("403 exceeded quota")

    async def story(stage: Stage) -> None:
        stage.kube.before = refuse
        stage.add(model("chat"))
        await stage.runs()
        status = stage.kube.objects["ModelDeployment", "team-a", "chat"]["status"]
        (found,) = [c for c in status["conditions"] if c["type"] == "Accepted"]
        assert "exceeded quota" in found["message"]
        assert stage.kube.names("StatefulSet") == ["ullage-default"]
        stage.kube.before = lambda _verb, _manifest: None
        await stage.runs(70)
        assert stage.kube.names("NetworkPolicy") == ["ullage-default"]

    played(story)


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    async def story(stage: Stage) -> None:
        def away(verb: str, manifest: Any) -> None:
            if asyncio.get_running_loop().time() < 20:
                raise TransientError("away")

        stage.kube.before = away
        stage.add(model("chat"))
        await stage.runs(60)
        assert stage.ready("chat") == ("Unknown", "WaitingForPods")
        assert ("Pool", "transient") in stage.counters.outcomes

    played(story)


def test_a_document_that_somebody_else_changed_is_looked_at_again() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        await stage.runs()
        meddled: list[int] = []

        def meddle(verb: str, manifest: Any) -> None:
            if manifest["kind"] == "ConfigMap" and not meddled:
                meddled.append(1)
                stage.kube.put(stage.kube.objects["ConfigMap", "team-a", "ullage-default"])

        stage.kube.before = meddle
        stage.add(model("another"))
        await stage.runs(5)
        assert ("Pool", "conflict") in stage.counters.outcomes
        found = stage.kube.objects["ConfigMap", "team-a", "ullage-default"]
        assert '"another"' in found["data"]["desired.json"]

    played(story)


def test_a_resource_that_no_crd_of_ours_allows_stops_nobody_else() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("odd", task="Dance"), model("chat"))
        await stage.runs()
        assert stage.ready("chat") == ("Unknown", "WaitingForPods")
        assert "status" not in stage.kube.objects["ModelDeployment", "team-a", "odd"]

    played(story)


def test_pods_are_followed_while_the_pool_has_members_and_no_longer() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        stage.kube.put(pod(0))
        stage.kube.put(pod(1, podIP=None))
        await stage.runs()
        (endpoint,) = stage.reports.followed[POOL]
        assert (endpoint.pod, endpoint.address, endpoint.port) == (
            "ullage-default-0",
            "10.0.0.1",
            9,
        )
        stage.kube.remove("ModelDeployment", "team-a", "chat")
        stage.queue.add(POOL)
        await stage.runs()
        assert stage.reports.followed == {}

    played(story)


def test_a_changed_profile_reaches_every_pool_and_every_member() -> None:
    async def story(stage: Stage) -> None:
        stage.profiles.current = ProfileView(None, known=("gpu",))
        stage.add(model("one"), model("two"))
        await stage.runs()
        assert stage.ready("one") == ("False", "UnknownPool")
        stage.profiles.current = known(profile())
        stage.reconciler.look_at_every_pool()
        await stage.runs()
        assert stage.ready("one") == stage.ready("two") == ("Unknown", "WaitingForPods")
        assert ("one", "UnknownPool") in stage.events.notes

    played(story)


@pytest.mark.parametrize("many", [60])
def test_many_models_come_about_with_one_write_of_status_each(many: int) -> None:
    async def story(stage: Stage) -> None:
        stage.add(*(model(f"m{number:02d}") for number in range(many)))
        await stage.runs(5)
        assert stage.counters.statuses == many
        assert len([w for w in stage.kube.writes if w[1].startswith("ConfigMap")]) == 1

    played(story)


def test_a_pod_that_lags_is_sent_the_document() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        stage.kube.put(pod(0))
        said = report(ordinal=0)
        stage.reports.views[POOL] = (heard(said),)
        await stage.runs()
        (pods, document), *_ = stage.reports.pushed
        assert pods == ("ullage-default-0",)
        assert [m.name for m in document.models] == ["chat"]
        assert len(stage.reports.pushed) == 1
        await stage.runs(5)
        assert len(stage.reports.pushed) > 1, "it did not acknowledge, so it is sent again"

    played(story)


def test_pods_are_told_as_soon_as_the_document_is_written_and_hold_up_nothing() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        stage.kube.put(pod(0))
        stage.reports.views[POOL] = (heard(report(ordinal=0)),)
        await stage.runs()
        earlier, told, answers = len(stage.kube.writes), asyncio.Event(), asyncio.Event()
        written: list[tuple[str, str]] = []

        async def is_slow() -> None:
            written.extend(stage.kube.writes[earlier:])
            told.set()
            await answers.wait()

        stage.reports.on_push = is_slow
        # Another owner: every object of the pool is written.
        stage.add(model("second"))
        await stage.runs(1)
        assert told.is_set()
        kinds = [what.split()[0] for _, what in written]
        assert "ConfigMap" in kinds
        assert not {"StatefulSet", "NetworkPolicy", "ServiceAccount"} & set(kinds)
        later = [what.split()[0] for _, what in stage.kube.writes[earlier:]]
        assert "StatefulSet" in later, "a pod that does not answer holds up nothing"
        answers.set()
        await stage.runs()

    played(story)


def test_a_document_that_could_not_be_written_is_told_to_nobody() -> None:
    async def story(stage: Stage) -> None:
        stage.add(model("chat"))
        stage.kube.put(pod(0))
        stage.reports.views[POOL] = (heard(report(ordinal=0)),)
        await stage.runs()
        pushed = len(stage.reports.pushed)

        def refuse(verb: str, manifest: Any) -> None:
            if manifest["kind"] == "ConfigMap":
                raise RefusedError("403 exceeded quota")

        stage.kube.before = refuse
        stage.add(model("second"))
        await stage.runs(1)
        for _, document in stage.reports.pushed[pushed:]:
            assert "second" not in {m.name for m in document.models}

    played(story)


def test_an_object_that_an_older_operator_left_is_removed() -> None:
    async def story(stage: Stage) -> None:
        labels = {"app.kubernetes.io/managed-by": "ullage-operator", "ullage.dev/pool": "default"}
        metadata = {"name": "ullage-default-old", "namespace": "team-a", "labels": labels}
        stage.kube.put({"kind": "Service", "metadata": metadata})
        stage.add(model("chat"))
        await stage.runs()
        assert "ullage-default-old" not in stage.kube.names("Service")

    played(story)


def test_a_namespace_that_is_ending_is_left_in_peace() -> None:
    def ending(verb: str, manifest: Any) -> None:
        if verb == "create":
            raise GoneError("the namespace is being terminated")

    async def story(stage: Stage) -> None:
        stage.kube.before = ending
        stage.add(model("chat"))
        await stage.runs(1)
        stage.kube.remove("ModelDeployment", "team-a", "chat")
        await stage.runs(20)
        assert {outcome for _, outcome in stage.counters.outcomes} <= {"done", "cancelled"}
        assert len(stage.counters.outcomes) < 20
        assert stage.queue.depth == 0

    played(story)


def test_a_refused_service_is_tried_again_and_status_is_written_all_the_same() -> None:
    def refuse(verb: str, manifest: Any) -> None:
        if manifest["metadata"]["name"] == "chat-model":
            raise RefusedError("403 exceeded quota")

    async def story(stage: Stage) -> None:
        stage.kube.before = refuse
        stage.add(model("chat"))
        await stage.runs(3)
        assert stage.ready("chat") == ("Unknown", "WaitingForPods")
        assert ("ModelDeployment", "refused") in stage.counters.outcomes
        assert ("chat", "ServiceRefused") in stage.events.notes

    played(story)
