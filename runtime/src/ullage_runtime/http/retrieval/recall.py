"""Searches that were answered before: the same again gets the same, until something is written.

While the store is away, an answer from before the last writes is better than none; it says so.
"""

import hashlib
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from ullage_runtime.core.cache import CacheKey
from ullage_runtime.core.errors import CollectionUnavailable, RequestTimeout
from ullage_runtime.http.retrieval.objects import SearchObject
from ullage_runtime.http.services import Services
from ullage_runtime.models.caches import KeptSearch
from ullage_runtime.models.kept import Outcome
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.searching import Search

STALE: Final = "stale"
"""What an answer says that is from before the last writes."""


async def recalled(
    services: Services,
    collection: Collection,
    search: Search,
    find: Callable[[], Awaitable[SearchObject]],
    *,
    tenant: str,
) -> SearchObject:
    """Return what `find` finds, or what it found before; raises what it raises."""
    kept = services.caches.searches
    key = _key(collection, search, tenant)
    version = collection.changes.applied
    before = kept.find(key)
    is_fresh = before is not None and before.version == version
    kept.count(key.model, Outcome.HIT if is_fresh else Outcome.MISS)
    if before is not None and is_fresh:
        return _again(before)
    try:
        found = await find()
    except (CollectionUnavailable, RequestTimeout):
        if before is None:
            raise
        return _again(before, STALE)
    if not found.degraded:
        body = found.model_dump_json().encode()
        seconds = services.settings.searches_cache_seconds
        kept.keep(key, KeptSearch(version, body), len(body), seconds)
    return found


def _again(kept: KeptSearch, *degraded: str) -> SearchObject:
    found = SearchObject.model_validate_json(kept.body)
    return found.model_copy(update={"cached": True, "seconds": {}, "degraded": list(degraded)})


def _key(collection: Collection, search: Search, tenant: str) -> CacheKey:
    """Return a key that changes with the epoch and with what queries are asked to do."""
    rerank = collection.spec.rerank
    # Hundreds of numbers in words take longer than all the rest of a search's way through HTTP.
    dense = search.dense and hashlib.sha256(array("d", search.dense)).digest()
    rest = replace(search, dense=None)
    how = repr((rest, dense, dict(collection.params), rerank and rerank.model_deployment))
    place = f"{collection.name}@{collection.changes.routing.epoch}"
    asked = hashlib.sha256(how.encode("utf-8", "surrogatepass")).digest()
    return CacheKey(tenant, collection.model, place, asked)
