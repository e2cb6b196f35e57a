"""The scheduler: admits, batches, preempts and resumes sequences on one context.

Each step it takes in whom it has cells for, computes one token for everybody who generates and some
of the prompts that are new, and names those whose next token can be sampled. Of a burst of short
prompts, those that have their first token let some steps pass for those that have not. A sequence
is admitted on credit: its prompt and a little more, not the longest answer it may give. When the
cells run out nevertheless, cached prefixes go first, then the chunk of prompt tokens is halved,
then the lowest and youngest sequence leaves its cells to the others and goes on, exactly, later:
before all who have not begun, but for those of a higher priority. Sequences of different adapters
take turns, since a step computes with one.

The best-ranked running sequence is never preempted, and a sequence alone always fits; so somebody
always ends, and everybody in turn.
"""

import math
from collections.abc import Iterator
from typing import Final

from ullage_runtime.core.scheduling.fairness import Service
from ullage_runtime.core.scheduling.memory import NOTHING, Found, Memory
from ullage_runtime.core.scheduling.pace import PrefillPace
from ullage_runtime.core.scheduling.port import Context, Decoded, Run
from ullage_runtime.core.scheduling.portions import Portions
from ullage_runtime.core.scheduling.prefixes import Match
from ullage_runtime.core.scheduling.sequence import Phase, Sequence
from ullage_runtime.core.scheduling.steps import Counters, Ready, Scored, Step
from ullage_runtime.core.scheduling.turns import Turns
from ullage_runtime.core.scheduling.waiting import MAX_PASSED, WaitingLine

WATERMARK: Final = 24
"""Cells for tokens to come that a sequence must find free when it is admitted or resumed.

More of them mean fewer preemptions and fewer sequences in a step: with cells for a quarter of the
demand, 64 took a seventh more steps than 24. Of a small context it is a quarter of a sequence's
even share, so that all may run.
"""

SAVED_SHARE: Final = 4
"""Preempted sequences keep copies of one in so many of the context's cells at most.

Nobody reserved the host memory that they take; beyond it a sequence is computed anew.
"""

WORTH_WAITING: Final = 32
"""Prompt tokens that make it worth waiting for somebody who computes them right now."""

HELD_STEPS: Final = 16
"""Steps that a sequence lets pass at most after its first token, for its burst to have theirs.

A burst of 32 short prompts takes so many on two CPUs. Without a pause, those of it that had begun
to generate took a row in six, and the last first token came so much later.
"""


