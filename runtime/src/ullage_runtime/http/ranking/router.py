"""The paths of ranking."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from ullage_runtime.http.openapi import SERVED, refusals
from ullage_runtime.http.ranking.objects import RankedText, Ranking, ScoreList
from ullage_runtime.http.ranking.schema import RerankBody, ScoreBody, TextsBody
from ullage_runtime.http.ranking.service import rerank_answer, score_answer, texts_answer
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Ranking"

router = Router(tag=TAG)

_REFUSALS: dict[int | str, dict[str, Any]] = refusals(*SERVED)


@router.post("/v1/rerank", response_model=Ranking, responses=_REFUSALS)
async def create_ranking(body: RerankBody, request: Request, services: ServicesOf) -> Response:
    """Score documents by how well they answer a query; the best come first."""
    return await rerank_answer(services, request, body)


@router.post("/v2/rerank", response_model=Ranking, responses=_REFUSALS)
async def create_ranking_v2(body: RerankBody, request: Request, services: ServicesOf) -> Response:
    """Do the same at the path of Cohere's newer clients."""
    return await rerank_answer(services, request, body)


@router.post("/rerank", response_model=list[RankedText], responses=_REFUSALS)
async def create_text_ranking(body: TextsBody, request: Request, services: ServicesOf) -> Response:
    """Do the same for clients of Text Embeddings Inference."""
    return await texts_answer(services, request, body)


@router.post("/score", response_model=ScoreList, responses=_REFUSALS)
async def create_scores(body: ScoreBody, request: Request, services: ServicesOf) -> Response:
    """Score pairs of texts, as vLLM does."""
    return await score_answer(services, request, body)
