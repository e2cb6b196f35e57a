"""Kopf's handlers: each turns an event into keys. They decide nothing and write nothing.

A handler's id would become an annotation or a status field if it ever returned something, so each
has one of its own and returns None.

All are coroutines, though hardly one awaits anything: Kopf calls a plain function in a thread, but
the queue belongs to the event loop, and an activity in a thread can be cancelled half-way, of which
Kopf warns when the operator is ended while it starts.
"""

from typing import Any, Final

import kopf

from ullage_api.names import GROUP, POOL_LABEL, REINDEX_LABEL, ROLLBACK_ANNOTATION, VERSION
from ullage_operator.controller.keys import Key
from ullage_operator.handlers.intake import Intake

REGISTRY: Final = kopf.OperatorRegistry()
"""Our own registry: importing this module changes nothing elsewhere."""


@kopf.on.startup(id="configure", registry=REGISTRY)
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Make Kopf watch what is ours only, and write nothing anywhere."""
    for resource in (("apps", "v1", "statefulsets"), ("", "v1", "pods")):
        settings.watching.label_selectors[resource] = POOL_LABEL
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Unused, but should Kopf ever write one of these, it shall bear our name.
    settings.persistence.finalizer = f"kopf.{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}")


@kopf.on.login(id="login", registry=REGISTRY)
async def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """Log in with the pod's service account, or else with a kubeconfig."""
    return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(
        settings=settings
    )


@kopf.on.event(GROUP, VERSION, "modeldeployments", id="modeldeployment", registry=REGISTRY)
async def modeldeployment(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Look at the model, and at its pool unless only the status has changed."""
    metadata = event["object"]["metadata"]
    _member(event, memo, Key.model(metadata["namespace"], metadata["name"]))


@kopf.on.event(GROUP, VERSION, "vectorcollections", id="vectorcollection", registry=REGISTRY)
async def vectorcollection(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Look at the collection, and at its pool unless only the status has changed."""
    metadata = event["object"]["metadata"]
    _member(event, memo, Key.collection(metadata["namespace"], metadata["name"]))


@kopf.on.event(GROUP, VERSION, "reindexjobs", id="reindexjob", registry=REGISTRY)
async def reindexjob(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Look at the job; which pool it concerns, only its collection says."""
    metadata = event["object"]["metadata"]
    _intake(memo).add(Key.reindex(metadata["namespace"], metadata["name"]))


def _member(event: Any, memo: kopf.Memo, key: Key) -> None:
    raw, intake = event["object"], _intake(memo)
    metadata = raw["metadata"]
    intake.add(key)
    state = (
        metadata["uid"],
        metadata.get("generation"),
        (metadata.get("annotations") or {}).get(ROLLBACK_ANNOTATION),
        "deletionTimestamp" in metadata,
        tuple(metadata.get("finalizers") or ()),
    )
    if event["type"] == "DELETED" or memo.get("state") != state:
        memo["state"] = state
        intake.add(Key.pool(metadata["namespace"], raw["spec"]["pool"]))


@kopf.on.event("apps", "v1", "statefulsets", id="statefulset", registry=REGISTRY)
@kopf.on.event("", "v1", "pods", id="pod", registry=REGISTRY)
async def child(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Look at the pool that the object belongs to; of a worker's pod, at its reindex job."""
    metadata = event["object"]["metadata"]
    labels = metadata.get("labels") or {}
    pool, job = labels.get(POOL_LABEL), labels.get(REINDEX_LABEL)
    if job:
        _intake(memo).add(Key.reindex(metadata["namespace"], job))
    elif pool:
        _intake(memo).add(Key.pool(metadata["namespace"], pool))


@kopf.on.probe(id="ages", registry=REGISTRY)
async def ages(memo: kopf.Memo, **_: Any) -> dict[str, float]:
    """Answer the liveness probe; an error makes it fail."""
    return _intake(memo).health()


@kopf.on.cleanup(id="stop", registry=REGISTRY)
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End the controller before Kopf counts the tasks that are left."""
    await _intake(memo).stop()


def _intake(memo: kopf.Memo) -> Intake:
    intake: Intake = memo["intake"]
    return intake
