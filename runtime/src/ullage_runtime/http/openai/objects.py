"""The answers of OpenAI's API as types, for the OpenAPI document.

`shapes.py` writes the answers themselves, without detours, since it writes one for every token;
tests hold what it writes against these.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.model_status import Residency
from ullage_runtime.http.openai.fields import ServedTier

Finish = Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(BaseModel):
    """What the prompt's tokens consist of."""

    cached_tokens: Annotated[int, Field(description="Those that had not to be computed again.")]


class CompletionTokensDetails(BaseModel):
    """What the answer's tokens consist of."""

    reasoning_tokens: Annotated[int, Field(description="Those that are reasoning.")]


class Usage(BaseModel):
    """Tokens that a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class LikelyToken(BaseModel):
    """A token with the logarithm of its probability."""

    token: str
    logprob: float
    bytes: Annotated[list[int], Field(description="The token may be a part of a character.")]


class ChosenToken(LikelyToken):
    """A token of the answer, with the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    """How likely the answer's tokens were."""

    content: list[ChosenToken]
    refusal: None


class TextLogprobs(BaseModel):
    """How likely the tokens were, and where in the text they begin."""

    tokens: list[str]
    token_logprobs: Annotated[
        list[float | None], Field(description="Null for the first token of an echoed prompt.")
    ]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CalledFunction(BaseModel):
    """What the model calls, and with what."""

    name: str
    arguments: Annotated[str, Field(description="A JSON object, as text.")]


class ToolCall(BaseModel):
    """One call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(BaseModel):
    """What the model says, or calls."""

    role: Literal["assistant"]
    content: Annotated[str | None, Field(description="Null where it only calls tools.")]
    refusal: None
    annotations: Annotated[
        list[dict[str, Any]], Field(description="Citations of what file_search found.")
    ]
    reasoning_content: Annotated[str | None, Field(description="What it thought before.")] = None
    reasoning: Annotated[str | None, Field(description="The same as `reasoning_content`.")] = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(BaseModel):
    """One of the answers asked for."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    """The whole answer to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: Annotated[ServedTier, Field(description="The tier it was really served with.")]
    system_fingerprint: Annotated[str, Field(description="Revision of the model that answered.")]
    choices: list[ChatChoice]
    usage: Usage


class FunctionDelta(BaseModel):
    """What a chunk adds to a call; the name comes once."""

    name: str | None = None
    arguments: str


class ToolCallDelta(BaseModel):
    """What a chunk adds to one of the calls; id and type come once."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(BaseModel):
    """One of the answers asked for, by its index."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletionChunk(BaseModel):
    """One event of a streamed answer to a chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: Annotated[ServedTier, Field(description="The tier it was really served with.")]
    system_fingerprint: Annotated[str, Field(description="Revision of the model that answered.")]
    choices: list[ChunkChoice]
    usage: Annotated[
        Usage | None,
        Field(description="With `include_usage`: null but in the last chunk, which has no choices"),
    ] = None


class TextChoice(BaseModel):
    """One of the continuations asked for."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish | None


class Completion(BaseModel):
    """A prompt's continuation: whole, or one event of a stream of them."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    service_tier: Annotated[ServedTier, Field(description="The tier it was really served with.")]
    system_fingerprint: Annotated[str, Field(description="Revision of the model that answered.")]
    choices: list[TextChoice]
    usage: Annotated[
        Usage | None, Field(description="Of the whole answer; in a stream if asked for.")
    ] = None


class Model(BaseModel):
    """A model that may be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: Annotated[str | None, Field(description="The model, if this is an adapter of it.")]
    aliases: Annotated[list[str], Field(description="Further names it answers to.")]
    task: Task
    residency: Annotated[Residency, Field(description="Where its weights are.")]
    local: Annotated[bool, Field(description="Whether this pod holds it, rather than another.")]


class ModelList(BaseModel):
    """The models that the caller's key may use."""

    object: Literal["list"]
    data: list[Model]
