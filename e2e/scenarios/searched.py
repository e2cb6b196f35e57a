"""Searches and writes of a collection while its model changes, and what each model would answer.

Both models have vectors of the same length, so a question embedded by one and looked for among the
other's vectors is an answer like any other: only its scores tell. They are computed here from what
each model makes of the same texts, and an answer has to be wholly one model's.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from e2e.background import Background
from e2e.windows import quantile_of
from tests.support.encoder_models import WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Answer", "Expected", "Searches", "Writes", "text_of"]

PROBES = 16
"""Points that are searched for and never written again."""
LIMIT = 5
TOLERANCE = 0.004
"""How far a score may be from the one computed here: it is of the store's own arithmetic."""
TELLING = 0.03
"""How far apart the scores of two models are, at least once in each answer."""
SEARCH_SECONDS = 30.0
WRITE_SECONDS = 60.0
END_SECONDS = 90.0
WRITES_PER_SECOND = 4.0
FIRST_WRITTEN = 1_000_000
"""Ids from here on belong to the writes."""

Scores = dict[int, float]


def text_of(number: int) -> str:
    """Return a text of many words, the same each time, and no two alike."""
    chance = random.Random(number)  # noqa: S311 - no secret
    words = [chance.choice(WORDS) for _ in range(chance.randint(3, 12))]
    return " ".join((*words, str(number)))


@dataclass(frozen=True, slots=True)
class Expected:
    """What each model finds for each probe, among the probes."""

    scores: Mapping[str, Sequence[Scores]]
    """By model, for each probe: the score of every probe."""

    @classmethod
    def of(cls, url: str, models: Sequence[str]) -> Self:
        """Return what models answer, by the vectors that they make of the probes' texts."""
        scores = {}
        for model in models:
            body = {"model": model, "input": [text_of(n) for n in range(PROBES)]}
            answer = httpx.post(f"{url}/embeddings", json=body, timeout=60).raise_for_status()
            vectors = [_unit(each["embedding"]) for each in answer.json()["data"]]
            scores[model] = [
                {n: _dot(one, other) for n, other in enumerate(vectors)} for one in vectors
            ]
        expected = cls(scores)
        expected.check()
        return expected

    def check(self) -> None:
        """Raise AssertionError unless the answers of two models can be told apart."""
        for model, number in itertools.product(self.scores, range(PROBES)):
            found = self.scores[model][number]
            best = dict(sorted(found.items(), key=lambda item: -item[1])[:LIMIT])
            said = [name for name in self.scores if self._fits(name, number, best, TELLING)]
            assert said == [model], f"probe {number}: {said} would answer alike"

    def model_of(self, number: int, found: Scores) -> str | None:
        """Return the model whose answer it wholly is; None when it is neither's."""
        fitting = [name for name in self.scores if self._fits(name, number, found, TOLERANCE)]
        return fitting[0] if len(fitting) == 1 else None

    def _fits(self, model: str, number: int, found: Scores, tolerance: float) -> bool:
        scores = self.scores[model][number]
        return len(found) == LIMIT and all(
            abs(score - scores[each]) <= tolerance for each, score in found.items()
        )


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector]


@dataclass(slots=True)
class Answer:
    """What one search came to; times are seconds on the monotonic clock."""

    number: int
    started: float
    ended: float = math.inf
    model: str | None = None
    """Whose answer it is."""
    error: str | None = None


