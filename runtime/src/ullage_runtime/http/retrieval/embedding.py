"""The pool's models as what embeds for collections."""

import asyncio
import contextlib
import uuid
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Final

from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.pooled import EmbedRequest, Output, PooledAnswer, Role, Said, SparseVector
from ullage_runtime.core.tokens import TokenizeRequest
from ullage_runtime.core.vectors import floats
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.http.tasks import check_task
from ullage_runtime.models.ports import Lease, Models
from ullage_runtime.retrieval.embedding import Embedded, Space, Vectors
from ullage_runtime.retrieval.stores.port import Sparse

AT_ONCE: Final = 64
"""Texts of one request to the engine."""
TOKENS_AT_ONCE: Final = 8
"""Likewise where each token has a vector: an answer may have 64 MiB of them."""
YIELD_SECONDS: Final = 2.0
"""Longest that what is not urgent lets the urgent go first, batch by batch: it must not starve."""


class PoolEmbedder:
    """An `Embedder` over the models of this pod."""

    def __init__(self, models: Models, yield_seconds: float = YIELD_SECONDS) -> None:
        self._models = models
        self._yield_seconds = yield_seconds
        self._urgent = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def space(self, model: str) -> Space:
        """Return the space of a model's vectors, loading it if need be."""
        async with self._models.lease(self._found(model), beside=True) as lease:
            return _space(model, lease)

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        role: Role,
        *,
        tenant: str,
        urgent: bool,
        further: Sequence[Output] = (),
        lasting: bool = True,
    ) -> Embedded:
        """Return the texts' vectors; what is not urgent lets the urgent go first."""
        found = self._found(model)
        vectors: list[Vectors] = []
        at_once = TOKENS_AT_ONCE if Output.COLBERT in further else AT_ONCE
        space: Space | None = None
        for first in range(0, max(len(texts), 1), at_once):
            work = EmbedRequest(
                request_id=uuid.uuid4().hex,
                inputs=tuple(texts[first : first + at_once]),
                # A question may lose its end; what is to be found must not.
                truncate=role is Role.QUERY,
                outputs=(Output.DENSE, *further),
                tenant=tenant,
                lasting=lasting,
            )
            answer, space = await self._answered(found, work, role, urgent=urgent)
            vectors += map(_vectors, answer.said)
        if space is None:
            raise RuntimeError("nothing was embedded")
        return Embedded(tuple(vectors), space)

    async def _answered(
        self, model: DesiredModel, request: EmbedRequest, role: Role, *, urgent: bool
    ) -> tuple[PooledAnswer, Space]:
        async def work(lease: Lease) -> tuple[PooledAnswer, Space]:
            return await lease.embed(request, role), _space(model.name, lease)

        async with self._turn(urgent=urgent):
            return await under_lease(
                self._models, model, work, tenant=request.tenant, background=not urgent
            )

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return how many of the model's tokens each text has."""
        async with self._models.lease(self._found(model), beside=True) as lease:
            return [
                len((await lease.tokenize(TokenizeRequest(uuid.uuid4().hex, text))).ids)
                for text in texts
            ]

    def _found(self, model: str) -> DesiredModel:
        found = self._models.find(model)
        check_task(found, "embed texts", Task.EMBEDDING)
        return found

    @contextlib.asynccontextmanager
    async def _turn(self, *, urgent: bool) -> AsyncIterator[None]:
        if not urgent:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._yield_seconds):
                    await self._calm.wait()
            yield
            return
        self._urgent += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._calm.set()


def _space(model: str, lease: Lease) -> Space:
    loaded = lease.loaded
    return Space(
        model,
        lease.revision,
        loaded.dimensions,
        Output.SPARSE in loaded.outputs,
        loaded.token_width,
    )


def _vectors(said: Said) -> Vectors:
    sparse = None if said.sparse is None else _weights(said.sparse)
    return Vectors(tuple(floats(said.values)), sparse, said.colbert)


def _weights(sparse: SparseVector) -> Sparse:
    tokens = array("i", sparse.tokens)
    return Sparse(tuple(tokens), tuple(floats(sparse.weights)))
