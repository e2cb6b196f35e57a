"""From a request for embeddings to its answer."""

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.errors import DimensionMismatch, InvalidOutput, InvalidRequest
from ullage_runtime.core.pooled import (
    EmbedRequest,
    Output,
    PooledAnswer,
    Said,
    SparseVector,
    TextOrTokens,
    TokenVectors,
)
from ullage_runtime.core.vectors import floats, integers, shortened
from ullage_runtime.http.auth import Key
from ullage_runtime.http.embeddings.schema import NEUTRAL, EmbeddingRequest
from ullage_runtime.http.leased import Asked, leased_answer
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openai.parameters import refuse_unsupported
from ullage_runtime.http.openai.service import chosen_model
from ullage_runtime.http.rate_limits import text_estimate
from ullage_runtime.http.services import Services
from ullage_runtime.http.tasks import check_task
from ullage_runtime.models.ports import Lease

WRITTEN_AT_ONCE: Final = 16 << 10
"""Bytes of numbers written before others get their turn: a large answer takes its time."""


async def embedding_answer(
    services: Services, request: Request, body: EmbeddingRequest
) -> Response:
    """Return the vectors of a request's texts."""
    refuse_unsupported(body, NEUTRAL)
    model = chosen_model(services, request, body.model)
    check_task(model, "embed texts", Task.EMBEDDING)
    _check_dimensions(body)
    if body.input_type is not None and body.task not in (None, body.input_type):
        raise InvalidRequest("task and input_type contradict each other", param="task")
    key: Key = request.scope[KEY]
    work = EmbedRequest(
        request_id=uuid.uuid4().hex,
        inputs=body.input,
        truncate=bool(body.truncate),
        outputs=body.outputs,
        tenant=key.id,
    )
    asked = Asked(
        work=partial(_embedded, body, work),
        write=partial(_written, body),
        tokens=lambda answer: answer.tokens,
        estimate=inputs_estimate(body.input),
    )
    return await leased_answer(services, request, model, asked)


def _check_dimensions(body: EmbeddingRequest) -> None:
    if body.dimensions is not None and Output.DENSE not in body.outputs:
        raise InvalidRequest(
            "dimensions shorten dense vectors, and none are asked for; leave them out",
            param="dimensions",
        )


def inputs_estimate(inputs: tuple[TextOrTokens, ...]) -> int:
    """Return about how many tokens some texts have, without a tokenizer."""
    return sum(text_estimate(each) if isinstance(each, str) else len(each) for each in inputs)


async def _embedded(body: EmbeddingRequest, work: EmbedRequest, lease: Lease) -> PooledAnswer:
    width = lease.loaded.dimensions
    if body.dimensions is not None and body.dimensions > width:
        raise DimensionMismatch(
            f"model {body.model!r} gives {width} dimensions; {body.dimensions} are more",
            param="dimensions",
            details={"dimensions": width},
        )
    return await lease.embed(work, body.input_type or body.task)


async def _written(body: EmbeddingRequest, answer: PooledAnswer) -> bytes:
    """Return OpenAI's list, piece by piece: others wait while numbers are written."""
    pieces = []
    written = 0
    for index, said in enumerate(answer.said):
        written += said.size
        if written > WRITTEN_AT_ONCE:
            written = 0
            await asyncio.sleep(0)
        members = ",".join(f'"{name}":{text}' for name, text in _members(body, index, said))
        pieces.append(f'{{"object":"embedding","index":{index},{members}}}')
    usage = {
        "prompt_tokens": answer.tokens,
        "total_tokens": answer.tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
    rest = json.dumps({"model": body.model, "usage": usage}, separators=(",", ":"))
    return f'{{"object":"list","data":[{",".join(pieces)}],{rest[1:]}'.encode()


def _members(body: EmbeddingRequest, index: int, said: Said) -> Iterator[tuple[str, str]]:
    """Yield what is said of a text, as the names and the JSON texts of an object's members."""
    match body.embedding_type:
        case "sparse":
            yield "embedding", _sparse_text(said.sparse)
        case "colbert":
            yield "embedding", _vectors_text(body, said.colbert)
        case _:
            yield "embedding", _dense_text(body, index, said.values)
    if body.return_sparse:
        yield "sparse_embedding", _sparse_text(said.sparse)
    if body.return_colbert_vecs:
        yield "colbert_vecs", _vectors_text(body, said.colbert)


def _sparse_text(sparse: SparseVector | None) -> str:
    if sparse is None:
        raise TypeError("the engine left the sparse vector out")
    indices = ",".join(map(str, integers(sparse.tokens)))
    return f'{{"indices":[{indices}],"values":{_numbers(sparse.weights)}}}'


def _vectors_text(body: EmbeddingRequest, vectors: TokenVectors | None) -> str:
    if vectors is None:
        raise TypeError("the engine left the vectors of tokens out")
    return f"[{','.join(_vector_text(body, row) for row in vectors.rows)}]"


def _dense_text(body: EmbeddingRequest, index: int, vector: bytes) -> str:
    if body.dimensions is not None:
        try:
            vector = shortened(vector, body.dimensions)
        except ValueError as error:
            raise InvalidOutput(
                f"the first {body.dimensions} dimensions of input {index} are no vector: {error}",
                param="dimensions",
            ) from error
    return _vector_text(body, vector)


def _vector_text(body: EmbeddingRequest, vector: bytes) -> str:
    if body.encoding_format == "base64":
        return f'"{base64.b64encode(vector).decode()}"'
    return _numbers(vector)


def _numbers(values: bytes) -> str:
    # Nine digits tell every 32-bit number from its neighbours.
    return f"[{','.join([f'{number:.9g}' for number in floats(values)])}]"
