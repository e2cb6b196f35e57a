"""Items of a conversation: what is accepted, what it becomes, and what a model is shown of it."""

import itertools
from typing import Any

import pytest

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.responses.items import (
    MAX_ITEMS,
    chat_messages,
    check_calls,
    parsed_items,
    with_ids,
)
from ullage_runtime.http.responses.pages import Page
from ullage_runtime.http.responses.store import Item

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "2"}


def named(*items: Any, before: tuple[Item, ...] = ()) -> tuple[Item, ...]:
    numbers = itertools.count()
    return with_ids(parsed_items(list(items)), before, lambda kind: f"{kind}_{next(numbers)}")


def test_a_text_is_a_message_of_the_user() -> None:
    assert parsed_items("hello") == (
        {
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "hello"}],
        },
    )


def test_a_message_needs_no_type_and_its_parts_are_those_of_its_role() -> None:
    (said,) = parsed_items([{"role": "assistant", "content": "hi"}])
    assert said["content"] == [
        {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
    ]
    (asked,) = parsed_items(
        [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]}]
    )
    assert asked["content"] == [{"type": "input_text", "text": "x"}]


def test_what_the_api_gave_back_is_accepted_as_it_was() -> None:
    first = named({"role": "user", "content": "x"}, CALL, OUTPUT)
    assert parsed_items(list(first)) == first


def test_an_object_with_nothing_but_an_id_is_a_reference() -> None:
    assert parsed_items([{"id": "msg_1"}]) == ({"type": "item_reference", "id": "msg_1"},)


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        (None, "input", "not empty"),
        ([], "input", "not empty"),
        (7, "input", "a text or a list"),
        ([1], "input[0]", "an object"),
        ([{"role": "user", "content": "x"}] * (MAX_ITEMS + 1), "input", f"at most {MAX_ITEMS}"),
        ([{"role": "tool", "content": "x"}], "input[0].role", "user, assistant"),
        ([{"role": "user"}], "input[0].content", "a text or a list"),
        ([{"role": "user", "content": [1]}], "input[0].content[0]", "a part"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
            "input[0].content[0].type",
            "'input_image' is not supported",
        ),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}],
            "input[0].content[0].type",
            "'input_file' is not supported",
        ),
        ([{"role": "user", "content": "\ud800"}], "input[0].content[0]", "surrogate"),
        ([{"role": "user", "content": "x", "id": 3}], "input[0].id", "1 to 128"),
        ([{"role": "user", "content": "x", "status": "odd"}], "input[0].status", "completed"),
        ([{"type": "computer_call"}], "input[0].type", "'computer_call' is not supported"),
        ([{"type": "function_call", "call_id": "c"}], "input[0].name", "a text"),
        ([{**CALL, "arguments": "{"}], "input[0].arguments", "JSON object"),
        ([{**CALL, "arguments": "[]"}], "input[0].arguments", "JSON object"),
        ([{**CALL, "call_id": ""}], "input[0].call_id", "not empty"),
        ([{**CALL, "call_id": "x" * 129}], "input[0].call_id", "at most 128"),
        ([{**OUTPUT, "output": 2}], "input[0].output", "a text or a list"),
        (
            [{"type": "reasoning", "encrypted_content": "x"}],
            "input[0].encrypted_content",
            "cannot be read",
        ),
        ([{"type": "reasoning", "content": [{"type": "x"}]}], "input[0].content[0]", "reasoning"),
    ],
)
def test_what_is_no_item_is_named(value: object, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed_items(value)
    assert refused.value.param == param
    assert words in refused.value.message


def test_ids_are_kept_unless_the_conversation_has_them_already() -> None:
    before = named({"role": "user", "content": "x", "id": "mine"})
    again = named(
        {"role": "user", "content": "y", "id": "mine"},
        {"role": "user", "content": "z", "id": "other"},
        OUTPUT,
        before=before,
    )
    assert [item["id"] for item in again] == ["msg_0", "other", "fco_1"]


def test_calls_become_the_assistants_and_their_outputs_the_tools() -> None:
    items = named(
        {"role": "user", "content": "1+1?"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "?"}]},
        {"role": "assistant", "content": "Let me see."},
        CALL,
        {**CALL, "call_id": "c2"},
        OUTPUT,
        {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
    )
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    assert chat_messages(items, "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "?",
            "tool_calls": [{"id": "c1", **call}, {"id": "c2", **call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]


def test_thoughts_belong_to_what_they_led_to() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    calling = chat_messages(named({"role": "user", "content": "x"}, thought, CALL, OUTPUT))
    assert calling[1]["reasoning_content"] == "Hm."
    lost = chat_messages(named(thought, {"role": "user", "content": "x"}))
    assert lost == [{"role": "user", "content": "x"}]


def test_an_output_without_its_call_is_refused() -> None:
    check_calls(named(CALL, OUTPUT))
    for wrong in ([OUTPUT], [OUTPUT, CALL], [CALL, {**OUTPUT, "call_id": "c9"}]):
        with pytest.raises(InvalidRequest, match="no function_call with that call_id"):
            check_calls(named(*wrong))


def test_pages_follow_each_other_in_both_orders() -> None:
    items = named(*({"role": "user", "content": str(n)} for n in range(5)))
    for order, ids in (("asc", [0, 1, 2, 3, 4]), ("desc", [4, 3, 2, 1, 0])):
        seen: list[str] = []
        after, more = None, True
        while more:
            page = Page(2, order, after).of(items)  # type: ignore[arg-type]
            assert page["first_id"] == page["data"][0]["id"]
            seen += [item["id"] for item in page["data"]]
            after, more = page["last_id"], page["has_more"]
        assert seen == [f"msg_{n}" for n in ids]
    assert Page().of([])["data"] == []
    with pytest.raises(InvalidRequest, match="no item 'x'"):
        Page(after="x").of(items)
