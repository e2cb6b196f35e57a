"""VectorCollection: documents in, answers out, with vectors of one of the pool's models."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ullage_api.kinds.base import (
    NAME_RULE,
    POOL_RULE,
    KubeModel,
    Resource,
    rule,
    validations,
)
from ullage_api.kinds.collection_status import VectorCollectionStatus
from ullage_api.kinds.columns import Column
from ullage_api.kinds.index_overrides import IndexOverrides
from ullage_api.names import API_VERSION, COLLECTION_FINALIZER, MAX_NAME_LENGTH

MAX_CHUNK_TOKENS = 8192
DEFAULT_CHUNK_TOKENS = 256
DEFAULT_OVERLAP_TOKENS = 32
DEFAULT_RERANK_FACTOR = 5
DEFAULT_RERANK_MIN = 20
DEFAULT_RERANK_MAX = 200

URL_MESSAGE = "store.url must be the http:// or https:// address of the Qdrant server"
URL_NEEDED_MESSAGE = "store.url is needed for type Qdrant; add the address of the server"
URL_UNUSED_MESSAGE = "store.url is for type Qdrant; remove it, or change type"
ALIAS_PATTERN = "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
ALIAS_MESSAGE = "an alias must be letters, digits and any of . _ - in between"
OWN_ALIAS_MESSAGE = "spec.aliases must not repeat metadata.name; remove it, the name always works"
RERANK_RULE = "!has(self.min) || !has(self.max) || self.min <= self.max"
RERANK_MESSAGE = "rerank.min must not exceed rerank.max"


class StoreType(StrEnum):
    """Where a collection's vectors are kept."""

    EMBEDDED = "Embedded"
    QDRANT = "Qdrant"


class DistanceType(StrEnum):
    """How near two dense vectors are."""

    COSINE = "Cosine"
    DOT = "Dot"
    EUCLID = "Euclid"


class SparseType(StrEnum):
    """What a collection's sparse vectors are made of."""

    BM25 = "BM25"
    MODEL = "Model"
    NONE = "None"


class MultivectorType(StrEnum):
    """What a collection keeps of each token of its texts."""

    NONE = "None"
    COLBERT = "ColBERT"


class IndexProfile(StrEnum):
    """What a collection's index is built for."""

    HIGH_ACCURACY = "HighAccuracy"
    BALANCED = "Balanced"
    FAST_QUERY = "FastQuery"


class Splitter(StrEnum):
    """How documents are cut into chunks."""

    TEXT = "Text"
    MARKDOWN = "Markdown"
    CODE = "Code"


class FieldType(StrEnum):
    """Type of an indexed payload field."""

    KEYWORD = "Keyword"
    INTEGER = "Integer"
    FLOAT = "Float"
    BOOL = "Bool"
    DATETIME = "Datetime"
    UUID = "UUID"
    TEXT = "Text"


