"""Generating: every generation of one model, many in each step of vLLM."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import (
    Chunk,
    EngineStats,
    FinishReason,
    GenerateRequest,
    Sampling,
    Usage,
)
from ullage_runtime.core.errors import (
    EngineFailed,
    InvalidRequest,
    LoadError,
    RequestTimeout,
)
from ullage_runtime.core.scheduling.sequence import AGE_SECONDS
from ullage_runtime.engines.prompting.chats import Course
from ullage_runtime.engines.prompting.prompts import Prompt, Prompts
from ullage_runtime.engines.prompting.telling import Telling
from ullage_runtime.engines.vllm.answer import Answer
from ullage_runtime.engines.vllm.library import Core
from ullage_runtime.engines.vllm.parameters import parameters_of, refused
from ullage_runtime.engines.vllm.speller import Speller
from ullage_runtime.engines.worker.backend import Outcome

_PROBE: Final = "probe"
_BROKEN: Final = ("error", "abort")
"""How vLLM ends what it cannot go on with; nobody hears of what we end."""


def place_of(priority: int, arrival: float) -> int:
    """Return a request's place in vLLM's line, in milliseconds: age makes up for a low priority.

    vLLM itself lets a lower priority wait for as long as there are others.
    """
    return round(1000 * (arrival - AGE_SECONDS * priority))


class Generating:
    """What the model has been asked; owned by one thread, but for `prepare`."""

    def __init__(self, core: Core, speller: Speller, prompts: Prompts) -> None:
        self._core = core
        self._speller = speller
        self._prompts = prompts
        self._answers: dict[str, Answer] = {}
        self._outcomes: list[Outcome] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._answers or self._outcomes)

    @property
    def stats(self) -> EngineStats:
        """What it does, as of its last step; any thread may ask."""
        return self._core.stats

    def try_out(self) -> None:
        """Compute one token, so that what computing takes is known; raises LoadError.

        vLLM samples a token from any numbers, also from those that are none.
        """
        sampling = Sampling(temperature=0, max_tokens=1, logprobs=1)
        prompt = Prompt(self._speller.tokenized("a"), Course())
        parameters = parameters_of(sampling, prompt, 1, marked=False)
        self._core.add(self._core.checked(_PROBE, prompt.tokens, parameters))
        while self._core.busy:
            for output in self._core.step():
                rows = output.outputs[0].logprobs or ()
                found = [each.logprob for row in rows for each in row.values()]
                if not all(map(math.isfinite, found)):
                    raise LoadError(
                        Reason.LOAD_FAILED,
                        "the model loaded but cannot generate: what it computes is not finite",
                        final=True,
                    )

    def prepare(self, request: GenerateRequest, arrival: float) -> "Ready":
        """Return a request that is ready for vLLM; raises ServingError.

        Templates and tokenizing take time, so this is for another thread than the engine's: it
        touches nothing that changes.
        """
        sampling = request.sampling
        if request.adapter and not self._core.has_adapter(request.adapter):
            raise InvalidRequest(f"the model has no adapter {request.adapter!r}", param="model")
        if request.echo and sampling.logprobs is not None:
            raise InvalidRequest(
                "this model is served by vLLM, which tells the log probabilities of answers only; "
                "leave out echo or logprobs",
                param="echo",
            )
        # A schema is vLLM's to follow, which knows more of them than grammars can say.
        prompt = self._prompts.prompt(
            replace(request, sampling=replace(sampling, json_schema=None))
        )
        room = self._speller.context_length - len(prompt.tokens)
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        stream, timeout = prompt.course.stream, request.timeout_seconds
        parameters = parameters_of(
            sampling, prompt, max(1, limit), marked=stream is not None and bool(prompt.marks)
        )
        try:
            question = self._core.checked(
                request.request_id,
                prompt.tokens,
                parameters,
                adapter=request.adapter,
                tenant=request.tenant,
                place=place_of(request.priority, arrival),
            )
        except ValueError as error:
            raise refused(error, sampling) from error
        answer = Answer(
            id=request.request_id,
            prompt_tokens=len(prompt.tokens),
            logprobs=sampling.logprobs,
            telling=Telling(prompt.course, self._prompts.text(request) if request.echo else ""),
            deadline=None if timeout is None else arrival + timeout,
        )
        return Ready(self, answer, None if limit < 1 else question)

    def submit(self, answer: Answer, question: Any) -> None:
        """Hand a prepared request to vLLM; without one the answer is over at once."""
        if question is None:
            self._outcomes.append((answer.id, answer.end(FinishReason.LENGTH)))
            return
        self._core.add(question)
        self._answers[answer.id] = answer

    def cancel(self, request_id: str) -> None:
        """End a generation; the next step says that it was cancelled."""
        answer = self._answers.pop(request_id, None)
        if answer is None:
            return
        self._core.abort(request_id)
        chunk = Chunk(usage=Usage(), finish=FinishReason.CANCELLED)
        self._outcomes.append(
            (request_id, answer.end(FinishReason.CANCELLED) if answer.announced else chunk)
        )

    def step(self) -> list[Outcome]:
        """Advance every running generation by one token, and some prompts by some."""
        self._expire(time.monotonic())
        outcomes, self._outcomes = self._outcomes, []
        if not self._core.busy:
            return outcomes
        for output in self._core.step():
            answer = self._answers.get(output.request_id)
            if answer is None:  # it was ended meanwhile
                continue
            if output.finished:
                del self._answers[output.request_id]
            if output.outputs[0].finish_reason in _BROKEN:
                error = EngineFailed("vLLM could not go on with the request", retry_after=1)
                outcomes.append((output.request_id, error))
            elif (chunk := answer.take(output, self._speller)) is not None:
                outcomes.append((output.request_id, chunk))
        return outcomes

    def _expire(self, now: float) -> None:
        for request_id, answer in list(self._answers.items()):
            if answer.deadline is not None and now >= answer.deadline:
                self._core.abort(request_id)
                del self._answers[request_id]
                error = RequestTimeout("the request took longer than its time allows")
                self._outcomes.append((request_id, error))


@dataclass(frozen=True, slots=True)
class Ready:
    """A request on its way to the engine's thread."""

    generating: Generating
    answer: Answer
    question: Any
    """The request as vLLM takes it; None when no token is wanted."""

    def submit(self) -> None:
        """Hand it to the engine."""
        self.generating.submit(self.answer, self.question)

    def close(self) -> None:
        """Do nothing: it holds nothing but its tokens."""
