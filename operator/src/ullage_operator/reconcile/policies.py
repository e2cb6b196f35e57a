"""Conditions of a ModelDeployment, as chains of small pure functions.

What the chains add up to:

- `Accepted`: whether the spec can be acted on at all.
- `WeightsReady`: whether the file is here and is what it should be.
- `MemoryPressure` has a module of its own.
- `Progressing`: whether something is under way towards the spec; False once there, or once final.
- `Ready`: Unknown until a first revision has served, then True, in memory or not. False only when
  the model does not serve and waiting will not help: refused, final failure, or an engine that
  keeps failing. A pool whose pods are away is Unknown. Suspension, swaps and loads of a model that
  has served keep it True; a target that fails while the old one serves shows in `Progressing`.
"""
# ruff: noqa: D401 - a policy's docstring names the state it speaks of, as its sentence would

from collections.abc import Callable, Iterable

from ullage_api.conditions import ConditionType, Reason
from ullage_api.kinds.model_status import Residency
from ullage_api.names import ROLLBACK_ANNOTATION
from ullage_api.wire.pod_report import ReportedModel
from ullage_operator.reconcile import history, measured
from ullage_operator.reconcile.findings import Finding, Status, accepted, finding, unknown_pool
from ullage_operator.reconcile.quantities import quantised, readable
from ullage_operator.reconcile.snapshot import FAILURES, Holder, Snapshot
from ullage_operator.reconcile.transitions import is_back

Policy = Callable[[Snapshot], Finding | None]


# --- Accepted ---------------------------------------------------------------------------------


def alias_taken(s: Snapshot) -> Finding | None:
    """An older model of the pool has the name or an alias."""
    problem = s.observed.pool.refusals.get(s.observed.resource.metadata.name)
    return Finding("False", Reason.ALIAS_TAKEN, problem) if problem else None


def name_taken(s: Snapshot) -> Finding | None:
    """An object we need exists and is somebody else's."""
    if not s.observed.taken:
        return None
    names = ", ".join(s.observed.taken)
    message = f"{names} exists and was not made by Ullage; rename or remove it"
    return Finding("False", Reason.NAME_TAKEN, message)


def pool_problem(s: Snapshot) -> Finding | None:
    """The pool's own reconcile met something that concerns this model."""
    note = s.observed.pool.note
    if note is None or not note.concerns(s.observed.resource.metadata.name):
        return None
    # A profile that the API server refuses leaves what runs as it is.
    status: Status = "True" if note.reason is Reason.PROFILE_MISSING else "False"
    return Finding(status, note.reason, note.message)


def profile_missing(s: Snapshot) -> Finding | None:
    """The profile is gone or broken; the pool runs on the last good one."""
    view = s.observed.profile
    if view.profile is not None:
        return None
    pool = s.observed.resource.spec.pool
    message = f"the profile of pool {pool!r}: {view.error}; the pool runs on the last good one"
    return Finding("True", Reason.PROFILE_MISSING, message)


ACCEPTED: tuple[Policy, ...] = (
    unknown_pool,
    alias_taken,
    name_taken,
    pool_problem,
    profile_missing,
    accepted,
)


def not_accepted(s: Snapshot) -> Finding | None:
    """What is refused is not ready either, for the same reason."""
    said = finding(ACCEPTED, s)
    return said if said.status == "False" else None


# --- Ready ------------------------------------------------------------------------------------


def suspended(s: Snapshot) -> Finding | None:
    """Nobody asks for it to serve, which is no failure."""
    if not s.is_suspended:
        return None
    cause = "spec.suspend is true" if s.observed.resource.spec.suspend else "spec.replicas is 0"
    message = f"{cause}; requests are answered 503 model_suspended"
    return _since(s, Reason.SUSPENDED, message)


def serving(s: Snapshot) -> Finding | None:
    """At least one pod answers."""
    if not s.serving:
        return None
    message = f"answers on {len(s.serving)} of {len(s.holders)} pods"
    fallen_back = measured.fallback(s)
    if fallen_back:
        return Finding("True", Reason.DEVICE_FALLBACK, f"{message}; {fallen_back}")
    return Finding("True", Reason.SERVING, message)


def idle(s: Snapshot) -> Finding | None:
    """It has shown that it serves, left memory for others, and comes back with a request."""
    at = [h for h in s.holders if h.is_idle]
    if not at:
        return None
    if any(h.is_warm for h in at):
        return Finding("True", Reason.WARM, "waits in host memory; the next request brings it back")
    return Finding("True", Reason.IDLE, "left memory; the next request loads it again")


