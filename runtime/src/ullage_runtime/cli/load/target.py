"""The server under load: one streamed request, timed as its parts arrive."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

import httpx

from ullage_runtime.cli.load.outcome import Outcome
from ullage_runtime.cli.load.workload import Ask

CANNOT_CONNECT: Final = "cannot connect"
LEFT: Final = "left"
"""What comes of a request whose client left early, as it was told to."""


class Endpoint(StrEnum):
    """Which of OpenAI's endpoints is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"


@dataclass(slots=True)
class _Reading:
    """What has been read of one stream."""

    token_times: list[float] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    is_finished: bool = False
    failure: str | None = None

    def take(self, text: str, now: float) -> None:
        """Take one event's data."""
        if text == "[DONE]":
            return
        data = json.loads(text)
        if "error" in data:
            self.failure = f"stream: {_code(data) or 'error'}"
            return
        self.usage = data.get("usage") or self.usage
        for choice in data.get("choices", ()):
            if _text(choice):
                self.token_times.append(now)
            self.is_finished |= choice.get("finish_reason") is not None


class Target:
    """A server of OpenAI's API and the model that is asked there."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        endpoint: Endpoint = Endpoint.CHAT,
        api_key: str | None = None,
        temperature: float | None = None,
        seconds: float = 600.0,
    ) -> None:
        base = url.rstrip("/").removesuffix("/v1")
        path = "chat/completions" if endpoint is Endpoint.CHAT else "completions"
        self._url = f"{base}/v1/{path}"
        self._model = model
        self._endpoint = endpoint
        self._temperature = temperature
        self._seconds = seconds
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=seconds,
            # How many requests are under way is the load's decision, not the client's.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(self, ask: Ask, intended: float, leave: asyncio.Event | None = None) -> Outcome:
        """Send a request and read its answer to the end; failures are outcomes too.

        Once `leave` is set, the client leaves with the next part.
        """
        reading = _Reading()
        try:
            async with asyncio.timeout(self._seconds):
                await self._read(ask, reading, leave or asyncio.Event())
        except (TimeoutError, httpx.TimeoutException):
            reading.failure = "timeout"
        except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol):
            reading.failure = CANNOT_CONNECT
        except httpx.TransportError as error:
            reading.failure = f"broken off: {type(error).__name__}"
        except (ValueError, TypeError, AttributeError):
            # JSON of another shape than the one that was looked into, or none at all.
            reading.failure = "not an answer of OpenAI's API"
        return _outcome(reading, intended)

    def _body(self, ask: Ask) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt": ask.prompt}
        if self._endpoint is Endpoint.CHAT:
            prompt = {"messages": [{"role": "user", "content": ask.prompt}]}
        chance = {} if self._temperature is None else {"temperature": self._temperature}
        return {
            "model": self._model,
            **prompt,
            **chance,
            "max_tokens": ask.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def _read(self, ask: Ask, reading: _Reading, leave: asyncio.Event) -> None:
        async with self._http.stream("POST", self._url, json=self._body(ask)) as response:
            if response.is_error:
                await response.aread()
                reading.failure = _refusal(response)
                return
            async for text in _events(response):
                reading.take(text, time.perf_counter())
                if leave.is_set():
                    reading.failure = LEFT
                    return


def _outcome(reading: _Reading, intended: float) -> Outcome:
    failure = reading.failure
    if failure is None and not reading.is_finished:
        failure = "broken off"
    return Outcome(
        intended=intended,
        ended=time.perf_counter(),
        token_times=tuple(reading.token_times),
        prompt_tokens=reading.usage.get("prompt_tokens", 0),
        # A server that does not say gets its parts counted, which is one token each mostly.
        output_tokens=reading.usage.get("completion_tokens", len(reading.token_times)),
        failure=failure,
    )


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the data of each event as soon as its line is complete."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode()


def _refusal(response: httpx.Response) -> str:
    try:
        code = _code(response.json())
    except ValueError:
        code = ""
    return f"{response.status_code} {code}".strip()


def _code(data: object) -> str:
    error = data.get("error") if isinstance(data, dict) else None
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def _text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or choice
    return any(delta.get(name) for name in ("content", "text", "reasoning_content", "tool_calls"))
