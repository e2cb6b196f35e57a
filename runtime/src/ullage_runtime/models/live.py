"""A live generation: the pure one, its engine and its memory, joined for as long as they last."""

import asyncio
from dataclasses import dataclass, field

from ullage_api.wire.pod_report import ReportedRevision
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.arms import Tally
from ullage_runtime.core.domain import Loaded
from ullage_runtime.core.generation import Generation
from ullage_runtime.engines.base import Engine
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.models.artifacts import Artifacts


@dataclass(slots=True)
class Live:
    """One loaded revision, with everything that has to be given back."""

    generation: Generation
    want: DesiredRevision
    artifacts: Artifacts
    engine: Engine
    reservation: Reservation
    loaded: Loaded
    load_seconds: float
    began: float
    """When it began to serve, on the monotonic clock."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it drains and nobody holds it, or its engine has died."""
    tally: Tally = field(default_factory=Tally)
    promote_seconds: float | None = None
    """How long its load took if that was from the warm tier."""
    died: str | None = None
    """How its engine ended, if nobody asked for it."""

    def note(self) -> None:
        """Take note of a change of phase or leases."""
        if self.generation.may_unload:
            self.idle.set()

    def resume(self) -> None:
        """Let requests bind it again after it began to drain."""
        self.generation.resume()
        self.idle.clear()

    @property
    def has_room(self) -> bool:
        """Whether its engine can begin one more generation at once."""
        return self.generation.leases < self.loaded.max_sequences

    @property
    def device(self) -> str:
        """What computes, and which of the pod's devices that is if it is a GPU."""
        if not self.loaded.layers_offloaded:
            return self.loaded.device
        return f"{self.loaded.device} ({', '.join(self.reservation.devices)})"

    def reported(self) -> ReportedRevision:
        """Return it as the pod's report shows it."""
        loaded = {
            "uri": self.want.uri,
            "engine": self.loaded.engine,
            "context_length": self.loaded.context_length,
            "device": self.device,
            "layers_offloaded": self.loaded.layers_offloaded,
            "layers_total": self.loaded.layers_total,
            "estimated_bytes": self.reservation.expected,
            "resident_bytes": self.reservation.total,
            "load_seconds": round(self.load_seconds, 3),
            "promote_seconds": self.promote_seconds and round(self.promote_seconds, 3),
        }
        return self.artifacts.reported().model_copy(update=loaded)

    def has_adapter(self, name: str) -> bool:
        """Tell whether a request may ask it for an adapter; the empty name asks for none."""
        return not name or any(adapter.name == name for adapter in self.artifacts.adapters)

    async def unload(self) -> None:
        """End the engine and give its memory back; idempotent."""
        self.generation.end()
        self.idle.set()
        self.reservation.releasing()
        try:
            await self.engine.unload()
        finally:
            self.reservation.release()
