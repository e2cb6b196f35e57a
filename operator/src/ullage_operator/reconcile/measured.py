"""What was found of the revision that answers: what computes it, and how long loads took."""

from typing import Final

from ullage_api.kinds.model_status import (
    AccelerationStatus,
    ModelDeploymentStatus,
    PerformanceStatus,
)
from ullage_api.wire.pod_report import ReportedRevision
from ullage_operator.reconcile.quantities import brief_seconds
from ullage_operator.reconcile.snapshot import Snapshot

_ON_GPUS: Final = frozenset({"LlamaCpp", "VLLM"})
"""Engines that compute on a GPU where there is one."""


def acceleration(shown: ReportedRevision) -> AccelerationStatus | None:
    """Return what computes a revision, if a pod says so."""
    if shown.device is None:
        return None
    return AccelerationStatus(
        device=shown.device,
        layers_offloaded=shown.layers_offloaded,
        layers_total=shown.layers_total,
    )


def fallback(s: Snapshot) -> str:
    """Return where a CPU computes what should be on a GPU, and who says that it should."""
    settings = s.observed.resource.spec.engine
    wanted = settings.gpu_layers if settings is not None else None
    for holder in s.up_to_date:
        active = holder.entry.active if holder.entry is not None else None
        if wanted == 0 or active is None or active.layers_offloaded or not active.layers_total:
            continue
        if wanted is not None:
            return f"on the CPU of pod {holder.name}, although engine.gpuLayers is {wanted}"
        if holder.has_gpu and active.engine in _ON_GPUS:
            return f"on the CPU of pod {holder.name}, although it has a GPU"
    return ""


def performance(before: ModelDeploymentStatus, shown: ReportedRevision) -> PerformanceStatus | None:
    """Return how long loads of a revision took; what is not told now is as it was before."""
    same = before.active_revision == shown.revision
    known = (before.performance if same else None) or PerformanceStatus()
    taken = PerformanceStatus(
        load_seconds=_brief(shown.load_seconds) or known.load_seconds,
        promote_seconds=_brief(shown.promote_seconds) or known.promote_seconds,
    )
    return taken if taken.to_wire() else None


def without_news(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> ModelDeploymentStatus:
    """Return a status without what only a load measured, if nothing else has changed.

    No two loads take the same time, and that alone is not worth a write.
    """
    if before.performance is None:
        return after
    kept = after.model_copy(update={"performance": before.performance})
    return kept if kept.to_wire() == before.to_wire() else after


def _brief(seconds: float | None) -> str | None:
    return None if seconds is None else brief_seconds(seconds)
