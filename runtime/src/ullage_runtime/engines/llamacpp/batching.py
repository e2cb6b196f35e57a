"""Batching: the scheduler on a real context, and what its steps mean to the requests."""

import time

from ullage_runtime.core.domain import (
    Chunk,
    EngineStats,
    FinishReason,
    GenerateRequest,
    Usage,
)
from ullage_runtime.core.errors import (
    EngineFailed,
    InvalidRequest,
    RequestTimeout,
    ServingError,
)
from ullage_runtime.core.scheduling.scheduler import Scheduler
from ullage_runtime.core.scheduling.sequence import Sequence
from ullage_runtime.core.scheduling.steps import Ready, Scored
from ullage_runtime.engines.llamacpp import saved
from ullage_runtime.engines.llamacpp.answer import Answer
from ullage_runtime.engines.llamacpp.candidates import Candidates
from ullage_runtime.engines.llamacpp.context import LlamaContext
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.sampling import Sampler
from ullage_runtime.engines.llamacpp.text import TextStream
from ullage_runtime.engines.prompting.prompts import Prompts
from ullage_runtime.engines.prompting.telling import Telling
from ullage_runtime.engines.worker.backend import Outcome

MAX_WAITING = 1024


class Batching:
    """Every generation of one model, many in each step; owned by one thread."""

    def __init__(self, model: Model, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts
        self._context = LlamaContext(model)
        self._candidates = Candidates(model.vocabulary_size)
        self._scheduler = Scheduler(self._context, parallel=model.parallel, max_waiting=MAX_WAITING)
        self._answers: dict[str, Answer] = {}
        self._outcomes: list[Outcome] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.busy or bool(self._outcomes)

    @property
    def stats(self) -> EngineStats:
        """What it does right now."""
        scheduler, counters = self._scheduler, self._scheduler.counters
        cells, available = scheduler.memory.cells, scheduler.memory.available
        return EngineStats(
            resident_bytes=0,
            requests_running=scheduler.running,
            requests_waiting=scheduler.waiting,
            kv_cells=cells.total,
            kv_cells_used=cells.used,
            kv_cells_running=cells.total - available,
            batch_width=counters.width if scheduler.running else 0,
            batch_width_max=counters.widest,
            steps=counters.steps,
            steps_by_width=tuple(counters.by_width),
            step_widths=counters.widths,
            preemptions=counters.preemptions,
            prompt_tokens=counters.prompt_tokens,
            generated_tokens=counters.generated_tokens,
            prefix_tokens=counters.prefix_tokens,
        )

    def prepare(self, request: GenerateRequest, arrival: float) -> Answer:
        """Return a request's answer, about to begin; raises ServingError.

        Rendering, tokenizing and reading grammars take time, so this is for another thread than
        the engine's, or for several: it touches nothing that changes.
        """
        if request.adapter and request.adapter not in self._model.adapters:
            raise InvalidRequest(f"the model has no adapter {request.adapter!r}", param="model")
        prompt = self._prompts.prompt(request)
        tokens, course, sampling = prompt.tokens, prompt.course, request.sampling
        room = self._model.context_length - len(tokens)
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        timeout = request.timeout_seconds
        sequence = Sequence(
            id=request.request_id,
            tokens=tokens,
            limit=len(tokens) + limit,
            tenant=request.tenant,
            adapter=request.adapter,
            priority=request.priority,
            arrival=arrival,
            deadline=None if timeout is None else arrival + timeout,
            scores_prompt=request.echo and sampling.logprobs is not None,
        )
        answer = Answer(
            sequence=sequence,
            sampler=Sampler(sampling, self._model, tokens, course.gbnf, waits=course.waits),
            telling=Telling(course, self._prompts.text(request) if request.echo else ""),
            marks=prompt.marks,
            text=TextStream(sampling.stop),
            tells_logprobs=sampling.logprobs is not None,
            stop_tokens=frozenset(sampling.stop_tokens),
        )
        if sequence.scores_prompt:
            answer.begin_scores(self._prompts.added(request, tokens), self._model)
        return answer

    def submit(self, answer: Answer) -> None:
        """Take a prepared answer; what is wrong with it comes out of the next step."""
        sequence = answer.sequence
        if sequence.limit <= sequence.prompt_length and not sequence.scores_prompt:
            answer.close()
            self._outcomes.append((sequence.id, answer.end(FinishReason.LENGTH)))
            return
        try:
            self._scheduler.submit(sequence)
        except ServingError as error:
            answer.close()
            self._outcomes.append((sequence.id, error))
            return
        self._answers[sequence.id] = answer

    def cancel(self, request_id: str) -> None:
        """End a generation; the next step says that it was cancelled."""
        answer = self._answers.get(request_id)
        if answer is not None:
            begun = answer.generated > 0 or answer.sequence.computed > 0
            chunk = Chunk(usage=Usage(), finish=FinishReason.CANCELLED)
            self._outcomes.append(
                (request_id, answer.end(FinishReason.CANCELLED) if begun else chunk)
            )
            self._finish(answer)

    def step(self) -> list[Outcome]:
        """Advance every running generation by one token, and some prompts by some."""
        outcomes, self._outcomes = self._outcomes, []
        if not self._scheduler.busy:
            return outcomes
        began = time.monotonic()
        step = self._scheduler.step(began)
        self._scheduler.observe(step, time.monotonic() - began)
        for sequence in step.expired:
            error = RequestTimeout("the request took longer than its time allows")
            outcomes.append(self._failed(sequence, error))
        for sequence in step.failed:
            failure = EngineFailed("llama.cpp could not compute the batch", retry_after=1)
            outcomes.append(self._failed(sequence, failure))
        for scored in step.scored:
            self._score(scored)
        for ready in step.ready:
            outcome = self._sampled(ready)
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def save_prefixes(self, path: str, limit: int) -> int:
        """Write cached prefixes to a file, at most so many bytes; return how many; OSError."""
        return saved.save(self._scheduler.memory, path, limit)

    def restore_prefixes(self, path: str) -> int:
        """Take back what was written, and return how many prefixes; OSError or ValueError."""
        return saved.restore(self._scheduler.memory, path)

    def close(self) -> None:
        """Give everything back that is not the model's; idempotent."""
        for answer in self._answers.values():
            answer.close()
        self._answers.clear()
        self._candidates.close()
        self._context.close()

    def _score(self, scored: Scored) -> None:
        """Tell how likely the tokens of a prompt were that follow those just computed."""
        sequence = scored.sequence
        answer = self._answers[sequence.id]
        for index in range(scored.count):
            position = scored.position + index + 1
            if answer.scored <= position < sequence.prompt_length:
                token = sequence.tokens[position]
                row = scored.row + index
                found = answer.sampler.likelihood(self._model.context, row, token, self._candidates)
                answer.score(position, found, self._model)

    def _sampled(self, ready: Ready) -> Outcome | None:
        sequence = ready.sequence
        answer = self._answers[sequence.id]
        if sequence.limit <= sequence.prompt_length:
            self._finish(answer)
            return sequence.id, answer.end(FinishReason.LENGTH)
        try:
            sampled = answer.sampler.sample(self._model.context, ready.row, self._candidates)
        except ServingError as error:
            self._finish(answer)
            return sequence.id, error
        sampled = answer.steered(sampled, self._model)
        chunk = answer.take(sampled, self._model)
        if chunk is not None and chunk.finish is not None:
            self._finish(answer)
        else:
            self._scheduler.append(sequence, sampled.token)
        return None if chunk is None else (sequence.id, chunk)

    def _failed(self, sequence: Sequence, error: ServingError) -> Outcome:
        self._finish(self._answers[sequence.id])
        return sequence.id, error

    def _finish(self, answer: Answer) -> None:
        self._scheduler.finish(answer.sequence)
        answer.close()
        del self._answers[answer.sequence.id]
