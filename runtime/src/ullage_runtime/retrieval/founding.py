"""What a new collection begins with in its store, and what an old one is found with."""

from collections.abc import Mapping
from typing import Final

from ullage_api.kinds.vector_collection import MultivectorType, SparseType, VectorCollectionSpec
from ullage_runtime.core.errors import UnsupportedOutput
from ullage_runtime.retrieval.embedding import Embedder, Space
from ullage_runtime.retrieval.log.file import Routing
from ullage_runtime.retrieval.profiles import layout_of
from ullage_runtime.retrieval.stores.port import Description, Layout, Store, StoreRefused

FIRST_EPOCH: Final = 1


async def made(name: str, spec: VectorCollectionSpec, store: Store, embedder: Embedder) -> Routing:
    """Return where a new collection lives, which is made, or was there before us."""
    space = await embedder.space(spec.embedding.model_deployment)
    check_outputs(spec, space)
    physical = (await store.aliases()).get(name, name)
    found = await store.describe(physical)
    if found is None:
        physical = f"{name}-{FIRST_EPOCH}"
        found = await store.describe(physical)
    if found is None:
        await store.create(physical, layout_of(spec, space.dimensions, space.token_width))
    else:
        _check_space(physical, found.layout, space)
    if physical != name:
        await store.point_alias(name, physical)
    model = {"name": space.model, "revision": space.revision, "dimensions": space.dimensions}
    if spec.sparse is SparseType.MODEL and not (found and found.layout.has_idf):
        model["sparse"] = SparseType.MODEL.value
    if spec.multivector is MultivectorType.COLBERT and not (found and not found.layout.token_width):
        model["multivector"] = MultivectorType.COLBERT.value
    return Routing(FIRST_EPOCH, physical, (physical,), model)


async def described(store: Store, name: str, routing: Routing) -> Description:
    """Return what the store says of a collection; raises StoreRefused where it has none."""
    found = await store.describe(routing.read)
    if found is None:
        raise StoreRefused(
            f"the store has no {routing.read!r}, which the log of collection {name!r} says it "
            "reads; restore the store, or remove the collection's folder to begin anew"
        )
    return found


async def index_fields(
    spec: VectorCollectionSpec, store: Store, physical: str, there: Mapping[str, str]
) -> None:
    """Index those of the wanted fields that are not indexed yet."""
    for field, kind in wanted_fields(spec).items():
        if there.get(field) != kind:
            await store.index_field(physical, field, kind)


def wanted_fields(spec: VectorCollectionSpec) -> dict[str, str]:
    """Return the payload fields that a spec wants indexed, and as what, in the store's words."""
    return {each.field: each.type.value.lower() for each in spec.payload_indexes or ()}


def check_outputs(spec: VectorCollectionSpec, space: Space) -> None:
    """Raise UnsupportedOutput where a model does not give what a collection wants of it."""
    if spec.sparse is SparseType.MODEL and not space.has_sparse:
        raise UnsupportedOutput(
            f"model {space.model!r} gives no sparse vectors; set sparse to BM25 or None, or "
            "name a model that does, such as an ONNX build of BGE-M3 with its heads"
        )
    if spec.multivector is MultivectorType.COLBERT and not space.token_width:
        raise UnsupportedOutput(
            f"model {space.model!r} gives no vectors of tokens; set multivector to None, or "
            "name a model that does, such as an ONNX build of BGE-M3 with its heads"
        )


def _check_space(physical: str, found: Layout, space: Space) -> None:
    if found.dimensions != space.dimensions:
        raise StoreRefused(
            f"{physical!r} is in the store already, with {found.dimensions} dimensions; "
            f"model {space.model!r} gives {space.dimensions}: name another collection or model"
        )
    if found.token_width not in (0, space.token_width):
        raise StoreRefused(
            f"{physical!r} is in the store already, with {found.token_width} dimensions of a "
            f"token's vector; model {space.model!r} gives {space.token_width}: name another "
            "collection or model"
        )
