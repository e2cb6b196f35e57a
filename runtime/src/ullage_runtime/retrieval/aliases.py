"""Further names of a collection in its store, for those who read it there.

Our own readers use the name of what they read. An alias is made, or turned, in one step; it is ours
once the log says so, and one that somebody else has made is never taken away.
"""

from collections.abc import Iterable

from ullage_runtime.retrieval.log.changes import ChangeLog
from ullage_runtime.retrieval.stores.port import Store, StoreRefused


class AliasTaken(StoreRefused):
    """The store has an alias for somebody else."""


async def aligned(store: Store, changes: ChangeLog, wanted: Iterable[str]) -> None:
    """Have these aliases point to what is read, and those that are ours no more be gone.

    Raises AliasTaken once all others are as they should be.
    """
    names, physical = set(wanted), changes.routing.read
    there, ours = await store.aliases(), await changes.aliases()
    foreign = {name: there[name] for name in names - ours if there.get(name, physical) != physical}
    mine = names - set(foreign)
    if mine | ours != ours:
        await changes.note_aliases(mine | ours)
    for name in sorted(mine):
        if there.get(name) != physical:
            await store.point_alias(name, physical)
    for name in sorted(ours - names):
        if there.get(name) in {physical, *changes.routing.write}:
            await store.drop_alias(name)
    if ours - names:
        await changes.note_aliases(mine)
    if foreign:
        name, other = min(foreign.items())
        raise AliasTaken(
            f"the store has alias {name!r} for {other!r} already; take it out of spec.aliases, or "
            "delete it there"
        )
