"""What of the suites does not apply to us, or is expected to fail: the one list, with reasons.

`docs/conformance.md` shows the same rows. A test that is not listed runs and passes; one that is
listed as failing must fail, so that the list shrinks when we learn something.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Suite(StrEnum):
    """Where a test comes from."""

    CHAT = "langchain-tests: chat"
    COMPLY_CHAT = "llm-comply: openai-chat"
    COMPLY_RESPONSES = "llm-comply: open-responses"


class How(StrEnum):
    """What is done with a test that is listed."""

    NOT_RUN = "not run"
    FAILS = "fails, as it must"


@dataclass(frozen=True, slots=True)
class Exemption:
    """One test that does not simply pass."""

    suite: Suite
    test: str
    how: How
    reason: str


_OTHER_FORMS: Final = "models read text only; the request is refused with 400"
_NO_COMPACTION: Final = "conversations are not compacted; nothing answers there"
_NO_REASONING: Final = "is for models whose names begin as those of OpenAI that reason"
_CLEVER: Final = "needs a model that understands the question"

EXEMPTIONS: Final = (
    Exemption(Suite.CHAT, "test_pdf_inputs", How.NOT_RUN, _OTHER_FORMS),
    Exemption(Suite.CHAT, "test_audio_inputs", How.NOT_RUN, _OTHER_FORMS),
    Exemption(Suite.CHAT, "test_image_inputs", How.NOT_RUN, _OTHER_FORMS),
    Exemption(Suite.CHAT, "test_image_tool_message", How.NOT_RUN, _OTHER_FORMS),
    Exemption(Suite.CHAT, "test_pdf_tool_message", How.NOT_RUN, _OTHER_FORMS),
    Exemption(Suite.CHAT, "test_anthropic_inputs", How.NOT_RUN, "is another API, Anthropic's"),
    Exemption(
        Suite.CHAT,
        "test_stream_time",
        How.NOT_RUN,
        "times the client with recorded answers; no server is asked",
    ),
    Exemption(
        Suite.CHAT,
        "test_json_mode",
        How.FAILS,
        f"JSON mode promises JSON and no keys; {_CLEVER}",
    ),
    Exemption(Suite.CHAT, "test_agent_loop", How.FAILS, f"{_CLEVER}, and that a tool would help"),
    Exemption(Suite.COMPLY_CHAT, "chat-image-input", How.FAILS, _OTHER_FORMS),
    Exemption(Suite.COMPLY_CHAT, "chat-reasoning-summary", How.NOT_RUN, _NO_REASONING),
    Exemption(Suite.COMPLY_RESPONSES, "image-input", How.FAILS, _OTHER_FORMS),
    Exemption(Suite.COMPLY_RESPONSES, "compact-response", How.FAILS, _NO_COMPACTION),
    Exemption(Suite.COMPLY_RESPONSES, "compact-missing-model", How.FAILS, _NO_COMPACTION),
    Exemption(Suite.COMPLY_RESPONSES, "reasoning-summary", How.NOT_RUN, _NO_REASONING),
)


def exemptions(suite: Suite) -> dict[str, Exemption]:
    """Return a suite's exemptions by the names of their tests."""
    return {each.test: each for each in EXEMPTIONS if each.suite is suite}
