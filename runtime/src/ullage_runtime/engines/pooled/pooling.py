"""Pooling: texts of several requests in each step, embedded or scored; owned by one thread."""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ullage_runtime.core.domain import EngineStats
from ullage_runtime.core.errors import (
    InvalidOutput,
    InvalidRequest,
    RequestTimeout,
    ServingError,
    UnsupportedOutput,
)
from ullage_runtime.core.pooled import (
    Ability,
    EmbedRequest,
    Output,
    Pooled,
    PooledPart,
    PooledRequest,
    Said,
)
from ullage_runtime.core.scheduling.packing import Job, Packer, Place, by_job
from ullage_runtime.core.vectors import FLOAT_BYTES, floats, normalized
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.worker.backend import Outcome

MAX_WAITING_TOKENS = 8 << 20
"""Tokens that may wait, at four bytes each; a client's own requests are bounded by their body."""


MAX_ANSWER_BYTES: Final = 64 << 20
"""Longest answer of vectors of tokens, which are a thousand times longer than those of texts."""


class Computer(Protocol):
    """What computes texts."""

    outputs: tuple[Output, ...]
    """What it can say of a text."""
    token_width: int
    """Numbers of a token's vector, where it gives them."""

    def compute(self, texts: Sequence[Sequence[int]], outputs: Collection[Output]) -> list[Said]:
        """Return what is wanted of each text, its one vector of any length; raises ServingError.

        What else is said may be said as well.
        """
        ...

    def close(self) -> None:
        """Give everything back that is not the model's; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ReadyJob:
    """A request on its way to the engine's thread; a worker's `Prepared`."""

    pooling: "Pooling"
    job: Job

    def submit(self) -> None:
        """Hand it to the engine."""
        self.pooling.submit(self.job)

    def close(self) -> None:
        """Do nothing: it holds nothing but its tokens."""


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
        if isinstance(request, EmbedRequest) != (self._ability is Ability.EMBED):
            raise InvalidRequest(f"the model is loaded to {self._ability.value}")
        outputs = request.outputs if isinstance(request, EmbedRequest) else (Output.DENSE,)
        self._check_outputs(outputs)
        texts = self._tokenized(request)
        if Output.COLBERT in outputs:
            self._check_size(texts)
        return Job(request.request_id, texts, request.tenant, deadline, outputs)

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

    def _check_outputs(self, outputs: Sequence[Output]) -> None:
        missing = [output for output in outputs if output not in self._computer.outputs]
        if missing:
            raise UnsupportedOutput(
                f"the model's file gives {_listed(self._computer.outputs)} vectors and no "
                f"{_listed(missing)} ones; an ONNX build with those heads does, which "
                "`ullage convert` makes of a folder in BGE-M3's layout, with sparse_linear.pt and "
                "colbert_linear.pt beside the weights"
            )

    def _check_size(self, texts: Sequence[Sequence[int]]) -> None:
        most = MAX_ANSWER_BYTES // (self._computer.token_width * FLOAT_BYTES)
        tokens = sum(map(len, texts))
        if tokens > most:
            raise InvalidRequest(
                f"the texts have {tokens} tokens together; with a vector for each token a request "
                f"may have {most}: send fewer at once",
                param="input",
            )

    def _computed(self, batch: list[Place]) -> list[Outcome]:
        self._steps += 1
        self._width = len(batch)
        self._widest = max(self._widest, self._width)
        self._tokens += sum(len(place.tokens) for place in batch)
        outputs = {output for place in batch for output in place.job.outputs}
        try:
            results = self._computer.compute([place.tokens for place in batch], outputs)
        except ServingError as error:
            return [(job.id, self._given_up(job, error)) for job, _ in by_job(batch)]
        found = dict(zip(batch, results, strict=True))
        return [(job.id, self._part(job, places, found)) for job, places in by_job(batch)]

    def _part(
        self, job: Job, places: list[Place], found: dict[Place, Said]
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

    def _checked(self, place: Place, said: Said) -> Said:
        """Return what is wanted of a text, its vector at length 1; raises InvalidOutput."""
        wanted = place.job.outputs
        values = self._vector_or_score(place, said.values) if Output.DENSE in wanted else b""
        sparse = said.sparse if Output.SPARSE in wanted else None
        colbert = said.colbert if Output.COLBERT in wanted else None
        further = (
            b"" if sparse is None else sparse.weights,
            b"" if colbert is None else colbert.values,
        )
        if not all(math.isfinite(sum(floats(numbers))) for numbers in further):
            raise InvalidOutput(
                f"the model's weights or vectors of text {place.index}'s tokens are not finite"
            )
        return replace(said, values=values, sparse=sparse, colbert=colbert)

    def _vector_or_score(self, place: Place, values: bytes) -> bytes:
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


def _listed(outputs: Sequence[Output]) -> str:
    return " and ".join(output.value for output in outputs)