class Scheduler:
    """Sequences on one context; the caller owns the time, the sampling and the thread."""

    def __init__(
        self,
        context: Context,
        *,
        parallel: int,
        max_waiting: int = 1024,
        pace: PrefillPace | None = None,
    ) -> None:
        self._context = context
        self._parallel = max(1, min(parallel, context.slots, context.batch))
        self._watermark = min(WATERMARK, max(1, context.cells // (4 * self._parallel)))
        self._service = Service()
        self._waiting = WaitingLine(max_waiting, self._service)
        self._running: dict[str, Sequence] = {}
        self._preempted: dict[str, Sequence] = {}
        self._turns = Turns()
        self._number = 0
        self.memory = Memory(context, self._parallel)
        self.pace = pace or PrefillPace(context.batch)
        self.counters = Counters()

    @property
    def running(self) -> int:
        """Sequences that have begun and are not over, preempted ones included."""
        return len(self._running) + len(self._preempted)

    @property
    def waiting(self) -> int:
        """Sequences that have not begun."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._running or self._preempted or len(self._waiting))

    # What callers do -----------------------------------------------------------------------------

    def submit(self, sequence: Sequence) -> None:
        """Take a sequence; raises Overloaded."""
        self._number += 1
        sequence.number = self._number
        self._waiting.add(sequence)
        active = self._tenants()
        self._service.arrive(sequence.tenant, active)
        self._service.forget_idle(active)

    def append(self, sequence: Sequence, token: int) -> None:
        """Add a sampled token, which the next step computes."""
        sequence.tokens.append(token)

    def finish(self, sequence: Sequence) -> None:
        """End a sequence, wherever it is; what it computed is kept for prompts that begin alike."""
        match sequence.phase:
            case Phase.WAITING:
                self._waiting.remove(sequence)
            case Phase.PREEMPTED:
                del self._preempted[sequence.id]
            case Phase.RUNNING:
                del self._running[sequence.id]
                computed = sequence.tokens[: sequence.computed]
                self.memory.keep(sequence.salt, sequence.slot, computed)
            case Phase.OVER:
                return
        sequence.phase, sequence.saved = Phase.OVER, None

    def step(self, now: float) -> Step:
        """Advance everybody by one step."""
        expired = self._expire(now)
        if not self._has_claims_before_preempted(now):
            self._resume(now)
            if not self._preempted:
                self._admit(now)
        return self._computed(now, expired)

    def observe(self, step: Step, seconds: float) -> None:
        """Take note of how long a step took; what the next ones take follows from it."""
        if step.prefilled or step.decoded:
            self.pace.observe(step.prefilled, step.decoded, seconds)
            self._turns.charge(seconds)

    # Who runs ------------------------------------------------------------------------------------

    def _expire(self, now: float) -> tuple[Sequence, ...]:
        late = [s for s in self._everybody() if s.deadline is not None and s.deadline <= now]
        for sequence in late:
            self.finish(sequence)
        return tuple(late)

    def _has_claims_before_preempted(self, now: float) -> bool:
        """Begin those who wait and rank before all who were preempted; tell whether any is left."""
        if not self._preempted:
            return False
        best = max(s.effective_priority(now) for s in self._preempted.values())
        self._admit(now, above=best)
        return any(s.effective_priority(now) > best for s in self._waiting)

    def _resume(self, now: float) -> None:
        """Let preempted sequences go on, best first; none passes another."""
        for sequence in sorted(self._preempted.values(), key=lambda s: s.rank(now)):
            if not self._has_slot() or not self._fits(len(sequence.tokens), sequence):
                return
            del self._preempted[sequence.id]
            if not self._restored(sequence):
                self._begin(sequence, self.memory.find(sequence.salt, sequence.tokens).now)

    def _restored(self, sequence: Sequence) -> bool:
        saved, sequence.saved = sequence.saved, None
        if saved is None:
            return False
        prompt = sequence.tokens[: sequence.prompt_length]
        slot = self.memory.restore(sequence.salt, prompt, saved, sequence.saved_length)
        if slot is None:
            return False
        sequence.slot, sequence.computed = slot, sequence.saved_length
        self._run(sequence)
        return True

    def _admit(self, now: float, *, above: float = -math.inf) -> None:
        """Begin sequences while there are slots and credit; small ones may pass a giant.

        `above` leaves out those whose priority, with age, is not higher.
        """
        blocked: list[Sequence] = []
        deferred: set[str] = set()
        while self._has_slot():
            skipped = {s.id for s in blocked} | deferred
            line = (s for s in self._waiting.ordered(now) if s.id not in skipped)
            sequence = next(line, None)
            if sequence is None or sequence.effective_priority(now) <= above:
                return
            found = self._found(sequence)
            if found.soon - found.now.length >= WORTH_WAITING:
                deferred.add(sequence.id)
                continue
            shared = found.now.length if self.memory.is_busy(found.now.slot) else 0
            if not self._fits(len(sequence.tokens) - shared, sequence):
                if sequence.passed >= MAX_PASSED:
                    return
                blocked.append(sequence)
                continue
            self._waiting.remove(sequence)
            self._begin(sequence, found.now)
            sequence.cached = found.now.length
            self.counters.prefix_tokens += sequence.cached
            self._service.count(sequence.tenant, sequence.pending)
            for passed in blocked:
                passed.passed += 1

    def _found(self, sequence: Sequence) -> Found:
        if sequence.scores_prompt:
            return Found()
        return self.memory.find(sequence.salt, sequence.tokens)

    def _begin(self, sequence: Sequence, prefix: Match = NOTHING) -> None:
        prompt = sequence.tokens[: sequence.prompt_length]
        sequence.slot = self.memory.take(sequence.salt, prompt, prefix)
        sequence.computed = prefix.length
        self._run(sequence)

    def _run(self, sequence: Sequence) -> None:
        sequence.phase, sequence.since = Phase.RUNNING, self.counters.steps
        self._running[sequence.id] = sequence

    def _has_slot(self) -> bool:
        return len(self._running) < self._parallel

    def _fits(self, cells: int, sequence: Sequence) -> bool:
        """Tell whether there is credit for cells and a watermark, or nobody to wait for."""
        if not self._running:
            return True
        promised = sum(s.pending + self._expected(s) for s in self._running.values())
        return cells + self._expected(sequence) <= self.memory.available - promised

    def _expected(self, sequence: Sequence) -> int:
        """Return the cells that a sequence may need soon beyond those of its known tokens."""
        return max(0, min(self._watermark, sequence.limit - len(sequence.tokens)))

    # What is computed ----------------------------------------------------------------------------

    def _computed(self, now: float, expired: tuple[Sequence, ...]) -> Step:
        chunk: int | None = None
        while work := self._work(now, chunk):
            prefill = sum(count for s, count in work if not s.is_decoding)
            decoded = self._decoded(work)
            if decoded is Decoded.DONE:
                return self._accounted(work, prefill, expired)
            if decoded is Decoded.FAILED:
                return Step(expired=expired, failed=self._collapse())
            if self.memory.drop_idle():
                continue
            if prefill > 1:
                chunk = prefill // 2
            elif not self._preempt(now):
                return Step(expired=expired, failed=self._collapse())
        return Step(expired=expired)

    def _work(self, now: float, chunk: int | None) -> list[tuple[Sequence, int]]:
        """Return who computes how many tokens: a token for each that generates, then prompts."""
        running = sorted(self._running.values(), key=lambda s: s.rank(now))
        ranked = self._having_their_turn(running)
        prompts = [s for s in ranked if not s.is_decoding]
        quick_prompts = [s for s in prompts if self._is_quick(s)]
        held = self._held(ranked, quick_prompts)
        decoding = [(s, 1) for s in ranked if s.is_decoding and s.id not in held]
        if not prompts:
            return decoding
        # Whoever generates waits for this step, whether it is among those who compute in it or not.
        generating = sum(s.is_decoding for s in running) - len(held)
        quick = sum(s.pending for s in quick_prompts)
        if decoding and not quick and self.pace.is_due_alone:
            return decoding
        allowed = self.pace.allowed(generating, len(prompts), quick) if chunk is None else chunk
        room = self._context.batch - len(decoding)
        return decoding + self._portions(prompts, min(allowed, room))

    def _held(self, ranked: list[Sequence], quick: list[Sequence]) -> set[str]:
        """Return who lets this step pass: those with one token, for quick prompts of their burst.

        These had begun when it came. Those that are scored are waited for by nobody: they take only
        a few tokens in each step.
        """
        burst = (s.since for s in quick if not s.generated and not s.is_scoring)
        earliest = max(min(burst, default=math.inf), self.counters.steps - HELD_STEPS)
        fresh = (s for s in ranked if s.generated == 1 and s.is_decoding)
        return {s.id for s in fresh if s.since >= earliest}

    def _is_quick(self, sequence: Sequence) -> bool:
        return self.pace.is_quick(sequence.prompt_length - sequence.cached)

    @staticmethod
    def _portions(prompts: list[Sequence], tokens: int) -> list[tuple[Sequence, int]]:
        """Hand tokens out to prompts, which are in order of rank.

        Short ones go first, so that they do not wait for long ones; the one that is first in rank
        gets a quarter before them.
        """
        portions = Portions(tokens)
        if prompts:
            portions.give(prompts[0], max(1, tokens // 4))
        for sequence in sorted(prompts, key=lambda s: s.pending):
            portions.give(sequence, sequence.pending)
        return [(s, count) for s in prompts if (count := portions.given[s.id]) > 0]

    def _having_their_turn(self, ranked: list[Sequence]) -> list[Sequence]:
        """Return those of one adapter: a step computes with one."""
        widths: dict[str, int] = {}
        for sequence in ranked:
            widths[sequence.adapter] = widths.get(sequence.adapter, 0) + 1
        if not widths:
            return ranked
        adapter = self._turns.choose(widths)
        return ranked if len(widths) == 1 else [s for s in ranked if s.adapter == adapter]

    def _decoded(self, work: list[tuple[Sequence, int]]) -> Decoded:
        if sum(count for _, count in work) > self.memory.cells.free:
            return Decoded.NO_ROOM
        return self._context.decode(
            [
                Run(
                    slot=s.slot,
                    position=s.computed,
                    tokens=s.tokens[s.computed : s.computed + count],
                    wants_logits=count == s.pending,
                    wants_all=s.is_scoring,
                    adapter=s.adapter,
                )
                for s, count in work
            ]
        )

    def _accounted(
        self, work: list[tuple[Sequence, int]], prefill: int, expired: tuple[Sequence, ...]
    ) -> Step:
        ready: list[Ready] = []
        scored: list[Scored] = []
        row = 0
        for sequence, count in work:
            decoding = sequence.is_decoding
            if sequence.is_scoring:
                scored.append(Scored(sequence, sequence.computed, count, row))
            self.memory.cells.grow(sequence.slot, count)
            sequence.computed += count
            row += count
            if not sequence.pending:
                ready.append(Ready(sequence, row - 1))
                if not sequence.generated:
                    sequence.since = self.counters.steps
            if decoding:
                self._service.count(sequence.tenant, 1)
        counters, decoded = self.counters, sum(count for _, count in work) - prefill
        counters.count(len(work))
        counters.prompt_tokens += prefill
        counters.generated_tokens += len(ready)
        return Step(tuple(ready), expired, prefilled=prefill, decoded=decoded, scored=tuple(scored))

    def _preempt(self, now: float) -> bool:
        """Let the last in rank leave its cells to the others; False when it is alone."""
        if len(self._running) <= 1:
            return False
        victim = max(self._running.values(), key=lambda s: s.rank(now))
        kept = sum(s.saved_length for s in self._preempted.values() if s.saved is not None)
        if victim.computed and SAVED_SHARE * (kept + victim.computed) <= self._context.cells:
            victim.saved = self._context.save(victim.slot)
            victim.saved_length = victim.computed
        self.memory.release(victim.slot)
        victim.slot, victim.computed, victim.phase = -1, 0, Phase.PREEMPTED
        victim.preemptions += 1
        self.counters.preemptions += 1
        del self._running[victim.id]
        self._preempted[victim.id] = victim
        return True

    def _collapse(self) -> tuple[Sequence, ...]:
        """End everybody who runs: the context cannot be trusted any more."""
        failed = tuple(self._running.values())
        self._running.clear()
        for sequence in failed:
            sequence.phase = Phase.OVER
        self.memory.clear()
        return failed

    def _everybody(self) -> Iterator[Sequence]:
        yield from self._running.values()
        yield from self._preempted.values()
        yield from self._waiting

    def _tenants(self) -> set[str]:
        return {s.tenant for s in self._everybody()}
