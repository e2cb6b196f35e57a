"""From a request for a ranking to its answer, in each of the field's shapes."""

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.auth import Key
from ullage_runtime.http.leased import Asked, leased_answer
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openai.parameters import refuse_unsupported
from ullage_runtime.http.openai.service import chosen_model, visible_cards
from ullage_runtime.http.ranking.schema import (
    NEUTRAL,
    RankingRequest,
    RerankBody,
    ScoreBody,
    TextsBody,
)
from ullage_runtime.http.ranking.scoring import Scores, Scoring, all_scored
from ullage_runtime.http.rate_limits import text_estimate
from ullage_runtime.http.services import Services
from ullage_runtime.http.tasks import check_task
from ullage_runtime.models.ports import Lease


async def rerank_answer(services: Services, request: Request, body: RerankBody) -> Response:
    """Return the documents' scores in Cohere's and Jina's shape, the best first."""
    model = _ranking_model(services, request, body.model)
    if body.max_tokens_per_doc is not None and model.task is not Task.RERANK:
        raise InvalidRequest(
            f"model {model.name!r} ranks by embeddings, which take whole documents; leave "
            "max_tokens_per_doc out, or send truncate: true",
            param="max_tokens_per_doc",
        )
    key: Key = request.scope[KEY]
    scoring = Scoring(
        query=body.query,
        documents=body.documents,
        tenant=key.id,
        truncate=bool(body.truncate),
        raw=bool(body.raw_scores),
        max_document_tokens=body.max_tokens_per_doc,
    )
    return await _answer(services, request, model, body, [scoring], partial(_ranking, body))


async def texts_answer(services: Services, request: Request, body: TextsBody) -> Response:
    """Return the texts' scores in TEI's shape, the best first."""
    name = body.model or _only_ranker(services, request)
    model = _ranking_model(services, request, name)
    key: Key = request.scope[KEY]
    scoring = Scoring(
        query=body.query,
        documents=body.texts,
        tenant=key.id,
        truncate=bool(body.truncate),
        raw=bool(body.raw_scores),
    )
    return await _answer(services, request, model, body, [scoring], partial(_ranked_texts, body))


async def score_answer(services: Services, request: Request, body: ScoreBody) -> Response:
    """Return the pairs' scores in vLLM's shape, in their order."""
    model = _ranking_model(services, request, body.model)
    key: Key = request.scope[KEY]
    scorings = [
        Scoring(
            query=query,
            documents=documents,
            tenant=key.id,
            truncate=bool(body.truncate),
            raw=bool(body.raw_scores),
        )
        for query, documents in _pairs(body)
    ]
    shape = partial(_score_list, body, int(services.now()))
    return await _answer(services, request, model, body, scorings, shape)


def _pairs(body: ScoreBody) -> list[tuple[str, tuple[str, ...]]]:
    """Return each query with its documents; raises InvalidRequest when they do not pair."""
    queries, documents = body.text_1, body.text_2
    if len(queries) == 1:
        return [(queries[0], documents)]
    if len(queries) != len(documents):
        raise InvalidRequest(
            f"text_1 has {len(queries)} texts and text_2 {len(documents)}; send one text_1, or "
            "as many of each",
            param="text_1",
        )
    return [(query, (document,)) for query, document in zip(queries, documents, strict=True)]


async def _answer(
    services: Services,
    request: Request,
    model: DesiredModel,
    body: RankingRequest,
    scorings: list[Scoring],
    shape: Callable[[Scores], Any],
) -> Response:
    refuse_unsupported(body, NEUTRAL)

    async def work(lease: Lease) -> Scores:
        return await all_scored(scorings, lease)

    async def write(scores: Scores) -> bytes:
        return json.dumps(shape(scores), separators=(",", ":"), ensure_ascii=False).encode()

    estimate = sum(
        text_estimate(document) + text_estimate(scoring.query)
        for scoring in scorings
        for document in scoring.documents
    )
    asked = Asked(work=work, write=write, tokens=lambda scores: scores.tokens, estimate=estimate)
    return await leased_answer(services, request, model, asked)


def _ranking_model(services: Services, request: Request, name: str) -> DesiredModel:
    model = chosen_model(services, request, name)
    check_task(model, "rank documents", Task.RERANK, Task.EMBEDDING)
    return model


def _only_ranker(services: Services, request: Request) -> str:
    """Return the one Rerank model that the caller may use; raises InvalidRequest."""
    names = [c.name for c in visible_cards(services, request) if c.task == Task.RERANK.value]
    if len(names) == 1:
        return names[0]
    known = f"there are {', '.join(names)}" if names else "there is none"
    raise InvalidRequest(f"say which Rerank model is meant; {known}", param="model")


def _best_first(scores: Scores, top: int | None = None) -> list[tuple[int, float]]:
    ranked = sorted(enumerate(scores.values), key=lambda pair: (-pair[1], pair[0]))
    return ranked[:top]


def _usage(scores: Scores) -> dict[str, int]:
    return {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}


def _ranking(body: RerankBody, scores: Scores) -> dict[str, Any]:
    results = []
    for index, score in _best_first(scores, body.top_n):
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": body.model,
        "results": results,
        "usage": _usage(scores),
    }


def _ranked_texts(body: TextsBody, scores: Scores) -> list[dict[str, Any]]:
    return [
        {"index": index, "score": score} | ({"text": body.texts[index]} if body.return_text else {})
        for index, score in _best_first(scores)
    ]


def _score_list(body: ScoreBody, created: int, scores: Scores) -> dict[str, Any]:
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": created,
        "model": body.model,
        "data": [
            {"object": "score", "index": index, "score": score}
            for index, score in enumerate(scores.values)
        ],
        "usage": _usage(scores),
    }
