"""What requests are told that find no generation to answer them."""

from collections.abc import Callable
from functools import partial

from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.errors import (
    ModelLoading,
    ModelSuspended,
    ModelUnavailable,
    ServingError,
)
from ullage_runtime.models.failures import Failures, refusal
from ullage_runtime.models.wish import Wish


def refusal_for(
    wish: Wish, failures: Failures, last_good: DesiredRevision | None
) -> Callable[[], ServingError] | None:
    """Return what a request is told, or None where waiting makes sense."""
    name = wish.name
    if wish.desired.suspended:
        return lambda: ModelSuspended(f"model {name!r} is suspended")
    if wish.is_removed:
        return lambda: ModelUnavailable(f"model {name!r} is being removed")
    if not wish.is_here:
        return lambda: ModelUnavailable(f"model {name!r} is not placed on this pod")
    error = failures.final_error(wish.target)
    can_fall_back = last_good is not None and last_good not in failures.final
    if error is None or can_fall_back:
        return None
    return partial(refusal, name, error)


def no_adapter(wish: Wish, failures: Failures, adapter: str) -> ServingError:
    """Return what a request is told whose adapter is not in the revision that answers."""
    error = failures.final_error(wish.target)
    if error is not None:
        return refusal(f"{wish.name}:{adapter}", error)
    return ModelLoading(
        f"adapter {adapter!r} of model {wish.name!r} is not loaded yet", retry_after=5
    )
