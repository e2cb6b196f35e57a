"""The steps of one model's swaps: in order, journalled before they are taken, and shown."""

import sqlite3

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.revision import HISTORY
from ullage_api.kinds.rollout import SwapStep
from ullage_api.wire.pod_report import ReportedSwap
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.swap import Mark, SwapEnd, may_follow
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.journal import Committed, Failure, Journal
from ullage_runtime.models.live import Live
from ullage_runtime.models.progress import Shown
from ullage_runtime.models.swap_record import SwapRecord
from ullage_runtime.models.wish import Wish

_log = structlog.get_logger(__name__)


class Steps:
    """Knows what was last committed, and keeps the journal."""

    def __init__(self, wish: Wish, journal: Journal, shown: Shown) -> None:
        self._wish = wish
        self._journal = journal
        self._shown = shown
        self._last: Mark | None = None
        self.committed: Committed | None = None
        """What last answered for good."""
        self.interrupted = False
        """Whether the process before this one ended before the target was committed."""
        self.swap: SwapRecord | None = None
        """The swap under way; a load that takes nobody's place is none."""
        self._last_swap: ReportedSwap | None = None
        self._answered: list[DesiredRevision] = []

    @property
    def reported(self) -> ReportedSwap | None:
        """The swap under way, or the last one, as the pod's report shows it."""
        return self._last_swap if self.swap is None else self.swap.reported()

    @property
    def answered(self) -> tuple[DesiredRevision, ...]:
        """What has answered for good, by its digests, the latest first, and each once."""
        return tuple(self._answered)

    @property
    def last_good(self) -> DesiredRevision | None:
        """What answered last, by its digests; before anything did, what did on other pods."""
        if self.committed is None:
            return self._wish.desired.last_good
        return self.committed.pinned

    def begin(self, clock: Clock, old: Live | None) -> None:
        """Begin a swap, if there is something to take the place of."""
        self.swap = None if old is None else SwapRecord.begun(clock, old.generation.revision)

    def close(self, clock: Clock) -> None:
        """End the swap, however it went."""
        if self.swap is not None:
            self.swap.end(clock)
            self._last_swap, self.swap = self.swap.reported(), None

    def no_swap(self) -> None:
        """Take note that the swap under way turned out to be none."""
        self.swap = None

    async def recall(self) -> Failure | None:
        """Learn from the journal what was last committed, before anything is brought up.

        Returns why the target is not to be tried, if it failed before this process began.
        """
        try:
            known = await self._journal.recall(self._wish.key)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._complain(error)
            return None
        self.interrupted = known.committed is not None and known.attempted == self._wish.target
        # Without a uid nobody can tell whether it is the same model that was once committed.
        if self.interrupted or self._wish.desired.uid:
            self.committed = known.committed
        if self.committed is not None:
            self._remember(self.committed.pinned)
        failure = known.failure
        if failure is None or not self._wish.desired.uid or failure.asks != self._wish.asks:
            return None
        self._last_swap = failure.swap
        return failure

    async def forget(self) -> None:
        """Forget the model for good."""
        try:
            await self._journal.forget(self._wish.key)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    async def mark(
        self, step: SwapStep, want: DesiredRevision, detail: str, *, answers: bool
    ) -> None:
        """Journal a step before it is taken; what answers is not touched without it."""
        self._follow(step)
        try:
            if not self.is_committed(want):
                await self._journal.note(self._wish.key, step, want, detail)
        except (sqlite3.Error, OSError) as error:
            if answers:
                raise LoadError(
                    Reason.LOAD_FAILED, f"the journal cannot be written: {error}", final=False
                ) from error
            self._complain(error)
        if self.swap is not None:
            self.swap.step = step
            self._shown.on_change()

    async def end(self, end: SwapEnd, want: DesiredRevision, error: LoadError) -> None:
        """Journal how it went wrong."""
        self._follow(end)
        if self.swap is not None:
            self.swap.log = error.log
        try:
            await self._journal.note(self._wish.key, end, want, error.message)
        except (sqlite3.Error, OSError) as failure:
            self._complain(failure)

    async def keep(self, failure: Failure) -> None:
        """Have a restart not try again what failed for good."""
        try:
            await self._journal.fail(self._wish.key, failure)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    async def commit(self, live: Live) -> None:
        """Have a restart begin with a revision from now on."""
        self._follow(SwapEnd.COMMITTED)
        self.interrupted = False
        self._remember(live.artifacts.pinned())
        committed = Committed(live.want, live.artifacts.pinned())
        known = self.committed
        if known is not None and self.is_committed(live.want) and known.pinned == committed.pinned:
            return  # it came back, which says nothing of the target
        try:
            await self._journal.commit(self._wish.key, committed)
        except (sqlite3.Error, OSError) as error:
            # It has shown itself; a restart would only bring the older one first.
            self._complain(error)
        self.committed = committed

    def is_committed(self, want: DesiredRevision) -> bool:
        """Whether it is what answered last, which comes back without a note."""
        known = self.committed
        return known is not None and want in {known.want, known.pinned}

    def _remember(self, pinned: DesiredRevision) -> None:
        others = (known for known in self._answered if known.name != pinned.name)
        self._answered = [pinned, *others][:HISTORY]

    def _follow(self, mark: Mark) -> None:
        if not may_follow(mark, self._last):
            raise AssertionError(f"{mark} cannot follow {self._last}")
        self._last = mark

    def _complain(self, error: Exception) -> None:
        _log.error("journal.broken", model=self._wish.name, error=str(error))
