"""Searches find what they should: Python's own docstrings, by their summary lines."""

import pathlib
from dataclasses import dataclass

import pytest
import pytrec_eval

from tests.support import docstrings, ranking
from tests.support.histories import engine
from ullage_runtime.retrieval.stores.port import Branch, Layout, Point, Query
from ullage_runtime.retrieval.words import document_words, query_words

DEPTH = 10
BATCH = 200
NDCG_OF_WORDS = 0.50


@dataclass(frozen=True, slots=True)
class Scores:
    ndcg: float
    recall: float
    reciprocal_rank: float


def scores_of(rankings: dict[int, list[int]]) -> Scores:
    """Return the means of our own measures, which pytrec_eval must have, too."""
    count = len(rankings)
    ours = Scores(
        sum(ranking.ndcg(found, answer, DEPTH) for answer, found in rankings.items()) / count,
        sum(ranking.recall(found, answer, DEPTH) for answer, found in rankings.items()) / count,
        sum(ranking.reciprocal_rank(found, answer) for answer, found in rankings.items()) / count,
    )
    judge = pytrec_eval.RelevanceEvaluator(
        {str(answer): {str(answer): 1} for answer in rankings},
        {f"ndcg_cut.{DEPTH}", f"recall.{DEPTH}", "recip_rank"},
    )
    theirs = judge.evaluate(
        {
            # Where scores are equal it has its own order, so that ranks are given as scores.
            str(answer): {str(each): float(-rank) for rank, each in enumerate(found)}
            for answer, found in rankings.items()
        }
    )
    for name, mean in (
        (f"ndcg_cut_{DEPTH}", ours.ndcg),
        (f"recall_{DEPTH}", ours.recall),
        ("recip_rank", ours.reciprocal_rank),
    ):
        assert sum(each[name] for each in theirs.values()) / count == pytest.approx(mean, abs=1e-6)
    return ours


async def test_words_find_docstrings_by_their_summaries(tmp_path: pathlib.Path) -> None:
    items = docstrings.items()
    assert len(items) == docstrings.COUNT
    async with engine(tmp_path) as store:
        await store.create("docstrings", Layout(1))
        for first in range(0, len(items), BATCH):
            points = [
                Point(first + offset, {}, None, document_words(item.body))
                for offset, item in enumerate(items[first : first + BATCH])
            ]
            await store.write("docstrings", points, 1)
        asked = docstrings.questions(items)
        queries = [
            Query((Branch(query_words(items[number].query), DEPTH),), DEPTH) for number in asked
        ]
        found = await store.query("docstrings", queries, seconds=60)
    scores = scores_of(
        {
            number: [int(each.id) for each in answer]
            for number, answer in zip(asked, found, strict=True)
        }
    )
    assert scores.ndcg >= NDCG_OF_WORDS, scores
    assert scores.recall >= 0.6, scores
