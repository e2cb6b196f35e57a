"""Placement: which of a pod's devices a model is loaded onto, and who leaves them for it."""

from collections.abc import Iterable, Mapping

from ullage_runtime.core.eviction import Candidate, victims


def best_fit(free: Mapping[str, int], count: int, among: int) -> tuple[str, ...] | None:
    """Return the tightest `among` devices with so many bytes free on each, or None.

    `free` is by device. What is roomier stays so, for models that fit nowhere else.
    """
    enough = [device for device, left in free.items() if left >= count]
    if len(enough) < among:
        return None
    if len(enough) == among:
        return tuple(enough)
    chosen = sorted(enough, key=free.__getitem__)[:among]
    return tuple(device for device in free if device in chosen)


def roomiest(free: Mapping[str, int], among: int) -> tuple[str, ...]:
    """Return the `among` devices with most bytes free."""
    if len(free) <= among:
        return tuple(free)
    chosen = sorted(free, key=free.__getitem__, reverse=True)[:among]
    return tuple(device for device in free if device in chosen)


def suffices(lacking: Mapping[str, int], among: int) -> bool:
    """Tell whether `among` devices lack nothing; `lacking` has the bytes by device."""
    return sum(missing <= 0 for missing in lacking.values()) >= among


def victims_among(
    candidates: Iterable[Candidate], lacking: Mapping[str, int], among: int, priority: int
) -> tuple[Candidate, ...] | None:
    """Return who leaves so that `among` devices have what they lack, or None without enough.

    Nobody leaves on another device. Those are chosen on which the lowest priorities leave, and of
    them the fewest bytes.
    """
    everybody = tuple(candidates)
    found = {
        device: leaving
        for device, missing in lacking.items()
        if (leaving := victims(_on(device, everybody), missing, priority)) is not None
    }
    if len(found) < among:
        return None
    chosen = sorted(found, key=lambda device: _loss(found[device]))[:among]
    by_name = {candidate.name: candidate for device in chosen for candidate in found[device]}
    return tuple(by_name.values())


def _on(device: str, candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    return (candidate for candidate in candidates if device in candidate.devices)


def _loss(leaving: tuple[Candidate, ...]) -> tuple[float, int]:
    """Return how much is lost with models; with none, less than with any."""
    highest = max((candidate.priority for candidate in leaving), default=float("-inf"))
    return highest, sum(candidate.bytes for candidate in leaving)
