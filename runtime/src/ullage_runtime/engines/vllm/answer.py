"""An answer on its way: what vLLM's outputs mean to whoever asked."""

from dataclasses import dataclass
from typing import Any, Final

from ullage_runtime.core.chat.stream import Delta
from ullage_runtime.core.domain import (
    Chunk,
    FinishReason,
    LikelyToken,
    TokenLogprobs,
    Usage,
)
from ullage_runtime.engines.prompting.chats import Course
from ullage_runtime.engines.vllm.speller import Speller

_FINISHES: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "repetition": FinishReason.STOP,
}


@dataclass(slots=True)
class Answer:
    """A generation's state between steps."""

    id: str
    prompt_tokens: int
    logprobs: int | None
    """How many likeliest tokens are told for each; None tells nothing."""
    course: Course
    deadline: float | None
    """On the monotonic clock."""
    echo: str = ""
    """Text of the prompt, that the answer is to begin with."""
    generated: int = 0
    reasoned: int = 0
    """Tokens that are reasoning: the first ones, as it comes before all else."""
    cached: int = 0
    announced: bool = False

    def take(self, output: Any, speller: Speller) -> Chunk | None:
        """Return what a RequestOutput of vLLM makes known, or None when that is nothing."""
        said = output.outputs[0]
        self.generated += len(said.token_ids)
        self.cached = output.num_cached_tokens or 0
        delta = self._told(said.text)
        logprobs = _likelihoods(said, self.logprobs, speller)
        if said.finish_reason is not None:
            return self.end(_FINISHES[said.finish_reason], delta, logprobs)
        if not delta and not logprobs and self.announced:
            return None
        usage = None
        if not self.announced:
            usage = Usage(prompt_tokens=self.prompt_tokens, cached_tokens=self.cached)
        self.announced = True
        return _chunk(delta, usage, None, logprobs)

    def end(
        self,
        finish: FinishReason,
        delta: Delta | None = None,
        logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> Chunk:
        """Return the last chunk, with whatever was held back."""
        delta, stream = delta or self._told(""), self.course.stream
        if stream is not None:
            delta += stream.finish()
            if finish is FinishReason.STOP and stream.calls is not None and stream.calls.count:
                finish = FinishReason.TOOL_CALLS
        usage = Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.generated,
            cached_tokens=self.cached,
            reasoning_tokens=self.reasoned,
        )
        return _chunk(delta, usage, finish, logprobs)

    def _told(self, text: str) -> Delta:
        """Return what a part of the answer's text makes known."""
        stream = self.course.stream
        if stream is None:
            echo, self.echo = self.echo, ""
            return Delta(echo + text)
        thought = stream.thinks
        delta = stream.feed(text)
        if thought or stream.thinks:
            self.reasoned = self.generated
        return delta


def _chunk(
    delta: Delta,
    usage: Usage | None,
    finish: FinishReason | None,
    logprobs: tuple[TokenLogprobs, ...],
) -> Chunk:
    return Chunk(
        text=delta.content,
        reasoning=delta.reasoning,
        calls=delta.calls,
        usage=usage,
        finish=finish,
        logprobs=logprobs,
    )


def _likelihoods(said: Any, wanted: int | None, speller: Speller) -> tuple[TokenLogprobs, ...]:
    """Return how likely a CompletionOutput's tokens were; one that ended it is not told."""
    if wanted is None or not said.logprobs:
        return ()
    rows = list(zip(said.token_ids, said.logprobs, strict=False))
    if said.finish_reason == "stop" and rows and not isinstance(said.stop_reason, str):
        rows.pop()
    return tuple(_told(token, row, wanted, speller) for token, row in rows)


def _told(token: int, row: Any, wanted: int, speller: Speller) -> TokenLogprobs:
    def likely(which: int) -> LikelyToken:
        return LikelyToken(speller.piece(which, special=True), row[which].logprob)

    ranked = sorted(row, key=lambda which: row[which].rank)
    return TokenLogprobs(likely(token), tuple(likely(which) for which in ranked[:wanted]))
