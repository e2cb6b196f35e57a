"""OnnxModel: the files of one model, opened and tried once with the most it will be asked."""

import ctypes
import sys
from collections.abc import Sequence

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.errors import EngineFailed, InsufficientMemory, LoadError
from ullage_runtime.core.pooled import Ability, PoolingType
from ullage_runtime.core.vectors import dimensions
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.onnx.files import DEFAULT_LONGEST, OnnxFiles, find_files, invalid
from ullage_runtime.engines.onnx.heads import head_for
from ullage_runtime.engines.onnx.session import BATCH, Session, runs_of, tried_in_halves
from ullage_runtime.engines.onnx.tokenizing import OnnxTokenizer


class OnnxModel:
    """One model's graph with its tokenizer; owned by one thread."""

    def __init__(self, spec: EngineSpec) -> None:
        """Load it; raises LoadError."""
        files = find_files(spec.path)
        check_spec(spec)
        self.family = files.family
        self.layers = files.layers
        self.parallel = max(1, spec.parallel)
        self.tokenizer = OnnxTokenizer(files.tokenizer)
        self.longest_text = longest_text(files, spec)
        self._session = Session(
            files.model,
            threads=spec.threads or cpu_quota(),
            padding=files.padding,
            second_type=self.tokenizer.second_type,
        )
        self._head = head_for(spec.purpose, _pooling(files, spec), self._session.outputs)
        self.width = self._tried_width()
        if spec.purpose is Ability.RERANK and self.width != 1:
            raise invalid(f"the graph gives {self.width} scores of a pair; a cross-encoder, one")

    def compute(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        """Return each text's vector, not yet of length 1, or its score, as 32-bit floats.

        They are computed in runs of like length, the shortest first, as they should be given.
        Raises EngineFailed, and InsufficientMemory when even half of a run takes too much.
        """
        runs = runs_of(texts)
        return [row for run in runs for row in tried_in_halves(self._run, run)]

    def close(self) -> None:
        """Do nothing: what it has goes with the process."""

    def _run(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        return self._session.run(texts, self._head)

    def _tried_width(self) -> int:
        """Return how many numbers a text becomes.

        The largest batches are computed, so that what the model takes from then on is known.
        """
        last, longest = self.tokenizer.last_token, self.longest_text
        many = max(1, min(self.parallel, BATCH // 2))
        try:
            for count, length in ((1, longest), (many, min(longest, max(1, BATCH // many)))):
                values = self.compute([[last] * length] * count)
        except EngineFailed as error:
            raise invalid(
                f"the model cannot compute {longest} tokens, the last of the tokenizer's "
                f"{self.tokenizer.vocabulary_size} among them: {error.message}; either the "
                "tokenizer is another model's, or engine.contextLength is more than it knows"
            ) from error
        except InsufficientMemory as error:
            raise LoadError(
                Reason.LOAD_FAILED, f"the model loaded but {error.message}", final=False
            ) from error
        _trim()
        return dimensions(values[0])


def check_spec(spec: EngineSpec) -> None:
    """Raise LoadError for what is asked of a GGUF file only."""
    if spec.purpose is Ability.GENERATE:
        raise invalid(
            "an ONNX file embeds or ranks texts: its task is Embedding or Rerank; chats want GGUF"
        )
    if spec.adapters:
        raise invalid("adapters are applied to GGUF files only; remove model.adapters")


def longest_text(files: OnnxFiles, spec: EngineSpec) -> int:
    """Return the tokens of the longest text; raises LoadError for more than the model knows."""
    positions = files.positions
    if spec.context_length is None:
        return min(positions or DEFAULT_LONGEST, DEFAULT_LONGEST)
    if positions and spec.context_length > positions:
        raise invalid(
            f"engine.contextLength is {spec.context_length}; this encoder knows {positions} "
            "positions"
        )
    return spec.context_length


def _pooling(files: OnnxFiles, spec: EngineSpec) -> PoolingType:
    """Return how vectors are pooled; Auto when nobody says."""
    if spec.pooling is not PoolingType.AUTO or spec.purpose is not Ability.EMBED:
        return spec.pooling
    if files.further_stages:
        raise invalid(
            "the model's files ask for more than pooling behind the transformer: "
            f"{', '.join(files.further_stages)[:200]}; engine.pooling says to go without"
        )
    return files.pooling or PoolingType.AUTO


def _trim() -> None:
    """Give back to the kernel what loading took and the model does not need."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
