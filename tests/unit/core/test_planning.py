"""The way of a reindex job is the cheapest one that is correct."""

from dataclasses import replace

import pytest

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPlan as Plan
from ullage_api.kinds.vector_collection import DistanceType, SparseType
from ullage_runtime.core.reindexing.planning import Built, Planned, Refused, Room, outlook

MIB = 1 << 20
HAS = Built("mini", "r1", 384, hnsw={"m": 16, "ef_construct": 128}, quantization={"scalar": 1})
OTHER = replace(HAS, model="large", revision="r2", dimensions=768)
ROOM = Room(points=1000, point_bytes=10 * MIB, disk_free=100 * MIB)


@pytest.mark.parametrize(
    ("wants", "room", "plan", "says"),
    [
        (HAS, ROOM, Plan.ALREADY_CURRENT, "as its spec wants it"),
        (replace(HAS, hnsw={"m": 32}), ROOM, Plan.IN_PLACE, "wanted is {'m': 32}"),
        (replace(HAS, quantization=None), ROOM, Plan.IN_PLACE, "wanted is None"),
        (HAS, replace(ROOM, stale_documents=3), Plan.RECHUNK, "3 documents are cut otherwise"),
        (
            replace(HAS, quantization=None),
            replace(ROOM, stale_documents=3),
            Plan.RECHUNK,
            "3 documents are cut otherwise; quantization",
        ),
        (replace(HAS, sparse=SparseType.NONE), ROOM, Plan.COPY, "are BM25, wanted is None"),
        (replace(HAS, model="same"), ROOM, Plan.COPY, "which is the same one"),
        (replace(HAS, sparse=SparseType.MODEL), ROOM, Plan.REEMBED, "are BM25, wanted is Model"),
        (replace(HAS, distance=DistanceType.DOT), ROOM, Plan.REEMBED, "Cosine, wanted is Dot"),
        (OTHER, ROOM, Plan.REEMBED, "of model mini (r1), wanted are those of large (r2)"),
        (replace(HAS, revision="r2"), ROOM, Plan.REEMBED, "mini (r2)"),
        (
            OTHER,
            replace(ROOM, stale_documents=3),
            Plan.REEMBED,
            "a second job then cuts 3 documents",
        ),
    ],
)
def test_a_plan_is_the_cheapest_correct_one_and_says_why(
    wants: Built, room: Room, plan: Plan, says: str
) -> None:
    found = outlook(HAS, wants, room)
    assert isinstance(found, Planned)
    assert found.plan is plan
    assert says in found.reason


def test_vectors_that_were_not_normalised_are_copied_to_be_compared_by_their_angle() -> None:
    found = outlook(replace(HAS, distance=DistanceType.DOT), HAS, ROOM)
    assert isinstance(found, Planned)
    assert found.plan is Plan.COPY


def test_what_could_be_done_in_place_is_copied_where_a_rollback_must_be_quick() -> None:
    found = outlook(HAS, replace(HAS, hnsw={"m": 32}), ROOM, copies=True)
    assert isinstance(found, Planned)
    assert found.plan is Plan.COPY
    found = outlook(HAS, HAS, ROOM, copies=True)
    assert isinstance(found, Planned)
    assert found.plan is Plan.ALREADY_CURRENT


def refused(wants: Built, room: Room, **given: int) -> Refused:
    found = outlook(HAS, wants, room, **given)  # type: ignore[arg-type]
    assert isinstance(found, Refused)
    return found


def test_points_without_a_text_cannot_be_embedded_anew() -> None:
    room = replace(ROOM, textless=12)
    found = refused(OTHER, room)
    assert found.reason is Reason.NO_TEXT
    assert "12 of 1000 points have vectors and no text" in found.message
    assert isinstance(outlook(HAS, OTHER, room, may_fail=12), Planned)
    assert isinstance(outlook(HAS, replace(HAS, sparse=SparseType.NONE), room), Planned)


def test_a_second_collection_that_has_no_room_is_refused_with_numbers() -> None:
    found = refused(OTHER, replace(ROOM, disk_free=39 * MIB))
    assert found.reason is Reason.NO_ROOM
    assert "needs 40.0 MiB; 39.0 MiB of the volume are free" in found.message
    room = replace(ROOM, memory_bytes=8 * MIB, memory_free=15 * MIB)
    assert "needs 16.0 MiB; 15.0 MiB of the store's memory" in refused(OTHER, room).message
    in_place = outlook(HAS, replace(HAS, hnsw={"m": 32}), replace(room, disk_free=1))
    assert isinstance(in_place, Planned)
