"""Searches as plain data."""

from typing import Any

import pytest

from ullage_runtime.retrieval.searching import (
    Hit,
    Mode,
    Search,
    blended,
    blended_words,
    candidates_of,
    grouped,
    page_of,
    queries_of,
    towards,
)
from ullage_runtime.retrieval.stores.port import Found, Fusion, Sparse

DENSE = (1.0, 0.0)
WORDS = Sparse((1,), (1.0,))


def test_a_threshold_is_for_dense_findings_and_never_for_fused_ones() -> None:
    search = Search(text="a", threshold=0.4, fusion=Fusion.RRF, rrf_k=7)
    (query,) = queries_of(search, DENSE, WORDS, {})
    dense, sparse = query.branches
    assert (dense.threshold, sparse.threshold) == (0.4, None)
    assert query.rrf_k == 7


def test_a_threshold_of_zero_is_none() -> None:
    (query,) = queries_of(Search(text="a", threshold=0.0), DENSE, None, {})
    assert query.branches[0].threshold is None


def test_branches_of_a_hybrid_search_find_more_than_is_asked_for() -> None:
    (query,) = queries_of(Search(text="a", limit=5), DENSE, WORDS, {"hnsw_ef": 64})
    assert query.limit == 5
    assert [branch.limit for branch in query.branches] == [100, 100]
    assert query.params == {"hnsw_ef": 64}


def test_an_explained_search_asks_each_list_by_itself_too() -> None:
    search = Search(text="a", limit=2, explain=True)
    queries = queries_of(search, DENSE, WORDS, {})
    assert [len(query.branches) for query in queries] == [2, 1, 1]
    answers = [
        [Found(1, 0.9, {"_v": 3, "n": 1}), Found(2, 0.8, {})],
        [Found(2, 0.5, {}), Found(1, 0.4, {})],
        [Found(1, 7.0, {})],
    ]
    first, second = candidates_of(search, queries, answers)
    assert first.payload == {"n": 1}, "the version is ours"
    assert first.parts is not None
    assert {name: (p.rank, p.score) for name, p in first.parts.items()} == {
        "dense": (2, 0.4),
        "sparse": (1, 7.0),
    }
    assert second.parts is not None
    assert set(second.parts) == {"dense"}


def test_pages_are_cut_from_one_list_of_candidates() -> None:
    search = Search(text="a", mode=Mode.DENSE, limit=2, offset=3)
    (query,) = queries_of(search, DENSE, None, {})
    assert query.limit == 5
    answer = [Found(n, 1.0 - n / 10, {}) for n in range(5)]
    assert [hit.id for hit in page_of(search, candidates_of(search, [query], [answer]))] == [3, 4]


@pytest.mark.parametrize(
    ("size", "groups", "expected"),
    [(1, 2, [1, 3]), (2, 2, [1, 2, 3]), (1, 9, [1, 3, 4, 5]), (9, 1, [1, 2])],
)
def test_groups_keep_the_best_of_each_and_the_best_group_first(
    size: int, groups: int, expected: list[int]
) -> None:
    payloads: list[dict[str, Any]] = [{"d": {"id": "a"}}] * 2 + [{"d": {"id": 7}}, {}, {}]
    hits = [Hit(n, 1.0, payload) for n, payload in enumerate(payloads, 1)]
    assert [hit.id for hit in grouped(hits, "d.id", size, groups)] == expected


def test_what_is_recommended_lies_away_from_what_it_is_to_be_unlike() -> None:
    assert towards([(1.0, 0.0), (0.0, 1.0)], []) == (0.5, 0.5)
    assert towards([(1.0, 0.0)], [(0.0, 1.0), (0.0, 3.0)]) == (2.0, -2.0)


def test_earlier_questions_count_half_as_much_each() -> None:
    assert blended([(1.0, 0.0)]) == (1.0, 0.0)
    assert blended([(1.0, 0.0), (0.0, 1.0), (4.0, 0.0)]) == (2.0, 0.5)
    words = blended_words([Sparse((3,), (1.0,)), Sparse((1, 3), (1.0, 1.0))])
    assert words == Sparse((1, 3), (0.5, 1.5))
