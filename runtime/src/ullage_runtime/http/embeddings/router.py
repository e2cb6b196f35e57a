"""The path of embeddings."""

from fastapi import Request
from starlette.responses import Response

from ullage_runtime.core.errors import DimensionMismatch, UnsupportedOutput
from ullage_runtime.http.embeddings.objects import EmbeddingList
from ullage_runtime.http.embeddings.schema import EmbeddingRequest
from ullage_runtime.http.embeddings.service import embedding_answer
from ullage_runtime.http.openapi import SERVED, refusals
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Embeddings"

router = Router(prefix="/v1", tag=TAG)


@router.post(
    "/embeddings",
    response_model=EmbeddingList,
    responses=refusals(*SERVED, DimensionMismatch, UnsupportedOutput),
)
async def create_embeddings(
    body: EmbeddingRequest, request: Request, services: ServicesOf
) -> Response:
    """Embed texts: one vector of length 1 for each, or what else the model says of them."""
    return await embedding_answer(services, request, body)
