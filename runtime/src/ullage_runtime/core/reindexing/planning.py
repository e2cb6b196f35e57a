"""The cheapest correct way from what a collection has to what its spec wants, or why there is none.

Vectors are kept wherever they can be: an index is built anew over them in place, else points are
copied. Texts are embedded again only when the vectors themselves would differ, and documents cut
again only when nothing but their chunks does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_api.kinds.vector_collection import DistanceType, MultivectorType, SparseType
from ullage_runtime.core.sizes import human_bytes

BUILD_FACTOR: Final = 2
"""An index is built beside the one that it replaces."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a collection is built with."""

    model: str
    revision: str
    dimensions: int
    distance: DistanceType = DistanceType.COSINE
    sparse: SparseType = SparseType.BM25
    multivector: MultivectorType = MultivectorType.NONE
    hnsw: Mapping[str, int] = field(default_factory=dict)
    quantization: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to be moved, and what room there is for it; None where nobody can tell."""

    points: int = 0
    point_bytes: int = 0
    """What the collection's points take in the store."""
    textless: int = 0
    """Points that have vectors and no text."""
    stale_documents: int = 0
    """Documents that are cut otherwise than the spec wants."""
    disk_free: int | None = None
    memory_bytes: int = 0
    """What a second collection takes in the store's memory."""
    memory_free: int | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A way, and why it is this one."""

    plan: ReindexPlan
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no way, or not yet."""

    reason: Reason
    message: str
    is_final: bool = True
    """Whether waiting does not help."""


Outlook = Planned | Refused


def outlook(
    has: Built, wants: Built, room: Room, *, copies: bool = False, may_fail: int = 0
) -> Outlook:
    """Return the way from what a collection has to what is wanted.

    `copies` forbids what cannot be rolled back at once; `may_fail` points may be left out.
    """
    planned = _way(has, wants, room, copies=copies)
    if planned.plan.copies:
        return _refusal(planned, has, wants, room, may_fail) or planned
    return planned


def _way(has: Built, wants: Built, room: Room, *, copies: bool) -> Planned:
    anew = _embedded_anew(has, wants)
    if anew:
        later = _stale(room)
        reason = "; ".join(anew) + (f"; a second job then cuts {later}" if later else "")
        return Planned(ReindexPlan.REEMBED, reason)
    laid_out = _laid_out_anew(has, wants)
    indexed = _indexed_anew(has, wants)
    if laid_out or (indexed and copies):
        return Planned(ReindexPlan.COPY, "; ".join(laid_out + indexed))
    stale = _stale(room)
    if stale:
        return Planned(ReindexPlan.RECHUNK, "; ".join([f"{stale} are cut otherwise", *indexed]))
    if indexed:
        return Planned(ReindexPlan.IN_PLACE, "; ".join(indexed))
    return Planned(ReindexPlan.ALREADY_CURRENT, "the collection is as its spec wants it")


def _embedded_anew(has: Built, wants: Built) -> list[str]:
    """Return why vectors that there are cannot be used."""
    reasons = []
    if has.revision != wants.revision:
        reasons.append(
            f"vectors are of model {has.model} ({has.revision}), wanted are those of "
            f"{wants.model} ({wants.revision})"
        )
    elif has.dimensions != wants.dimensions:
        reasons.append(f"vectors have {has.dimensions} numbers, wanted are {wants.dimensions}")
    # A store normalises what it compares by angle; how long vectors were is lost.
    if has.distance is DistanceType.COSINE is not wants.distance:
        reasons.append(f"distance is Cosine, wanted is {wants.distance.value}")
    if wants.sparse is SparseType.MODEL is not has.sparse:
        reasons.append(f"sparse vectors are {has.sparse.value}, wanted is Model")
    if wants.multivector is MultivectorType.COLBERT is not has.multivector:
        reasons.append("tokens have no vectors, wanted is ColBERT")
    return reasons


def _laid_out_anew(has: Built, wants: Built) -> list[str]:
    """Return what no index over the same collection brings about."""
    reasons = []
    if has.model != wants.model:
        reasons.append(f"model is {has.model}, wanted is {wants.model}, which is the same one")
    if has.distance is not wants.distance:
        reasons.append(f"distance is {has.distance.value}, wanted is {wants.distance.value}")
    if has.sparse is not wants.sparse:
        reasons.append(f"sparse vectors are {has.sparse.value}, wanted is {wants.sparse.value}")
    if has.multivector is not wants.multivector:
        reasons.append("tokens have vectors, wanted is None")
    return reasons


def _indexed_anew(has: Built, wants: Built) -> list[str]:
    reasons = []
    hnsw = {name: has.hnsw.get(name) for name in wants.hnsw}
    if hnsw != dict(wants.hnsw):
        reasons.append(f"hnsw is {hnsw}, wanted is {dict(wants.hnsw)}")
    if has.quantization != wants.quantization:
        reasons.append(f"quantization is {has.quantization}, wanted is {wants.quantization}")
    return reasons


def _stale(room: Room) -> str:
    return f"{room.stale_documents} documents" if room.stale_documents else ""


def _refusal(
    planned: Planned, has: Built, wants: Built, room: Room, may_fail: int
) -> Refused | None:
    """Return why a second collection cannot be made, with numbers."""
    if planned.plan.embeds and room.textless > may_fail:
        return Refused(
            Reason.NO_TEXT,
            f"{room.textless} of {room.points} points have vectors and no text, so that model "
            f"{wants.model!r} cannot embed them; {may_fail} may be left out: write them with a "
            "text, or delete them",
        )
    growth = max(1.0, wants.dimensions / has.dimensions)
    disk = int(room.point_bytes * growth * BUILD_FACTOR)
    if room.disk_free is not None and disk > room.disk_free:
        return _no_room("volume", "on it", disk, room.disk_free)
    memory = int(room.memory_bytes * growth)
    if room.memory_free is not None and memory > room.memory_free:
        return _no_room("store's memory", "in it", memory, room.memory_free)
    return None


def _no_room(what: str, where: str, needed: int, free: int) -> Refused:
    return Refused(
        Reason.NO_ROOM,
        f"a second collection needs {human_bytes(needed)}; {human_bytes(free)} of the {what} are "
        f"free: make room {where}, or take a smaller model or profile",
    )
