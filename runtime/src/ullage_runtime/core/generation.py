"""Generations and leases: what a name points to, and who still needs what it pointed to."""

from dataclasses import dataclass
from enum import StrEnum


class GenerationPhase(StrEnum):
    """What may be done with a generation."""

    ACTIVE = "active"
    """Requests may bind it."""
    DRAINING = "draining"
    """No request binds it any more; those that have go on."""
    GONE = "gone"
    """Its engine has ended."""


class GenerationError(Exception):
    """A step that a generation's phase does not allow: a bug in the caller."""


@dataclass(slots=True)
class Generation:
    """One loaded revision of a model, and how many requests hold it."""

    id: str
    revision: str
    phase: GenerationPhase = GenerationPhase.ACTIVE
    leases: int = 0

    def acquire(self) -> None:
        """Take a lease; only an active generation gives one."""
        if self.phase is not GenerationPhase.ACTIVE:
            raise GenerationError(f"{self.id} is {self.phase}")
        self.leases += 1

    def release(self) -> None:
        """Give a lease back; a lease outlives its generation when the engine died."""
        if self.leases == 0:
            raise GenerationError(f"{self.id} has no lease to give back")
        self.leases -= 1

    def drain(self) -> None:
        """Stop giving leases; harmless when it is past that."""
        if self.phase is GenerationPhase.ACTIVE:
            self.phase = GenerationPhase.DRAINING

    def resume(self) -> None:
        """Give leases again, after draining; raises GenerationError once its engine has ended."""
        if self.phase is GenerationPhase.GONE:
            raise GenerationError(f"{self.id} is {self.phase}")
        self.phase = GenerationPhase.ACTIVE

    def end(self) -> None:
        """Note that the engine has ended, by our will or its own."""
        self.phase = GenerationPhase.GONE

    @property
    def may_unload(self) -> bool:
        """Whether nobody needs it and nobody will: draining, without a lease."""
        return self.phase is GenerationPhase.DRAINING and self.leases == 0
