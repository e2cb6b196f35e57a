"""Chats at temperature 0 that were answered before: an answer is kept, and given again."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.cache import CacheKey
from ullage_runtime.core.domain import Chunk, GenerateRequest
from ullage_runtime.core.joining import joined
from ullage_runtime.models.kept import Kept, Outcome

STATUS_HEADER: Final = "Cache-Status"
"""RFC 9211: what a cache did with a request."""
NAME: Final = "ullage"
"""The cache's name in it."""

_OBJECTS: Final = 2
"""How many times its own text an answer takes in memory, about."""


class Recall:
    """Where one request's answer is looked for, and where it is kept once it is complete."""

    def __init__(
        self,
        kept: Kept[tuple[Chunk, ...]],
        model: DesiredModel,
        requests: Sequence[GenerateRequest],
    ) -> None:
        self._kept = kept
        self._model = model
        self._tenant = requests[0].tenant
        self._asked = _digest(requests)
        self._chunks: list[list[Chunk]] = [[] for _ in requests]
        self.status = f"{NAME}; fwd=miss"
        """What the header of that name says."""

    def find(self, revision: str | None) -> tuple[Chunk, ...] | None:
        """Return a revision's answer, one chunk for each choice, if it is kept."""
        found = None if revision is None else self._kept.find(self._key(revision))
        self._kept.count(self._model.name, Outcome.MISS if found is None else Outcome.HIT)
        if found is None:
            return None
        self.status = f"{NAME}; hit"
        return tuple(map(_all_cached, found))

    def begin(self) -> None:
        """Forget what an attempt has brought that is made again."""
        self._chunks = [[] for _ in self._chunks]

    def add(self, index: int, chunk: Chunk) -> None:
        """Take in what was added to a choice."""
        self._chunks[index].append(chunk)

    def keep(self, revision: str) -> None:
        """Keep the answer, now that it is complete."""
        limits = self._model.serving.response_cache
        if limits is not None:
            choices = tuple(map(joined, self._chunks))
            size = _OBJECTS * len(repr(choices))
            self._kept.keep(self._key(revision), choices, size, limits.ttl_seconds)

    def _key(self, revision: str) -> CacheKey:
        return CacheKey(self._tenant, self._model.name, revision, self._asked)


def recall_of(
    kept: Kept[tuple[Chunk, ...]], model: DesiredModel, requests: Sequence[GenerateRequest]
) -> Recall | None:
    """Return where the answer is looked for; None where the model or the request does not allow it.

    Above temperature 0 the same question is meant to have several answers.
    """
    limits = model.serving.response_cache
    if limits is None or not limits.ttl_seconds:
        return None
    if any(request.sampling.temperature > 0 for request in requests):
        return None
    return Recall(kept, model, requests)


def _digest(requests: Sequence[GenerateRequest]) -> bytes:
    """Return what tells a request from those that have another answer."""
    plain = [
        replace(each, request_id="", tenant="", priority=0, timeout_seconds=None)
        for each in requests
    ]
    return hashlib.sha256(repr(plain).encode("utf-8", "surrogatepass")).digest()


def _all_cached(chunk: Chunk) -> Chunk:
    """Return a kept chunk as it is told again: no token of its prompt had to be computed."""
    if chunk.usage is None:
        return chunk
    return replace(chunk, usage=replace(chunk.usage, cached_tokens=chunk.usage.prompt_tokens))
