"""Fairness between tenants, or adapters: who has been served least goes first.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (2024): each
computed token counts for its tenant; a tenant that comes back starts no lower than the least served
of those who are active, or than the last one who was, so that idling saves nothing up and nobody
pays for what he had while he was alone.
"""

from collections.abc import Iterable

MAX_TENANTS = 1024
"""Tenants remembered; of more, those who want nothing are forgotten."""


class Service:
    """Tokens computed per tenant."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._level = 0
        """What the tenant that was served last has been served."""

    def arrive(self, tenant: str, active: Iterable[str]) -> None:
        """Note that a tenant wants something, and who else does."""
        others = [self._served.get(other, 0) for other in active if other != tenant]
        self._served[tenant] = max(self._served.get(tenant, 0), min(others, default=self._level))

    def count(self, tenant: str, tokens: int) -> None:
        """Note tokens computed for a tenant."""
        self._served[tenant] = self._level = self._served.get(tenant, 0) + tokens

    def of(self, tenant: str) -> int:
        """Return what a tenant was served."""
        return self._served.get(tenant, 0)

    def forget_idle(self, active: set[str]) -> None:
        """Keep the table bounded."""
        if len(self._served) > MAX_TENANTS:
            self._served = {t: n for t, n in self._served.items() if t in active}
