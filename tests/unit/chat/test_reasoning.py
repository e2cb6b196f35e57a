"""Reasoning told apart from content, however the text is cut into parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.chat.reasoning import KNOWN, Markers, Phase, Splitter, markers_of, opens

THINK = KNOWN[0]


def split(parts: list[str], *, opened: bool = False, markers: Markers = THINK) -> tuple[str, str]:
    splitter = Splitter(markers, opened=opened)
    pairs = [*map(splitter.feed, parts), splitter.finish()]
    return "".join(r for r, _ in pairs), "".join(c for _, c in pairs)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ("  <think>a < b</think>c", "a < b", "c"),
        ("<think></think>Yes.", "", "Yes."),
        ("<think>cut off", "cut off", ""),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("Yes.", "", "Yes."),
        ("  Yes. <think>no</think>", "", "  Yes. <think>no</think>"),
        ("<thin air", "", "<thin air"),
        ("<thin", "", "<thin"),
        ("", "", ""),
        (" \n", "", " \n"),
        ("<think>a</think>\nb\n <think>c</think>", "a", "b\n <think>c</think>"),
    ],
)
def test_an_answer_may_begin_with_reasoning(text: str, reasoning: str, content: str) -> None:
    assert split([text]) == (reasoning, content)
    assert split(list(text)) == (reasoning, content)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ("<think>Hm.</think>Yes.", "Hm.", "Yes."),
        ("</think>Yes.", "", "Yes."),
        ("cut off\n", "cut off", ""),
        ("<thi", "<thi", ""),
        ("", "", ""),
    ],
)
def test_a_prompt_may_have_opened_the_reasoning(text: str, reasoning: str, content: str) -> None:
    assert split([text], opened=True) == (reasoning, content)
    assert split(list(text), opened=True) == (reasoning, content)


PIECES = st.sampled_from(["<think>", "</think>", "<", "think", "/", ">", " ", "\n", "a", "é", "🙂"])


@given(st.lists(PIECES, max_size=30), st.booleans(), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same(pieces: list[str], opened: bool, random: object) -> None:  # noqa: FBT001
    text = "".join(pieces)
    assert split(pieces, opened=opened) == split([text], opened=opened)
    assert split(list(text), opened=opened) == split([text], opened=opened)


@given(st.text(max_size=60), st.booleans())
def test_nothing_but_markers_and_space_is_lost(text: str, opened: bool) -> None:  # noqa: FBT001
    told = "".join(split([text], opened=opened))
    plain = text.replace(THINK.begin, "").replace(THINK.end, "")
    assert "".join(told.split()) == "".join(plain.split())


def test_it_tells_whether_what_comes_next_is_reasoning() -> None:
    splitter = Splitter(THINK, opened=True)
    assert splitter.thinks
    splitter.feed("a</think>")
    assert not splitter.thinks
    assert splitter.phase is Phase.AFTER
    assert not Splitter(THINK).thinks


def test_markers_come_from_the_template_or_the_vocabulary() -> None:
    qwen = "{% if '</think>' in content %}{% endif %}"
    assert markers_of(qwen, lambda _: False) is THINK
    cohere = {"<|START_THINKING|>", "<|END_THINKING|>"}
    assert markers_of("", cohere.__contains__) == KNOWN[1]
    assert markers_of("{{ messages }}", lambda _: False) is None
    assert markers_of("", {"<think>"}.__contains__) is None, "one marker is no pair"


def test_a_prompt_that_closed_the_reasoning_does_not_open_it() -> None:
    assert opens("<|im_start|>assistant\n<think>\n", THINK)
    assert not opens("<|im_start|>assistant\n<think>\n\n</think>\n\n", THINK)
    assert not opens("<|im_start|>assistant\n", THINK)
