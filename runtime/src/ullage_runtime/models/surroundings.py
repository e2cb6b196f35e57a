"""What every model of a pod works with."""

from dataclasses import dataclass

from ullage_runtime.core.decisions import Decisions
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.caches import Caches
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.journal import Journal
from ullage_runtime.models.loading import Loader
from ullage_runtime.models.metrics import ModelMetrics
from ullage_runtime.models.ports import InUse, ModelSourcePort
from ullage_runtime.models.room import Room
from ullage_runtime.models.warm import WarmTier


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The pod's shared parts, as a model's lifecycle needs them."""

    source: ModelSourcePort
    loader: Loader
    governor: Governor
    clock: Clock
    metrics: ModelMetrics
    room: Room
    warm: WarmTier
    decisions: Decisions
    journal: Journal
    in_use: InUse
    caches: Caches
