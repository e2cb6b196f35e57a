"""How an engine loads a model; a change makes a new revision."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ullage_api.kinds.base import KubeModel


class KvCacheType(StrEnum):
    """In what form keys and values are kept."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


class PrecisionType(StrEnum):
    """In which numbers a model's weights are kept."""

    AUTO = "Auto"
    F32 = "f32"
    F16 = "f16"
    INT8 = "int8"


class PoolingType(StrEnum):
    """How the vectors of a text's tokens become the text's embedding."""

    AUTO = "Auto"
    MEAN = "Mean"
    CLS = "CLS"
    LAST = "Last"


class Instructions(KubeModel):
    """What an embedding model was trained to find before texts."""

    query: Annotated[
        str | None,
        Field(
            max_length=2048,
            description=(
                "Put before texts that a request embeds as queries (input_type: query), such as "
                "'query: '."
            ),
        ),
    ] = None
    document: Annotated[
        str | None,
        Field(
            max_length=2048,
            description=(
                "Put before texts that a request embeds as documents (input_type: document), such "
                "as 'passage: '."
            ),
        ),
    ] = None


class EngineSettings(KubeModel):
    """How the engine loads the model; a change makes a new revision."""

    context_length: Annotated[
        int | None,
        Field(
            ge=32,
            le=4194304,
            description="Tokens of context. Unset: what the model was trained for, at most 8192.",
        ),
    ] = None
    gpu_layers: Annotated[
        int | None,
        Field(ge=-1, le=10000, description="Layers on the GPU. Unset or -1: all that it has."),
    ] = None
    tensor_parallel: Annotated[
        int | None,
        Field(
            ge=1,
            le=16,
            description="GPUs of the pod that a model in safetensors is divided among. Unset: 1.",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Field(ge=0, le=1024, description="CPU threads. Unset or 0: the pod's CPU quota."),
    ] = None
    batch_threads: Annotated[
        int | None,
        Field(
            ge=0,
            le=1024,
            description="CPU threads for prompts and batches. Unset or 0: as many as threads.",
        ),
    ] = None
    parallel: Annotated[
        int | None,
        Field(
            ge=1,
            le=128,
            description=(
                "Requests that are computed together; they share the context's tokens. Unset: 8. "
                "For Embedding and Rerank: texts that are computed together. Unset: 64."
            ),
        ),
    ] = None
    kv_cache_type: Annotated[
        KvCacheType | None,
        Field(
            description=(
                "How keys and values are kept: f16, or q8_0 and q4_0, which take about a half and "
                "a quarter of the memory and lose precision. Unset: f16."
            ),
        ),
    ] = None

    precision: Annotated[
        PrecisionType | None,
        Field(
            description=(
                "Which build of an ONNX model is fetched and loaded, where its folder holds "
                "several: f32, f16 or int8. Of a model in safetensors, what vLLM computes in: f32 "
                "or f16. Unset or Auto: model.onnx, and what the files of safetensors say."
            ),
        ),
    ] = None
    pooling: Annotated[
        PoolingType | None,
        Field(
            description=(
                "How an Embedding model makes one vector of a text's: their Mean, that of the "
                "first token (CLS) or of the Last. Unset or Auto: as the file says; else Mean for "
                "encoders and Last for others."
            ),
        ),
    ] = None
    instructions: Annotated[
        Instructions | None,
        Field(description="What is put before the texts that an Embedding model embeds."),
    ] = None
