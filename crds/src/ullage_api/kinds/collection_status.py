"""What the operator tells of a collection, as status shows it."""

from typing import Annotated

from pydantic import Field

from ullage_api.conditions import Conditions
from ullage_api.kinds.base import KubeModel


class EmbeddedBy(KubeModel):
    """The model that a collection's dense vectors come from."""

    name: Annotated[str, Field(max_length=64, description="Name of its ModelDeployment.")]
    revision: Annotated[
        str | None, Field(max_length=64, description="Revision that the collection was made with.")
    ] = None
    dimensions: Annotated[int, Field(ge=1, description="Numbers in each dense vector.")]


class VectorCollectionStatus(KubeModel):
    """What is so, as the operator last observed it."""

    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec this status speaks of.")
    ] = None
    conditions: Annotated[
        Conditions, Field(description="Observations of the collection's state.")
    ] = None
    url: Annotated[
        str | None, Field(max_length=512, description="Its address within the cluster.")
    ] = None
    aliases: Annotated[
        list[Annotated[str, Field(max_length=64)]] | None,
        Field(
            max_length=16,
            description="Further names that it answers to.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    profile: Annotated[
        str | None, Field(max_length=64, description="Index profile that the spec amounts to.")
    ] = None
    store: Annotated[
        str | None, Field(max_length=64, description="Where its vectors are: Embedded or Qdrant.")
    ] = None
    model: Annotated[
        EmbeddedBy | None, Field(description="The model that its dense vectors come from.")
    ] = None
    physical_collection: Annotated[
        str | None, Field(max_length=128, description="Name of what is searched in the store.")
    ] = None
    epoch: Annotated[
        int | None, Field(ge=0, description="Rises when another physical collection takes over.")
    ] = None
    points: Annotated[int | None, Field(ge=0, description="Points that can be found.")] = None
    documents: Annotated[int | None, Field(ge=0, description="Documents that were taken in.")] = (
        None
    )
    indexed_vectors: Annotated[
        int | None,
        Field(ge=0, description="Vectors in the index; the others are compared one by one."),
    ] = None
    pending_changes: Annotated[
        int | None,
        Field(ge=0, description="Accepted changes that the store has yet to see."),
    ] = None
    recall_percent: Annotated[
        int | None,
        Field(
            ge=0,
            le=100,
            description="Share of the nearest points that searches found of late.",
        ),
    ] = None
