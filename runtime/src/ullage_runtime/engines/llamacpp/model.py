"""A loaded model and its context: the thin, typed side of llama.cpp's handles."""

import ctypes
import re
from collections.abc import Sequence
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import CacheType, EngineSpec
from ullage_runtime.core.errors import LoadError, invalid_model
from ullage_runtime.core.last_words import plain
from ullage_runtime.core.pooled import Ability, PoolingType
from ullage_runtime.core.scheduling.portions import SCORED_TOKENS
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.llamacpp.adapters import LoraAdapter
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.library import Library
from ullage_runtime.engines.llamacpp.vocabulary import LlamaVocabulary

DEFAULT_CONTEXT: Final = 8192
"""Longest context when the spec names none: a long one costs memory that few requests use."""
LINE_LENGTH: Final = 300
"""Characters of a line of llama.cpp's log that a message quotes: files have a say in them."""
BATCH: Final = 512
"""Tokens of one decode call, logical and physical."""

CACHE_TYPES: Final = {
    CacheType.F16: llama_cpp.GGML_TYPE_F16,
    CacheType.Q8_0: llama_cpp.GGML_TYPE_Q8_0,
    CacheType.Q4_0: llama_cpp.GGML_TYPE_Q4_0,
}
"""How llama.cpp calls the forms of keys and values."""

POOLING_TYPES: Final = {
    PoolingType.MEAN: llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    PoolingType.CLS: llama_cpp.LLAMA_POOLING_TYPE_CLS,
    PoolingType.LAST: llama_cpp.LLAMA_POOLING_TYPE_LAST,
}
"""How llama.cpp calls the ways to pool."""

MAX_SEQUENCES: Final = 256
"""llama.cpp's LLAMA_MAX_SEQ: sequences it can tell apart."""

EXACT_TOKENS: Final = 1024
"""Longest batch of texts whose attention is computed in full precision.

Flash attention rounds on a CPU, differently for every batch: the cosine of a text's embeddings
alone and among others was 0.9997, and is 0.9999999 without it. The memory it spares grows with the
square of the batch, though: 64 MiB here for 16 heads, 4 GiB for 8192 tokens.
"""

_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_LONGEST_TOKEN = re.compile(r"max token length += +(\d+)")


