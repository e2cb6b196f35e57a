"""Vectors of texts, each computed once: those of before are kept, those of now are shared."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ullage_runtime.core.cache import CacheKey
from ullage_runtime.core.errors import InvalidOutput, InvalidRequest
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, TextOrTokens
from ullage_runtime.models.kept import Kept, Outcome
from ullage_runtime.models.shelf import Shelf, Vector

Compute = Callable[[EmbedRequest], Awaitable[PooledAnswer]]
"""Embeds texts on the generation that the request holds; raises ServingError."""


@dataclass(frozen=True, slots=True)
class Whose:
    """The generation that a request holds, and until when."""

    model: str
    revision: str
    deadline: float
    """On the event loop's clock."""


class SharedEmbeddings:
    """Computes each text once for a tenant and a revision, and keeps its vector for a while.

    Tenants share nothing: how fast an answer comes would tell what others have asked.
    """

    def __init__(self, kept: Kept[Vector], seconds: float, shelf: Shelf | None = None) -> None:
        """`shelf` keeps on disk as well what is kept, where there is one."""
        self._kept = kept
        self._shelf = shelf
        self._seconds = seconds
        self._flights: dict[CacheKey, asyncio.Future[Vector | None]] = {}

    async def embed(self, whose: Whose, request: EmbedRequest, compute: Compute) -> PooledAnswer:
        """Return the vectors of a request's texts; raises what `compute` does.

        Another request's failure is its own: what it was computing is then computed here. Raises
        TimeoutError when the deadline passes while others compute; `compute` keeps to it by itself.
        """
        keys = _keys(whose, request)
        texts = dict(zip(keys, request.inputs, strict=True))
        found = await self._shelved(whose, keys)
        mine: dict[CacheKey, Vector] = {}
        while missing := [key for key in texts if key not in found]:
            kept = {key: v for key in missing if (v := self._kept.find(key)) is not None}
            flights = {
                key: self._flights[key]
                for key in missing
                if key not in kept and key in self._flights
            }
            left = [key for key in missing if key not in kept and key not in flights]
            self._kept.count(whose.model, Outcome.HIT, len(kept))
            found |= kept
            if left:
                # Taken up before anything is waited for: whoever looks next finds it on its way.
                mine |= await self._computed(left, texts, request, compute)
                found |= mine
            found |= await self._landed(whose, flights)
        vectors = [found[key] for key in keys]
        computed = sum(vector.tokens for vector in mine.values())
        return PooledAnswer(
            said=tuple(vector.said for vector in vectors),
            lengths=tuple(vector.tokens for vector in vectors),
            cached_tokens=sum(vector.tokens for vector in vectors) - computed,
        )

    async def _shelved(self, whose: Whose, keys: Sequence[CacheKey]) -> dict[CacheKey, Vector]:
        """Return what is on disk, of what is not in memory and not on its way."""
        if self._shelf is None:
            return {}
        missing = [key for key in keys if key not in self._flights and self._kept.find(key) is None]
        async with asyncio.timeout_at(whose.deadline):
            shelved = await self._shelf.find(missing) if missing else {}
        for key, found in shelved.items():
            self._kept.keep(key, found.vector, found.vector.said.size, found.seconds)
        self._kept.count(whose.model, Outcome.DISK, len(shelved))
        return {key: found.vector for key, found in shelved.items()}

    async def _landed(
        self, whose: Whose, flights: Mapping[CacheKey, "asyncio.Future[Vector | None]"]
    ) -> dict[CacheKey, Vector]:
        """Return what other requests have computed, once they are done; less what failed."""
        if flights:
            left = whose.deadline - asyncio.get_running_loop().time()
            # Not awaited by themselves: a request that is cancelled would cancel them.
            _, late = await asyncio.wait(flights.values(), timeout=max(0.0, left))
            if late:
                raise TimeoutError
        ended = ((key, flight.result()) for key, flight in flights.items())
        shared = {key: vector for key, vector in ended if vector is not None}
        self._kept.count(whose.model, Outcome.SHARED, len(shared))
        return shared

    async def _computed(
        self,
        keys: Sequence[CacheKey],
        texts: Mapping[CacheKey, TextOrTokens],
        request: EmbedRequest,
        compute: Compute,
    ) -> dict[CacheKey, Vector]:
        loop = asyncio.get_running_loop()
        flights: dict[CacheKey, asyncio.Future[Vector | None]] = {
            key: loop.create_future() for key in keys
        }
        self._flights |= flights
        try:
            answer = await _asked(tuple(texts[key] for key in keys), request, compute)
            vectors = map(Vector, answer.said, answer.lengths)
            computed = dict(zip(keys, vectors, strict=True))
            for key, vector in computed.items():
                self._kept.keep(key, vector, vector.said.size, self._seconds)
                flights[key].set_result(vector)
            if self._shelf is not None and request.lasting:
                self._shelf.keep(computed, self._seconds)
        finally:
            for key, flight in flights.items():
                del self._flights[key]
                if not flight.done():
                    flight.set_result(None)
        self._kept.count(keys[0].model, Outcome.MISS, len(keys))
        return computed


async def _asked(
    inputs: tuple[TextOrTokens, ...], request: EmbedRequest, compute: Compute
) -> PooledAnswer:
    """Return the vectors of some of a request's texts."""
    try:
        return await compute(replace(request, inputs=inputs))
    except (InvalidRequest, InvalidOutput):
        if inputs != request.inputs:
            # The message says which text it is, by its place among those that the engine got.
            await compute(request)
        raise


def _keys(whose: Whose, request: EmbedRequest) -> list[CacheKey]:
    """Return each text's key: of the text, and of all that the request says of its vectors."""
    # What distinguishes requests without changing a vector is taken out; whatever else there is in
    # a request, or comes to be, tells its vectors from others.
    how = replace(request, request_id="", inputs=(), tenant="", timeout_seconds=None, lasting=True)
    asked_how = hashlib.sha256(repr(how).encode())

    def asked(text: TextOrTokens) -> bytes:
        digest = asked_how.copy()
        if isinstance(text, str):
            digest.update(b"text:" + text.encode("utf-8", "surrogatepass"))
        else:
            digest.update(b"tokens:" + ",".join(map(str, text)).encode())
        return digest.digest()

    tenant, model, revision = request.tenant, whose.model, whose.revision
    return [CacheKey(tenant, model, revision, asked(text)) for text in request.inputs]
