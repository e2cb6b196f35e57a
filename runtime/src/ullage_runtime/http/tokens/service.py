"""From a text to its tokens and back, beside whatever the engine computes."""

import json
import uuid
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.domain import GenerateRequest
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.http.leased import Asked, leased_answer
from ullage_runtime.http.openai.parameters import refuse_unsupported
from ullage_runtime.http.openai.service import chosen_model
from ullage_runtime.http.services import Services
from ullage_runtime.http.tokens.schema import NEUTRAL, DetokenizeBody, TokenizeBody
from ullage_runtime.models.ports import Lease


async def tokenize_answer(services: Services, request: Request, body: TokenizeBody) -> Response:
    """Return a text's, or a chat's, tokens."""
    refuse_unsupported(body, NEUTRAL)
    model = chosen_model(services, request, body.model)
    if body.messages is not None and model.task is not Task.CHAT:
        raise InvalidRequest(
            f"model {model.name!r} is for {model.task.value} and takes no messages; send a prompt",
            param="messages",
        )
    asked = Asked(
        work=partial(_tokenized, _wanted(body)),
        write=partial(_tokens_text, body),
        tokens=lambda _told: 0,
        estimate=0,
        beside=True,
    )
    return await leased_answer(services, request, model, asked)


async def detokenize_answer(services: Services, request: Request, body: DetokenizeBody) -> Response:
    """Return the text of tokens."""
    model = chosen_model(services, request, body.model)
    wanted = DetokenizeRequest(uuid.uuid4().hex, body.tokens)

    async def work(lease: Lease) -> str:
        return await lease.detokenize(wanted)

    async def write(text: str) -> bytes:
        return _json({"prompt": text, "content": text})

    asked = Asked(work=work, write=write, tokens=lambda _text: 0, estimate=0, beside=True)
    return await leased_answer(services, request, model, asked)


def _wanted(body: TokenizeBody) -> TokenizeRequest:
    request_id = uuid.uuid4().hex
    with_pieces = bool(body.return_token_strs or body.with_pieces)
    if body.messages is not None:
        turns = tuple(each.message for each in body.messages)
        chat = GenerateRequest(request_id, messages=turns)
        return TokenizeRequest(request_id, chat=chat, with_pieces=with_pieces)
    if body.content is not None:
        text, special = body.content, bool(body.add_special)
    else:
        text, special = body.prompt or "", body.add_special_tokens is not False
    return TokenizeRequest(request_id, text=text, add_special=special, with_pieces=with_pieces)


async def _tokenized(wanted: TokenizeRequest, lease: Lease) -> tuple[Tokens, int]:
    return await lease.tokenize(wanted), lease.loaded.context_length


async def _tokens_text(body: TokenizeBody, told: tuple[Tokens, int]) -> bytes:
    tokens, longest = told
    ids: list[Any] = list(tokens.ids)
    if body.with_pieces:
        pairs = zip(tokens.ids, tokens.pieces, strict=True)
        ids = [{"id": token, "piece": _piece(piece)} for token, piece in pairs]
    strings = [piece.decode(errors="replace") for piece in tokens.pieces]
    return _json(
        {
            "count": len(tokens.ids),
            "max_model_len": longest,
            "tokens": ids,
            "token_strs": strings if body.return_token_strs else None,
        }
    )


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def _json(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()
