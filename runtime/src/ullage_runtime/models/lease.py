"""A request's lease: what it may ask of the generation it holds, and for how long."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace
from typing import TypeVar, cast

from ullage_api.kinds.engine_settings import Instructions
from ullage_runtime.core.domain import Chunk, GenerateRequest
from ullage_runtime.core.errors import InvalidRequest, ModelLoading, RequestTimeout, ServingError
from ullage_runtime.core.pooled import (
    Ability,
    EmbedRequest,
    PooledAnswer,
    RerankRequest,
    Role,
    TextOrTokens,
)
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.models.live import Live
from ullage_runtime.models.shared_embeddings import SharedEmbeddings, Whose
from ullage_runtime.models.waits import Waits

T = TypeVar("T")

NoAdapter = Callable[[str], ServingError]
"""Takes an adapter that a generation does not have; returns what its request is told."""


class BoundLease:
    """A request's hold on a live generation, with the time it has left."""

    def __init__(
        self,
        model: str,
        live: Live,
        deadline: float,
        seconds: int,
        *,
        no_adapter: NoAdapter,
        embeddings: SharedEmbeddings,
        make_way: asyncio.Event | None = None,
    ) -> None:
        self.model = model
        self._no_adapter = no_adapter
        self._embeddings = embeddings
        self.revision = live.generation.revision
        self.loaded = live.loaded
        self.deadline = deadline
        self.make_way = make_way
        self._live = live
        self._seconds = seconds

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Generate; raises RequestTimeout when the model's limit for a request has passed."""
        self._require(Ability.GENERATE)
        if not self._live.has_adapter(request.adapter):
            raise self._no_adapter(request.adapter)
        stream = cast("AsyncGenerator[Chunk, None]", self._live.engine.generate(request))
        spent, clock = 0.0, asyncio.get_running_loop().time
        with self._noted(), closing(Waits()) as waits:
            async with aclosing(stream) as chunks:
                while True:
                    began = clock()
                    with waits.until(self.deadline):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    spent += clock() - began
                    if chunk.finish is not None:
                        tokens = chunk.usage.completion_tokens if chunk.usage else 1
                        self._live.tally.answered(spent, tokens)
                    yield chunk

    async def embed(self, request: EmbedRequest, role: Role | None = None) -> PooledAnswer:
        """Embed texts, each after the generation's own instruction for their role.

        What is kept of earlier requests, or under way for another one, is not computed again.
        """
        self._require(Ability.EMBED)
        instruction = instruction_for(self._live.want.engine.instructions, role)
        instructed = tuple(after(text, instruction) for text in request.inputs)
        request = replace(request, inputs=instructed)
        whose = Whose(self.model, self.revision, self.deadline)
        try:
            return await self._embeddings.embed(whose, request, self._computed)
        except TimeoutError as error:
            raise too_long(self._seconds) from error

    async def _computed(self, request: EmbedRequest) -> PooledAnswer:
        return await self._timed(self._live.engine.embed(request), len(request.inputs))

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        """Score documents."""
        self._require(Ability.RERANK)
        return await self._timed(self._live.engine.rerank(request), len(request.documents))

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Tokenize a text."""
        return await self._in_time(self._live.engine.tokenize(request))

    async def detokenize(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens."""
        return await self._in_time(self._live.engine.detokenize(request))

    def _require(self, ability: Ability) -> None:
        """Raise ModelLoading if the generation was loaded for another task than the model's."""
        if ability not in self.loaded.abilities:
            raise ModelLoading(
                f"model {self.model!r} is being loaded for its new task; until then it does not "
                f"{ability.value}",
                retry_after=5,
            )

    async def _timed(self, work: Awaitable[T], parts: int) -> T:
        """Wait for an answer of so many parts, and count it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = await self._in_time(work)
        self._live.tally.answered(clock() - began, parts)
        return answer

    async def _in_time(self, work: Awaitable[T]) -> T:
        with self._noted():
            async with asyncio.timeout_at(self.deadline):
                return await work

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Take note of a failure; what is late raises RequestTimeout."""
        try:
            yield
        except TimeoutError as error:
            late = too_long(self._seconds)
            self._live.tally.failed(late)
            raise late from error
        except ServingError as error:
            self._live.tally.failed(error)
            raise


def too_long(seconds: int) -> RequestTimeout:
    """Return the error of a request that has used up its time."""
    return RequestTimeout(f"the request took longer than the {seconds} s its model allows")


def instruction_for(instructions: Instructions | None, role: Role | None) -> str:
    """Return what a model finds before texts of a role."""
    if instructions is None or role is None:
        return ""
    return (instructions.query if role is Role.QUERY else instructions.document) or ""


def after(text: TextOrTokens, instruction: str) -> TextOrTokens:
    """Return a text after an instruction; raises InvalidRequest for tokens."""
    if not instruction:
        return text
    if isinstance(text, tuple):
        raise InvalidRequest(
            "the model puts an instruction before texts of this input_type, which it cannot "
            "before tokens; send text, or leave input_type out",
            param="input_type",
        )
    return instruction + text
