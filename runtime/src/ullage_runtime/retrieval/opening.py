"""What is needed to open a collection: how it is read, and the key of its store's host."""

import pathlib
import re
from collections.abc import Callable
from dataclasses import replace

from ullage_api.kinds.vector_collection import (
    MultivectorType,
    SparseType,
    VectorCollectionSpec,
)
from ullage_runtime.retrieval.collection import View
from ullage_runtime.retrieval.log.file import Routing
from ullage_runtime.retrieval.stores.port import Layout


def view_of(spec: VectorCollectionSpec, routing: Routing, physical: str, layout: Layout) -> View:
    """Return how a physical collection is read that the routing names."""
    making = routing.making_of(physical)
    name = making.model or spec.embedding.model_deployment
    is_own = making.sparse is SparseType.MODEL
    kept = spec.model_copy(
        update={
            "embedding": spec.embedding.model_copy(update={"model_deployment": name}),
            "sparse": SparseType.MODEL if is_own else SparseType.BM25,
        }
    )
    multivector = MultivectorType.COLBERT if layout.token_width else MultivectorType.NONE
    return View(physical, kept, layout, replace(making, model=name, multivector=multivector))


_HOST = re.compile(r"[A-Za-z0-9.-]+")


def keys_in(folder: pathlib.Path | None) -> Callable[[str], str | None]:
    """Return how the key of a store's host is looked up in a folder of mounted secrets."""

    def key_of(host: str) -> str | None:
        if folder is None or not _HOST.fullmatch(host):
            return None
        try:
            return (folder / host).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    return key_of
