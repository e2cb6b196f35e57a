"""From a request for embeddings to its answer."""

import asyncio
import base64
import json
import uuid
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.errors import DimensionMismatch, InvalidOutput, InvalidRequest
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, TextOrTokens
from ullage_runtime.core.vectors import floats, shortened
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

WRITTEN_AT_ONCE: Final = 8
"""Vectors written before others get their turn: a large answer takes as long as many small ones."""


async def embedding_answer(
    services: Services, request: Request, body: EmbeddingRequest
) -> Response:
    """Return the vectors of a request's texts."""
    refuse_unsupported(body, NEUTRAL)
    model = chosen_model(services, request, body.model)
    check_task(model, "embed texts", Task.EMBEDDING)
    body.check_outputs()
    if body.input_type is not None and body.task not in (None, body.input_type):
        raise InvalidRequest("task and input_type contradict each other", param="task")
    key: Key = request.scope[KEY]
    work = EmbedRequest(
        request_id=uuid.uuid4().hex,
        inputs=body.input,
        truncate=bool(body.truncate),
        tenant=key.id,
    )
    asked = Asked(
        work=partial(_embedded, body, work),
        write=partial(_written, body),
        tokens=lambda answer: answer.tokens,
        estimate=inputs_estimate(body.input),
    )
    return await leased_answer(services, request, model, asked)


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
    for index, vector in enumerate(answer.values):
        if index and index % WRITTEN_AT_ONCE == 0:
            await asyncio.sleep(0)
        text = _vector_text(body, index, vector)
        pieces.append(f'{{"object":"embedding","index":{index},"embedding":{text}}}')
    usage = {
        "prompt_tokens": answer.tokens,
        "total_tokens": answer.tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
    rest = json.dumps({"model": body.model, "usage": usage}, separators=(",", ":"))
    return f'{{"object":"list","data":[{",".join(pieces)}],{rest[1:]}'.encode()


def _vector_text(body: EmbeddingRequest, index: int, vector: bytes) -> str:
    if body.dimensions is not None:
        try:
            vector = shortened(vector, body.dimensions)
        except ValueError as error:
            raise InvalidOutput(
                f"the first {body.dimensions} dimensions of input {index} are no vector: {error}",
                param="dimensions",
            ) from error
    if body.encoding_format == "base64":
        return f'"{base64.b64encode(vector).decode()}"'
    # Nine digits tell every 32-bit number from its neighbours.
    return f"[{','.join([f'{number:.9g}' for number in floats(vector)])}]"
