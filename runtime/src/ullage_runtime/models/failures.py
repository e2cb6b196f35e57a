"""What could not be loaded: for good, or until a time."""

from collections.abc import Hashable

from ullage_api.conditions import Reason
from ullage_api.wire.pool_desired import DesiredFailure, DesiredRevision
from ullage_runtime.core.backoff import load_delay
from ullage_runtime.core.errors import (
    InsufficientMemory,
    LoadError,
    ModelUnavailable,
    ServingError,
)
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.governor.refusals import MemoryRefusedError


class Failures:
    """The failed attempts since the spec last changed."""

    def __init__(self) -> None:
        self._final: dict[DesiredRevision, LoadError] = {}
        self._last: dict[DesiredRevision, LoadError] = {}
        self._attempts: dict[DesiredRevision, int] = {}
        self.retry_at: dict[Hashable, float] = {}
        self._waits_for_memory: dict[DesiredRevision, int] = {}

    def record(
        self, want: DesiredRevision, error: LoadError, *, now: float, jitter: float, releases: int
    ) -> None:
        """Note a failed attempt; `releases` is the governor's count before it began."""
        self._last[want] = error
        if error.final:
            self._final[want] = error
            return
        attempt = self._attempts.get(want, 0) + 1
        self._attempts[want] = attempt
        self.retry_at[want] = now + load_delay(attempt, jitter)
        if error.reason is Reason.WAITING_FOR_MEMORY:
            self._waits_for_memory[want] = releases

    def learn(self, want: DesiredRevision, failure: DesiredFailure) -> None:
        """Note what another pod could not load; what was found here says more, and stays."""
        error = LoadError(failure.reason, failure.message, final=True)
        self._final.setdefault(want, error)
        self._last.setdefault(want, error)

    def recall(self, want: DesiredRevision, reason: Reason, message: str) -> None:
        """Note what could not be loaded here before this process began."""
        self._final[want] = self._last[want] = LoadError(reason, message, final=True)

    @property
    def final(self) -> frozenset[DesiredRevision]:
        """What cannot be loaded until the spec changes."""
        return frozenset(self._final)

    def final_error(self, want: DesiredRevision) -> LoadError | None:
        """Return why a revision cannot be loaded until the spec changes, or None."""
        return self._final.get(want)

    def error(self, want: DesiredRevision) -> LoadError | None:
        """Return why a revision could not be loaded when it was last tried, or None."""
        return self._last.get(want)

    @property
    def waits_for_memory_since(self) -> int | None:
        """The governor's count of releases that somebody here waits to see exceeded, or None."""
        return min(self._waits_for_memory.values(), default=None)

    def memory_was_released(self) -> None:
        """Let what waits for memory be tried at once."""
        for want in self._waits_for_memory:
            self.retry_at.pop(want, None)
        self._waits_for_memory.clear()


def refusal(model: str, error: LoadError) -> ServingError:
    """Return what a request is told of a model that cannot be loaded."""
    message = f"model {model!r} cannot be loaded: {error.message}"
    if not isinstance(error, MemoryRefusedError) or not error.final:
        return ModelUnavailable(message, details={"reason": error.reason.value})
    footprint = error.footprint
    return InsufficientMemory(
        message,
        details={
            "required": footprint.total,
            "budget": error.budget,
            "largest_component": footprint.largest_component,
            "suggestions": _suggestions(error),
        },
    )


def _suggestions(error: MemoryRefusedError) -> list[str]:
    over = error.footprint.total - error.budget
    cache, weights = human_bytes(error.footprint.kv_cache), human_bytes(error.footprint.weights)
    return [
        f"set a smaller engine.contextLength: the KV cache takes {cache}",
        f"use a smaller quantisation: the weights take {weights}",
        f"use a pool whose budget is at least {human_bytes(over)} larger",
    ]
