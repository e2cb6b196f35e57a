"""What is told of a swap, while it is under way and afterwards."""

from dataclasses import dataclass

from ullage_api.kinds.rollout import Strategy, SwapStep
from ullage_api.wire.pod_report import ReportedArm, ReportedSwap
from ullage_runtime.core.sizes import rfc3339
from ullage_runtime.models.clock import Clock


@dataclass(slots=True)
class SwapRecord:
    """One swap, from one revision to another."""

    previous: str
    began_wall: float
    began: float
    step: SwapStep | None = None
    target: str | None = None
    strategy: Strategy | None = None
    seconds: float | None = None
    drain_seconds: float | None = None
    log: tuple[str, ...] = ()
    arms: tuple[ReportedArm, ...] = ()

    @classmethod
    def begun(cls, clock: Clock, previous: str) -> "SwapRecord":
        """Return the record of a swap that begins now."""
        return cls(previous, clock.wall(), clock.monotonic())

    def end(self, clock: Clock) -> None:
        """Note that it is over, however it went."""
        self.step = None
        self.seconds = clock.monotonic() - self.began

    def reported(self) -> ReportedSwap:
        """Return it as the pod's report shows it."""
        return ReportedSwap(
            strategy=self.strategy,
            step=self.step,
            previous=self.previous,
            target=self.target,
            started=rfc3339(self.began_wall),
            seconds=_rounded(self.seconds),
            drain_seconds=_rounded(self.drain_seconds),
            log=self.log,
            arms=self.arms,
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
