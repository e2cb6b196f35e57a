"""Packing: which texts of which requests are computed together.

A batch has a budget of tokens. Tenants take turns by what they were served, and a tenant's requests
take turns among themselves, so that one text of a query does not wait for two thousand of a bulk
load. A request's short texts go first, so that what is computed together is of like length.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ullage_runtime.core.errors import Overloaded
from ullage_runtime.core.pooled import Output
from ullage_runtime.core.scheduling.fairness import Service


@dataclass(slots=True, eq=False)
class Job:
    """One request's texts, as tokens; those that are not computed yet are in `left`."""

    id: str
    texts: list[Sequence[int]]
    tenant: str = ""
    deadline: float | None = None
    outputs: tuple[Output, ...] = (Output.DENSE,)
    """What is wanted of each."""
    left: list[int] = field(init=False)
    """Places of the texts to come, the next one last."""
    turns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        places = range(len(self.texts))
        self.left = sorted(places, key=lambda place: len(self.texts[place]), reverse=True)

    @property
    def tokens_left(self) -> int:
        """Tokens that are still to be computed."""
        return sum(len(self.texts[place]) for place in self.left)

    @property
    def next_length(self) -> int:
        """Tokens of its next text."""
        return len(self.texts[self.left[-1]])


@dataclass(frozen=True, slots=True)
class Place:
    """One text of a batch."""

    job: Job
    index: int

    @property
    def tokens(self) -> Sequence[int]:
        """The text."""
        return self.job.texts[self.index]


class Packer:
    """The requests that wait or are under way, bounded by their tokens."""

    def __init__(self, *, budget: int, width: int, max_tokens: int) -> None:
        """`budget` is in tokens and `width` in texts a batch; `max_tokens` may wait in all."""
        self._budget = budget
        self._width = width
        self._max_tokens = max_tokens
        self._jobs: dict[str, Job] = {}
        self._waiting_tokens = 0
        self._service = Service()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Take a request; raises Overloaded when too much waits already."""
        tokens = job.tokens_left
        if self._jobs and self._waiting_tokens + tokens > self._max_tokens:
            raise Overloaded(
                f"{self._waiting_tokens} tokens already wait in the engine, and {tokens} more "
                f"exceed its limit of {self._max_tokens}",
                retry_after=1,
            )
        self._service.arrive(job.tenant, {other.tenant for other in self._jobs.values()})
        # A newcomer's turn comes after those that wait already, not before all of theirs.
        job.turns = min((other.turns for other in self._jobs.values()), default=0)
        self._jobs[job.id] = job
        self._waiting_tokens += tokens

    def remove(self, job_id: str) -> Job | None:
        """Take a request out, if it is there."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._waiting_tokens -= job.tokens_left
            self._service.forget_idle({other.tenant for other in self._jobs.values()})
        return job

    def expire(self, now: float) -> list[Job]:
        """Take out and return the requests whose time is over."""
        late = [j for j in self._jobs.values() if j.deadline is not None and now >= j.deadline]
        for job in late:
            self.remove(job.id)
        return late

    def next_batch(self) -> list[Place]:
        """Return the texts to compute next, the shortest first; nothing when nothing is left.

        The first may exceed the budget: it would never be computed otherwise.
        """
        batch: list[Place] = []
        room = self._budget
        while len(batch) < self._width:
            job = self._next(room if batch else None)
            if job is None:
                break
            place = Place(job, job.left.pop())
            length = len(place.tokens)
            job.turns += 1
            room -= length
            self._waiting_tokens -= length
            self._service.count(job.tenant, length)
            batch.append(place)
        return sorted(batch, key=lambda place: len(place.tokens))

    def _next(self, room: int | None) -> Job | None:
        fitting = (job for job in self._jobs.values() if job.left and _fits(job, room))
        return min(fitting, key=lambda j: (self._service.of(j.tenant), j.turns), default=None)


def _fits(job: Job, room: int | None) -> bool:
    return room is None or job.next_length <= room


def by_job(batch: Iterable[Place]) -> Iterator[tuple[Job, list[Place]]]:
    """Yield the requests of a batch, each with its texts."""
    found: dict[str, list[Place]] = {}
    for place in batch:
        found.setdefault(place.job.id, []).append(place)
    for places in found.values():
        yield places[0].job, places
