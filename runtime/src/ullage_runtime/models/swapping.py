"""Swapping: how a revision comes to answer, in the place of another one or of none.

Every step is in the journal before it is taken. What answered before goes on answering until the
new revision has been loaded and has shown itself, unless there is no room for both.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import Strategy, SwapStep
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.swap import (
    DRAIN_SECONDS,
    Hold,
    SwapEnd,
    may_drain_first,
)
from ullage_runtime.governor.refusals import MemoryRefusedError
from ullage_runtime.models.artifacts import Artifacts, fetch_artifacts
from ullage_runtime.models.comparing import Comparing
from ullage_runtime.models.gate import Trial
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.inspection import Inspection
from ullage_runtime.models.likeness import likeness_to
from ullage_runtime.models.live import Live
from ullage_runtime.models.progress import FetchProgress, Shown
from ullage_runtime.models.room import Claim
from ullage_runtime.models.stay import Stay
from ullage_runtime.models.steps import Steps
from ullage_runtime.models.surroundings import Surroundings
from ullage_runtime.models.wish import Wish

ROOM_SECONDS: Final = 30.0
"""How long a load waits for memory at least, and how often one that may wait looks again."""

_log = structlog.get_logger(__name__)


class Swapping:
    """Brings revisions of one model up, one at a time; knows what was last committed.

    `say` shows what is being done, unless there is worse to be told.
    """

    def __init__(
        self,
        wish: Wish,
        generations: Generations,
        stay: Stay,
        shown: Shown,
        *,
        around: Surroundings,
        say: Callable[[Reason, str], None],
        has_waiting: Callable[[], bool],
        on_short: Callable[[str | None], None],
    ) -> None:
        self._wish = wish
        self._generations = generations
        self._stay = stay
        self._shown = shown
        self._around = around
        self._say = say
        self._has_waiting = has_waiting
        self._on_short = on_short
        self.steps = Steps(wish, around.journal, shown)
        self.took_down = False
        """Whether what answered has left for the revision that is being brought up."""

    @property
    def proven_first(self) -> bool:
        """Whether what was committed has to answer before the target may."""
        steps = self.steps
        if steps.committed is None or steps.is_committed(self._wish.target):
            return False
        is_compared = self._wish.desired.rollout.canary is not None or bool(self._users())
        return steps.interrupted or is_compared

    async def bring_up(self, want: DesiredRevision) -> None:
        """Have a revision answer; raises LoadError, and then what answered before still does.

        Only where there was no room for both it does not: see `took_down`.
        """
        self.took_down = False
        old = self._generations.active
        self.steps.begin(self._around.clock, old)
        try:
            await self._bring_up(want, old)
        except LoadError as error:
            is_back = error.reason is Reason.ROLLED_BACK
            await self.steps.end(SwapEnd.ROLLED_BACK if is_back else SwapEnd.FAILED, want, error)
            raise
        finally:
            self._generations.give_up()
            _ = self._generations.release_standby(self._wish.desired.rollout.drain_seconds)
            self.steps.close(self._around.clock)

    async def _bring_up(self, want: DesiredRevision, old: Live | None) -> None:
        await self._mark(SwapStep.FETCHING, want, want.uri)
        around, inspection = self._around, Inspection(self._around, self._wish.name, want)
        artifacts = await fetch_artifacts(
            around.source, want, self._wish.settings, self._fetching, inspection
        )
        if want == self._wish.target:
            self._shown.weights_ready = True
            self._shown.target = artifacts.reported()
        if old is not None and old.generation.revision == artifacts.revision:
            # Another address of the same bytes, or a digest that was not pinned before.
            self.steps.no_swap()
            old.want = want
            await self.steps.commit(old)
            return
        if self.steps.swap is not None:
            self.steps.swap.target = artifacts.revision
        live = await self._loaded(artifacts)
        self._generations.adopt(live)
        await self._promote(live)

    async def _loaded(self, artifacts: Artifacts) -> Live:
        want, rollout = artifacts.want, self._wish.desired.rollout
        self._shown.is_loading = self._stay.is_loading = True
        old = self._generations.active
        # Before the old one drains, if it has to.
        likeness = None if old is None else await likeness_to(old, want, self._users())
        if rollout.effective_strategy is Strategy.DRAIN_THEN_LOAD:
            await self._drain(artifacts)
        await self._mark(SwapStep.LOADING, want, artifacts.revision)
        trial = Trial(
            task=self._wish.desired.task,
            validation=tuple(rollout.validation or ()) if self._is_new(artifacts) else (),
            replaces=self.steps.swap is not None,
            likeness=likeness,
        )
        return await self._around.loader.load(
            model=self._wish.name,
            artifacts=artifacts,
            claim=self._claim(artifacts),
            trial=trial,
            on_check=partial(self._mark, SwapStep.CHECKING, want, artifacts.revision),
        )

    def _users(self) -> Sequence[str]:
        """Return the collections whose vectors the model has made."""
        return self._around.in_use(self._wish.desired.names)

    def _is_new(self, artifacts: Artifacts) -> bool:
        """Whether it has never answered: what comes back need not answer a newer spec's prompts."""
        known = self.steps.committed
        is_back = known is not None and known.pinned == artifacts.pinned()
        return artifacts.want == self._wish.target and not is_back

    async def _promote(self, new: Live) -> None:
        """Have a loaded revision answer, at once or after it was compared with the old one."""
        old, record = self._generations.active, self.steps.swap
        if record is None:
            await self.steps.commit(new)
            self._switch(new)
            return
        comparing = Comparing(
            self._wish,
            self._generations,
            self._around.clock,
            mark=lambda step, detail: self._mark(step, new.want, detail),
            say=self._say,
            record=record,
        )
        if old is not None:
            await comparing.canary(old, new)
        seconds = self._wish.desired.rollout.watch_seconds
        if not seconds:
            await self.steps.commit(new)
            self._switch(new)
            return
        await self._mark(SwapStep.WATCHING, new.want, f"{seconds} s")
        self._switch(new, keep=True)
        self._say(
            Reason.ROLLING_OUT,
            f"revision {new.generation.revision} answers and is watched for {seconds} s",
        )
        await comparing.watch(old, new)
        await self.steps.commit(new)

    def _switch(self, live: Live, *, keep: bool = False) -> None:
        seconds = self._wish.desired.rollout.drain_seconds
        if not self._generations.switch(keep=keep, drain_seconds=seconds):
            raise LoadError(
                Reason.LOAD_FAILED, f"{live.died}, before it answered anybody", final=False
            )
        self._note_serving(live)

    def _note_serving(self, live: Live) -> None:
        self._shown.is_loading = self._stay.is_loading = self._stay.is_returning = False
        self._shown.resident_bytes = live.reservation.total
        _log.info(
            "generation.serving",
            model=self._wish.name,
            generation=live.generation.id,
            device=live.loaded.device,
            bytes=live.reservation.total,
            seconds=round(live.load_seconds, 2),
        )
        self._around.room.stir()

    # Room ----------------------------------------------------------------------------------------

    def _claim(self, artifacts: Artifacts) -> Claim:
        return Claim(
            model=self._wish.name,
            priority=self._stay.wish.rank,
            deadline=self._now() + max(self._wish.hold_seconds, ROOM_SECONDS),
            may_evict=not self._stay.is_returning,
            for_requests=self._has_waiting,
            drain_own=partial(self._drain_for_room, artifacts),
            on_wait=self._note_short_memory,
            on_grant=partial(self._note_granted, artifacts.revision),
        )

    def _note_short_memory(self, refused: MemoryRefusedError) -> None:
        self._on_short(refused.message)
        self._say(refused.reason, refused.message)

    def _note_granted(self, revision: str) -> None:
        self._on_short(None)
        if self.steps.swap is not None and self.steps.swap.strategy is None:
            self.steps.swap.strategy = Strategy.LOAD_THEN_DRAIN
        self._say(Reason.LOADING, f"loading revision {revision}")

    async def _drain_for_room(self, artifacts: Artifacts, refused: MemoryRefusedError) -> bool:
        """Make room by unloading what answers now, if that is enough; requests are held."""
        active = self._generations.active
        if active is None or not may_drain_first(self._wish.desired.rollout.effective_strategy):
            return False
        if not refused.fits_without(active.reservation.bytes, active.reservation.devices):
            return False
        await self._drain(artifacts)
        await self._mark(SwapStep.LOADING, artifacts.want, artifacts.revision)
        return True

    async def _drain(self, artifacts: Artifacts) -> None:
        """Unload what answers now; raises LoadError when requests would be held for too long."""
        active = self._generations.active
        if active is None:
            return
        seconds = self._wish.desired.rollout.drain_seconds
        seconds = DRAIN_SECONDS if seconds is None else seconds
        hold = Hold(
            drain_seconds=seconds if active.generation.leases else 0,
            load_seconds=self._around.loader.expected_seconds(artifacts, active),
            allowed_seconds=self._wish.hold_seconds,
        )
        if hold.is_too_long:
            # Fewer requests, or room beside the old revision, may make it possible.
            raise LoadError(
                Reason.SWAP_TOO_LONG,
                f"the new revision cannot be loaded beside the old one, and {hold}; raise that, "
                "lower rollout.drainSeconds, or give the pool more memory",
                final=False,
            )
        await self._mark(SwapStep.DRAINING, artifacts.want, active.generation.revision)
        self.took_down = True
        if self.steps.swap is not None:
            self.steps.swap.strategy = Strategy.DRAIN_THEN_LOAD
        self._say(Reason.LOADING, "the old revision drains before the new one is loaded")
        began = self._now()
        leaving = self._generations.begin_retire(seconds)
        if leaving is not None:
            await leaving
        if self.steps.swap is not None:
            self.steps.swap.drain_seconds = self._now() - began

    async def _mark(self, step: SwapStep, want: DesiredRevision, detail: str) -> None:
        answers = self._generations.active is not None
        await self.steps.mark(step, want, detail, answers=answers)

    # Fetching ------------------------------------------------------------------------------------

    def _fetching(self, what: str) -> Callable[[int, int | None], None]:
        """Say what is being fetched, and return who is told how far it is."""
        self._say(Reason.FETCHING, f"fetching {what}")
        return partial(self._fetched, FetchProgress())

    def _fetched(self, progress: FetchProgress, done: int, total: int | None) -> None:
        if progress.is_worth_telling(self._now(), done, total):
            self._shown.fetched_bytes, self._shown.fetch_total_bytes = done, total
            self._shown.on_change()

    def _now(self) -> float:
        return self._around.clock.monotonic()
