"""Documents are cut and embedded again by a ReindexJob, and found as well or better afterwards.

Each document is what a module of the standard library says of itself, and is looked for by the
summary line of one of its functions or classes.
"""

import asyncio
import pathlib
import random
from collections.abc import Callable
from typing import Any

import httpx

from tests.conversion.conftest import Converted
from tests.support import docstrings
from tests.support.collection_pods import C, document, model, notes, pod, posted, ready
from tests.support.judging import DEPTH, Scores, judged
from tests.support.stores import eventually

MODULES = 60
QUESTIONS = 3
"""For each module."""
LARGEST = 12
"""Docstrings of a module."""
COARSE, FINE = 256, 64
"""Tokens of a chunk: as many as the model reads, and about as many as a docstring has."""
LEAST = {COARSE: 0.5, FINE: 0.6}
"""nDCG@10 of the documents."""
PATIENCE = 600.0


def modules() -> list[list[docstrings.Item]]:
    """Return what each module says of itself, of those that say the most."""
    by_module: dict[str, list[docstrings.Item]] = {}
    for item in docstrings.items():
        by_module.setdefault(item.name.partition(":")[0], []).append(item)
    longest = sorted(by_module.items(), key=lambda each: (-len(each[1]), each[0]))
    return [items[:LARGEST] for _, items in longest[:MODULES]]


async def scored(client: httpx.AsyncClient, questions: list[tuple[int, str]]) -> Scores:
    """Return how well modules are found: each by its best chunk."""

    async def found(query: str) -> list[int]:
        body = {"query": query, "mode": "Dense", "limit": DEPTH, "group_by": "document"}
        answer = await posted(client, f"{C}/search", body)
        return [int(hit["payload"]["document"]) for hit in answer["results"]]

    answers = await asyncio.gather(*(found(query) for _, query in questions))
    # Judged one question at a time: several ask for the same module.
    each = [judged({n: found}) for (n, _), found in zip(questions, answers, strict=True)]
    count = len(each)
    return Scores(
        sum(s.ndcg for s in each) / count,
        sum(s.recall for s in each) / count,
        sum(s.reciprocal_rank for s in each) / count,
    )


async def test_documents_that_are_cut_smaller_are_found_better(
    tmp_path: pathlib.Path,
    converted: Converted,
    record_property: Callable[[str, object], None],
) -> None:
    folder = converted("int8").folder
    models = (model("encoder", folder.name),)

    def wanted(tokens: int) -> Any:
        return document(folder.parent, models, notes(chunking={"maxTokens": tokens}))

    texts = modules()
    dice = random.Random(docstrings.SEED)  # noqa: S311 - not for secrets
    questions = [
        (n, item.query) for n, items in enumerate(texts) for item in dice.sample(items, QUESTIONS)
    ]
    async with pod(tmp_path, wanted(COARSE)) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await ready(client)
        documents = [
            {"id": f"{n}", "text": "\n\n".join(item.body for item in items)}
            for n, items in enumerate(texts)
        ]
        path = f"{C}/documents?wait=true&timeout={PATIENCE:.0f}"
        operation = await posted(client, path, {"documents": documents}, 202)
        assert (operation["status"], operation["failed"]) == ("completed", 0), operation
        scores, chunks = {COARSE: await scored(client, questions)}, {COARSE: operation["chunks"]}

        await runtime.documents.accept(wanted(FINE).sealed(2))
        job = {"name": "finer", "spec": {"collection": "notes", "rollbackSeconds": 0}}
        await posted(client, "/v1/reindexes", job, 201)
        done: dict[str, Any] = {}

        async def is_done() -> bool:
            done.update((await client.get("/v1/reindexes/finer")).json())
            assert done["phase"] not in {"Failed", "Cancelled"}, done
            return bool(done["phase"] == "Succeeded")

        await eventually(is_done, PATIENCE, every=0.1)
        assert done["plan"] == "Rechunk"
        chunks[FINE] = (await posted(client, f"{C}/points/count", {}))["count"]
        scores[FINE] = await scored(client, questions)
    record_property("chunks", chunks)
    record_property("ndcg", {size: round(each.ndcg, 4) for size, each in scores.items()})
    assert chunks[FINE] > 2 * chunks[COARSE]
    assert all(scores[size].ndcg >= least for size, least in LEAST.items()), scores
    assert scores[FINE].ndcg > scores[COARSE].ndcg, scores
