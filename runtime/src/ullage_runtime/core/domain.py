"""What the runtime talks about: requests, tokens, footprints and engines, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ullage_runtime.core.pooled import Ability, Output, PoolingType
from ullage_runtime.core.precision import PrecisionType


class FinishReason(StrEnum):
    """Why a generation ended, in OpenAI's words; cancellation has none there."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.7
    """0 picks the likeliest token."""
    top_p: float = 1.0
    top_k: int = 40
    """0 considers the whole vocabulary."""
    seed: int | None = None
    max_tokens: int | None = None
    """None: as many as the context has room for."""
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    """Drops tokens less likely than this share of the likeliest; 0 drops none."""
    typical_p: float = 1.0
    """Keeps the most typical tokens of this total probability; 1 keeps all."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that prompt or answer hold already; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer holds already."""
    frequency_penalty: float = 0.0
    """Taken off those logits once for each time the answer holds the token."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of tokens, by id."""
    logprobs: int | None = None
    """How many likeliest tokens are told for each token of the answer; None tells nothing."""
    grammar: str | None = None
    """A GBNF grammar that the answer follows."""
    json_schema: str | None = None
    """A JSON schema, as JSON text, that the answer follows; at most one of the two is set."""
    formatted_by: str = "response_format"
    """The request's parameter that asks for either, so that errors can name it."""
    min_tokens: int = 0
    """Tokens before which the answer does not end by itself."""
    ignores_end: bool = False
    """Whether it never ends by itself."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end the answer, as those do that the model ends its texts with."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made in an earlier turn."""

    id: str
    name: str
    arguments: str
    """A JSON object, as text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str
    reasoning: str = ""
    """What the model thought before it said this."""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    """Of the call that a tool's message answers."""
    name: str = ""
    """Of whoever speaks, or of the tool; templates may show it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: str = ""
    """A JSON schema of its arguments, as JSON text; empty: it takes none."""
    strict: bool = False
    """Whether a schema that cannot be followed in full is an error."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the model may call, and whether it has to."""

    offered: tuple[Tool, ...]
    required: bool = False
    only: str | None = None
    """The one tool that it has to call."""
    parallel: bool = True
    """Whether it may call several at once."""

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that the answer may call."""
        return tuple(tool for tool in self.offered if self.only in (None, tool.name))


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One generation: exactly one of `messages` and `prompt` is set.

    `prompt` is text or token ids. Messages are rendered with the model's own chat template, away
    from the server process.
    """

    request_id: str
    messages: tuple[Message, ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    suffix: str | None = None
    """Text that follows the answer, which then fills the middle between `prompt` and it."""
    echo: bool = False
    """Whether the answer begins with the prompt: its text, and its log probabilities if wanted."""
    tools: Tools | None = None
    template_options: dict[str, Any] = field(default_factory=dict)
    """Further variables for the chat template, such as `enable_thinking`."""
    sampling: Sampling = field(default_factory=Sampling)
    tenant: str = ""
    """Who asks: tenants take turns, and share no cached prefixes."""
    priority: int = 0
    """Higher goes first."""
    timeout_seconds: float | None = None
    """Time after which the engine ends it with RequestTimeout."""
    adapter: str = ""
    """Name of the adapter that is applied; empty: none."""

    @property
    def characters(self) -> int:
        """How much text of it has to become tokens."""
        texts = [message.content for message in self.messages or ()]
        texts += [text for text in (self.prompt, self.suffix) if isinstance(text, str)]
        return sum(map(len, texts))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of the prompt that did not have to be computed."""
    reasoning_tokens: int = 0
    """Tokens of the completion that are reasoning."""


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """A token and how likely the model held it, before any option of the request."""

    text: bytes
    logprob: float
    """Natural logarithm of its probability."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token of an answer, with the likeliest ones in its place."""

    chosen: LikelyToken
    likeliest: tuple[LikelyToken, ...] = ()
    is_first: bool = False
    """Whether nothing precedes it, so that nobody can say how likely it was."""


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What was added to a call of a tool; the first of a call has its name."""

    index: int
    """Which of the answer's calls it is."""
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one step of the engine added to one generation; the last one has a finish reason."""

    text: str = ""
    usage: Usage | None = None
    """Set on the first chunk (prompt tokens) and on the last (both)."""
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the tokens since the chunk before, when the request asks for them."""
    reasoning: str = ""
    """What the model thought, which is no part of its text."""
    calls: tuple[CallDelta, ...] = ()

    @property
    def tells(self) -> bool:
        """Whether it tells anything of the answer; one may carry nothing but the prompt's count."""
        return bool(self.text or self.reasoning or self.calls or self.finish or self.logprobs)


DEFAULT_PARALLEL: Final = 8
"""Generations an engine works on at once when the spec names no number."""


class CacheType(StrEnum):
    """In what form keys and values are kept: smaller ones hold more tokens and lose precision."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that is loaded with a model, for requests that ask for it by name."""

    name: str
    path: str
    scale: float = 1.0
    """How strongly it is applied, on top of what its own file says; 0 changes nothing."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine needs to load a model: the files and the settings of its revision."""

    path: str
    context_length: int | None = None
    gpu_layers: int = -1
    tensor_parallel: int = 1
    """GPUs that the model is divided among."""
    threads: int = 0
    """CPU threads that compute a single token; 0: as many as the process may use."""
    batch_threads: int = 0
    """CPU threads that compute several tokens, as prompts and batches have; 0: as many as that."""
    parallel: int = DEFAULT_PARALLEL
    """Generations that are computed together; they share the context's tokens."""
    kv_cache_type: CacheType = CacheType.F16
    adapters: tuple[Adapter, ...] = ()
    purpose: Ability = Ability.GENERATE
    """What it is loaded for: a context can generate, embed or rank, and only one of these."""
    pooling: PoolingType = PoolingType.AUTO
    """How texts are embedded."""
    precision: PrecisionType = PrecisionType.AUTO
    """What the weights are kept in; Auto: what the files have."""
    prefixes: str = ""
    """File with what an engine of the same model has saved of frequent prompts; empty: none."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes a loaded model takes on its device, by what takes them."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    overhead: int = 0
    among: int = 1
    """Devices that it is divided among; all else is of each of them."""

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return self.weights + self.kv_cache + self.compute + self.overhead

    @property
    def largest_component(self) -> str:
        """Name of the part that takes most."""
        parts = ("weights", "kv_cache", "compute", "overhead")
        return max(parts, key=lambda part: getattr(self, part))


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine says of a model once it is loaded."""

    engine: str
    """Name of the engine as status shows it, such as `LlamaCpp`."""
    architecture: str
    context_length: int
    vocabulary_size: int
    has_chat_template: bool
    device: str
    """What computes: `CPU (zen4)`, or the GPU's name."""
    layers_offloaded: int
    layers_total: int
    load_seconds: float
    max_sequences: int = 1
    """Generations it takes at once, some of which wait inside; more of them wait outside."""
    abilities: tuple[Ability, ...] = (Ability.GENERATE,)
    """What it can be asked for, as it is loaded."""
    dimensions: int = 0
    """Numbers of an embedding; 0 when it gives none."""
    outputs: tuple[Output, ...] = (Output.DENSE,)
    """What it can say of a text that it embeds."""
    token_width: int = 0
    """Numbers of a token's vector; 0 when it gives none."""
    maps_file: bool = False
    """Whether it computes from the pages of the model's one file, wherever that lies."""


WIDTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Widths of steps that are told apart; steps that are wider are counted together."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine's process takes and does right now."""

    resident_bytes: int
    """Measured: proportional set size of the worker process, mapped weights included."""
    requests_running: int = 0
    requests_waiting: int = 0
    kv_cells: int = 0
    """Tokens that the key-value cache can hold."""
    kv_cells_used: int = 0
    """Tokens it holds, cached prefixes included."""
    kv_cells_running: int = 0
    """Tokens it holds for generations that run."""
    batch_width: int = 0
    """Generations in the last step."""
    batch_width_max: int = 0
    """Generations in the widest step so far."""
    steps: int = 0
    steps_by_width: tuple[int, ...] = ()
    """Of those steps, how many were as wide as each of `WIDTHS` and no narrower one, then wider."""
    step_widths: int = 0
    """Sum of the widths of all steps."""
    preemptions: int = 0
    """How often a generation left its cells to others, to go on later."""
    prompt_tokens: int = 0
    """Prompt tokens computed so far."""
    generated_tokens: int = 0
    prefix_tokens: int = 0
    """Prompt tokens that did not have to be computed so far."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One servable model, as `/v1/models` lists it."""

    name: str
    aliases: Sequence[str]
    task: str
    residency: str
    created: int
    """Seconds since the epoch at which this process first heard of it."""
    local: bool
    """Whether this pod holds it; otherwise requests are forwarded."""
    adapters: Sequence[str] = ()
    """Names of its adapters."""
