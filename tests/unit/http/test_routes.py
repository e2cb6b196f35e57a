"""What request bodies say: whoever reads them, it is what Python's own parser makes of them."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ullage_runtime.http.routes import _Request

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def read(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    try:
        _Request({"type": "http"}, receive).json().send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for more")


def outcome(read: Callable[[bytes], Any], body: bytes) -> str:
    try:
        return repr(read(body))
    except ValueError as error:
        return repr(error)


@given(VALUES)
def test_every_value_is_read_as_it_was_written(value: Any) -> None:
    for body in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert outcome(read, body.encode()) == outcome(json.loads, body.encode())


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(0.1 + 0.2)
def test_numbers_lose_nothing(number: float) -> None:
    (found,) = read(json.dumps([number]).encode())
    assert (found, math.copysign(1, found)) == (number, math.copysign(1, number))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b'{"a": 1,}',
        b"01",
        b"-",
        b"1.",
        b".5",
        b"+1",
        b"1e400",
        b"-1e400",
        b"-0",
        b"-0.0",
        b"NaN",
        b"-NaN",
        b"Infinity",
        b"-Infinity",
        b"inf",
        b"nan",
        b"18446744073709551616",
        b"9" * 6000,
        b'{"a": 1, "b": 2, "a": 3}',
        b'"\x00"',
        b'"\n"',
        b'"\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\\x"',
        b"'a'",
        b"[1] [2]",
        b"[1] x",
        b" \t\r\n[1] ",
        b"\x0c[1]",
        b"\xef\xbb\xbf[1]",
        b"\xff\xfe",
        b'"\xff"',
        "[1]".encode("utf-16"),
        b"// a\n[1]",
        b"True",
        b"[" * 150 + b"]" * 150,
        b"[" * 300 + b"]" * 300,
    ],
)
def test_what_is_odd_is_read_or_refused_as_ever(body: bytes) -> None:
    assert outcome(read, body) == outcome(json.loads, body)
