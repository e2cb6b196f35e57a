"""Budgets: how much of a device's memory models may take."""

from dataclasses import dataclass, field
from typing import Final

from ullage_runtime.core.levels import Thresholds

SAFETY: Final = 0.02
"""The share of a device that is not given out beside neighbours."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a device's memory, 0 to 1: at most `most`, and never what is held in reserve."""

    most: float
    reserve: float

    def of(self, total: int) -> int:
        """Return the share of so many bytes, in bytes."""
        return round(total * min(self.most, 1 - self.reserve))


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """What a pod's memory may be used for, and when it is called short."""

    models: Share = field(default_factory=lambda: Share(0.90, 0.10))
    """Of the memory that models are loaded into: a GPU's, or the pod's where there is none."""
    host: Share = field(default_factory=lambda: Share(0.50, 0.20))
    """Of the pod's memory beside a GPU."""
    offload: bool = True
    """Whether the host's memory keeps something of models that have left."""
    thresholds: Thresholds = field(default_factory=Thresholds)


def left_beside_neighbours(*, total: int, used: int, own: int | None, ledger: int) -> int:
    """Return the bytes of a device that its neighbours leave to models, loaded or not.

    `used` is by anyone, `own` by this pod, or None where nobody knows: then the ledger's count
    stands for it. Beside neighbours a little stays free, since counts lag behind what is so.
    """
    neighbours = max(0, used - (ledger if own is None else own))
    return total - neighbours - int(SAFETY * total) if neighbours else total
