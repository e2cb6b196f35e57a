"""The paths of tokens."""

from fastapi import Request
from starlette.responses import Response

from ullage_runtime.http.openapi import SERVED, refusals
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.http.tokens.objects import DetokenizeAnswer, TokenizeAnswer
from ullage_runtime.http.tokens.schema import DetokenizeBody, TokenizeBody
from ullage_runtime.http.tokens.service import detokenize_answer, tokenize_answer

TAG = "Tokens"

router = Router(tag=TAG)


@router.post("/tokenize", response_model=TokenizeAnswer, responses=refusals(*SERVED))
async def tokenize(body: TokenizeBody, request: Request, services: ServicesOf) -> Response:
    """Tell a text's, or a chat's, tokens."""
    return await tokenize_answer(services, request, body)


@router.post("/detokenize", response_model=DetokenizeAnswer, responses=refusals(*SERVED))
async def detokenize(body: DetokenizeBody, request: Request, services: ServicesOf) -> Response:
    """Tell the text of tokens."""
    return await detokenize_answer(services, request, body)
