"""Which names of a pool's collections are whose: an alias belongs to the oldest that wants it."""

from collections.abc import Iterable, Mapping

from ullage_api.checks import collection_conflicts
from ullage_api.kinds.vector_collection import VectorCollection


def taken_aliases(collections: Iterable[VectorCollection]) -> dict[str, dict[str, str]]:
    """Return the aliases of each collection that older ones have, with their owners."""
    return collection_conflicts(
        sorted(collections, key=lambda c: (c.metadata.creation_timestamp or "", c.metadata.name))
    )


def without_aliases(resource: VectorCollection, taken: Mapping[str, str]) -> VectorCollection:
    """Return a collection without the aliases that others have."""
    if not taken:
        return resource
    kept = [alias for alias in resource.spec.aliases or () if alias not in taken]
    spec = resource.spec.model_copy(update={"aliases": kept})
    return resource.model_copy(update={"spec": spec})
