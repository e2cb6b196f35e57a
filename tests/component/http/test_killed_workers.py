"""A worker is killed at any step under fifty streams; who has seen no text does not notice."""

import asyncio
import json
import os
import pathlib
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.guide_runtime import guide, ledger, reported
from tests.support.workers import SLACK
from ullage_runtime.app import Runtime
from ullage_runtime.models.pool import ModelPool

CHAT = "/v1/chat/completions"
STREAMS = 50
WHOLE = 10
"""Further requests, whose answers are not streamed."""


@dataclass
class Outcome:
    """What a client saw of one stream."""

    status: int = 0
    parts: int = 0
    errors: list[str] = field(default_factory=list)
    done: bool = False
    finish: str | None = None
    after_error: int = 0

    @property
    def kind(self) -> str:
        if self.status != 200:
            return "refused"
        if self.errors:
            return "broken off"
        return "complete" if self.done and self.finish else "cut"


class Killer:
    """Kills the model's worker once so many parts of answers have been seen."""

    def __init__(self, runtime: Runtime, after: int) -> None:
        assert isinstance(runtime.models, ModelPool)
        live = runtime.models._served["guide"]._generations.active
        assert live is not None
        self._pid = live.engine.pid
        self._left = after

    def saw_part(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(self._pid, signal.SIGKILL)


def asked(number: int, limit: int) -> dict[str, Any]:
    content = f"Tell me a long story about tank {number}"
    return {
        "model": "guide",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": limit,
        "temperature": 0,
    }


async def streamed(client: httpx.AsyncClient, number: int, limit: int, killer: Killer) -> Outcome:
    outcome = Outcome()
    question = {**asked(number, limit), "stream": True}
    async with client.stream("POST", CHAT, json=question) as answer:
        outcome.status = answer.status_code
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                note(outcome, line.removeprefix("data: "), killer)
    return outcome


def note(outcome: Outcome, data: str, killer: Killer) -> None:
    """Take note of one event."""
    if outcome.errors:
        outcome.after_error += 1
    if data == "[DONE]":
        outcome.done = True
        return
    event = json.loads(data)
    if "error" in event:
        outcome.errors.append(event["error"]["code"])
        return
    choice = event["choices"][0]
    outcome.finish = choice["finish_reason"] or outcome.finish
    if choice["delta"].get("content"):
        outcome.parts += 1
        killer.saw_part()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_worker_killed_at_any_step_under_fifty_streams(
    tmp_path: pathlib.Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same step every time
    async with guide(tmp_path) as (runtime, client):
        before = ledger(runtime)
        killer = Killer(runtime, after=chance.randint(1, 600))
        limits = [chance.randint(20, 120) for _ in range(STREAMS)]
        whole = [
            asyncio.create_task(client.post(CHAT, json={**asked(n, 40), "n": 2}))
            for n in range(WHOLE)
        ]
        outcomes = await asyncio.gather(
            *(streamed(client, n, limit, killer) for n, limit in enumerate(limits))
        )
        # Who has seen text is told once that there is no more of it; everybody else is answered.
        kinds = Counter(outcome.kind for outcome in outcomes)
        assert set(kinds) == {"broken off", "complete"}, kinds
        for outcome in outcomes:
            if outcome.kind == "broken off":
                assert outcome.errors == ["engine_failed"]
                assert outcome.parts > 0
                assert outcome.after_error == 0
        for answer in await asyncio.gather(*whole):
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["choices"]) == 2
            assert answer.json()["usage"]["completion_tokens"] <= 80
        # Everything is as it was: leases, the ledger, and the replacement's cells.
        after = reported(runtime)
        assert after.restarts == 1
        assert after.requests_running == after.requests_waiting == 0
        assert ledger(runtime) == pytest.approx(before, abs=SLACK)
        assert isinstance(runtime.models, ModelPool)
        live = runtime.models._served["guide"]._generations.active
        assert live is not None
        assert live.generation.leases == 0
        stats = await live.engine.stats()
        assert stats.requests_running == stats.requests_waiting == stats.kv_cells_running == 0
        answer = await client.post(
            CHAT,
            json={
                "model": "guide",
                "messages": [{"role": "user", "content": "What is Ullage?"}],
                "max_tokens": 24,
                "temperature": 0,
            },
        )
        assert answer.status_code == 200
        said = answer.json()["choices"][0]["message"]["content"]
        assert said.startswith("Ullage is a self-service platform")
