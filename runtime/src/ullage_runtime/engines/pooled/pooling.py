"""Pooling: texts of several requests in each step, embedded or scored; owned by one thread."""

import math
import time
from collections.abc import Sequence
from typing import Protocol

from ullage_runtime.core.domain import EngineStats
from ullage_runtime.core.errors import (
    InvalidOutput,
    InvalidRequest,
    RequestTimeout,
    ServingError,
)
from ullage_runtime.core.pooled import Ability, EmbedRequest, Pooled, PooledPart, PooledRequest
from ullage_runtime.core.scheduling.packing import Job, Packer, Place, by_job
from ullage_runtime.core.vectors import floats, normalized
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.worker.backend import Outcome

MAX_WAITING_TOKENS = 8 << 20
"""Tokens that may wait, at four bytes each; a client's own requests are bounded by their body."""


class Computer(Protocol):
    """What computes texts."""

    def compute(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        """Return each text's numbers as 32-bit floats; raises ServingError."""
        ...

    def close(self) -> None:
        """Give everything back that is not the model's; idempotent."""
        ...


class Pooling:
    """Every request of one model that embeds or ranks."""

    def __init__(
        self, texts: PooledTexts, computer: Computer, ability: Ability, *, budget: int, width: int
    ) -> None:
        """`budget` is in tokens and `width` in texts that are computed together at most."""
        self._ability = ability
        self._texts = texts
        self._computer = computer
        # A text that is longer than the budget is computed alone.
        self._packer = Packer(budget=budget, width=width, max_tokens=MAX_WAITING_TOKENS)
        self._outcomes: list[Outcome] = []
        self._steps = self._tokens = self._width = self._widest = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._packer) or bool(self._outcomes)

    @property
    def stats(self) -> EngineStats:
        """What it does right now."""
        return EngineStats(
            resident_bytes=0,
            requests_running=len(self._packer),
            batch_width=self._width if self._packer else 0,
            batch_width_max=self._widest,
            steps=self._steps,
            prompt_tokens=self._tokens,
        )

    def prepare(self, request: PooledRequest, arrival: float) -> Job:
        """Return a request's texts as tokens; raises ServingError. Another thread may call it."""
        timeout = request.timeout_seconds
        deadline = None if timeout is None else arrival + timeout
        if isinstance(request, EmbedRequest) == (self._ability is Ability.EMBED):
            texts = self._tokenized(request)
            return Job(request.request_id, texts, tenant=request.tenant, deadline=deadline)
        raise InvalidRequest(f"the model is loaded to {self._ability.value}")

    def submit(self, job: Job) -> None:
        """Take a prepared request; if there is no room, the next step says so."""
        try:
            self._packer.add(job)
        except ServingError as error:
            self._outcomes.append((job.id, error))

    def cancel(self, request_id: str) -> None:
        """Forget a request; nobody waits for it any more."""
        self._packer.remove(request_id)

    def step(self) -> list[Outcome]:
        """Compute one batch."""
        outcomes, self._outcomes = self._outcomes, []
        for job in self._packer.expire(time.monotonic()):
            error = RequestTimeout("the request took longer than its time allows")
            outcomes.append((job.id, error))
        batch = self._packer.next_batch()
        if batch:
            outcomes += self._computed(batch)
        return outcomes

    def close(self) -> None:
        """Give everything back that is not the model's; idempotent."""
        self._computer.close()

    def _tokenized(self, request: PooledRequest) -> list[Sequence[int]]:
        if isinstance(request, EmbedRequest):
            return self._texts.embedded(request)
        return self._texts.ranked(request)

    def _computed(self, batch: list[Place]) -> list[Outcome]:
        self._steps += 1
        self._width = len(batch)
        self._widest = max(self._widest, self._width)
        self._tokens += sum(len(place.tokens) for place in batch)
        try:
            results = self._computer.compute([place.tokens for place in batch])
        except ServingError as error:
            return [(job.id, self._given_up(job, error)) for job, _ in by_job(batch)]
        found = dict(zip(batch, results, strict=True))
        return [(job.id, self._part(job, places, found)) for job, places in by_job(batch)]

    def _part(
        self, job: Job, places: list[Place], found: dict[Place, bytes]
    ) -> PooledPart | ServingError:
        try:
            items = tuple(
                Pooled(place.index, self._checked(place, found[place]), len(place.tokens))
                for place in places
            )
        except InvalidOutput as error:
            return self._given_up(job, error)
        if not job.left:
            self._packer.remove(job.id)
        return PooledPart(items, is_last=not job.left)

    def _checked(self, place: Place, values: bytes) -> bytes:
        """Return a vector at length 1, or a score, that is a number; raises InvalidOutput."""
        try:
            if self._ability is Ability.EMBED:
                return normalized(values)
            score = floats(values)[0]
        except ValueError as error:
            raise InvalidOutput(f"the model cannot embed text {place.index}: {error}") from None
        if not math.isfinite(score):
            raise InvalidOutput(f"the model's score of text {place.index} is no finite number")
        return values

    def _given_up(self, job: Job, error: ServingError) -> ServingError:
        self._packer.remove(job.id)
        return error