def pods_crash_looping(s: Snapshot) -> Finding | None:
    """The pods themselves keep dying."""
    for holder in s.holders:
        pod = holder.pod
        if pod is not None and pod.trouble == "CrashLoopBackOff":
            words = f": {pod.trouble_message}" if pod.trouble_message else ""
            message = f"pod {pod.name} keeps dying, {pod.restarts} restarts so far{words}"
            return Finding("False", Reason.CRASH_LOOPING, message)
    return None


def final_failure(s: Snapshot) -> Finding | None:
    """Only a change of the spec can mend it."""
    for entry in s.current:
        if entry.final:
            return Finding("False", entry.reason, entry.message or entry.reason.value)
    return None


def failing(s: Snapshot) -> Finding | None:
    """The engine cannot load it or keeps dying; it is retried, with growing pauses."""
    for entry in s.current:
        if entry.reason in FAILURES:
            return Finding("False", entry.reason, entry.message or entry.reason.value)
    return None


def no_place(s: Snapshot) -> Finding | None:
    """The pool's reconcile has not placed it yet."""
    if s.holders:
        return None
    return _since(s, Reason.PENDING, "waiting for a place in the pool")


def waiting_for_pods(s: Snapshot) -> Finding | None:
    """No pod it is placed on is up."""
    if any(h.is_up for h in s.holders):
        return None
    return Finding("Unknown", Reason.WAITING_FOR_PODS, _pods_message(s.holders))


def reports_missing(s: Snapshot) -> Finding | None:
    """The pods are up and say nothing; they may well answer, so what was True stays True."""
    silent = [h for h in s.holders if h.is_silent]
    if not silent or any(h.is_up and not h.is_silent for h in s.holders):
        return None
    return _since(s, Reason.REPORTS_MISSING, _silence_message(silent))


def on_its_way(s: Snapshot) -> Finding:
    """It is fetched or loaded; one that has served before keeps requests waiting meanwhile."""
    return _since(s, *_stage(s))


READY: tuple[Policy, ...] = (
    not_accepted,
    suspended,
    serving,
    idle,
    pods_crash_looping,
    final_failure,
    failing,
    no_place,
    waiting_for_pods,
    reports_missing,
    on_its_way,
)


# --- Progressing ------------------------------------------------------------------------------


def rests(s: Snapshot) -> Finding | None:
    """Refused or suspended: nothing is under way."""
    said = not_accepted(s) or suspended(s)
    return Finding("False", said.reason, said.message) if said is not None else None


def stuck(s: Snapshot) -> Finding | None:
    """The target has failed for good; what served before, if anything, goes on."""
    said = final_failure(s)
    if said is None or not s.serving:
        return said
    return Finding("False", said.reason, f"{said.message}; the previous revision goes on serving")


def silence(s: Snapshot) -> Finding | None:
    """Nobody says how far it is."""
    said = reports_missing(s)
    return Finding("Unknown", said.reason, said.message) if said is not None else None


def moving(s: Snapshot) -> Finding | None:
    """Some pods lack the target."""
    wanted = len(s.holders)
    done = len(s.up_to_date)
    if wanted and done == wanted:
        return None
    if done:
        message = f"{done} of {wanted} pods serve the target"
        return Finding("True", Reason.ROLLING_OUT, message)
    said = no_place(s) or waiting_for_pods(s) or failing(s) or on_its_way(s)
    return Finding("True", said.reason, said.message)


def held_back(s: Snapshot) -> Finding | None:
    """Every pod answers with the earlier revision that somebody went back to."""
    back = s.held
    if back is None or not is_back(s, back):
        return None
    message = (
        f"revision {back.name} is held by the annotation {ROLLBACK_ANNOTATION} until the spec "
        "changes or the annotation is removed"
    )
    return Finding("False", Reason.ROLLED_BACK, message)


def unknown_revision(s: Snapshot) -> Finding | None:
    """Somebody wants to go back to a revision that is not remembered."""
    name = history.asked_back(s.observed.resource)
    if name is None or any(r.name == name for r in s.revisions):
        return None
    message = (
        f"the annotation {ROLLBACK_ANNOTATION} names revision {name}, which is not known; known "
        f"revisions, the newest first: {history.known_names(s.revisions)}"
    )
    return Finding("False", Reason.UNKNOWN_REVISION, message)


def up_to_date(s: Snapshot) -> Finding:
    """Every pod it is placed on serves what the spec asks for."""
    asked = s.observed.resource.spec.replicas
    message = f"{len(s.up_to_date)} of {len(s.holders)} pods serve the target"
    if any(h.is_idle for h in s.holders):
        message += ", or load it with the next request"
    if asked > len(s.holders):
        message += f"; {asked} replicas are asked for, and the pool has no more pods"
    return Finding("False", Reason.UP_TO_DATE, message)


PROGRESSING: tuple[Policy, ...] = (
    rests,
    stuck,
    silence,
    moving,
    held_back,
    unknown_revision,
    up_to_date,
)


