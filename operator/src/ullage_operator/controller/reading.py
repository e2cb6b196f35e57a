"""Objects of the API server, read into what the pure core knows."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from ullage_api.kinds.revision import Outcome
from ullage_api.names import HOLDS_LABEL_PREFIX, SPEC_HASH_ANNOTATION, pool_object_name
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import DesiredRevision, PoolDesired
from ullage_operator.reconcile.manifests import revisions
from ullage_operator.reconcile.manifests.common import MODEL_LABEL
from ullage_operator.reconcile.manifests.configuration import (
    DESIRED_KEY,
    PROFILE_KEY,
    SECRET_ANNOTATION,
)
from ullage_operator.reconcile.observed import (
    Child,
    PodView,
    PoolRecord,
    RevisionRecord,
    WorkerView,
)
from ullage_operator.reconcile.pool import HOLDS

Raw = Mapping[str, Any]
M = TypeVar("M", PoolDesired, PoolProfile)

PULL_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff"})
CRASHES: Final = 3
"""Restarts from which a pod that is not ready counts as crash looping between two tries too."""


def child(raw: Raw, api_version: str, kind: str) -> Child:
    """Return one of our objects; lists leave out its type, so the caller gives it."""
    metadata = raw["metadata"]
    return Child(
        api_version=api_version,
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        spec_hash=(metadata.get("annotations") or {}).get(SPEC_HASH_ANNOTATION),
        resource_version=metadata.get("resourceVersion", ""),
        owner_uids=frozenset(o["uid"] for o in metadata.get("ownerReferences") or ()),
        deleting="deletionTimestamp" in metadata,
    )


def worker_view(raw: Raw, now: datetime) -> WorkerView:
    """Return the Job that runs a reindex job's worker."""
    status = raw.get("status") or {}
    ended = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
    created = datetime.fromisoformat(raw["metadata"]["creationTimestamp"])
    return WorkerView(
        child=child(raw, "batch/v1", "Job"),
        age_seconds=max(0.0, (now - created).total_seconds()),
        is_running=bool(status.get("ready")),
        is_over=bool(ended & {"Complete", "Failed"}),
    )


def pool_record(raw: Raw) -> PoolRecord:
    """Return what a pool's ConfigMap records; what cannot be read of it counts as not there."""
    data = raw.get("data") or {}
    annotations = raw["metadata"].get("annotations") or {}
    return PoolRecord(
        child=child(raw, "v1", "ConfigMap"),
        desired=_parsed(PoolDesired, data.get(DESIRED_KEY)),
        profile=_parsed(PoolProfile, data.get(PROFILE_KEY)),
        secret=annotations.get(SECRET_ANNOTATION, ""),
    )


def _parsed(model: type[M], text: str | None) -> M | None:
    if text is None:
        return None
    try:
        return model.model_validate(json.loads(text))
    except (json.JSONDecodeError, ValidationError):
        # Somebody edited it. It is written anew, with a sequence above what the pods have.
        return None


def revision_record(raw: Raw) -> RevisionRecord:
    """Return a revision as its ControllerRevision keeps it.

    Raises ValueError when somebody else has written it: then it says nothing to us.
    """
    metadata = raw["metadata"]
    labels, said = metadata["labels"], metadata.get("annotations") or {}
    outcome, held = said.get(revisions.OUTCOME), said.get(revisions.HELD_GENERATION)
    return RevisionRecord(
        name=labels.get(revisions.REVISION_LABEL, ""),
        spec=DesiredRevision.model_validate(raw.get("data")),
        number=int(raw["revision"]),
        time=said.get(revisions.TIME, ""),
        outcome=Outcome(outcome) if outcome else None,
        reason=said.get(revisions.REASON, ""),
        message=said.get(revisions.MESSAGE, ""),
        generation=int(said.get(revisions.GENERATION) or 0),
        held_generation=int(held) if held else None,
        model=labels.get(MODEL_LABEL, ""),
        child=child(raw, "apps/v1", "ControllerRevision"),
    )


def pod_view(raw: Raw, pool: str, now: datetime) -> PodView | None:
    """Return a pod of a pool, or None for one that has its label and is none of its pods."""
    metadata = raw["metadata"]
    matched = re.fullmatch(rf"{re.escape(pool_object_name(pool))}-(\d+)", metadata["name"])
    if matched is None:
        return None
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready", {}).get("status") == "True"
    containers = status.get("containerStatuses") or ()
    restarts = max((c.get("restartCount", 0) for c in containers), default=0)
    trouble, message = _trouble(conditions, containers, ready=ready, restarts=restarts)
    labels = metadata.get("labels") or {}
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    return PodView(
        name=metadata["name"],
        ordinal=int(matched[1]),
        uid=metadata["uid"],
        ip=status.get("podIP"),
        ready=ready,
        deleting="deletionTimestamp" in metadata,
        holds=frozenset(
            key.removeprefix(HOLDS_LABEL_PREFIX)
            for key, value in labels.items()
            if key.startswith(HOLDS_LABEL_PREFIX) and value == HOLDS
        ),
        internal_port=_internal_port(raw),
        restarts=restarts,
        trouble=trouble,
        trouble_message=message,
        age_seconds=(now - created).total_seconds(),
    )


def _internal_port(raw: Raw) -> int | None:
    for container in raw["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == "internal":
                return int(port["containerPort"])
    return None


def _trouble(
    conditions: Mapping[str, Raw], containers: Any, *, ready: bool, restarts: int
) -> tuple[str | None, str]:
    """Return why a pod does not run, in words that do not change while the cause does not."""
    for status in containers:
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason == "CrashLoopBackOff" or (restarts >= CRASHES and not ready):
            # The kubelet alternates between this, running and ended.
            return "CrashLoopBackOff", _last_words(status)
        if reason in PULL_REASONS:
            return "ImagePullBackOff", f"image {status.get('image')} cannot be pulled"
        if reason:
            return str(reason), str(waiting.get("message", ""))[:300]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason", "Unschedulable")), str(scheduled.get("message", ""))[
            :300
        ]
    return None, ""


def _last_words(status: Raw) -> str:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    if not ended:
        ended = (status.get("state") or {}).get("terminated") or {}
    if not ended:
        return ""
    reason = ended.get("reason", "Error")
    return f"last ended with {reason}, exit code {ended.get('exitCode')}"
