"""A reindex job through the whole controller: held, told, worked on, and let go."""

from typing import Any

from tests.component.operator.test_reconciler import POOL, Stage, model, played, pod
from tests.support.facts import heard, opened, reindexing, report
from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import REINDEX_FINALIZER
from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.controller import reading
from ullage_operator.controller.keys import Key

JOB = Key.reindex("team-a", "to-new")


def notes() -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": "notes", "namespace": "team-a", "uid": "uid-notes", "generation": 1},
        "spec": {"pool": "default", "embedding": {"modelDeployment": "embed"}},
    }


def job() -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ReindexJob",
        "metadata": {"name": "to-new", "namespace": "team-a", "uid": "uid-to-new", "generation": 1},
        "spec": {"collection": "notes"},
    }


def now(stage: Stage) -> dict[str, Any]:
    return stage.kube.objects["ReindexJob", "team-a", "to-new"]


def document(stage: Stage) -> PoolDesired:
    raw = stage.kube.objects["ConfigMap", "team-a", "ullage-default"]
    desired = reading.pool_record(raw).desired
    assert desired is not None
    return desired


def says(stage: Stage, phase: ReindexPhase, **fields: Any) -> None:
    """Have the pod report the job, as the long poll would."""
    collection = VectorCollection.model_validate(notes())
    entry = reindexing(ReindexJob.model_validate(now(stage)), phase, **fields)
    said = report(document=document(stage), collections=(opened(collection),), reindexes=(entry,))
    stage.reports.views[POOL] = (heard(said),)
    stage.queue.add(JOB)


def complete(stage: Stage) -> tuple[str, str]:
    (found,) = [c for c in now(stage)["status"]["conditions"] if c["type"] == "Complete"]
    return found["status"], found["reason"]


async def begun(stage: Stage) -> None:
    stage.add(model("embed", task="Embedding"))
    stage.kube.put(notes())
    stage.kube.put(job())
    stage.kube.put(pod(0, conditions=[{"type": "Ready", "status": "True"}]))
    stage.queue.add(JOB)
    await stage.runs()
    stage.queue.add(JOB)
    await stage.runs()


def test_a_job_is_held_told_to_its_pod_and_given_a_worker() -> None:
    async def story(stage: Stage) -> None:
        await begun(stage)
        assert now(stage)["metadata"]["finalizers"] == [REINDEX_FINALIZER]
        assert [r.uid for r in document(stage).reindexes] == ["uid-to-new"]
        says(stage, ReindexPhase.COPYING)
        await stage.runs()
        assert stage.kube.names("Job") == ["ullage-reindex-uid-to-new"]
        assert complete(stage) == ("False", "Reindexing")
        says(stage, ReindexPhase.SUCCEEDED, reason=Reason.SUCCEEDED, switched=True)
        await stage.runs()
        assert complete(stage) == ("True", "Succeeded")
        assert stage.kube.names("Job") == []
        stage.queue.add(JOB)
        await stage.runs()
        assert now(stage)["metadata"]["finalizers"] == []
        assert document(stage).reindexes == ()
        written = list(stage.kube.writes)
        stage.queue.add(JOB)
        await stage.runs()
        assert stage.kube.writes == written, "at rest nothing is written"

    played(story)


def test_a_deleted_job_stays_until_its_pod_has_cancelled_it() -> None:
    async def story(stage: Stage) -> None:
        await begun(stage)
        says(stage, ReindexPhase.COPYING)
        await stage.runs()
        now(stage)["metadata"]["deletionTimestamp"] = "2026-11-20T12:00:00Z"
        stage.queue.add(JOB)
        await stage.runs()
        assert [r.deleted for r in document(stage).reindexes] == [True]
        assert now(stage)["metadata"]["finalizers"] == [REINDEX_FINALIZER]
        says(stage, ReindexPhase.CANCELLED, reason=Reason.CANCELLED)
        await stage.runs()
        assert now(stage)["metadata"]["finalizers"] == []

    played(story)
