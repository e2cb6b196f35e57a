"""The objects of OpenAI's answers, field by field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ullage_runtime.core.domain import CallDelta, Chunk, TokenLogprobs, Usage
from ullage_runtime.http.openai.answers import usage_object
from ullage_runtime.http.openai.fields import ServedTier
from ullage_runtime.http.openai.generation import Step
from ullage_runtime.http.openai.logprobs import TextLogprobs, chat_logprobs

Cite = Callable[[str], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ChatShape:
    """`chat.completion` and its chunks."""

    id: str
    created: int
    model: str
    tier: ServedTier
    tells_logprobs: bool = False
    cite: Cite | None = None
    """Returns the citations of what is said, where something was searched."""
    _said: dict[int, str] = field(default_factory=dict)

    def _head(self, kind: str, revision: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": self.tier,
            "system_fingerprint": revision,
        }

    def whole(self, choices: list[Chunk], revision: str, usage: Usage) -> dict[str, Any]:
        """Return the `chat.completion`."""
        return {
            **self._head("chat.completion", revision),
            "choices": [
                {
                    "index": index,
                    "message": self._message(index, choice),
                    "logprobs": chat_logprobs(choice.logprobs) if self.tells_logprobs else None,
                    "finish_reason": choice.finish,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_object(usage),
        }

    def _message(self, index: int, choice: Chunk) -> dict[str, Any]:
        calls = [
            {
                "id": self._call_id(index, call),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.calls
        ]
        return {
            "role": "assistant",
            "content": choice.text or (None if calls else ""),
            "refusal": None,
            "annotations": self.cite(choice.text) if self.cite and choice.text else [],
            **(_reasoning(choice.reasoning) if choice.reasoning else {}),
            **({"tool_calls": calls} if calls else {}),
        }

    def _call_delta(self, index: int, call: CallDelta) -> dict[str, Any]:
        function = {"arguments": call.arguments}
        if call.name is None:
            return {"index": call.index, "function": function}
        return {
            "index": call.index,
            "id": self._call_id(index, call),
            "type": "function",
            "function": {"name": call.name, **function},
        }

    def _call_id(self, index: int, call: CallDelta) -> str:
        """Return a call's id, which no other call of any answer has."""
        return f"call_{self.id}{index:02x}{call.index:02x}"

    def opening(self, step: Step) -> list[dict[str, Any]]:
        """Return the chunk that says who speaks."""
        return [self._chunk(step, {"role": "assistant", "content": ""}, None)]

    def step(self, step: Step) -> dict[str, Any]:
        """Return the chunk of a step."""
        chunk = step.chunk
        delta: dict[str, Any] = {"content": chunk.text} if chunk.text else {}
        if chunk.reasoning:
            delta |= _reasoning(chunk.reasoning)
        if chunk.calls:
            delta["tool_calls"] = [self._call_delta(step.index, call) for call in chunk.calls]
        if self.cite is not None and (cited := self._cited(step, self.cite)):
            delta["annotations"] = cited
        return self._chunk(step, delta, step.chunk.finish, step.chunk.logprobs)

    def _cited(self, step: Step, cite: Cite) -> list[dict[str, Any]]:
        """Return what a choice cites, with its last chunk: a mark may be cut in two before."""
        said = self._said[step.index] = self._said.get(step.index, "") + step.chunk.text
        return cite(said) if step.chunk.finish is not None else []

    def usage(self, revision: str, usage: Usage) -> dict[str, Any]:
        """Return the chunk without choices that carries the usage."""
        return {
            **self._head("chat.completion.chunk", revision),
            "choices": [],
            "usage": usage_object(usage),
        }

    def _chunk(
        self,
        step: Step,
        delta: dict[str, Any],
        finish: str | None,
        told: Sequence[TokenLogprobs] = (),
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(told) if told else None
        return {
            **self._head("chat.completion.chunk", step.revision),
            "choices": [
                {"index": step.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            ],
        }


def _reasoning(text: str) -> dict[str, str]:
    """Return what was thought, under both names that clients look for."""
    return {"reasoning_content": text, "reasoning": text}


@dataclass(frozen=True, slots=True)
class CompletionShape:
    """`text_completion`, whole or in parts."""

    id: str
    created: int
    model: str
    tier: ServedTier
    tells_logprobs: bool = False
    _told: dict[int, TextLogprobs] = field(default_factory=dict)

    def _head(self, revision: str) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self.id}",
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "service_tier": self.tier,
            "system_fingerprint": revision,
        }

    def whole(self, choices: list[Chunk], revision: str, usage: Usage) -> dict[str, Any]:
        """Return the whole `text_completion`."""
        return {
            **self._head(revision),
            "choices": [
                self._choice(index, choice.text, choice.finish, choice.logprobs)
                for index, choice in enumerate(choices)
            ],
            "usage": usage_object(usage),
        }

    def opening(self, step: Step) -> list[dict[str, Any]]:
        """Return nothing: completions begin with their text."""
        del step
        return []

    def step(self, step: Step) -> dict[str, Any]:
        """Return the part of a step."""
        return {
            **self._head(step.revision),
            "choices": [
                self._choice(
                    step.index, step.chunk.text, step.chunk.finish, step.chunk.logprobs or None
                )
            ],
        }

    def usage(self, revision: str, usage: Usage) -> dict[str, Any]:
        """Return the part without choices that carries the usage."""
        return {**self._head(revision), "choices": [], "usage": usage_object(usage)}

    def _choice(
        self, index: int, text: str, finish: str | None, told: Sequence[TokenLogprobs] | None
    ) -> dict[str, Any]:
        logprobs = None
        if self.tells_logprobs and told is not None:
            logprobs = self._told.setdefault(index, TextLogprobs()).told(told)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
