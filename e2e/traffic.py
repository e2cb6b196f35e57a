"""Traffic that notices: streamed requests whose failures, stalls and mixed answers are kept.

An open loop starts each request when its time has come, whatever the answers do; a closed loop
waits for a slow server and so hides its stalls. Beside it, or alone, a number of clients may be
kept busy: load against which the open loop's requests are timed. Marks divide the run into windows,
and each window tells what its clients saw.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import httpx

from e2e.background import Background
from e2e.windows import Outcome, Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["Outcome", "Traffic", "Window"]

REQUEST_SECONDS = 120.0
CONNECT_SECONDS = 10.0
"""A connection that takes longer has lost its way; waiting on would only hide that."""
TIMEOUT = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
END_SECONDS = REQUEST_SECONDS + 10
PAUSE_SECONDS = 0.1
"""How long a busy client rests after a failure, so that a refusing server is not flooded."""


@dataclass(slots=True)
class Traffic(Background):
    """Streams chat requests to one model from a thread of its own, between enter and exit.

    Used with `with`, or with `async with` where the server runs in the test's own event loop:
    there, `wait_for` belongs into `asyncio.to_thread`.

    Args:
        base_url: OpenAI-compatible address, `/v1` included.
        model: model that is asked.
        per_second: requests started each second; 0 for none but those of busy clients.
        streams: clients that are always busy: each asks again as soon as it is answered.
        prompts: asked in turn.
        max_tokens: longest answer, in tokens.
        api_key: sent with every request, if given.
    """

    what = "the requests"
    end_seconds = END_SECONDS
    base_url: str
    model: str
    per_second: float = 5.0
    streams: int = 0
    prompts: Sequence[str] = ("What is Ullage?",)
    max_tokens: int = 48
    api_key: str = ""
    _outcomes: list[Outcome] = field(default_factory=list)
    _marks: dict[str, float] = field(default_factory=dict)

    def _begin(self) -> None:
        self._marks["start"] = time.monotonic()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def mark(self, label: str) -> None:
        """Begin a new window."""
        self._marks[label] = time.monotonic()

    def wait_for(self, count: int, *, timeout: float = 60.0) -> None:
        """Wait until `count` more requests have ended, or raise TimeoutError."""
        target = self._ended() + count
        deadline = time.monotonic() + timeout
        while self._ended() < target:
            self._check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._ended()} of {target} requests ended in {timeout:.0f} s")
            time.sleep(0.05)

    def window(self, since: str = "start", until: str | None = None) -> Window:
        """Return what clients saw between two marks; without `until`, up to now."""
        last = self._marks[until] if until else time.monotonic()
        return Window.of(tuple(self._outcomes), self._marks[since], last)

    def _ended(self) -> int:
        return sum(o.ended is not None for o in self._outcomes)

    # In the thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        async with (
            httpx.AsyncClient(
                timeout=TIMEOUT, limits=limits, headers=headers, trust_env=False
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self.streams):
                group.create_task(self._stay_busy(client, number))
            if self.per_second:
                await self._start_in_time(client, group)

    async def _start_in_time(self, client: httpx.AsyncClient, group: asyncio.TaskGroup) -> None:
        begun = time.monotonic()
        for number in itertools.count():
            wait = begun + number / self.per_second - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if self._stop.is_set():
                return
            group.create_task(self._ask(client, number, is_timed=True))

    async def _stay_busy(self, client: httpx.AsyncClient, first: int) -> None:
        for number in itertools.count(first):
            if self._stop.is_set():
                return
            outcome = await self._ask(client, number, is_timed=not self.per_second)
            if outcome.failed:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, number: int, *, is_timed: bool) -> Outcome:
        outcome = Outcome(started=time.monotonic(), is_timed=is_timed)
        self._outcomes.append(outcome)
        prompt = self.prompts[number % len(self.prompts)]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "stream": True,
        }
        try:
            async with client.stream(
                "POST", f"{self.base_url}/chat/completions", json=body
            ) as response:
                if response.status_code != httpx.codes.OK:
                    text = (await response.aread()).decode(errors="replace")
                    outcome.error = f"{response.status_code}: {text[:300]}"
                else:
                    await self._read(response, outcome)
        except httpx.HTTPError as error:
            outcome.error = repr(error)
        outcome.ended = time.monotonic()
        return outcome

    async def _read(self, response: httpx.Response, outcome: Outcome) -> None:
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                outcome.error = json.dumps(event["error"])
                return
            for choice in event["choices"]:
                if choice["delta"].get("content"):
                    outcome.texts.append(choice["delta"]["content"])
                    outcome.times.append(time.monotonic())
                outcome.finish = choice.get("finish_reason") or outcome.finish
