"""What the cache knows of an address: which content was there, and whether it is still at hand."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources.responses import Validators
from ullage_runtime.models.sources.store import UriEntry
from ullage_runtime.models.sources.surroundings import Surroundings
from ullage_runtime.models.sources.threads import in_thread


@dataclass(frozen=True, slots=True)
class Copy:
    """A model of the cache, and what is known of its address."""

    entry: UriEntry
    model: CachedModel


async def copy_of(
    around: Surroundings, key: str, find: Callable[[str], Awaitable[CachedModel | None]]
) -> Copy | None:
    """Return what an address had when it was last asked, if `find` has it by its digest."""
    entry = await in_thread(around.store.known, key)
    model = await find(entry.sha256) if entry else None
    return Copy(entry, model) if entry and model else None


async def remember(
    around: Surroundings,
    key: str,
    model: CachedModel,
    validators: Validators,
    commit: str | None = None,
) -> None:
    """Note what an address has now, and by what the next one who asks will know it again."""
    entry = UriEntry(
        uri=key,
        sha256=model.sha256,
        size=model.size,
        etag=validators.etag,
        last_modified=validators.last_modified,
        commit=commit,
        checked_at=around.clock(),
    )
    await in_thread(around.store.remember, entry)
