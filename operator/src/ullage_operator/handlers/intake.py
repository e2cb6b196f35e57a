"""The intake: where handlers put keys, and what the liveness probe asks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import WorkQueue


class UnhealthyError(Exception):
    """The process should be restarted."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What Kopf's handlers know of the rest of the operator."""

    queue: WorkQueue[Key]
    stop: Callable[[], Awaitable[None]]
    """Ends the controller; called when Kopf has ended its watches."""
    poll_age: Callable[[], float]
    """Seconds since something that should happen every few seconds last did."""
    stuck_seconds: float

    def add(self, *keys: Key) -> None:
        """Make keys due."""
        for key in keys:
            self.queue.add(key)

    def health(self) -> dict[str, float]:
        """Return what liveness rests on, in seconds; raises UnhealthyError past the limit."""
        ages = {
            "oldestDue": self.queue.oldest_seconds,
            "longestReconcile": self.queue.longest_seconds,
            "lastPoll": self.poll_age(),
        }
        late = {name: age for name, age in ages.items() if age > self.stuck_seconds}
        if late:
            raise UnhealthyError(f"older than {self.stuck_seconds:.0f} s: {late}")
        return {name: round(age, 3) for name, age in ages.items()}
