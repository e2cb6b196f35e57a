"""Calls of tools told apart from content, however the text is cut into parts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.chat.calls import CallParser
from ullage_runtime.core.chat.formats import HERMES, LLAMA, MISTRAL, ToolFormat, format_of

Found = tuple[str, list[tuple[str, str]]]
NAMES = ("get_weather", "add")
PARIS = '{"city": "Paris"}'


def found(parts: list[str], form: ToolFormat = HERMES, *, trusted: bool = False) -> Found:
    parser = CallParser(form, NAMES, trusted=trusted)
    content = ""
    calls: list[list[str]] = []
    for said, deltas in [*map(parser.feed, parts), parser.finish()]:
        content += said
        for delta in deltas:
            if delta.name is not None:
                assert delta.index == len(calls), "a name comes once, at the beginning"
                calls.append([delta.name, ""])
            calls[delta.index][1] += delta.arguments
    assert parser.count == len(calls)
    return content, [(name, arguments) for name, arguments in calls]


def both(text: str, form: ToolFormat, *, trusted: bool) -> Found:
    whole = found([text], form, trusted=trusted)
    assert found(list(text), form, trusted=trusted) == whole
    return whole


HERMES_CALL = f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>'
LLAMA_CALL = f'{{"name": "get_weather", "parameters": {PARIS}}}'


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        (HERMES, HERMES_CALL, "", [("get_weather", PARIS)]),
        (HERMES, f"Let me look.\n\n{HERMES_CALL}\n", "Let me look.", [("get_weather", PARIS)]),
        (
            HERMES,
            f'{HERMES_CALL}\n<tool_call>{{"arguments":{{"a":[1,{{"b":"}}"}}]}},"name":"add"}}</tool_call>',
            "",
            [("get_weather", PARIS), ("add", '{"a":[1,{"b":"}"}]}')],
        ),
        (HERMES, '<tool_call>{"name": "add"}</tool_call>', "", [("add", "{}")]),
        (
            HERMES,
            '<tool_call>{"id": 7, "type": null, "name": "add", "parameters": {}}',
            "",
            [("add", "{}")],
        ),
        (HERMES, f"{HERMES_CALL} Done.", " Done.", [("get_weather", PARIS)]),
        (LLAMA, LLAMA_CALL, "", [("get_weather", PARIS)]),
        (LLAMA, f" <|python_tag|>{LLAMA_CALL}", "", [("get_weather", PARIS)]),
        (LLAMA, f"{LLAMA_CALL}; {LLAMA_CALL}", "", [("get_weather", PARIS)] * 2),
        (LLAMA, f"{LLAMA_CALL}\n{LLAMA_CALL}", "", [("get_weather", PARIS)] * 2),
        (
            LLAMA,
            f'{{"type": "function", "name": "get_weather", "parameters": {PARIS}}}',
            "",
            [("get_weather", PARIS)],
        ),
        (
            MISTRAL,
            f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {PARIS}}}, {{"name": "add"}}]',
            "",
            [("get_weather", PARIS), ("add", "{}")],
        ),
        (
            MISTRAL,
            f'Sure. [TOOL_CALLS]{{"name": "get_weather", "arguments": {PARIS}}}',
            "Sure.",
            [("get_weather", PARIS)],
        ),
    ],
)
def test_calls_are_found(
    form: ToolFormat,
    text: str,
    content: str,
    calls: list[tuple[str, str]],
    trusted: bool,  # noqa: FBT001
) -> None:
    assert both(text, form, trusted=trusted) == (content, calls)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, "Plain words, 1 < 2, [1], {}."),
        (HERMES, "  spaces are kept \n"),
        (HERMES, "<tool_call>no JSON</tool_call>"),
        (HERMES, '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": "text"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a" 1}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "name": "add"}</tool_call>'),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": 7}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1'),
        (HERMES, "<tool_call>"),
        (HERMES, "<tool_"),
        (LLAMA, '{"city": "Paris"}'),
        (LLAMA, f"See: {LLAMA_CALL}"),
        (LLAMA, '<|python_tag|>brave_search.call(query="x")'),
        (LLAMA, "{}"),
        (MISTRAL, "[1, 2]"),
        (MISTRAL, "[TOOL_CALLS][[]]"),
    ],
)
def test_what_is_no_call_is_content(form: ToolFormat, text: str) -> None:
    assert both(text, form, trusted=False) == (text, [])


def test_a_broken_call_does_not_hide_the_next_one() -> None:
    assert both(f"<tool_call>{HERMES_CALL}", HERMES, trusted=False) == (
        "<tool_call>",
        [("get_weather", PARIS)],
    )


def test_trusted_arguments_are_passed_on_as_they_come() -> None:
    parser = CallParser(HERMES, NAMES, trusted=True)
    parser.feed('<tool_call>{"name": "get_weather", "argu')
    assert parser.feed('ments": {"ci')[1][0].arguments == '{"ci'
    assert parser.feed('ty"')[1][0].arguments == 'ty"'


def test_a_trusted_call_that_is_cut_off_stays_a_call() -> None:
    cut = '<tool_call>{"name": "get_weather", "arguments": {"city": "Par'
    assert both(cut, HERMES, trusted=True) == ("", [("get_weather", '{"city": "Par')])


def test_the_text_of_the_calls_is_known_from_their_marker_on() -> None:
    parser = CallParser(HERMES, NAMES)
    parser.feed("Well. <tool_call")
    assert parser.call_text is None
    parser.feed(">\n{")
    assert parser.call_text == "\n{"
    bare = CallParser(LLAMA, NAMES)
    bare.feed(' {"na')
    assert bare.call_text == '{"na'


PIECES = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[", "]", "{", "}"),
        *('"', "\\", ",", ":", ";", "name", '"name": "add"', '"arguments": ', '{"name": "add"}'),
        *("add", " ", "\n", "a", "1", "-", "null", HERMES_CALL, LLAMA_CALL, "<", "é"),
    ]
)
FORMATS = st.sampled_from([HERMES, LLAMA, MISTRAL])


@given(st.lists(PIECES, max_size=25), FORMATS, st.booleans())
def test_any_cut_gives_the_same(pieces: list[str], form: ToolFormat, trusted: bool) -> None:  # noqa: FBT001
    whole = found(["".join(pieces)], form, trusted=trusted)
    assert found(pieces, form, trusted=trusted) == whole
    assert found(list("".join(pieces)), form, trusted=trusted) == whole


@given(st.lists(PIECES, max_size=25), FORMATS)
def test_arguments_of_untrusted_calls_are_objects(pieces: list[str], form: ToolFormat) -> None:
    for name, arguments in found(["".join(pieces)], form)[1]:
        assert name in NAMES
        assert isinstance(json.loads(arguments), dict)


@given(st.text(max_size=80), FORMATS)
def test_a_text_without_calls_is_kept_as_it_is(text: str, form: ToolFormat) -> None:
    assert found([text], form) == (text, [])


@pytest.mark.parametrize(
    ("template", "form", "is_native"),
    [
        ("{% if tools %}<tool_call>{% endif %}", HERMES, True),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", MISTRAL, True),
        ("{% if tools %}<|python_tag|>{% endif %}", LLAMA, True),
        ('{% if tools %}Environment: ipython {"name":, "parameters": {}}{% endif %}', LLAMA, True),
        ("{% if tools %}<tool_call><function=x>{% endif %}", HERMES, False),
        ("{% if tools %}{{ tools }}{% endif %}", HERMES, False),
        ("{{ messages }}", HERMES, False),
    ],
)
def test_a_template_tells_the_format(template: str, form: ToolFormat, is_native: bool) -> None:  # noqa: FBT001
    known = format_of(template)
    assert (known.tools, known.is_native) == (form, is_native)
