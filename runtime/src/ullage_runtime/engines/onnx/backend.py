"""OnnxBackend: onnxruntime as a worker drives it."""

import time
from typing import NoReturn

from ullage_runtime.core.domain import (
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.errors import EngineFailed, InvalidRequest
from ullage_runtime.core.pooled import Ability, PooledRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.engines.onnx.estimate import estimate
from ullage_runtime.engines.onnx.model import OnnxModel
from ullage_runtime.engines.onnx.session import BATCH, VERSION
from ullage_runtime.engines.pooled.pooling import Pooling, ReadyJob
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.vocabulary import Vocabulary
from ullage_runtime.engines.worker.backend import LogSink, Outcome, Prepared

TAKEN_AT_ONCE = 128
"""Requests taken at a time: their texts are computed together, whoever they are of."""


class OnnxBackend:
    """One encoder, and the texts it embeds or ranks."""

    name = "ONNXRuntime"

    def __init__(self, log: LogSink) -> None:
        self._log = log
        self._model: OnnxModel | None = None
        self._work: Pooling | None = None
        self._vocabulary: Vocabulary | None = None

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._work is not None and self._work.busy

    @property
    def stats(self) -> EngineStats:
        """What it does, as of its last step; any thread may ask."""
        return EngineStats(resident_bytes=0) if self._work is None else self._work.stats

    def estimate(self, spec: EngineSpec) -> Footprint:
        """Return what a load would take; raises LoadError."""
        return estimate(spec)

    def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        began = time.monotonic()
        model = OnnxModel(spec)
        tokenizer = model.tokenizer
        self._model = model
        self._vocabulary = Vocabulary(tokenizer, _no_chat)
        texts = PooledTexts(tokenizer, model.longest_text, tokenizer.frame)
        self._work = Pooling(texts, model, spec.purpose, budget=BATCH, width=model.parallel)
        return Loaded(
            engine=self.name,
            architecture=model.family,
            context_length=model.longest_text,
            vocabulary_size=tokenizer.vocabulary_size,
            has_chat_template=False,
            device=f"CPU (onnxruntime {VERSION})",
            layers_offloaded=0,
            layers_total=model.layers,
            load_seconds=time.monotonic() - began,
            max_sequences=TAKEN_AT_ONCE,
            abilities=(spec.purpose,),
            dimensions=model.width if spec.purpose is Ability.EMBED else 0,
            outputs=model.outputs,
            token_width=model.token_width,
        )

    def prepare(self, request: GenerateRequest | PooledRequest, arrival: float) -> Prepared:
        """Return a request ready for the engine; raises ServingError."""
        if self._work is None:
            raise EngineFailed("the model is not loaded", retry_after=1)
        if isinstance(request, GenerateRequest):
            raise InvalidRequest("the model is loaded for something else")
        return ReadyJob(self._work, self._work.prepare(request, arrival))

    def tokenized(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens; raises ServingError."""
        return self._known_vocabulary().tokenized(request)

    def detokenized(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens; raises ServingError."""
        return self._known_vocabulary().detokenized(request)

    def stop_preparing(self) -> None:
        """Do nothing: tokenizing ends soon by itself."""

    def cancel(self, request_id: str) -> None:
        """Forget a request; nobody waits for it any more."""
        if self._work is not None:
            self._work.cancel(request_id)

    def step(self) -> list[Outcome]:
        """Compute one batch of texts."""
        return [] if self._work is None else self._work.step()

    def save_prefixes(self, path: str, limit: int) -> int:  # noqa: ARG002 - the protocol's
        """Save nothing: texts are computed whole."""
        return 0

    def share_cpus(self, workers: int) -> None:
        """Do nothing: onnxruntime's threads are those of its load; waiting ones sleep."""

    def close(self) -> None:
        """Give everything back; idempotent."""
        self._work = self._model = self._vocabulary = None

    def _known_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise EngineFailed("the model is not loaded", retry_after=1)
        return self._vocabulary


def _no_chat(_request: GenerateRequest) -> NoReturn:
    raise InvalidRequest("the model is an encoder, which has no chat template", param="messages")