@dataclass(slots=True)
class Searches(Background):
    """Searches for the probes from a thread of its own, each begun when its time has come."""

    what = "the searches"
    end_seconds = END_SECONDS
    url: str
    collection: str
    expected: Expected
    per_second: float = 10.0
    answers: list[Answer] = field(default_factory=list)

    def wait_for(self, count: int, model: str, *, timeout: float = 60.0) -> Answer:
        """Wait until so many searches that begin from now on were a model's; return the first."""
        now = time.monotonic()
        deadline = now + timeout
        while True:
            self._check()
            after = [each for each in self.answers if each.started >= now and each.model == model]
            if len(after) >= count:
                return min(after, key=lambda each: each.ended)
            assert time.monotonic() < deadline, f"{len(after)} of {count} answers are {model}'s"
            time.sleep(0.02)

    def first(self, model: str, since: float) -> Answer:
        """Return the first answer of a model that was given after a moment."""
        found = [each for each in list(self.answers) if each.model == model and each.ended >= since]
        return min(found, key=lambda each: each.ended)

    def require(self) -> None:
        """Raise AssertionError unless each search was answered, wholly by one model."""
        wrong = [
            f"search {each.number}: {each.error or 'an answer of neither model'}"
            for each in self.answers
            if each.model is None and each.ended < math.inf
        ]
        assert not wrong, f"{len(wrong)} of {len(self.answers)}: " + "; ".join(wrong[:5])

    def require_order(self, since: float, model: str, until: float = math.inf) -> None:
        """Raise AssertionError if, once a model has answered, a later search is another's."""
        first = self.first(model, since)
        later = [each for each in self.answers if first.ended <= each.started < until]
        others = [each.number for each in later if each.model not in {model, None}]
        assert not others, f"{model} had answered, and then another one did: {others}"

    def summary(self, since: float, until: float) -> dict[str, int]:
        """Return the numbers of the searches that began within a stretch."""
        took = sorted(
            each.ended - each.started
            for each in list(self.answers)
            if since <= each.started < until and each.ended < math.inf
        )
        if not took:
            return {"searches": 0}
        shares = {f"p{q}_ms": quantile_of(took, q / 100) for q in (50, 95)}
        milliseconds = {**shares, "longest_ms": took[-1]}
        return {"searches": len(took), **{k: round(1000 * v) for k, v in milliseconds.items()}}

    def _work(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(timeout=SEARCH_SECONDS, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            begun = time.monotonic()
            for number in itertools.count():
                wait = begun + number / self.per_second - time.monotonic()
                await asyncio.sleep(max(0.0, wait))
                if self._stop.is_set():
                    return
                group.create_task(self._ask(client, number))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        answer = Answer(number, time.monotonic())
        self.answers.append(answer)
        probe = number % PROBES
        body = {
            "query": text_of(probe),
            "mode": "Dense",
            "limit": LIMIT,
            "filter": {"must": [{"has_id": list(range(PROBES))}]},
        }
        try:
            response = await client.post(
                f"{self.url}/collections/{self.collection}/search", json=body
            )
            if response.status_code != httpx.codes.OK:
                answer.error = f"{response.status_code}: {response.text[:300]}"
            else:
                found = {hit["id"]: hit["score"] for hit in response.json()["results"]}
                answer.model = self.expected.model_of(probe, found)
                answer.error = None if answer.model else f"neither model finds {found}"
        except httpx.HTTPError as error:
            answer.error = repr(error)
        answer.ended = time.monotonic()


@dataclass(slots=True)
class Writes(Background):
    """Writes, changes and deletes points and documents from a thread of its own."""

    what = "the writes"
    end_seconds = END_SECONDS
    url: str
    collection: str
    points: dict[int, int] = field(default_factory=dict)
    """The turn in which each was last written."""
    documents: set[str] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    turn: int = 0
    longest: float = 0.0

    def _work(self) -> None:
        with httpx.Client(base_url=self._path, timeout=WRITE_SECONDS, trust_env=False) as http:
            while not self._stop.wait(1 / WRITES_PER_SECOND):
                began = time.monotonic()
                self._write(http, self.turn)
                self.longest = max(self.longest, time.monotonic() - began)
                self.turn += 1

    @property
    def _path(self) -> str:
        return f"{self.url}/collections/{self.collection}"

    def _write(self, http: httpx.Client, turn: int) -> None:
        number = FIRST_WRITTEN + turn
        match turn % 4:
            case 0:
                self._put(http, number, turn)
            case 1:
                self._put(http, number - 1, turn)
            case 2:
                name = f"written-{turn}"
                documents = [{"id": name, "text": text_of(number)}]
                http.post("/documents", json={"documents": documents}).raise_for_status()
                self.documents.add(name)
            case _ if turn >= 7 and turn % 8 == 7:
                older = number - 7
                http.post("/points/delete", json={"ids": [older]}).raise_for_status()
                self.gone.add(older)
                self.points.pop(older)
            case _:
                self._put(http, number, turn)

    def _put(self, http: httpx.Client, number: int, turn: int) -> None:
        point = {"id": number, "text": text_of(number), "payload": {"turn": turn}}
        wait = {"wait": turn % 8 < 4}
        http.put("/points", params=wait, json={"points": [point]}).raise_for_status()
        self.points[number] = turn

    def require(self) -> None:
        """Raise AssertionError unless all that was written is there, and found by its meaning."""
        deadline = time.monotonic() + WRITE_SECONDS
        with httpx.Client(base_url=self._path, timeout=WRITE_SECONDS, trust_env=False) as http:
            while problem := self._problem(http):
                assert time.monotonic() < deadline, problem
                time.sleep(0.2)
            for number in list(self.points)[-5:]:
                body = {"query": text_of(number), "mode": "Dense", "limit": 1}
                (hit,) = http.post("/search", json=body).raise_for_status().json()["results"]
                assert (hit["id"], round(hit["score"], 2)) == (number, 1.0), hit

    def _problem(self, http: httpx.Client) -> str:
        """Return what of the writes is not there; what is only accepted soon will be."""
        ids = {"ids": [*self.points, *self.gone]}
        found = http.post("/points/retrieve", json=ids).raise_for_status().json()["points"]
        there = {each["id"]: each["payload"]["turn"] for each in found}
        if there != self.points:
            return f"points differ: {dict(there.items() ^ self.points.items())}"
        match = {"key": "document", "match": {"any": sorted(self.documents)}}
        body: dict[str, Any] = {"limit": 1000, "filter": {"must": [match]}}
        found = http.post("/points/scroll", json=body).raise_for_status().json()["points"]
        missing = self.documents - {each["payload"]["document"] for each in found}
        return f"documents are missing: {missing}" if missing else ""
