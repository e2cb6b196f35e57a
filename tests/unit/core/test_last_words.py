"""What a message quotes of an engine's log: the end of it, short, and nothing of our machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.last_words import MOST_CHARACTERS, last_words, plain


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  error loading model  ", "error loading model"),
        ("\x1b[31merror\x1b[0m\tloading", "error loading"),
        ("one\nline\x00only", "one line only"),
        ("failed to open '/var/cache/ullage/blobs/ab12': no", "failed to open 'ab12': no"),
        ("/home/me/llama.cpp/src/x.cpp:123: GGML_ASSERT(a/b)", "x.cpp:123: GGML_ASSERT(a/b)"),
        ("src/models/llama.cpp: 3/4", "src/models/llama.cpp: 3/4"),
        ("https://me:secret@host/a/b.gguf", "https://host/a/b.gguf"),
    ],
)
def test_a_line_loses_what_only_its_machine_knows(line: str, shown: str) -> None:
    assert plain(line) == shown


def test_the_last_lines_are_told_in_their_order_and_each_once() -> None:
    assert last_words(["first", "", "twice", "twice", "last"]) == "first; twice; last"


def test_what_a_message_says_already_is_not_repeated() -> None:
    said = "the engine cannot load it: missing tensor 'x'"
    assert last_words(["warning", "missing tensor 'x'"], besides=said) == "warning"
    assert not last_words(["missing tensor 'x'"], besides=said)


def test_of_a_long_log_there_are_as_many_lines_as_fit_from_the_end() -> None:
    lines = [f"{number:02d} {'x' * 97}" for number in range(40)]
    assert last_words(lines) == "; ".join(lines[-4:])


@given(st.lists(st.text(max_size=800), max_size=40))
def test_it_is_one_short_line_whatever_was_said(lines: list[str]) -> None:
    words = last_words(lines)
    assert len(words) <= MOST_CHARACTERS
    assert all(character.isprintable() for character in words)
