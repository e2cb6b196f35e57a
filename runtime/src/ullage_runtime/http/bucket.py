"""A budget per minute that comes back steadily: pure arithmetic, with time as data.

It is the leaky bucket of the generic cell rate algorithm (ITU-T I.371): what was used drains at the
limit's rate, so a whole minute's budget may go at once, and no window of time sees more than that
plus what drained in it. Keeping what was used rather than what is left lets the limit change under
way: nobody gains or loses by it but the difference.
"""

import math
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60.0
_CLOSE: Final = 1e-6
"""Half a microtoken is no reason to wait: sums of floats are not exact."""


@dataclass(slots=True)
class Bucket:
    """What has been used of a budget; `limit` is always per minute and positive."""

    spent: float = 0.0
    at: float = 0.0
    """When `spent` was so, in seconds of the caller's clock."""

    def used(self, limit: int, now: float) -> float:
        """Return what counts as used now; above the limit when more was used than foreseen."""
        return max(0.0, self.spent - limit * max(0.0, now - self.at) / MINUTE)

    def remaining(self, limit: int, now: float) -> int:
        """Return what may be used at once, never below zero."""
        return max(0, math.floor(limit - self.used(limit, now) + _CLOSE))

    def wait(self, limit: int, amount: float, now: float) -> float:
        """Return the seconds until an amount fits: 0 when it does, infinity when it never will."""
        if amount > limit:
            return math.inf
        excess = self.used(limit, now) + amount - limit
        return excess * MINUTE / limit if excess > _CLOSE else 0.0

    def seconds_to_full(self, limit: int, now: float) -> float:
        """Return the seconds until the whole budget is there again."""
        return self.used(limit, now) * MINUTE / limit

    def charge(self, limit: int, amount: float, now: float) -> None:
        """Use an amount, whether it fits or not."""
        self.spent, self.at = self.used(limit, now) + amount, max(now, self.at)

    def settle(
        self, limit: int, charged: float, actual: float, *, since: float, now: float
    ) -> None:
        """Put what was used in place of what was charged at `since`.

        More is charged in full. Less is given back only as far as it cannot have drained already:
        an amount that has would otherwise be given back twice, at somebody else's expense.
        """
        drained = limit * max(0.0, now - since) / MINUTE
        back = max(0.0, charged - actual - drained)
        self.charge(limit, max(0.0, actual - charged), now)
        self.spent = max(0.0, self.spent - back)
