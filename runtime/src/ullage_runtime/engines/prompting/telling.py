"""Telling: what an answer's text makes known as it comes, whatever computes it."""

from dataclasses import dataclass, field

from ullage_runtime.core.chat.stream import Delta
from ullage_runtime.core.domain import Chunk, FinishReason, TokenLogprobs, Usage
from ullage_runtime.engines.prompting.chats import Course


@dataclass(slots=True)
class Telling:
    """How far an answer's text has been told apart."""

    course: Course = field(default_factory=Course)
    echo: str = ""
    """Text of the prompt, that the answer is to begin with."""
    reasoned: int = 0
    """Tokens that are reasoning: the first ones, as it comes before all else."""

    def told(self, text: str, generated: int) -> Delta:
        """Return what a part of the text makes known, after so many tokens."""
        stream = self.course.stream
        if stream is None:
            echo, self.echo = self.echo, ""
            return Delta(echo + text)
        thought = stream.thinks
        delta = stream.feed(text)
        if thought or stream.thinks:
            self.reasoned = generated
        return delta

    def finished(self, finish: FinishReason) -> tuple[Delta, FinishReason]:
        """Return what was held back, and why the answer ended: calls are a reason of their own."""
        stream = self.course.stream
        if stream is None:
            return Delta(), finish
        delta = stream.finish()
        if finish is FinishReason.STOP and stream.calls is not None and stream.calls.count:
            finish = FinishReason.TOOL_CALLS
        return delta, finish


def chunk_of(
    delta: Delta,
    usage: Usage | None,
    finish: FinishReason | None,
    logprobs: tuple[TokenLogprobs, ...],
) -> Chunk:
    """Return the chunk that tells of a part of an answer."""
    return Chunk(
        text=delta.content,
        reasoning=delta.reasoning,
        calls=delta.calls,
        usage=usage,
        finish=finish,
        logprobs=logprobs,
    )