class Model(LlamaVocabulary):
    """One model's weights with one context; owned by one thread."""

    def __init__(
        self, library: Library, spec: EngineSpec, *, dry_run: bool = False, judges: bool = False
    ) -> None:
        """Load it; raises LoadError. One that judges ranks by the words that it would answer."""
        self._judges = judges
        self._model: Any = None
        self._context: Any = None
        self.adapters: dict[str, LoraAdapter] = {}
        self._applied = ""
        self.parallel = self._threads = self._batch_threads = 1
        self.batch = BATCH
        self.longest_text = 0
        with library.lines() as lines:
            try:
                self._open(spec, dry_run=dry_run)
            except LoadError as error:
                self.close()
                said = [line for line in lines if "error" in line.lower() or "fail" in line.lower()]
                said = said or lines[-2:]
                words = "; ".join(plain(line)[:LINE_LENGTH] for line in said[:3])
                raise LoadError(error.reason, f"{error.message}: {words}", error.final) from error
        self.log_lines = tuple(lines)
        self.longest_token = _longest_token(lines)

    def _open(self, spec: EngineSpec, *, dry_run: bool) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = spec.gpu_layers
        if llama_cpp.llama_supports_gpu_offload():
            # The ledger has the first GPU's memory; by itself a model is split over all there are.
            params.split_mode, params.main_gpu = llama_cpp.LLAMA_SPLIT_MODE_NONE, 0
        if dry_run:
            params.no_alloc = True
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        self._model = llama_cpp.llama_model_load_from_file(spec.path.encode(), params)
        if not self._model:
            raise invalid_model("llama.cpp cannot load the file")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        # Before the context, whose graphs are sized for them. A dry run goes without: they would
        # really take their memory.
        for adapter in () if dry_run else spec.adapters:
            self.adapters[adapter.name] = LoraAdapter(self._model, adapter)
        self.context_length = self._wanted_context(spec)
        self._context = llama_cpp.llama_init_from_model(self._model, self._context_params(spec))
        if not self._context:
            raise LoadError(
                Reason.LOAD_FAILED,
                f"llama.cpp cannot create a context of {self.context_length} tokens",
                final=False,
            )
        self.context_length = int(llama_cpp.llama_n_ctx(self._context))
        self.batch = int(llama_cpp.llama_n_batch(self._context))

    def _wanted_context(self, spec: EngineSpec) -> int:
        trained = int(llama_cpp.llama_model_n_ctx_train(self._model))
        if trained <= 0:  # not said, or more than an int holds
            trained = DEFAULT_CONTEXT
        if self._sees_ahead and (spec.context_length or 0) > trained:
            # An encoder may have a table of positions, and would read past its end.
            raise LoadError(
                Reason.INVALID_MODEL,
                f"engine.contextLength is {spec.context_length}; this encoder knows {trained} "
                "positions",
                final=True,
            )
        return spec.context_length or min(trained, DEFAULT_CONTEXT)

    def _context_params(self, spec: EngineSpec) -> Any:
        params = llama_cpp.llama_context_default_params()
        self._threads = spec.threads or cpu_quota()
        self._batch_threads = spec.batch_threads or self._threads
        params.n_ctx = self.context_length
        params.n_batch = params.n_ubatch = min(BATCH, self.context_length)
        self.parallel = max(1, min(spec.parallel, params.n_batch))
        # Sequences that compute. Cached prefixes use ids beyond these: a unified memory tells 256
        # apart whatever is said here, and this number also sizes the buffer of logits.
        params.n_seq_max = self.parallel
        # Rows of logits in one step: those that are sampled, and those of prompts that are scored.
        # Twice as many as there can be, as llama.cpp ends the process of who takes more.
        params.n_outputs_max = min(params.n_batch, 2 * (self.parallel + SCORED_TOKENS))
        params.kv_unified = True
        params.n_threads, params.n_threads_batch = self._threads, self._batch_threads
        params.no_perf = True
        params.type_k = params.type_v = CACHE_TYPES[spec.kv_cache_type]
        if spec.kv_cache_type is not CacheType.F16:
            # Only flash attention reads quantised values.
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if spec.purpose is not Ability.GENERATE:
            self._pool(params, spec)
        return params

    def _pool(self, params: Any, spec: EngineSpec) -> None:
        """Make it a context that computes texts whole: a batch holds all of a text's tokens."""
        self.longest_text = self.context_length
        params.n_ctx = params.n_batch = params.n_ubatch = max(BATCH, self.context_length)
        self.parallel = params.n_seq_max = max(1, min(spec.parallel, MAX_SEQUENCES))
        if params.n_batch <= EXACT_TOKENS and spec.kv_cache_type is CacheType.F16:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self._judges:
            params.n_outputs_max = self.parallel  # the word after each text
            return
        params.n_outputs_max = 0  # all tokens of a batch are pooled
        params.embeddings = True
        params.pooling_type = self._pooling_type(spec)

    def _pooling_type(self, spec: EngineSpec) -> int:
        if spec.purpose is Ability.RERANK:
            return int(llama_cpp.LLAMA_POOLING_TYPE_RANK)
        if spec.pooling is not PoolingType.AUTO:
            return int(POOLING_TYPES[spec.pooling])
        told = self._architecture_metadata("pooling_type")
        if told is not None and int(told) in POOLING_TYPES.values():
            return int(told)
        return int(POOLING_TYPES[PoolingType.MEAN if self._sees_ahead else PoolingType.LAST])

    def share_threads(self, sharers: int) -> None:
        """Compute with an even share of the threads; the results stay the same."""
        llama_cpp.llama_set_n_threads(
            self._context,
            max(1, self._threads // sharers),
            max(1, self._batch_threads // sharers),
        )

    def apply(self, adapter: str) -> None:
        """Compute with an adapter from now on, or with none; cheap when nothing changes."""
        if adapter != self._applied:
            if adapter:
                self.adapters[adapter].apply_to(self._context)
            else:
                llama_cpp.llama_set_adapters_lora(self._context, None, 0, None)
            self._applied = adapter

    def close(self) -> None:
        """Give everything back, adapters included; idempotent."""
        self.adapters.clear()
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._context = self._model = None

    # What it is ----------------------------------------------------------------------------------

    @property
    def context(self) -> Any:
        """The context's handle, for samplers."""
        return self._context

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(llama_cpp.llama_model_size(self._model))

    @property
    def offloaded(self) -> tuple[int, int]:
        """The layers on a GPU and all layers, as the library counts them."""
        for line in self.log_lines:
            if found := _OFFLOADED.search(line):
                return int(found[1]), int(found[2])
        return 0, self.layers + 1

    @property
    def layers(self) -> int:
        """Repeating layers, without the output layer."""
        return int(llama_cpp.llama_model_n_layer(self._model))

    @property
    def generates_text(self) -> bool:
        """Whether it is a plain decoder, the only kind that generates here."""
        has_encoder = llama_cpp.llama_model_has_encoder(self._model)
        has_decoder = llama_cpp.llama_model_has_decoder(self._model)
        return bool(has_decoder) and not has_encoder and not self.is_encoder

    @property
    def is_encoder(self) -> bool:
        """Whether it is an encoder alone, which remembers nothing of the tokens before."""
        return not llama_cpp.llama_get_memory(self._context)

    @property
    def pools_text(self) -> bool:
        """Whether it can say one thing of a whole text: every decoder and encoder, but no pair."""
        return self.is_encoder or self.generates_text

    @property
    def _sees_ahead(self) -> bool:
        """Whether a token's vector depends on those behind it, as in encoders."""
        return self._architecture_metadata("attention.causal") == "false"

    @property
    def dimensions(self) -> int:
        """Numbers of an embedding."""
        return int(llama_cpp.llama_model_n_embd_out(self._model))

    @property
    def scores(self) -> int:
        """Numbers that a classification head gives."""
        return int(llama_cpp.llama_model_n_cls_out(self._model))

    @property
    def is_recurrent(self) -> bool:
        """Whether it keeps a state per sequence, in all of its layers or in some."""
        recurrent = llama_cpp.llama_model_is_recurrent(self._model)
        return bool(recurrent or llama_cpp.llama_model_is_hybrid(self._model))

    @property
    def has_sliding_window(self) -> bool:
        """Whether some of its layers see the last tokens only."""
        return int(llama_cpp.llama_model_n_swa(self._model)) > 0

    def metadata(self, key: str) -> str | None:
        """Return a metadata entry as text, or None."""
        length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, length + 1)
        return buffer.value.decode(errors="replace")

    def _architecture_metadata(self, key: str) -> str | None:
        return self.metadata(f"{self.metadata('general.architecture')}.{key}")

    @property
    def chat_template(self) -> str | None:
        """The file's default chat template, or None."""
        text = llama_cpp.llama_model_chat_template(self._model, None)
        return text.decode(errors="replace") if text else None

    @property
    def rerank_template(self) -> str | None:
        """The text in which the file has a query and a document judged, or None."""
        text = llama_cpp.llama_model_chat_template(self._model, b"rerank")
        return text.decode(errors="replace") if text else None


def _longest_token(lines: Sequence[str]) -> int:
    """Return the bytes of the vocabulary's longest token, or 0 if the library does not log it."""
    return next((int(m[1]) for line in lines if (m := _LONGEST_TOKEN.search(line))), 0)
