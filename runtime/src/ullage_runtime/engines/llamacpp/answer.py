"""An answer inside the engine: its place in the scheduler, its sampler, what it said so far."""

from dataclasses import dataclass, field, replace

from ullage_runtime.core.chat.stream import Delta
from ullage_runtime.core.domain import Chunk, FinishReason, LikelyToken, TokenLogprobs, Usage
from ullage_runtime.core.scheduling.sequence import Sequence
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.sampling import Sampled, Sampler
from ullage_runtime.engines.llamacpp.text import TextStream
from ullage_runtime.engines.prompting.telling import Telling, chunk_of


@dataclass(slots=True)
class Answer:
    """A generation's state between steps."""

    sequence: Sequence
    sampler: Sampler
    text: TextStream
    tells_logprobs: bool = False
    stop_tokens: frozenset[int] = frozenset()
    generated: int = 0
    announced: bool = False
    held: tuple[TokenLogprobs, ...] = ()
    """Of tokens whose text is held back."""
    scored: int = 0
    """Tokens of the prompt that are told already, when its log probabilities are wanted too."""
    telling: Telling = field(default_factory=Telling)
    marks: frozenset[int] = frozenset()
    """Control tokens whose text is needed to tell reasoning and calls apart."""
    _forced: list[int] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """Tokens taken so far; a token that ends the generation counts, as it was computed."""
        return Usage(
            prompt_tokens=self.sequence.prompt_length,
            completion_tokens=self.generated,
            cached_tokens=self.sequence.cached,
            reasoning_tokens=self.telling.reasoned,
        )

    def steered(self, sampled: Sampled, model: Model) -> Sampled:
        """Return the token that is to be taken: the sampled one, nearly always.

        A model that would end while it thinks, and owes an answer of a certain form, is led out of
        its thoughts instead.
        """
        stream = self.telling.course.stream
        if stream is not None and stream.thinks and self.telling.course.waits_for_reasoning:
            if not self._forced and model.is_end(sampled.token):
                self._forced = list(self.telling.course.reasoning_end)
            if self._forced:
                return replace(sampled, token=self._forced.pop(0))
        return sampled

    def take(self, sampled: Sampled, model: Model) -> Chunk | None:
        """Account for a sampled token; return what it makes known, or None when that is nothing."""
        token = sampled.token
        ends = token in self.stop_tokens or model.is_end(token)
        self.generated += 1
        if self.tells_logprobs and not ends:
            self.held += (told(sampled, model),)
        piece = b"" if ends else model.piece(token, special=token in self.marks)
        delta = self.telling.told(self.text.feed(piece), self.generated)
        if ends or self.text.stopped:
            return self.end(FinishReason.STOP, delta)
        if self.sequence.prompt_length + self.generated >= self.sequence.limit:
            return self.end(FinishReason.LENGTH, delta)
        if self.sampler.waits:
            self._constrain()
        if not delta and self.announced:
            return None
        usage = None
        if not self.announced:
            usage = Usage(
                prompt_tokens=self.sequence.prompt_length, cached_tokens=self.sequence.cached
            )
        self.announced = True
        return self._chunk(delta, usage)

    def begin_scores(self, begin: int, model: Model) -> None:
        """Tell the log probabilities of the prompt too, from a token of it on."""
        self.scored = max(begin, 1)
        if begin == 0:
            first = LikelyToken(model.piece(self.sequence.tokens[0], special=True), 0.0)
            self.held = (TokenLogprobs(first, is_first=True),)

    def score(self, position: int, sampled: Sampled, model: Model) -> None:
        """Take note of how likely a token of the prompt was; what is told already is not again."""
        if position == self.scored:
            self.held += (told(sampled, model),)
            self.scored += 1

    def close(self) -> None:
        """Give back what the library holds for it; idempotent."""
        self.sampler.close()

    def end(self, reason: FinishReason, last: Delta | None = None) -> Chunk:
        """Return the last chunk, with whatever was held back."""
        delta = last or Delta()
        if not self.text.stopped:
            delta += self.telling.told(self.text.finish(), self.generated)
        if self.text.stopped and reason is FinishReason.LENGTH:
            reason = FinishReason.STOP
        further, reason = self.telling.finished(reason)
        return self._chunk(delta + further, self.usage, reason)

    def _chunk(
        self, delta: Delta, usage: Usage | None, finish: FinishReason | None = None
    ) -> Chunk:
        return chunk_of(delta, usage, finish, self._released())

    def _constrain(self) -> None:
        """Let a grammar apply that has waited for the reasoning's end, or for a call."""
        stream, held = self.telling.course.stream, self.text.held
        if stream is None or stream.thinks or held is None:
            return
        calls = stream.calls
        text: str | None = stream.content
        if self.telling.course.waits_for_call and calls is not None:
            text = calls.call_text
        if text is None:
            return
        applies = self.sampler.constrain(text + held)
        if calls is not None:
            calls.trusted = applies

    def _released(self) -> tuple[TokenLogprobs, ...]:
        held, self.held = self.held, ()
        return held


def told(sampled: Sampled, model: Model) -> TokenLogprobs:
    """Return a sampled token's likelihood, with tokens as bytes."""
    return TokenLogprobs(
        LikelyToken(model.piece(sampled.token, special=True), sampled.logprob),
        tuple(LikelyToken(model.piece(t, special=True), lp) for t, lp in sampled.likeliest),
    )
