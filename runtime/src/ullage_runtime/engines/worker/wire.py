"""What the server and an engine worker say to each other: dataclasses, framed as msgpack.

A frame is a 4-byte big-endian length and one msgpack map whose `type` names the message. The server
sends commands; the worker sends events. Both ends come from the same image, so the version in
`Hello` only guards against a worker started by hand from another one.
"""

import struct
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

import msgpack
from pydantic import Field, TypeAdapter

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.pooled import EmbedRequest, PooledPart, RerankRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens

VERSION: Final = 4

MAX_FRAME_BYTES: Final = 64 << 20
"""Longest frame either side accepts; far above the largest request body."""

CREDIT_WINDOW: Final = 64
"""Chunks of one generation that may be under way before its reader has taken them."""

_LENGTH = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size


@dataclass(frozen=True, slots=True)
class Estimate:
    """Command: tell what a load would take."""

    spec: EngineSpec
    type: Literal["estimate"] = "estimate"


@dataclass(frozen=True, slots=True)
class Load:
    """Command: load the model."""

    spec: EngineSpec
    type: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class Generate:
    """Command: begin a generation, with credit for `CREDIT_WINDOW` chunks."""

    request: GenerateRequest
    type: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class Embed:
    """Command: embed texts."""

    request: EmbedRequest
    type: Literal["embed"] = "embed"


@dataclass(frozen=True, slots=True)
class Rerank:
    """Command: score documents."""

    request: RerankRequest
    type: Literal["rerank"] = "rerank"


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Command: tokenize a text; answered while the engine computes."""

    request: TokenizeRequest
    type: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True, slots=True)
class Detokenize:
    """Command: turn tokens into text; answered while the engine computes."""

    request: DetokenizeRequest
    type: Literal["detokenize"] = "detokenize"


@dataclass(frozen=True, slots=True)
class Credit:
    """Command: the reader of a generation has taken so many chunks."""

    request_id: str
    chunks: int
    type: Literal["credit"] = "credit"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Command: end a request; one that is unknown, or over, is ignored."""

    request_id: str
    type: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class GetStats:
    """Command: tell what the engine does right now; answered while it decodes, too."""

    type: Literal["get-stats"] = "get-stats"


@dataclass(frozen=True, slots=True)
class SavePrefixes:
    """Command: write cached prefixes to a file, at most so many bytes."""

    path: str
    limit: int
    type: Literal["save-prefixes"] = "save-prefixes"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Command: give everything back and exit."""

    type: Literal["shutdown"] = "shutdown"


@dataclass(frozen=True, slots=True)
class Hello:
    """Event: the worker is up; always the first frame."""

    version: int
    engine: str
    pid: int
    type: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Estimated:
    """Event: the answer to `Estimate`."""

    footprint: Footprint
    type: Literal["estimated"] = "estimated"


@dataclass(frozen=True, slots=True)
class LoadDone:
    """Event: the answer to `Load`."""

    loaded: Loaded
    type: Literal["load-done"] = "load-done"


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Event: the answer to `Estimate` or `Load` when it could not be done."""

    reason: Reason
    message: str
    final: bool
    type: Literal["load-failed"] = "load-failed"


@dataclass(frozen=True, slots=True)
class PrefixesSaved:
    """Event: the answer to `SavePrefixes`."""

    bytes: int
    type: Literal["prefixes-saved"] = "prefixes-saved"


@dataclass(frozen=True, slots=True)
class Failure:
    """A ServingError, as the wire carries it."""

    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """What one step did for one request: a chunk, a part, or the error that ends it."""

    request_id: str
    chunk: Chunk | None = None
    part: PooledPart | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Event: what one engine step did, for every request it moved."""

    outputs: tuple[Output, ...]
    type: Literal["step"] = "step"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Event: the answer to `Tokenize`."""

    request_id: str
    tokens: Tokens
    type: Literal["tokenized"] = "tokenized"


@dataclass(frozen=True, slots=True)
class Detokenized:
    """Event: the answer to `Detokenize`."""

    request_id: str
    text: str
    type: Literal["detokenized"] = "detokenized"


@dataclass(frozen=True, slots=True)
class Stats:
    """Event: the answer to `GetStats`."""

    stats: EngineStats
    type: Literal["stats"] = "stats"


@dataclass(frozen=True, slots=True)
class Log:
    """Event: a line the engine's library logged."""

    level: str
    text: str
    type: Literal["log"] = "log"


Work = Generate | Embed | Rerank | Tokenize | Detokenize
"""The commands that a request of a client becomes; each has one, with its id."""

Command = Estimate | Load | Work | Credit | Cancel | GetStats | SavePrefixes | Shutdown
Answer = Estimated | LoadDone | PrefixesSaved
"""What comes of the commands of which a worker has one at a time, unless they fail."""
Event = Hello | Answer | LoadFailed | Step | Tokenized | Detokenized | Stats | Log

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


_Message = TypeVar("_Message", Command, Event)


class WireError(Exception):
    """A frame that is too long or is not what the protocol allows."""


def encode(message: Command | Event) -> bytes:
    """Return a message as one frame, its length in front."""
    adapter: TypeAdapter[Any] = _COMMANDS if isinstance(message, Command) else _EVENTS
    body = msgpack.packb(adapter.dump_python(message), use_bin_type=True)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + bytes(body)


def frame_length(prefix: bytes) -> int:
    """Return the length that a frame's prefix announces; raises WireError."""
    length: int = _LENGTH.unpack(prefix)[0]
    if length > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
    return length


def decode_command(body: bytes) -> Command:
    """Return the command in a frame's body; raises WireError."""
    return _decoded(_COMMANDS, body)


def decode_event(body: bytes) -> Event:
    """Return the event in a frame's body; raises WireError."""
    return _decoded(_EVENTS, body)


def _decoded(adapter: TypeAdapter[_Message], body: bytes) -> _Message:
    try:
        return adapter.validate_python(msgpack.unpackb(body, raw=False))
    except ValueError as error:
        raise WireError(f"not a message of this protocol: {error}") from error
