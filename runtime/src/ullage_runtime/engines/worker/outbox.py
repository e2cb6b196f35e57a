"""Credit: how much of each generation may be under way to a reader that may be slow."""

from collections.abc import Iterable
from dataclasses import dataclass

from ullage_runtime.core.domain import Chunk
from ullage_runtime.core.errors import ServingError
from ullage_runtime.core.pooled import PooledPart
from ullage_runtime.engines.worker.backend import Outcome
from ullage_runtime.engines.worker.failures import failure_of
from ullage_runtime.engines.worker.wire import CREDIT_WINDOW, Output


@dataclass(slots=True)
class _Account:
    credit: int = CREDIT_WINDOW
    held: Chunk | None = None


class Outbox:
    """Decides which chunks go out now and which wait for their reader, merged into one.

    A generation whose reader lags goes on: it is bounded by the model's context, so what it may
    leave here is too. Stopping it would make every other generation of the engine wait for it.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def open(self, request_id: str) -> None:
        """Begin a generation's account."""
        self._accounts[request_id] = _Account()

    def close(self, request_id: str) -> None:
        """Forget a generation whose reader is gone."""
        self._accounts.pop(request_id, None)

    def is_open(self, request_id: str) -> bool:
        """Tell whether anybody still waits for a request."""
        return request_id in self._accounts

    def due(self, outcomes: Iterable[Outcome]) -> tuple[Output, ...]:
        """Return what may go out of a step's outcomes; the rest is held."""
        return tuple(out for out in (self._offered(*o) for o in outcomes) if out is not None)

    def credited(self, request_id: str, chunks: int) -> tuple[Output, ...]:
        """Return what was held and may go out now that the reader has taken so many chunks."""
        account = self._accounts.get(request_id)
        if account is None:
            return ()
        account.credit += chunks
        if account.held is None:
            return ()
        held, account.held = account.held, None
        return (self._sent(request_id, account, held),)

    def _offered(
        self, request_id: str, outcome: Chunk | PooledPart | ServingError
    ) -> Output | None:
        account = self._accounts.get(request_id)
        if account is None:
            return None
        if isinstance(outcome, ServingError):
            self.close(request_id)
            return Output(request_id=request_id, failure=failure_of(outcome))
        if isinstance(outcome, PooledPart):
            # No more of them come than the request has texts, and somebody collects them.
            if outcome.is_last:
                self.close(request_id)
            return Output(request_id=request_id, part=outcome)
        chunk = outcome if account.held is None else merged(account.held, outcome)
        account.held = None
        if account.credit <= 0:
            account.held = chunk
            return None
        return self._sent(request_id, account, chunk)

    def _sent(self, request_id: str, account: _Account, chunk: Chunk) -> Output:
        account.credit -= 1
        if chunk.finish is not None:
            self.close(request_id)
        return Output(request_id=request_id, chunk=chunk)


def merged(first: Chunk, second: Chunk) -> Chunk:
    """Return two successive chunks of a generation as one."""
    return Chunk(
        text=first.text + second.text,
        reasoning=first.reasoning + second.reasoning,
        calls=(*first.calls, *second.calls),
        usage=second.usage or first.usage,
        finish=second.finish,
        logprobs=first.logprobs + second.logprobs,
    )
