"""VllmBackend: vLLM as a worker drives it. vLLM itself is imported by a load, and not before."""

import time

from ullage_runtime.core.domain import (
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.errors import EngineFailed, InvalidRequest
from ullage_runtime.core.pooled import Ability, EmbedRequest, PooledRequest, RerankRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.engines.pooled.pooling import Pooling, ReadyJob
from ullage_runtime.engines.prompting.prompts import Prompts
from ullage_runtime.engines.vllm.files import find_files
from ullage_runtime.engines.vllm.generating import Generating
from ullage_runtime.engines.vllm.judging import Judging, judging_texts
from ullage_runtime.engines.vllm.library import Core, on_gpu, start
from ullage_runtime.engines.vllm.needs import (
    batch_tokens,
    check_spec,
    context_length,
    estimate,
)
from ullage_runtime.engines.vllm.speller import Speller
from ullage_runtime.engines.vocabulary import Vocabulary
from ullage_runtime.engines.worker.backend import LogSink, Outcome, Prepared

TAKEN_PER_PARALLEL = 2
"""Generations taken for each that is computed, as with llama.cpp."""


class VllmBackend:
    """One model in safetensors, and what it generates or judges."""

    name = "VLLM"

    def __init__(self, log: LogSink) -> None:
        self._log = log
        self._work: Generating | Pooling | None = None
        self._prompts: Prompts | None = None
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
        return estimate(spec, on_gpu=on_gpu())

    def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        began = time.monotonic()
        files = find_files(spec.path, spec.precision)
        check_spec(spec, files, on_gpu=on_gpu())
        context = context_length(spec, files)
        speller = Speller(files, context)
        prompts = Prompts(speller)
        core = start(spec, files, self.estimate(spec), self._log)
        prompts.start()
        self._prompts = prompts
        if spec.purpose is Ability.RERANK:
            self._work = _judge(core, speller, prompts, spec, batch_tokens(spec, files))
        else:
            self._work = _generating(core, speller, prompts)
        self._vocabulary = Vocabulary(speller, prompts.tokens)
        layers = files.number("num_hidden_layers", "n_layer")
        return Loaded(
            engine=self.name,
            architecture=files.architecture,
            context_length=context,
            vocabulary_size=speller.vocabulary_size,
            has_chat_template=prompts.has_template(),
            device=core.device,
            layers_offloaded=layers if on_gpu() else 0,
            layers_total=layers,
            load_seconds=time.monotonic() - began,
            max_sequences=TAKEN_PER_PARALLEL * spec.parallel,
            abilities=(spec.purpose,),
        )

    def prepare(self, request: GenerateRequest | PooledRequest, arrival: float) -> Prepared:
        """Return a request ready for the engine; raises ServingError."""
        match self._work, request:
            case None, _:
                raise EngineFailed("the model is not loaded", retry_after=1)
            case Generating() as generating, GenerateRequest():
                return generating.prepare(request, arrival)
            case Pooling() as pooling, EmbedRequest() | RerankRequest():
                return ReadyJob(pooling, pooling.prepare(request, arrival))
            case _:
                raise InvalidRequest("the model is loaded for something else")

    def tokenized(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens; raises ServingError."""
        return self._known_vocabulary().tokenized(request)

    def detokenized(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens; raises ServingError."""
        return self._known_vocabulary().detokenized(request)

    def stop_preparing(self) -> None:
        """Make a `prepare` that is under way fail soon; any thread may call it."""
        if self._prompts is not None:
            self._prompts.close()

    def cancel(self, request_id: str) -> None:
        """End a request; the next step says of it that it was cancelled."""
        if self._work is not None:
            self._work.cancel(request_id)

    def step(self) -> list[Outcome]:
        """Advance every running generation by one token."""
        return [] if self._work is None else self._work.step()

    def save_prefixes(self, path: str, limit: int) -> int:  # noqa: ARG002 - the protocol's
        """Save nothing: what vLLM has cached stays in it."""
        return 0

    def share_cpus(self, workers: int) -> None:
        """Do nothing: vLLM's threads are those of its load; waiting ones sleep."""

    def close(self) -> None:
        """Give back what outlives the process otherwise: the child that renders templates."""
        self.stop_preparing()
        self._work = self._vocabulary = None

    def _known_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise EngineFailed("the model is not loaded", retry_after=1)
        return self._vocabulary


def _generating(core: Core, speller: Speller, prompts: Prompts) -> Generating:
    work = Generating(core, speller, prompts)
    work.try_out()
    return work


def _judge(
    core: Core, speller: Speller, prompts: Prompts, spec: EngineSpec, budget: int
) -> Pooling:
    judging = Judging(core, speller)
    texts = judging_texts(speller, prompts)
    judging.try_out(texts.ranked(RerankRequest("probe", "a", ("a",)))[0])
    return Pooling(texts, judging, spec.purpose, budget=budget, width=spec.parallel)
