"""The recall of an index, by what was asked of late."""

from collections.abc import Sequence
from typing import Any, cast

from ullage_runtime.retrieval.recall import KEPT, RecallProbe, share
from ullage_runtime.retrieval.stores.port import Found, Query, Store


def found(*scores: float) -> list[Found]:
    return [Found(number, score, {}) for number, score in enumerate(scores)]


def test_the_share_of_the_nearest_is_counted() -> None:
    nearest = found(0.9, 0.8, 0.7, 0.6)
    assert share(nearest, nearest) == 1.0
    assert share([*nearest[:2], Found(8, 0.5, {})], nearest) == 0.5
    assert share([], nearest) == 0.0


def test_any_of_equally_near_points_will_do() -> None:
    nearest = found(0.9, 0.5)
    assert share([nearest[0], Found(7, 0.5, {})], nearest) == 1.0
    assert share([*nearest, Found(7, 0.5, {})], nearest) == 1.0


class HalfBlind:
    """A store whose index finds the nearest half."""

    def __init__(self) -> None:
        self.asked: list[Query] = []

    async def query(self, collection: str, queries: Sequence[Query], **given: Any) -> Any:
        self.asked += queries
        whole = found(0.9, 0.8, 0.7, 0.6)
        return [whole if query.params.get("exact") else whole[:2] for query in queries]


async def test_a_question_is_asked_once_by_the_index_and_once_exactly() -> None:
    store, probe = HalfBlind(), RecallProbe()
    await probe.look(cast("Store", store), "things-1", {"hnsw_ef": 64})
    assert (probe.percent, store.asked) == (None, [])
    for number in range(KEPT + 5):
        probe.note("things-1", (float(number),))
    await probe.look(cast("Store", store), "things-1", {"hnsw_ef": 64})
    assert probe.percent == 50
    assert [query.params.get("hnsw_ef") for query in store.asked] == [64, None]
    assert {query.branches[0].vector for query in store.asked} == {(5.0,)}, "the oldest kept"


async def test_a_question_to_another_index_is_not_asked_of_this_one() -> None:
    store, probe = HalfBlind(), RecallProbe()
    probe.note("things-1", (1.0,))
    await probe.look(cast("Store", store), "things-2", {})
    assert store.asked == []
