"""Limits of the public API, which the desired document may change while the process runs."""

from collections.abc import Callable

from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.settings import Settings


class Limits:
    """The limits in effect: the process's own settings where given, else the pool's.

    Read afresh for each request, so that a new document needs no restart.
    """

    def __init__(self, settings: Settings, desired: Callable[[], PoolDesired | None]) -> None:
        self._settings = settings
        self._desired = desired

    @property
    def _pool(self) -> RuntimeSettings:
        desired = self._desired()
        return desired.settings if desired is not None else RuntimeSettings()

    @property
    def max_body_bytes(self) -> int:
        """Largest request body, in bytes."""
        return self._settings.max_body_bytes or self._pool.max_body_bytes

    @property
    def max_concurrent_requests(self) -> int:
        """Requests worked on at once."""
        return self._settings.max_concurrent_requests or self._pool.max_concurrent_requests

    @property
    def default_collection(self) -> str | None:
        """The collection that is meant where a request names none."""
        return self._settings.default_collection or self._pool.default_collection

    @property
    def cors_origins(self) -> tuple[str, ...]:
        """Origins that browsers may call from."""
        own = self._settings.cors_origins
        return own if own is not None else self._pool.cors_origins
