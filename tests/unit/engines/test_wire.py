"""The wire between server and worker, and what it lets through."""

import msgpack
import pytest

from ullage_api.conditions import Reason
from ullage_runtime.core import errors
from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    FinishReason,
    Footprint,
    GenerateRequest,
    Loaded,
    Message,
    Sampling,
    Usage,
)
from ullage_runtime.core.errors import (
    ContextLengthExceeded,
    EngineDied,
    EngineFailed,
    ServingError,
)
from ullage_runtime.engines.worker import wire
from ullage_runtime.engines.worker.failures import error_of, failure_of
from ullage_runtime.engines.worker.outbox import Outbox, merged

REQUEST = GenerateRequest(
    request_id="1",
    messages=(Message("user", "héllo"),),
    sampling=Sampling(seed=3, stop=("a", "b")),
)
LOADED = Loaded("LlamaCpp", "llama", 512, 100, True, "CPU", 0, 3, 0.5)  # noqa: FBT003


@pytest.mark.parametrize(
    "command",
    [
        wire.Estimate(EngineSpec(path="/m", context_length=64)),
        wire.Load(EngineSpec(path="/m")),
        wire.Generate(REQUEST),
        wire.Generate(GenerateRequest(request_id="2", prompt=(1, 2, 3))),
        wire.Generate(GenerateRequest(request_id="3", prompt="1, 2")),
        wire.Credit("1", 16),
        wire.Cancel("1"),
        wire.GetStats(),
        wire.Shutdown(),
    ],
)
def test_every_command_survives_the_wire(command: wire.Command) -> None:
    frame = wire.encode(command)
    assert wire.frame_length(frame[:4]) == len(frame) - 4
    assert wire.decode_command(frame[4:]) == command


@pytest.mark.parametrize(
    "event",
    [
        wire.Hello(version=1, engine="LlamaCpp", pid=7),
        wire.Estimated(Footprint(1, 2, 3, 4)),
        wire.LoadDone(LOADED),
        wire.LoadFailed(reason=Reason.INVALID_MODEL, message="no", final=True),
        wire.Step((wire.Output("1", chunk=Chunk("x", Usage(1, 2), FinishReason.STOP)),)),
        wire.Step((wire.Output("1", failure=wire.Failure("overloaded", "full")),)),
        wire.Stats(EngineStats(1, 2, 3)),
        wire.Log("error", "text"),
    ],
)
def test_every_event_survives_the_wire(event: wire.Event) -> None:
    assert wire.decode_event(wire.encode(event)[4:]) == event


@pytest.mark.parametrize("body", [b"\xc1", b"\x01", msgpack.packb({"type": "nonsense"})])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_event(body)


def test_a_frame_that_announces_too_much_is_refused() -> None:
    with pytest.raises(wire.WireError):
        wire.frame_length(b"\xff\xff\xff\xff")


def test_every_serving_error_arrives_as_itself() -> None:
    classes = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, ServingError)
        # No worker knows of others' memory.
        if cls not in {ServingError, errors.Preempted}
    ]
    assert classes
    for cls in classes:
        error = cls("message", param="p", retry_after=2.0, details={"n": 1})
        again = error_of(failure_of(error))
        assert type(again) is (EngineFailed if cls is EngineDied else cls)  # the dead tell nothing
        assert failure_of(again) == failure_of(error)


def test_an_error_of_a_newer_worker_is_an_engines_failure() -> None:
    assert isinstance(error_of(wire.Failure("brand_new", "x")), EngineFailed)


def test_a_reader_without_credit_gets_one_merged_chunk_once_it_catches_up() -> None:
    outbox = Outbox()
    outbox.open("1")
    sent = [outbox.due([("1", Chunk(str(n)))]) for n in range(wire.CREDIT_WINDOW + 3)]
    assert [len(outputs) for outputs in sent] == [1] * wire.CREDIT_WINDOW + [0] * 3
    assert outbox.due([("1", Chunk("!", Usage(1, 2), FinishReason.STOP))]) == ()
    (last,) = outbox.credited("1", 16)
    assert last.chunk == Chunk("646566!", Usage(1, 2), FinishReason.STOP)
    assert outbox.credited("1", 16) == ()


def test_an_error_passes_a_reader_without_credit() -> None:
    outbox = Outbox()
    outbox.open("1")
    for n in range(wire.CREDIT_WINDOW + 1):
        outbox.due([("1", Chunk(str(n)))])
    (output,) = outbox.due([("1", ContextLengthExceeded("long"))])
    assert output.failure is not None
    assert output.failure.code == "context_length_exceeded"


def test_nothing_goes_to_a_reader_that_left() -> None:
    outbox = Outbox()
    outbox.open("1")
    outbox.close("1")
    assert outbox.due([("1", Chunk("x"))]) == ()


def test_merged_chunks_keep_the_first_usage_until_there_is_a_newer_one() -> None:
    assert merged(Chunk("a", Usage(5)), Chunk("b")) == Chunk("ab", Usage(5))
