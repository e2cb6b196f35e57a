"""What is wanted of one model on this pod, as it was last said."""

from dataclasses import dataclass

from ullage_api.names import short_hash
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.models.admission import HOLD_SECONDS


@dataclass(slots=True)
class Wish:
    """The newest wish; whoever acts on it looks again after each wait."""

    desired: DesiredModel
    settings: RuntimeSettings
    is_here: bool
    waits: bool = False
    """Whether the turn of this pod to take the target has not come."""
    is_removed: bool = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.desired.name

    @property
    def key(self) -> str:
        """What the journal knows the model by: a re-created resource is another model."""
        return self.desired.uid or self.desired.name

    @property
    def target(self) -> DesiredRevision:
        """What the spec asks for."""
        return self.desired.target

    @property
    def asks(self) -> str:
        """A hash of what is asked for: a target that failed is tried again once it has changed.

        Any change of the spec makes another one, also of the pool's settings.
        """
        asked = [
            self.desired.target.to_wire(),
            self.desired.generation,
            self.settings.to_wire(),
        ]
        return short_hash(asked)

    @property
    def is_wanted(self) -> bool:
        """Whether this pod should serve the model at all."""
        return self.is_here and not self.desired.suspended and not self.is_removed

    @property
    def hold_seconds(self) -> int:
        """How long a request may be held."""
        hold = self.desired.serving.hold_seconds
        return HOLD_SECONDS if hold is None else hold