# --- WeightsReady -----------------------------------------------------------------------------


def weights_refused(s: Snapshot) -> Finding | None:
    """What is refused is not fetched."""
    said = not_accepted(s)
    return Finding("Unknown", said.reason, said.message) if said is not None else None


def weights_failed(s: Snapshot) -> Finding | None:
    """The source cannot be read, or the bytes are not the right ones."""
    for entry in s.current:
        bad = entry.reason in {Reason.SOURCE_UNAVAILABLE, Reason.CHECKSUM_MISMATCH}
        if bad and not entry.weights_ready:
            return Finding("False", entry.reason, entry.message or entry.reason.value)
    return None


def weights_fetched(s: Snapshot) -> Finding | None:
    """Every pod that speaks of this spec has the file."""
    if not s.current or not all(e.weights_ready for e in s.current):
        return None
    revision = next((r for e in s.current for r in (e.target, e.active) if r is not None), None)
    size = readable(revision.file_bytes) if revision and revision.file_bytes else ""
    digest = f"sha256 {revision.sha256}" if revision and revision.sha256 else ""
    message = ", ".join(part for part in (size, digest) if part) or "the file is in the cache"
    return Finding("True", Reason.FETCHED, message)


def weights_as_before(s: Snapshot) -> Finding | None:
    """Nobody speaks of this spec now; what was known of it still holds."""
    before = s.before(ConditionType.WEIGHTS_READY)
    if s.current or before is None or before.status != "True":
        return None
    if before.observed_generation != s.generation and not s.is_suspended:
        return None
    return Finding("True", Reason.FETCHED, before.message)


def weights_not_wanted(s: Snapshot) -> Finding | None:
    """A suspended model need not be fetched."""
    return suspended(s) and Finding("Unknown", Reason.SUSPENDED, "nothing is fetched now")


def weights_coming(s: Snapshot) -> Finding:
    """It is being fetched, or will be."""
    said = no_place(s) or waiting_for_pods(s) or reports_missing(s)
    reason, message = (said.reason, said.message) if said is not None else _stage(s)
    return Finding("Unknown", reason, message)


WEIGHTS_READY: tuple[Policy, ...] = (
    weights_refused,
    weights_failed,
    weights_fetched,
    weights_as_before,
    weights_not_wanted,
    weights_coming,
)

CHAINS: tuple[tuple[ConditionType, tuple[Policy, ...]], ...] = (
    (ConditionType.READY, READY),
    (ConditionType.ACCEPTED, ACCEPTED),
    (ConditionType.WEIGHTS_READY, WEIGHTS_READY),
    (ConditionType.PROGRESSING, PROGRESSING),
)


def _since(s: Snapshot, reason: Reason, message: str) -> Finding:
    """Return True for a model that has served before, else Unknown: it has yet to show it can."""
    return Finding("True" if s.has_served else "Unknown", reason, message)


# --- Words ------------------------------------------------------------------------------------


def _stage(s: Snapshot) -> tuple[Reason, str]:
    """Return how far the first pod is that speaks of the spec as it is now."""
    if not s.current:
        return Reason.PENDING, f"waiting for a pod to take up generation {s.generation}"
    entry = s.current[0]
    if entry.reason is Reason.FETCHING:
        return entry.reason, _fetch_message(entry)
    if entry.reason in {Reason.SERVING, Reason.SUSPENDED, Reason.PENDING}:
        loading = entry.residency is Residency.LOADING
        return (Reason.LOADING, "loading") if loading else (Reason.PENDING, "not loaded yet")
    return entry.reason, entry.message or entry.reason.value


def _fetch_message(entry: ReportedModel) -> str:
    """Return the progress in steps of a tenth, so that status is not written with every byte."""
    done, total = entry.fetched_bytes, entry.fetch_total_bytes
    if not total:
        so_far = quantised(done)
        return f"fetching, about {readable(so_far)} so far" if so_far else "fetching"
    tenths = min(10 * (done or 0) // total, 10)
    return f"fetching, {10 * tenths} % of {readable(total)}"


def _pods_message(holders: Iterable[Holder]) -> str:
    parts = []
    for holder in holders:
        pod = holder.pod
        if pod is None:
            parts.append(f"pod {holder.ordinal} does not exist yet")
        elif pod.deleting:
            parts.append(f"pod {pod.name} is ending")
        elif pod.trouble:
            words = f" ({pod.trouble_message})" if pod.trouble_message else ""
            parts.append(f"pod {pod.name}: {pod.trouble}{words}")
        else:
            parts.append(f"pod {pod.name} is not ready")
    return "; ".join(parts)


def _silence_message(silent: Iterable[Holder]) -> str:
    names = ", ".join(h.pod.name for h in silent if h.pod is not None)
    return f"no report from {names} for a while; what is shown here may be out of date"