class DeletionPolicy(StrEnum):
    """What becomes of a collection's data when its resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class StoreSettings(KubeModel):
    """Where the vectors are kept."""

    type: Annotated[
        StoreType,
        Field(
            description="Embedded keeps them on the pod's volume; Qdrant on a server, by url.",
        ),
    ]
    url: Annotated[
        str | None,
        Field(
            max_length=2048,
            description=(
                "The server's address, for type Qdrant; its key is looked up by its host in the "
                "Secret ullage-credentials."
            ),
            json_schema_extra=validations(rule("self.matches('^https?://')", URL_MESSAGE)),
        ),
    ] = None


class EmbeddingSettings(KubeModel):
    """Which model the dense vectors come from."""

    model_deployment: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description="A ModelDeployment of the same pool whose task is Embedding.",
        ),
    ]


class DenseSettings(KubeModel):
    """The dense vectors; their size comes from the model."""

    distance: Annotated[
        DistanceType, Field(description="How near two vectors are: Cosine, Dot or Euclid.")
    ] = DistanceType.COSINE


class ChunkingSettings(KubeModel):
    """How documents are cut into chunks."""

    splitter: Annotated[
        Splitter | None,
        Field(
            description="Text cuts at paragraphs and sentences, Markdown at headings first, Code "
            "at functions and classes."
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(ge=16, le=MAX_CHUNK_TOKENS, description="Largest chunk, in the model's own tokens."),
    ] = None
    overlap_tokens: Annotated[
        int | None,
        Field(ge=0, le=1024, description="About how much of a chunk the next one repeats."),
    ] = None


class RerankSettings(KubeModel):
    """Which model looks at findings again, and at how many."""

    model_deployment: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description="A ModelDeployment of the same pool whose task is Rerank.",
        ),
    ]
    factor: Annotated[
        int | None,
        Field(ge=1, le=100, description="Findings it looks at for each that is wanted; 5."),
    ] = None
    min: Annotated[
        int | None, Field(ge=1, le=1000, description="Findings it looks at, at least; 20.")
    ] = None
    max: Annotated[
        int | None, Field(ge=1, le=1000, description="Findings it looks at, at most; 200.")
    ] = None


class PayloadIndex(KubeModel):
    """A payload field that filters can use without looking at every point."""

    field: Annotated[
        str, Field(min_length=1, max_length=256, description="Path of the field, such as `a.b`.")
    ]
    type: Annotated[FieldType, Field(description="What the field holds.")]


class VectorCollectionSpec(KubeModel):
    """What is wanted of one collection."""

    pool: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description="Pool whose pod holds the collection; cannot be changed later.",
            json_schema_extra=validations(
                rule("self == oldSelf", "pool cannot be changed; create another collection there"),
                POOL_RULE,
            ),
        ),
    ]
    store: Annotated[
        StoreSettings | None,
        Field(
            description="Where the vectors are kept; Embedded if unset.",
            json_schema_extra=validations(
                rule("self.type != 'Qdrant' || has(self.url)", URL_NEEDED_MESSAGE),
                rule("self.type == 'Qdrant' || !has(self.url)", URL_UNUSED_MESSAGE),
            ),
        ),
    ] = None
    embedding: Annotated[EmbeddingSettings, Field(description="Where dense vectors come from.")]
    dense: Annotated[DenseSettings | None, Field(description="The dense vectors.")] = None
    sparse: Annotated[
        SparseType | None,
        Field(
            description="What sparse vectors are made of: BM25 (if unset), the Model's own weights "
            "of its tokens, or None for none."
        ),
    ] = None
    multivector: Annotated[
        MultivectorType | None,
        Field(
            description="ColBERT keeps the model's vector of each token, by which findings are "
            "looked at again; None (if unset) does not."
        ),
    ] = None
    profile: Annotated[
        IndexProfile | None,
        Field(description="HighAccuracy, Balanced (if unset) or FastQuery."),
    ] = None
    overrides: Annotated[
        IndexOverrides | None,
        Field(description="What is done otherwise than the profile says, by Qdrant's own names."),
    ] = None
    aliases: Annotated[
        list[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=64,
                    json_schema_extra=validations(
                        rule(f"self.matches('{ALIAS_PATTERN}')", ALIAS_MESSAGE)
                    ),
                ),
            ]
        ]
        | None,
        Field(
            max_length=16,
            description="Further names it answers to, here and in its store.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    chunking: Annotated[
        ChunkingSettings | None, Field(description="How documents are cut into chunks.")
    ] = None
    rerank: Annotated[
        RerankSettings | None,
        Field(
            description="Which model looks at findings again; none if unset.",
            json_schema_extra=validations(rule(RERANK_RULE, RERANK_MESSAGE)),
        ),
    ] = None
    payload_indexes: Annotated[
        list[PayloadIndex] | None,
        Field(
            max_length=32,
            description="Payload fields that are indexed for filters.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["field"],
            },
        ),
    ] = None
    deletion_policy: Annotated[
        DeletionPolicy | None,
        Field(
            description=(
                "What becomes of the data when this resource is deleted: Retain (if unset) keeps "
                "it for a collection of the same name; Delete removes it."
            )
        ),
    ] = None


class VectorCollection(Resource):
    """Documents and vectors that can be searched, embedded by a model of the same pool."""

    PLURAL: ClassVar[str] = "vectorcollections"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("vcol",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Model", "string", ".status.model.name", "Model that its vectors come from."),
        Column("Profile", "string", ".status.profile", "What its index is built for."),
        Column("Points", "integer", ".status.points", "Points that can be found."),
        Column(
            "Ready",
            "string",
            '.status.conditions[?(@.type=="Ready")].status',
            "Whether it answers.",
        ),
        Column(
            "Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why, in a word."
        ),
        Column(
            "In sync",
            "string",
            '.status.conditions[?(@.type=="InSync")].status',
            "Whether it is built as the spec wants it.",
        ),
        Column("Age", "date", ".metadata.creationTimestamp", "Time since it was created."),
        Column("Store", "string", ".status.store", "Where its vectors are.", priority=1),
        Column(
            "Dimensions",
            "integer",
            ".status.model.dimensions",
            "Numbers in each dense vector.",
            priority=1,
        ),
        Column("URL", "string", ".status.url", "Its address within the cluster.", priority=1),
        Column(
            "Message",
            "string",
            '.status.conditions[?(@.type=="Ready")].message',
            "Why, in words and numbers.",
            priority=1,
        ),
    )
    RULES: ClassVar[tuple[dict[str, str], ...]] = (
        NAME_RULE,
        rule(
            "!has(self.spec.aliases) || !(self.metadata.name in self.spec.aliases)",
            OWN_ALIAS_MESSAGE,
        ),
    )

    api_version: Literal["ullage.dev/v1alpha1"] = API_VERSION
    kind: Literal["VectorCollection"] = "VectorCollection"
    spec: Annotated[VectorCollectionSpec, Field(description="What is wanted.")]
    status: Annotated[
        VectorCollectionStatus | None,
        Field(description="What is so, as the operator last observed it."),
    ] = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may ask for, the resource's own first."""
        return (self.metadata.name, *(self.spec.aliases or ()))

    @property
    def is_dropped(self) -> bool:
        """Whether its data is to go before the resource may."""
        return (
            self.metadata.deletion_timestamp is not None
            and COLLECTION_FINALIZER in self.metadata.finalizers
        )

    @property
    def effective_profile(self) -> IndexProfile:
        """The profile in effect."""
        return self.spec.profile or IndexProfile.BALANCED

    @property
    def effective_store(self) -> StoreType:
        """Where its vectors are."""
        return self.spec.store.type if self.spec.store is not None else StoreType.EMBEDDED
