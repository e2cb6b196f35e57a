"""A model as its pod's report shows it."""

from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_runtime.models.admission import Admission
from ullage_runtime.models.failures import Failures
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.live import Live
from ullage_runtime.models.ports import MOVING
from ullage_runtime.models.progress import Shown
from ullage_runtime.models.stay import Stay
from ullage_runtime.models.steps import Steps
from ullage_runtime.models.warm import WarmTier
from ullage_runtime.models.wish import Wish


def reported(
    wish: Wish,
    shown: Shown,
    generations: Generations,
    *,
    admission: Admission,
    stay: Stay,
    warm: WarmTier,
    steps: Steps,
    failures: Failures,
    restarts: int,
    generated_tokens: int,
) -> ReportedModel:
    """Return the model's entry."""
    live = generations.active
    active = None
    if live is not None:
        measured = {"resident_bytes": shown.resident_bytes}
        active = live.reported().model_copy(update=measured)
    serves_target = live is not None and live.want == wish.target
    is_leaving = generations.leaving > 0
    return ReportedModel(
        name=wish.name,
        uid=wish.desired.uid,
        generation=wish.desired.generation,
        residency=shown.residency(
            is_active=active is not None, is_leaving=is_leaving, is_warm=warm.has(wish.name)
        ),
        host_bytes=warm.bytes_of(wish.name),
        reason=shown.reason,
        message=shown.message,
        final=shown.final,
        weights_ready=shown.weights_ready,
        active=active,
        target=active if serves_target else shown.target,
        fetched_bytes=shown.fetched_bytes,
        fetch_total_bytes=shown.fetch_total_bytes,
        transition=_transition(wish, live, stay, steps, failures),
        swap=steps.reported,
        last_eviction=stay.last_eviction,
        restarts=restarts,
        requests_running=admission.running,
        requests_waiting=admission.waiting,
        generated_tokens=generated_tokens,
    )


def shown(report: ReportedModel) -> ReportedModel:
    """Return what a status shows of a model: its report without what moves all the time."""
    moving: dict[str, object] = dict.fromkeys(MOVING, 0)
    if report.swap is not None:
        moving["swap"] = report.swap.model_copy(update={"arms": ()})
    return report.model_copy(update=moving)


def _transition(
    wish: Wish, live: Live | None, stay: Stay, steps: Steps, failures: Failures
) -> Transition | None:
    if not wish.is_wanted:
        return None
    if steps.is_committed(wish.target) and (live is not None or stay.asleep):
        return Transition.UP_TO_DATE
    error = failures.error(wish.target)
    if error is None:
        return Transition.IN_PROGRESS
    if error.reason is Reason.ROLLED_BACK:
        return Transition.ROLLED_BACK
    return Transition.BLOCKED_BY_FAILED_LOAD
