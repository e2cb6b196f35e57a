"""How one model chats: what its template gets, and what its answers are made of."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ullage_runtime.core.chat.calls import CallParser
from ullage_runtime.core.chat.formats import format_of
from ullage_runtime.core.chat.reasoning import Splitter, markers_of, opens
from ullage_runtime.core.chat.stream import ChatStream
from ullage_runtime.core.chat.wording import described, in_words
from ullage_runtime.core.domain import GenerateRequest, Message, ToolCall
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.prompting.grammar import grammar_of
from ullage_runtime.engines.prompting.toolgrammar import calls_grammar

EFFORT: Final = "reasoning_effort"
_THINKING: Final = "enable_thinking"
_NO_EFFORT: Final = ("none", "minimal")
_SHORT_ID: Final = re.compile(r"length\s*[!=]=\s*9\b")
_SHORT_ID_LENGTH: Final = 9


@dataclass(frozen=True, slots=True)
class Course:
    """How an answer is to go: what tells its text apart, and what it has to follow from when."""

    stream: ChatStream | None = None
    gbnf: str | None = None
    waits_for_reasoning: bool = False
    waits_for_call: bool = False
    reasoning_end: tuple[int, ...] = ()
    """Tokens of the marker that ends the reasoning."""
    reasoning_marker: str = ""
    """That marker."""
    call_marker: str = ""
    """What precedes calls, or nothing where an answer that begins like one may be a call."""

    @property
    def waits(self) -> bool:
        """Whether the grammar does not apply from the first token on."""
        return self.waits_for_reasoning or self.waits_for_call


class ChatStyle:
    """What a model's chat template, and its vocabulary, say of how it chats."""

    def __init__(self, template: str, tokens_of: Callable[[str], list[int]]) -> None:
        def is_token(text: str) -> bool:
            return len(tokens_of(text)) == 1

        self._template = template
        self._format = format_of(template)
        self._markers = markers_of(template, is_token)
        self._wants_short_ids = bool(_SHORT_ID.search(template))
        marks = [self._format.tools.begin, self._format.tools.end]
        if self._markers is not None:
            marks += [self._markers.begin, self._markers.end]
        self.marks = frozenset(tokens_of(mark)[0] for mark in marks if mark and is_token(mark))
        """Tokens whose text is needed although they may be control tokens, which have none."""
        self._reasoning_end = tuple(tokens_of(self._markers.end)) if self._markers else ()

    def variables(self, request: GenerateRequest) -> dict[str, Any]:
        """Return what the template gets; raises InvalidRequest for options it does not read."""
        messages = request.messages or ()
        tools = None
        if self._format.is_native:
            if request.tools is not None:
                tools = [described(tool) for tool in request.tools.offered]
        else:
            messages = tuple(in_words(messages, request.tools))
        return {
            **self._options(request.template_options),
            "messages": [self._turn(message) for message in messages],
            "tools": tools,
            "add_generation_prompt": True,
        }

    def course(self, request: GenerateRequest, prompt: str) -> Course:
        """Return how the answer to a rendered prompt is to go; raises InvalidRequest."""
        markers, tools, form = self._markers, request.tools, self._format.tools
        opened = markers is not None and opens(prompt, markers)
        splitter = None if markers is None else Splitter(markers, opened=opened)
        if tools is None:
            stream = None if splitter is None else ChatStream(splitter, None)
            return Course(
                stream,
                grammar_of(request.sampling),
                waits_for_reasoning=opened,
                reasoning_end=self._reasoning_end,
                reasoning_marker="" if markers is None else markers.end,
            )
        forced = tools.required or tools.only is not None
        names = [tool.name for tool in tools.callable]
        return Course(
            ChatStream(splitter, CallParser(form, names, trusted=forced and not opened)),
            calls_grammar(tools, form, after_marker=not forced),
            waits_for_reasoning=opened and forced,
            waits_for_call=not forced,
            reasoning_end=self._reasoning_end,
            reasoning_marker="" if markers is None else markers.end,
            call_marker="" if form.is_bare else form.begin,
        )

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        if EFFORT in options and not self._reads(EFFORT) and self._reads(_THINKING):
            effort = options.pop(EFFORT)
            options.setdefault(_THINKING, effort not in _NO_EFFORT)
        for name in options:
            if not self._reads(name):
                raise InvalidRequest(
                    f"the model's chat template does not read {name!r}; leave it out",
                    param=name if name == EFFORT else "chat_template_kwargs",
                )
        return options

    def _reads(self, name: str) -> bool:
        return re.search(rf"\b{re.escape(name)}\b", self._template) is not None

    def _turn(self, message: Message) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
        if message.calls:
            turn["tool_calls"] = [self._call(call) for call in message.calls]
        if message.call_id:
            turn["tool_call_id"] = self._id(message.call_id)
        if message.name:
            turn["name"] = message.name
        return turn

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function = {"name": call.name, "arguments": json.loads(call.arguments)}
        return {"id": self._id(call.id), "type": "function", "function": function}

    def _id(self, text: str) -> str:
        """Return a call's id as the template wants it: Mistral's have nine characters."""
        if not self._wants_short_ids or (len(text) == _SHORT_ID_LENGTH and text.isalnum()):
            return text
        return hashlib.sha256(text.encode()).hexdigest()[:_SHORT_ID_LENGTH]
