"""Placement: which pods of a pool hold which model.

Stable before anything else: what is placed stays while it may. What must be placed anew goes to
the pod with the fewest bytes, then the fewest models, then the lowest ordinal. Ordinals rather
than pods are assigned, so a replaced pod finds its models in the mounted document by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one model asks of the pool."""

    name: str
    replicas: int
    footprint: int = 0
    """Bytes it takes on a pod, as far as known."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Ordinals by model, and why."""

    ordinals: Mapping[str, tuple[int, ...]]
    why: tuple[str, ...] = ()


def pool_size(demands: Sequence[Demand], fewest: int, most: int) -> int:
    """Return how many pods the pool needs: as many as its widest model, within the profile."""
    widest = max((d.replicas for d in demands), default=0)
    return max(fewest, min(widest, most))


def placed(
    demands: Sequence[Demand], pods: int, previous: Mapping[str, Sequence[int]]
) -> Placement:
    """Return the assignment of models to the pods 0 to `pods` - 1.

    A model that wants more replicas than there are pods gets one on each.
    """
    load = dict.fromkeys(range(pods), 0)
    count = dict.fromkeys(range(pods), 0)
    kept: dict[str, list[int]] = {}
    for demand in sorted(demands, key=lambda d: d.name):
        stay = sorted(o for o in set(previous.get(demand.name, ())) if o < pods)
        kept[demand.name] = stay[: demand.replicas]
        for ordinal in kept[demand.name]:
            load[ordinal] += demand.footprint
            count[ordinal] += 1
    why: list[str] = []
    # Large ones first: the small ones then fill the gaps.
    for demand in sorted(demands, key=lambda d: (-d.footprint, d.name)):
        mine = kept[demand.name]
        while len(mine) < min(demand.replicas, pods):
            free = [o for o in load if o not in mine]
            best = min(free, key=lambda o: (load[o], count[o], o))
            mine.append(best)
            load[best] += demand.footprint
            count[best] += 1
            why.append(f"{demand.name} goes to pod {best}, which holds {count[best] - 1} others")
        if demand.replicas > pods:
            why.append(f"{demand.name} asks for {demand.replicas} replicas of {pods} pods")
    return Placement({name: tuple(sorted(mine)) for name, mine in kept.items()}, tuple(why))
