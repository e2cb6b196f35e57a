"""A context of plain Python, whose next token depends on every token before it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ullage_runtime.core.scheduling.port import Decoded, Run
from ullage_runtime.core.scheduling.scheduler import Scheduler
from ullage_runtime.core.scheduling.sequence import Phase
from ullage_runtime.core.scheduling.sequence import Sequence as Generation
from ullage_runtime.core.scheduling.steps import Step


@dataclass(slots=True, eq=False)
class Cell:
    position: int
    token: int
    adapter: str
    """With what it was computed."""
    slots: set[int] = field(default_factory=set)


class FakeContext:
    """Checks what llama.cpp would only garble.

    Positions without gaps, cells that are there, and one adapter for a whole call and for all that
    a slot holds.
    """

    def __init__(
        self,
        cells: int = 256,
        *,
        slots: int = 24,
        batch: int = 64,
        shares_prefixes: bool = True,
        saves: bool = True,
    ) -> None:
        self.cells, self.slots, self.batch = cells, slots, batch
        self.shares_prefixes = shares_prefixes
        self._saves = saves
        self._cells: list[Cell] = []
        self.decoded: list[list[Run]] = []
        self.broken = False
        self.fragmented = 0
        """Cells that cannot be used although they are free."""

    @property
    def used(self) -> int:
        return len(self._cells)

    def held(self, slot: int) -> list[int]:
        held = sorted((c for c in self._cells if slot in c.slots), key=lambda c: c.position)
        assert [c.position for c in held] == list(range(len(held))), "positions without gaps"
        return [c.token for c in held]

    def adapters(self, slot: int) -> set[str]:
        return {c.adapter for c in self._cells if slot in c.slots}

    def decode(self, runs: Sequence[Run]) -> Decoded:
        assert runs
        assert sum(len(run.tokens) for run in runs) <= self.batch
        assert len({run.slot for run in runs}) == len(runs)
        assert len({run.adapter for run in runs}) == 1, "a call computes with one adapter"
        if self.broken:
            return Decoded.FAILED
        if sum(len(run.tokens) for run in runs) > self.cells - self.used - self.fragmented:
            return Decoded.NO_ROOM
        for run in runs:
            assert run.tokens
            assert len(self.held(run.slot)) == run.position
            assert self.adapters(run.slot) <= {run.adapter}
            for index, token in enumerate(run.tokens):
                self._cells.append(Cell(run.position + index, token, run.adapter, {run.slot}))
        self.decoded.append(list(runs))
        return Decoded.DONE

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.held(target)
        assert len(self.held(source)) >= length
        for cell in self._cells:
            if source in cell.slots and cell.position < length:
                cell.slots.add(target)

    def remove(self, slot: int) -> None:
        for cell in self._cells:
            cell.slots.discard(slot)
        self._cells = [cell for cell in self._cells if cell.slots]

    def saved_size(self, slot: int) -> int:
        return len(self.save(slot) or b"")

    def save(self, slot: int) -> bytes | None:
        saved = [self.held(slot), *self.adapters(slot)]
        return json.dumps(saved).encode() if self._saves else None

    def restore(self, slot: int, saved: bytes) -> bool:
        tokens, adapter = json.loads(saved)
        assert not self.held(slot)
        if len(tokens) > self.cells - self.used - self.fragmented:
            return False
        self._cells += [Cell(at, token, adapter, {slot}) for at, token in enumerate(tokens)]
        return True

    def clear(self) -> None:
        self._cells.clear()
        self.broken = False


def next_token(tokens: Sequence[int], adapter: str = "") -> int:
    """Return what the fake model says next: it depends on every token before, and the adapter."""
    value = 7 + sum(adapter.encode())
    for token in tokens:
        value = (value * 31 + token) % 1_000_003
    return value % 50


def written_alone(prompt: Sequence[int], count: int, adapter: str = "") -> list[int]:
    """Return what a prompt gives when nobody else is there."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, adapter))
    return tokens[len(prompt) :]


class Bench:
    """A scheduler with its fake context, run as the engine runs it."""

    def __init__(
        self, context: FakeContext | None = None, *, parallel: int = 4, max_waiting: int = 1024
    ) -> None:
        self.context = context or FakeContext()
        self.scheduler = Scheduler(self.context, parallel=parallel, max_waiting=max_waiting)
        self.now = 0.0
        self.ended: list[str] = []
        self._ids = 0

    def submit(self, prompt: Sequence[int], answer: int = 5, **fields: object) -> Generation:
        self._ids += 1
        sequence = Generation(
            id=str(self._ids),
            tokens=list(prompt),
            limit=len(prompt) + answer,
            arrival=self.now,
            **fields,  # type: ignore[arg-type]
        )
        self.scheduler.submit(sequence)
        return sequence

    def step(self, seconds: float = 0.01) -> Step:
        step = self.scheduler.step(self.now)
        self.now += seconds
        self.scheduler.observe(step, seconds)
        for ready in step.ready:
            sequence = ready.sequence
            assert self.context.held(sequence.slot) == sequence.tokens
            self.scheduler.append(sequence, next_token(sequence.tokens, sequence.adapter))
            if len(sequence.tokens) >= sequence.limit:
                self.scheduler.finish(sequence)
        self.ended += [r.sequence.id for r in step.ready if r.sequence.phase is Phase.OVER]
        self.check()
        return step

    def run(self, steps: int = 3000, until: Callable[[], bool] | None = None) -> None:
        """Step until nothing is left to do, or until something is so."""
        for _ in range(steps):
            if not self.scheduler.busy or (until is not None and until()):
                return
            self.step()
        raise AssertionError(f"not over after {steps} steps")

    def forget(self) -> None:
        """Drop all cached prefixes."""
        while self.scheduler.memory.drop_idle():
            self.check()

    def check(self) -> None:
        """Compare the account of the cells with the cells."""
        assert self.scheduler.memory.cells.used == self.context.used


def answer(sequence: Generation) -> list[int]:
    """Return what a sequence generated."""
    return sequence.tokens[sequence.prompt_length :]
