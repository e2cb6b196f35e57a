"""What a model shows of itself, and which of its changes are worth a new report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import ReportedRevision

PROGRESS_SECONDS: Final = 1.0
PROGRESS_PERCENT: Final = 5
RESIDENT_BYTES: Final = 4 << 20


@dataclass(slots=True)
class Shown:
    """The part of a model's state that its custom resource's status shows."""

    on_change: Callable[[], None]
    reason: Reason = Reason.PENDING
    message: str = ""
    final: bool = False
    weights_ready: bool = False
    target: ReportedRevision | None = None
    is_loading: bool = False
    fetched_bytes: int | None = None
    fetch_total_bytes: int | None = None
    resident_bytes: int | None = None
    """Of the active generation, as last found worth a report."""

    def say(self, reason: Reason, message: str, *, final: bool = False) -> None:
        """Show why the model is as it is."""
        self.reason, self.message, self.final = reason, message, final
        self.on_change()

    def residency(self, *, is_active: bool, is_leaving: bool, is_warm: bool) -> Residency:
        """Return where the weights are."""
        if is_active:
            return Residency.RESIDENT
        if self.is_loading:
            return Residency.LOADING
        if is_leaving:
            return Residency.UNLOADING
        return Residency.WARM if is_warm else Residency.DISK


class FetchProgress:
    """Decides which steps of a fetch are worth a report: whole twentieths, a second apart."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._done = -1

    def is_worth_telling(self, now: float, done: int, total: int | None) -> bool:
        """Tell whether to report this step."""
        step = max(1, (total or 0) * PROGRESS_PERCENT // 100)
        if now - self._at < PROGRESS_SECONDS or abs(done - self._done) < step:
            return False
        self._at, self._done = now, done
        return True


def is_worth_telling(shown: int | None, measured: int) -> bool:
    """Tell whether a measured size differs enough from the one last reported."""
    if shown is None:
        return True
    return abs(measured - shown) > max(RESIDENT_BYTES, shown // 20)
