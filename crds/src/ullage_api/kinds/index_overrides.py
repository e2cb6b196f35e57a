"""What a collection's index and queries do otherwise than its profile says, in Qdrant's own words.

Names are Qdrant's, with underscores. Numbers with a point are strings, as the API has none.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from ullage_api.kinds.base import rule, validations

QUANTILE_PATTERN: Final = "^(0[.][5-9][0-9]{0,3}|1([.]0{1,4})?)$"
OVERSAMPLING_PATTERN: Final = "^[1-9][0-9]?([.][0-9]{1,4})?$"

QUANTILE_MESSAGE = (
    "overrides.quantization_config.scalar.quantile must be a number from '0.5' to '1' with at most "
    "4 decimals, such as '0.99'"
)
OVERSAMPLING_MESSAGE = (
    "overrides.params.quantization.oversampling must be a number from '1' to '99' with at most 4 "
    "decimals, such as '2.0'"
)
QUANTIZATION_MESSAGE = "overrides.quantization_config must have one of scalar and binary"
QUANTIZATION_RULE = "has(self.scalar) != has(self.binary)"


class QdrantModel(BaseModel):
    """A part of Qdrant's API, by its own names; absent fields are left to the profile."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class HnswOverrides(QdrantModel):
    """How the graph of dense vectors is built."""

    m: Annotated[int | None, Field(ge=4, le=128, description="Neighbours of each point.")] = None
    ef_construct: Annotated[
        int | None,
        Field(ge=4, le=4096, description="Points that are looked at to find a neighbour."),
    ] = None


class ScalarType(StrEnum):
    """What a number is kept as."""

    INT8 = "int8"


class ScalarOverrides(QdrantModel):
    """One byte for each number."""

    type: Annotated[ScalarType, Field(description="int8.")] = ScalarType.INT8
    quantile: Annotated[
        str | None,
        Field(
            max_length=8,
            description="Share of the numbers that the range of a byte spans.",
            json_schema_extra=validations(
                rule(f"self.matches('{QUANTILE_PATTERN}')", QUANTILE_MESSAGE)
            ),
        ),
    ] = None
    always_ram: Annotated[
        bool | None, Field(description="Whether they stay in memory; true if unset.")
    ] = None


class BinaryOverrides(QdrantModel):
    """One bit for each number."""

    always_ram: Annotated[
        bool | None, Field(description="Whether they stay in memory; true if unset.")
    ] = None


class QuantizationOverrides(QdrantModel):
    """How vectors are kept small in memory."""

    scalar: Annotated[ScalarOverrides | None, Field(description="One byte for each number.")] = None
    binary: Annotated[BinaryOverrides | None, Field(description="One bit for each number.")] = None


class QuantizationParams(QdrantModel):
    """How queries use the small vectors."""

    ignore: Annotated[bool | None, Field(description="Whether they are not used at all.")] = None
    rescore: Annotated[
        bool | None, Field(description="Whether findings are scored again by whole vectors.")
    ] = None
    oversampling: Annotated[
        str | None,
        Field(
            max_length=8,
            description="Findings that are scored again, for each that is wanted.",
            json_schema_extra=validations(
                rule(f"self.matches('{OVERSAMPLING_PATTERN}')", OVERSAMPLING_MESSAGE)
            ),
        ),
    ] = None


class SearchParams(QdrantModel):
    """How thoroughly queries search."""

    hnsw_ef: Annotated[
        int | None, Field(ge=1, le=10_000, description="Points that a query looks at, at least.")
    ] = None
    exact: Annotated[
        bool | None, Field(description="Whether every vector is looked at, without the index.")
    ] = None
    indexed_only: Annotated[
        bool | None, Field(description="Whether vectors that are not indexed yet are left out.")
    ] = None
    quantization: Annotated[
        QuantizationParams | None, Field(description="How queries use the small vectors.")
    ] = None


class IndexOverrides(QdrantModel):
    """What is done otherwise than the profile says."""

    hnsw_config: Annotated[
        HnswOverrides | None,
        Field(description="How the graph of dense vectors is built; a reindex changes it."),
    ] = None
    quantization_config: Annotated[
        QuantizationOverrides | None,
        Field(
            description="How vectors are kept small in memory; a reindex changes it.",
            json_schema_extra=validations(rule(QUANTIZATION_RULE, QUANTIZATION_MESSAGE)),
        ),
    ] = None
    params: Annotated[
        SearchParams | None,
        Field(description="How thoroughly queries search; it acts at once."),
    ] = None
