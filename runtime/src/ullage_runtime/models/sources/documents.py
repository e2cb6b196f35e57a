"""Small documents of a source: listings, manifests and tokens, whole in memory and bounded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources.access import Access
from ullage_runtime.models.sources.failures import AttemptFailed, unavailable
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.responses import failure
from ullage_runtime.models.sources.retry import with_retries
from ullage_runtime.models.sources.web import Web

MAX_BYTES = 16 << 20
FIRST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a document."""

    url: str
    what: str
    """The source, for messages."""
    headers: Mapping[str, str]
    access: Access
    hint: Mapping[int, str]
    """What to do about an answer of this status."""


@dataclass(frozen=True, slots=True)
class Document:
    """An answer's body and headers."""

    body: bytes
    headers: httpx.Headers

    def json(self, what: str) -> dict[str, Any]:
        """Return the body as a JSON object; raises LoadError."""
        try:
            data = json.loads(self.body)
        except ValueError as error:
            raise unavailable(f"{what} answered something that is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise unavailable(f"{what} answered JSON that is no object")
        return data


def refusal_of(response: httpx.Response, hints: Mapping[int, str]) -> AttemptFailed | LoadError:
    """Return the error that an answer amounts to; `hints` say what to do about which status."""
    return failure(
        response.status_code,
        response.headers,
        host=response.request.url.host,
        now=datetime.now(UTC),
        hint=hints.get(response.status_code, ""),
    )


async def asked(web: Web, question: Question, limits: Limits) -> Document:
    """Return the answer to a question, asked again where that may help; raises LoadError."""

    async def attempt() -> Document:
        request = web.request("GET", question.url, headers=question.headers, access=question.access)
        async with request as response:
            if response.status_code >= FIRST_ERROR:
                raise refusal_of(response, question.hint)
            return Document(await _body(response), response.headers)

    return await with_retries(attempt, what=question.what, limits=limits)


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise unavailable(
                f"{response.request.url.host} answers with more than {MAX_BYTES} bytes where a "
                "list is expected"
            )
    length = response.headers.get("Content-Length")
    if length and length.isdecimal() and int(length) != len(body):
        raise AttemptFailed(f"the answer ended after {len(body)} of {length} bytes")
    return bytes(body)
