"""A standby as the pod's memory sees it: the revision before, kept for a way back."""

import asyncio
import math
from typing import Final

import structlog

from ullage_runtime.core.decisions import Rule
from ullage_runtime.core.eviction import Candidate
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.models.generations import Generations
from ullage_runtime.models.surroundings import Surroundings

FIRST: Final = -1
"""Below every model's priority: nobody's requests need it, so it leaves before all others."""

_log = structlog.get_logger(__name__)


class Standby:
    """What one model keeps standing by; a `Resident` of its own, besides the model's."""

    def __init__(self, model: str, generations: Generations, around: Surroundings) -> None:
        self._model = model
        self._generations = generations
        self._around = around

    @property
    def name(self) -> str:
        """A name that no model can have."""
        return f"{self._model} (standby)"

    @property
    def running(self) -> int:
        """Requests that hold it: those that it has not finished yet."""
        live = self._generations.standby
        return 0 if live is None else live.generation.leases

    def candidate(self) -> Candidate | None:
        """Return it as others see it who need memory; None while there is none, or it drains."""
        live = self._generations.standby
        if live is None or live.generation.leases:
            return None
        return Candidate(
            name=self.name,
            bytes=live.reservation.bytes,
            devices=live.reservation.devices,
            priority=FIRST,
            idle_seconds=math.inf,
            reload_seconds=live.load_seconds,
        )

    def hold_back(self, *, hold: bool) -> None:
        """Do nothing: no request comes to it."""

    def begin_evict(self, rule: Rule, beneficiary: str | None) -> "asyncio.Task[None] | None":
        """Unload it; a way back has to load it again."""
        live = self._generations.standby
        if live is None:
            return None
        count, revision = live.reservation.total, live.generation.revision
        self._around.decisions.add(
            time=self._around.clock.wall(),
            model=self._model,
            rule=rule,
            count=count,
            beneficiary=beneficiary,
            message=(
                f"revision {revision} stands by no more, which made room for "
                f"{'others' if beneficiary is None else f'model {beneficiary!r}'}: "
                f"{human_bytes(count)}"
            ),
        )
        self._around.metrics.evictions.labels(self._model, rule.value).inc()
        self._around.metrics.evicted_bytes.inc(count)
        _log.info("standby.evicted", model=self._model, bytes=count, by=beneficiary)
        return self._generations.release_standby()
