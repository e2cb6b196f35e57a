"""Keys: what the work queue holds and a reconcile is about."""

from dataclasses import dataclass
from enum import StrEnum


class KeyKind(StrEnum):
    """What a key names."""

    POOL = "Pool"
    MODEL = "ModelDeployment"
    COLLECTION = "VectorCollection"
    REINDEX = "ReindexJob"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One thing to be reconciled."""

    kind: KeyKind
    namespace: str
    name: str

    @classmethod
    def pool(cls, namespace: str, name: str) -> "Key":
        """Return the key of a pool."""
        return cls(KeyKind.POOL, namespace, name)

    @classmethod
    def model(cls, namespace: str, name: str) -> "Key":
        """Return the key of a ModelDeployment."""
        return cls(KeyKind.MODEL, namespace, name)

    @classmethod
    def collection(cls, namespace: str, name: str) -> "Key":
        """Return the key of a VectorCollection."""
        return cls(KeyKind.COLLECTION, namespace, name)

    @classmethod
    def reindex(cls, namespace: str, name: str) -> "Key":
        """Return the key of a ReindexJob."""
        return cls(KeyKind.REINDEX, namespace, name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
