"""Searches find what they should: Python's own docstrings, by their summary lines."""

import pathlib

from tests.support import docstrings
from tests.support.histories import engine
from tests.support.judging import DEPTH, judged
from ullage_runtime.retrieval.stores.port import Branch, Layout, Point, Query
from ullage_runtime.retrieval.words import document_words, query_words

BATCH = 200
NDCG_OF_WORDS = 0.50


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
    scores = judged(
        {
            number: [int(each.id) for each in answer]
            for number, answer in zip(asked, found, strict=True)
        }
    )
    assert scores.ndcg >= NDCG_OF_WORDS, scores
    assert scores.recall >= 0.6, scores
