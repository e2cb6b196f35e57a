"""Comparing: a new revision beside the one that answers, first with a share and then with all."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import CanaryStep, SwapStep
from ullage_api.wire.pod_report import ReportedArm
from ullage_runtime.core.arms import Arm, Limits, breach
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.live import Live
from ullage_runtime.models.swap_record import SwapRecord
from ullage_runtime.models.wish import Wish

LOOK_SECONDS: Final = 0.5
"""How often the two are compared."""

Mark = Callable[[SwapStep, str], Awaitable[None]]
"""Journals a step, with a detail, before it is taken."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """Puts a loaded revision to the test of real requests; the wish may change meanwhile."""

    wish: Wish
    generations: Generations
    clock: Clock
    mark: Mark
    say: Callable[[Reason, str], None]
    record: SwapRecord

    async def canary(self, old: Live, new: Live) -> None:
        """Give the new revision its share, step by step; raises LoadError when it does worse.

        A step without seconds lasts until the spec changes.
        """
        old.tally.begin()
        new.tally.begin()
        place = 0
        while step := self._step(place):
            await self.mark(SwapStep.CANARY, f"{step.weight} %")
            self.generations.compare(step.weight)
            # Shown with the words that tell of it: a report that has one has the other.
            self._show(old.tally.arm(), new.tally.arm(), step.weight, old)
            lasts = "until the spec changes" if step.seconds is None else f"for {step.seconds} s"
            self.say(
                Reason.ROLLING_OUT,
                f"revision {new.generation.revision} gets {step.weight} % of the requests {lasts}",
            )
            began = self.clock.monotonic()
            while step == self._step(place) and not _is_over(step.seconds, self._since(began)):
                await self._look(began, step.seconds)
                self._check(old, new, step.weight)
            place += 1

    async def watch(self, old: Live | None, new: Live) -> None:
        """Let the new revision answer everybody while the old one stands by, if there was room.

        Raises LoadError when it does worse than the old one did; that one answers again by then,
        or has to be loaded.
        """
        before = old.tally.arm() if old is not None else Arm()
        new.tally.begin()
        self._show(before, new.tally.arm(), 100, old)
        began = self.clock.monotonic()
        while (seconds := self._watch_seconds) > self._since(began):
            await self._look(began, seconds)
            after = new.tally.arm()
            self._show(before, after, 100, old)
            if new.died is not None:
                raise _rolled_back(f"after {self._since(began):.0f} s {new.died}")
            if self.generations.active is not new:
                return  # it made room for others, which is nothing against it
            why = breach(after, before, self._limits)
            if why is not None:
                if not self.generations.flip_back():
                    _ = self.generations.begin_retire()
                raise _rolled_back(f"{self._since(began):.0f} s after it took over: {why}")

    @property
    def _watch_seconds(self) -> int:
        return self.wish.desired.rollout.watch_seconds or 0

    def _step(self, place: int) -> CanaryStep | None:
        canary = self.wish.desired.rollout.canary
        steps = canary.steps if canary is not None else []
        return steps[place] if place < len(steps) else None

    async def _look(self, began: float, seconds: int | None) -> None:
        left = LOOK_SECONDS if seconds is None else seconds - self._since(began)
        await self.clock.sleep(max(0.01, min(LOOK_SECONDS, left)))

    def _check(self, old: Live, new: Live, weight: int) -> None:
        before, after = old.tally.arm(), new.tally.arm()
        self._show(before, after, weight, old)
        if new.died is not None:
            raise _rolled_back(f"with {weight} % of the requests {new.died}")
        if self.generations.active is not old:
            raise LoadError(
                Reason.LOAD_FAILED,
                "the revision that it was compared with does not answer any more",
                final=False,
            )
        why = breach(after, before, self._limits)
        if why is not None:
            raise _rolled_back(f"with {weight} % of the requests {why}")

    @property
    def _limits(self) -> Limits:
        canary = self.wish.desired.rollout.canary
        if canary is None:
            return Limits()
        percent = canary.max_error_percent
        return Limits(
            error_percent=Limits().error_percent if percent is None else percent,
            latency_ratio_percent=canary.max_latency_ratio_percent,
        )

    def _show(self, before: Arm, after: Arm, weight: int, old: Live | None) -> None:
        arms = []
        if old is not None:
            arms.append(_reported(old.generation.revision, 100 - weight, before))
        arms.append(_reported(self.record.target or "", weight, after))
        self.record.arms = tuple(arms)

    def _since(self, began: float) -> float:
        return self.clock.monotonic() - began


def _is_over(seconds: int | None, since: float) -> bool:
    return seconds is not None and since >= seconds


def _rolled_back(why: str) -> LoadError:
    return LoadError(Reason.ROLLED_BACK, f"the new revision was taken back: {why}", final=True)


def _reported(revision: str, weight: int, arm: Arm) -> ReportedArm:
    return ReportedArm(
        revision=revision,
        weight=weight,
        requests=arm.requests,
        errors=arm.errors,
        token_milliseconds=_milliseconds(arm.token_seconds),
        slow_token_milliseconds=_milliseconds(arm.slow_token_seconds),
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
