"""Tools in words, for templates that know nothing of them."""

import json

from ullage_runtime.core.chat.calls import CallParser
from ullage_runtime.core.chat.formats import HERMES
from ullage_runtime.core.chat.wording import described, in_words
from ullage_runtime.core.domain import Message, Tool, ToolCall, Tools

TOOL = Tool("get_weather", "Weather of a city.", '{"type": "object"}')
TOOLS = Tools((TOOL, Tool("f")))
CALLS = (ToolCall("1", "get_weather", '{"city": "Rome"}'), ToolCall("2", "f", "{}"))


def test_the_instruction_goes_where_every_template_takes_it() -> None:
    user, system = Message("user", "Hi"), Message("system", "Be brief.")
    (alone,) = in_words([user], TOOLS)
    assert alone.role == "user"
    assert alone.content.endswith("\n\nHi")
    first, second = in_words([system, user], TOOLS)
    assert first.content.startswith("Be brief.\n\n")
    assert second == user
    assert json.dumps(described(TOOL)["function"]) in first.content
    (only,) = in_words([], TOOLS)
    assert only.role == "user"


def test_roles_alternate_whatever_was_called() -> None:
    history = [
        Message("user", "Hi"),
        Message("assistant", "Let me look.", calls=CALLS),
        Message("tool", "Sunny.", call_id="1"),
        Message("tool", "", call_id="2"),
        Message("assistant", "Fine weather."),
    ]
    plain = in_words(history, None)
    assert [message.role for message in plain] == ["user", "assistant", "user", "assistant"]
    assert not any(message.calls for message in plain)
    assert plain[2].content == (
        "<tool_response>\nSunny.\n</tool_response>\n<tool_response>\n\n</tool_response>"
    )


def test_what_was_called_is_written_as_a_model_is_told_to_write_it() -> None:
    (said,) = in_words([Message("assistant", "Let me look.", calls=CALLS)], None)
    parser = CallParser(HERMES, ["get_weather", "f"])
    content, deltas = parser.feed(said.content)
    assert content == "Let me look."
    assert [(delta.name, delta.arguments) for delta in deltas] == [
        (call.name, call.arguments) for call in CALLS
    ]
