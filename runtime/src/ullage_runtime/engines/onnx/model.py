"""OnnxModel: the files of one model, opened and tried once with the most it will be asked."""

import ctypes
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.errors import EngineFailed, InsufficientMemory, LoadError, invalid_model
from ullage_runtime.core.pooled import (
    Ability,
    Output,
    PoolingType,
    Said,
    SparseVector,
    TokenVectors,
)
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.core.vectors import dimensions
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.onnx.files import DEFAULT_LONGEST, OnnxFiles, find_files
from ullage_runtime.engines.onnx.header import read_header
from ullage_runtime.engines.onnx.heads import Numbers, heads_for, pooled_output
from ullage_runtime.engines.onnx.session import BATCH, Session, runs_of, tried_in_halves
from ullage_runtime.engines.tokenizing import HubTokenizer

_NO_LENGTH: Final = 1e-12
"""Vectors shorter than that stay short, as PyTorch's `normalize` leaves them."""


class OnnxModel:
    """One model's graph with its tokenizer; owned by one thread."""

    def __init__(self, spec: EngineSpec) -> None:
        """Load it; raises LoadError."""
        files = find_files(spec.path)
        check_spec(spec, files)
        self.family = files.family
        self.layers = files.layers
        self.parallel = max(1, spec.parallel)
        self.tokenizer = HubTokenizer(files.tokenizer)
        self.longest_text = longest_text(files, spec)
        self._session = Session(
            files.model,
            threads=spec.threads or cpu_quota(),
            padding=files.padding,
            second_type=self.tokenizer.second_type,
        )
        shapes = self._session.outputs
        self._heads = heads_for(spec.purpose, _pooling(files, spec, shapes), shapes)
        self.outputs = tuple(self._heads)
        self._special = np.fromiter(self.tokenizer.special, dtype=np.int32)
        said = self._tried()
        self.width = dimensions(said.values)
        self.token_width = 0 if said.colbert is None else said.colbert.width
        if spec.purpose is Ability.RERANK and self.width != 1:
            raise invalid_model(
                f"the graph gives {self.width} scores of a pair; a cross-encoder, one"
            )

    def compute(self, texts: Sequence[Sequence[int]], outputs: Collection[Output]) -> list[Said]:
        """Return what is wanted of each text; its one vector is not yet of length 1.

        They are computed in runs of like length, the shortest first, as they should be given.
        Raises EngineFailed, and InsufficientMemory when even half of a run takes too much.
        """
        run = partial(self._run, outputs=[each for each in self.outputs if each in outputs])
        return [said for texts in runs_of(texts) for said in tried_in_halves(run, texts)]

    def close(self) -> None:
        """Do nothing: what it has goes with the process."""

    def _run(self, texts: Sequence[Sequence[int]], outputs: Sequence[Output]) -> list[Said]:
        columns = self._session.run(texts, [self._heads[output] for output in outputs])
        rows = zip(*columns, strict=True)
        return [
            self._said(text, dict(zip(outputs, numbers, strict=True)))
            for text, numbers in zip(texts, rows, strict=True)
        ]

    def _said(self, text: Sequence[int], found: Mapping[Output, Numbers]) -> Said:
        dense, weights = found.get(Output.DENSE), found.get(Output.SPARSE)
        vectors = found.get(Output.COLBERT)
        return Said(
            values=b"" if dense is None else dense.tobytes(),
            sparse=None if weights is None else _sparse(text, weights, self._special),
            colbert=None if vectors is None else _of_tokens(vectors),
        )

    def _tried(self) -> Said:
        """Return what the model says of a text.

        The largest batches are computed, so that what the model takes from then on is known.
        """
        last, longest = self.tokenizer.last_token, self.longest_text
        many = max(1, min(self.parallel, BATCH // 2))
        try:
            for count, length in ((1, longest), (many, min(longest, max(1, BATCH // many)))):
                said = self.compute([[last] * length] * count, self.outputs)
        except EngineFailed as error:
            raise invalid_model(
                f"the model cannot compute {longest} tokens, the last of the tokenizer's "
                f"{self.tokenizer.vocabulary_size} among them: {error.message}; either the "
                "tokenizer is another model's, or engine.contextLength is more than it knows"
            ) from error
        except InsufficientMemory as error:
            raise LoadError(
                Reason.LOAD_FAILED, f"the model loaded but {error.message}", final=False
            ) from error
        _trim()
        return said[0]


def check_spec(spec: EngineSpec, files: OnnxFiles) -> None:
    """Raise LoadError for what is asked of a GGUF file only, or of another build than this one."""
    if spec.purpose is Ability.GENERATE:
        raise invalid_model(
            "an ONNX file embeds or ranks texts: its task is Embedding or Rerank; chats want GGUF"
        )
    if spec.adapters:
        raise invalid_model("adapters are applied to GGUF files only; remove model.adapters")
    if spec.precision is not PrecisionType.AUTO:
        found = read_header(files.model).precision
        if found is not spec.precision:
            said = "neither f32 nor f16 nor int8" if found is PrecisionType.AUTO else found
            raise invalid_model(
                f"engine.precision asks for {spec.precision}; the weights of {files.model.name} "
                f"are {said}: name another file, or leave engine.precision out"
            )


def longest_text(files: OnnxFiles, spec: EngineSpec) -> int:
    """Return the tokens of the longest text; raises LoadError for more than the model knows."""
    positions = files.positions
    if spec.context_length is None:
        return min(positions or DEFAULT_LONGEST, DEFAULT_LONGEST)
    if positions and spec.context_length > positions:
        raise invalid_model(
            f"engine.contextLength is {spec.context_length}; this encoder knows {positions} "
            "positions"
        )
    return spec.context_length


def _pooling(
    files: OnnxFiles, spec: EngineSpec, shapes: Mapping[str, Sequence[object]]
) -> PoolingType:
    """Return how vectors are pooled; Auto when the graph does it, or nobody says."""
    if spec.pooling is not PoolingType.AUTO or spec.purpose is not Ability.EMBED:
        return spec.pooling
    if pooled_output(shapes) is not None:
        return PoolingType.AUTO
    if files.further_stages:
        raise invalid_model(
            "the model's files ask for more than pooling behind the transformer: "
            f"{', '.join(files.further_stages)[:200]}; engine.pooling says to go without"
        )
    return files.pooling or PoolingType.AUTO


def _sparse(text: Sequence[int], weights: Numbers, special: Numbers) -> SparseVector:
    """Return the largest weight of each token that stands for text, where it is above 0."""
    tokens = np.asarray(text, dtype=np.int32)
    # What is no number stays, and is found out as everything else that is computed.
    counted = ~(weights <= 0) & ~np.isin(tokens, special)
    ids, places = np.unique(tokens[counted], return_inverse=True)
    largest = np.zeros(len(ids), dtype=np.float32)
    np.maximum.at(largest, places, weights[counted])
    return SparseVector(ids.tobytes(), largest.tobytes())


def _of_tokens(vectors: Numbers) -> TokenVectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, _NO_LENGTH)
    return TokenVectors(units.tobytes(), vectors.shape[1])


def _trim() -> None:
    """Give back to the kernel what loading took and the model does not need."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
