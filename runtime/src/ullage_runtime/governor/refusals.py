"""Refusals: loads that memory does not allow, now or ever, said with names and numbers."""

from collections.abc import Mapping
from typing import Final

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.ledger import MustWait, NeverFits
from ullage_runtime.core.placement import suffices
from ullage_runtime.core.sizes import human_bytes

_NOTHING: Final[Mapping[str, int]] = {}


class MemoryRefusedError(LoadError):
    """A load that memory does not allow, now or ever, with the numbers."""

    footprint: Footprint
    budget: int
    free: int
    lacking: Mapping[str, int]
    """By device that could ever hold it: the bytes it lacks once all who are leaving have left."""

    def fits_without(self, count: int, devices: tuple[str, ...]) -> bool:
        """Tell whether it would fit once so many bytes of each of the devices were back too."""
        lacking = {
            device: missing - (count if device in devices else 0)
            for device, missing in self.lacking.items()
        }
        return suffices(lacking, self.footprint.among)


def must_wait(
    footprint: Footprint,
    decision: MustWait,
    lacking: Mapping[str, int],
    *,
    whose: str,
    neighbours: int,
) -> MemoryRefusedError:
    """Return the refusal of a load that fits once others leave.

    `whose` budget it is, is said; and if `neighbours` are the reason why no more is free.
    """
    budget, free = decision.budget, decision.free
    beside = f" beside neighbours, who take {human_bytes(neighbours)} of it" if neighbours else ""
    message = (
        f"needs {_words(footprint)}; {human_bytes(max(0, free))} of {whose} budget of "
        f"{human_bytes(budget)} are free{beside}; it loads once others leave"
    )
    return _refused(Reason.WAITING_FOR_MEMORY, message, footprint, budget, free, lacking)


def never_fits(footprint: Footprint, decision: NeverFits, *, whose: str) -> MemoryRefusedError:
    """Return the refusal of a load that is larger than a budget."""
    budget = decision.budget
    message = (
        f"needs {_words(footprint)}; {whose} budget is {human_bytes(budget)} of "
        f"{human_bytes(decision.total)}; try a smaller contextLength or quantisation"
    )
    return _refused(Reason.WILL_NEVER_FIT, message, footprint, budget, budget, _NOTHING)


def too_few(footprint: Footprint, there: int, budget: int) -> MemoryRefusedError:
    """Return the refusal of a model that is to be divided among more devices than there are."""
    message = (
        f"is divided among {footprint.among} devices by engine.tensorParallel, and this pod has "
        f"{there}; lower it, or use a pool whose pods have more"
    )
    return _refused(Reason.WILL_NEVER_FIT, message, footprint, budget, budget, _NOTHING)


def _words(footprint: Footprint) -> str:
    each = f" of each of {footprint.among} devices" if footprint.among > 1 else ""
    return (
        f"{human_bytes(footprint.total)}{each} (weights {human_bytes(footprint.weights)}, "
        f"KV cache {human_bytes(footprint.kv_cache)}, compute {human_bytes(footprint.compute)}, "
        f"process {human_bytes(footprint.overhead)})"
    )


def _refused(
    reason: Reason,
    message: str,
    footprint: Footprint,
    budget: int,
    free: int,
    lacking: Mapping[str, int],
) -> MemoryRefusedError:
    final = reason is Reason.WILL_NEVER_FIT
    error = MemoryRefusedError(reason=reason, message=message, final=final)
    error.footprint, error.budget, error.free = footprint, budget, free
    error.lacking = lacking
    return error
