"""From token bytes to text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.engines.llamacpp.text import TextStream


def test_a_character_split_over_tokens_appears_whole() -> None:
    stream = TextStream()
    euro = "€".encode()
    assert [stream.feed(euro[i : i + 1]) for i in range(3)] == ["", "", "€"]


def test_a_character_that_never_ends_is_replaced() -> None:
    stream = TextStream()
    assert stream.feed("€".encode()[:2]) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_what_may_become_a_stop_is_held_back_until_it_is_known() -> None:
    stream = TextStream(["###"])
    assert stream.feed(b"a#") == "a"
    assert stream.feed(b"#") == ""
    assert stream.feed(b"b") == "##b"
    assert stream.feed(b"##") == ""
    assert stream.feed(b"#c") == ""
    assert stream.stopped
    assert stream.finish() == ""


def test_what_is_held_back_at_the_end_is_shown() -> None:
    stream = TextStream(["###"])
    assert stream.feed(b"x##") == "x"
    assert stream.finish() == "##"


def test_the_earliest_of_several_stops_wins() -> None:
    stream = TextStream(["world", "lo"])
    assert stream.feed(b"hello world") == "hel"


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stops_nothing_is_held_back(stops: tuple[str, ...]) -> None:
    assert TextStream(stops).feed(b"abc") == "abc"


@given(
    text=st.text(alphabet="ab€", max_size=30),
    stops=st.lists(st.text(alphabet="ab€", min_size=1, max_size=4), max_size=3),
    data=st.data(),
)
def test_any_split_of_the_bytes_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    stream, rest, shown = TextStream(stops), text.encode(), ""
    while rest and not stream.stopped:
        size = data.draw(st.integers(1, len(rest)))
        shown += stream.feed(rest[:size])
        rest = rest[size:]
    shown += stream.finish()
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if not found:
        assert shown == text
    else:
        # Which of two overlapping stops is seen first depends on the split; none is ever shown.
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
