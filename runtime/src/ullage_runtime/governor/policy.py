"""The memory policy in effect: the pool's, and what this process was started with above it."""

from dataclasses import dataclass

from ullage_api.profile import RuntimeSettings
from ullage_runtime.core.budgets import MemoryPolicy, Share
from ullage_runtime.core.levels import Thresholds


@dataclass(frozen=True, slots=True)
class MemoryOverrides:
    """What whoever starts a process sets: shares, 0 to 1, of which None leaves it to the pool."""

    gpu_max: float | None = None
    gpu_reserve: float | None = None
    cpu_max: float | None = None
    cpu_reserve: float | None = None
    cpu_offload: bool = True
    """Whether host memory may keep something of models that have left."""
    idle_threshold: float | None = None
    """Seconds that a model may be idle from `Moderate` on; None leaves it to the device."""


def memory_policy(settings: RuntimeSettings, overrides: MemoryOverrides) -> MemoryPolicy:
    """Return the policy that a pool's settings and a process's own add up to."""
    default, levels = MemoryPolicy(), settings.levels
    return MemoryPolicy(
        models=Share(
            most=_first(overrides.gpu_max, settings.memory_max_percent / 100),
            reserve=_first(overrides.gpu_reserve, settings.memory_reserve_percent / 100),
        ),
        host=Share(
            most=_first(overrides.cpu_max, default.host.most),
            reserve=_first(overrides.cpu_reserve, default.host.reserve),
        ),
        offload=overrides.cpu_offload,
        thresholds=Thresholds(levels.moderate / 100, levels.high / 100, levels.critical / 100),
    )


def _first(override: float | None, otherwise: float) -> float:
    return otherwise if override is None else override
