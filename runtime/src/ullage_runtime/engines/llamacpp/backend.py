"""LlamaCppBackend: llama.cpp as a worker drives it."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from ullage_runtime.core.domain import (
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.errors import EngineFailed, InvalidRequest, LoadError
from ullage_runtime.core.pooled import Ability, EmbedRequest, PooledRequest, RerankRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.engines.llamacpp.batching import Batching
from ullage_runtime.engines.llamacpp.estimate import estimate, read_headers
from ullage_runtime.engines.llamacpp.header import Header
from ullage_runtime.engines.llamacpp.judging import Judging, Odds, judging_texts
from ullage_runtime.engines.llamacpp.library import Library, cpu_variant, gpu_name
from ullage_runtime.engines.llamacpp.model import BATCH, Model
from ullage_runtime.engines.llamacpp.pooled_context import PooledContext, frame_of
from ullage_runtime.engines.llamacpp.purposes import check_purpose, judges
from ullage_runtime.engines.pooled.pooling import Pooling
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.prompting.prompts import Prompts
from ullage_runtime.engines.vocabulary import Vocabulary
from ullage_runtime.engines.worker.backend import LogSink, Outcome, Prepared

TAKEN_PER_PARALLEL = 2
"""Generations taken for each that is computed: who goes next is best chosen from several."""


class LlamaCppBackend:
    """One model, with what it computes together: generations, or texts."""

    name = "LlamaCpp"

    def __init__(self, log: LogSink) -> None:
        self._library = Library(log)
        self._log = log
        self._model: Model | None = None
        self._prompts: Prompts | None = None
        self._work: Batching | Pooling | None = None
        self._stats = EngineStats(resident_bytes=0)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._work is not None and self._work.busy

    @property
    def stats(self) -> EngineStats:
        """What it does, as of its last step; any thread may ask."""
        return self._stats

    def estimate(self, spec: EngineSpec) -> Footprint:
        """Return what a load would take; raises LoadError."""
        return estimate(self._library, spec)

    def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        began = time.monotonic()
        header, _ = read_headers(spec)
        model = Model(self._library, spec, judges=judges(header, spec.purpose))
        try:
            check_purpose(model, header, spec.purpose)
        except LoadError:
            model.close()
            raise
        prompts = Prompts(model)
        prompts.start()
        self._model, self._prompts = model, prompts
        self._work = _work(model, prompts, spec.purpose, header)
        if spec.prefixes:
            self._restore_prefixes(spec.prefixes)
        self._stats = self._work.stats
        offloaded, layers = model.offloaded
        gpu = gpu_name() if offloaded else None
        return Loaded(
            engine=self.name,
            architecture=model.metadata("general.architecture") or "",
            context_length=model.longest_text or model.context_length,
            vocabulary_size=model.vocabulary_size,
            has_chat_template=prompts.has_template(),
            device=gpu or f"CPU ({cpu_variant()})",
            layers_offloaded=offloaded,
            layers_total=layers,
            load_seconds=time.monotonic() - began,
            max_sequences=TAKEN_PER_PARALLEL * model.parallel,
            abilities=(spec.purpose,),
            dimensions=model.dimensions if spec.purpose is Ability.EMBED else 0,
            maps_file=header.parts == 1,
        )

    def prepare(self, request: GenerateRequest | PooledRequest, arrival: float) -> Prepared:
        """Return a request ready for the engine; raises ServingError."""
        match self._work, request:
            case None, _:
                raise EngineFailed("the model is not loaded", retry_after=1)
            case Batching() as batching, GenerateRequest():
                answer = batching.prepare(request, arrival)
                return _Prepared(lambda: batching.submit(answer), answer.close, self._note)
            case Pooling() as pooling, EmbedRequest() | RerankRequest():
                job = pooling.prepare(request, arrival)
                return _Prepared(lambda: pooling.submit(job), lambda: None, self._note)
            case _:
                raise InvalidRequest("the model is loaded for something else")

    def tokenized(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens; raises ServingError."""
        return self._vocabulary().tokenized(request)

    def detokenized(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens; raises ServingError."""
        return self._vocabulary().detokenized(request)

    def cancel(self, request_id: str) -> None:
        """End a request; the next step says of a generation that it was cancelled."""
        if self._work is not None:
            self._work.cancel(request_id)
            self._stats = self._work.stats

    def step(self) -> list[Outcome]:
        """Advance every running generation by one token, or compute one batch of texts."""
        if self._work is None:
            return []
        outcomes = self._work.step()
        self._stats = self._work.stats
        return outcomes

    def share_cpus(self, workers: int) -> None:
        """Use this worker's share of the threads from the next step on."""
        if self._model is not None:
            self._model.share_threads(workers)

    def save_prefixes(self, path: str, limit: int) -> int:
        """Write what was computed of frequent prompts to a file; return the bytes written."""
        if not isinstance(self._work, Batching):
            return 0
        return self._work.save_prefixes(path, limit)

    def _restore_prefixes(self, path: str) -> None:
        if not isinstance(self._work, Batching):
            return
        try:
            count = self._work.restore_prefixes(path)
        except (OSError, ValueError, struct.error) as error:  # they are computed again
            self._log("warning", f"saved prefixes cannot be restored: {error!r}")
        else:
            self._log("info", f"{count} saved prefixes are back")

    def stop_preparing(self) -> None:
        """Make a `prepare` that is under way fail soon; any thread may call it."""
        if self._prompts is not None:
            self._prompts.close()

    def close(self) -> None:
        """Give everything back; idempotent."""
        self.stop_preparing()
        if self._work is not None:
            self._work.close()
            self._work = None
        if self._model is not None:
            self._model.close()
            self._model = None

    def _note(self) -> None:
        if self._work is not None:
            self._stats = self._work.stats

    def _vocabulary(self) -> Vocabulary:
        if self._model is None or self._prompts is None:
            raise EngineFailed("the model is not loaded", retry_after=1)
        return Vocabulary(self._model, self._prompts.tokens)


def _work(model: Model, prompts: Prompts, purpose: Ability, header: Header) -> Batching | Pooling:
    if purpose is Ability.GENERATE:
        return Batching(model, prompts)
    asks = judges(header, purpose) or (purpose is Ability.RERANK and model.rerank_template)
    if asks:
        texts = judging_texts(model, prompts)
    else:
        texts = PooledTexts(model, model.longest_text, frame_of(model))
    # More tokens than a batch is efficient with would only make attention dearer, as it is computed
    # across all of them.
    context: PooledContext
    if judges(header, purpose):
        context = Judging(model)
    elif asks:
        context = Odds(model)
    else:
        context = PooledContext(model, model.dimensions if purpose is Ability.EMBED else 1)
    return Pooling(texts, context, purpose, budget=BATCH, width=model.parallel)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request on its way to the engine's thread."""

    take: Callable[[], None]
    drop: Callable[[], None]
    note: Callable[[], None]

    def submit(self) -> None:
        self.take()
        self.note()

    def close(self) -> None:
        self.drop()
