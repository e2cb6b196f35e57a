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
from ullage_runtime.engines.prompting.telling import Telling, chunk_of
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
    telling: Telling
    deadline: float | None
    """On the monotonic clock."""
    generated: int = 0
    cached: int = 0
    announced: bool = False

    def take(self, output: Any, speller: Speller) -> Chunk | None:
        """Return what a RequestOutput of vLLM makes known, or None when that is nothing."""
        said = output.outputs[0]
        self.generated += len(said.token_ids)
        self.cached = output.num_cached_tokens or 0
        delta = self.telling.told(said.text, self.generated)
        logprobs = _likelihoods(said, self.logprobs, speller)
        if said.finish_reason is not None:
            return self.end(_FINISHES[said.finish_reason], delta, logprobs)
        if not delta and not logprobs and self.announced:
            return None
        usage = None
        if not self.announced:
            usage = Usage(prompt_tokens=self.prompt_tokens, cached_tokens=self.cached)
        self.announced = True
        return chunk_of(delta, usage, None, logprobs)

    def end(
        self,
        finish: FinishReason,
        delta: Delta | None = None,
        logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> Chunk:
        """Return the last chunk, with whatever was held back."""
        delta = delta or self.telling.told("", self.generated)
        further, finish = self.telling.finished(finish)
        usage = Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.generated,
            cached_tokens=self.cached,
            reasoning_tokens=self.telling.reasoned,
        )
        return chunk_of(delta + further, usage, finish, logprobs)


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
