"""Swaps under traffic: two models whose texts cannot be confused, and many who listen."""

import asyncio
import contextlib
import json
import pathlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from prometheus_client import CollectorRegistry

from tests.support.gguf_models import write_script
from tests.support.model_files import LocalFiles
from tests.support.runtimes import settings_for
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.rollout import RolloutSettings, Transition
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.app import Runtime, running
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.journal import Journal
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import ModelSourcePort

STREAMS = 50
PIECES = 40
PATIENCE = 240.0
"""Seconds that anything may take on a busy machine."""
EVERY_STEP: dict[str, Any] = {
    "canary": {"steps": [{"weight": 50, "seconds": 1}]},
    "watchSeconds": 1,
}
"""A rollout that leaves no kind of step out, where there is room for both."""
ENDS: dict[str, dict[str, Any]] = {
    "KeptBlocked": {"validation": [{"prompt": "Who?", "expect": {"contains": "gamma"}}]},
    "KeptRolledBack": {"canary": {"steps": [{"weight": 50}]}},
}
"""Rollouts that come to nothing; of the latter, once its new worker is killed."""
TEXTS = {name: "".join(f" {name}{n}" for n in range(PIECES)) for name in ("alpha", "beta")}


def lacking(path: pathlib.Path) -> None:
    """Write a model, beside a pair, of which only llama.cpp can tell that something is missing."""
    whole = (path.parent / "beta.gguf").read_bytes()
    path.write_bytes(whole.replace(b"output_norm.weight", b"output_form.weight"))


def write_pair(folder: pathlib.Path) -> None:
    """Write two models, each of which says its own name over and over."""
    for name in TEXTS:
        write_script(folder / f"{name}.gguf", [f" {name}{n}" for n in range(PIECES)])


def document(
    folder: pathlib.Path,
    name: str,
    sequence: int,
    *,
    limits: dict[str, Any] | None = None,
    **rollout: Any,
) -> PoolDesired:
    """Return the document that wants one of the two."""
    model = DesiredModel.model_validate(
        {
            "name": "chat",
            "uid": "uid-chat",
            "generation": sequence,
            "task": Task.CHAT,
            "ordinals": (0,),
            "target": DesiredRevision(
                uri=str(folder / f"{name}.gguf"),
                engine=EngineSettings(context_length=2048, threads=1),
            ),
            "rollout": RolloutSettings.model_validate(rollout),
            "serving": {"maxQueue": 1000, **(limits or {})},
        }
    )
    settings = RuntimeSettings(file_roots=(str(folder),))
    return PoolDesired(namespace="team", pool="default", models=(model,), settings=settings).sealed(
        sequence
    )


def pool_with(
    journal: Journal | None = None,
    total: int | None = None,
    source: ModelSourcePort | None = None,
) -> ModelPool:
    """Return a pool of real workers; `total` bytes of memory, if not the machine's."""
    return ModelPool(
        source=source or LocalFiles(),
        pod_name="ullage-default-0",
        ordinal=0,
        version="0",
        devices=[HostMemory() if total is None else SmallHost(total)],
        registry=CollectorRegistry(),
        journal=journal,
    )


class SmallHost(HostMemory):
    """The real memory, of which there is little."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._given = total

    def total(self) -> int:
        return self._given


@contextlib.asynccontextmanager
async def serving(folder: pathlib.Path, pool: ModelPool) -> AsyncIterator[Runtime]:
    """Serve a pool on a real socket."""
    async with running(settings_for(folder), pool) as runtime:
        yield runtime


async def until(
    pool: ModelPool, holds: Callable[[ReportedModel], bool], seconds: float = PATIENCE
) -> ReportedModel:
    """Wait, report by report, until the model is as wished."""
    sequence = -1
    async with asyncio.timeout(seconds):
        while True:
            report = await pool.changed(sequence, 1)
            model = report.model("chat")
            if model is not None and holds(model):
                return model
            sequence = report.sequence


async def settled(pool: ModelPool, name: str) -> ReportedModel:
    """Wait until one of the two answers, and nothing else is in memory."""
    return await until(
        pool,
        lambda m: (
            m.transition in {Transition.UP_TO_DATE, Transition.ROLLED_BACK}
            and m.active is not None
            and m.active.uri.endswith(f"{name}.gguf")
            and (m.swap is None or m.swap.step is None)
        ),
    )


@dataclass
class Listeners:
    """Clients that ask again and again, each for one stream at a time, and what they got."""

    url: str
    count: int = STREAMS
    texts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    first_token_seconds: list[tuple[float, float]] = field(default_factory=list)
    """When a request was sent, and how long its first token took."""
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _client: httpx.AsyncClient | None = None
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE, trust_env=False, limits=limits
        )
        self._tasks = [
            asyncio.create_task(self._listen(self._client, n)) for n in range(self.count)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)
        if self._client is not None:
            await self._client.aclose()

    async def heard(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait until so many more streams are complete."""
        goal = self.texts.total() + count
        async with asyncio.timeout(seconds):
            while self.texts.total() < goal:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.01)

    async def _listen(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._over.is_set():
            if await self._ask(client, number):
                return

    async def _ask(self, client: httpx.AsyncClient, number: int) -> bool:
        """Ask once; True when nobody is there any more."""
        loop = asyncio.get_running_loop()
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": f"I am {number}"}],
            "temperature": 0,
            "stream": True,
        }
        text, finish, began, first = "", None, loop.time(), None
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != httpx.codes.OK:
                    self.failed.append((await answer.aread()).decode())
                    return False
                async for line in answer.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        self.failed.append(line)
                        return False
                    choice = event["choices"][0]
                    text += choice["delta"].get("content") or ""
                    if text and first is None:
                        first = loop.time() - began
                    finish = choice["finish_reason"] or finish
        except httpx.ConnectError:
            return True
        except httpx.TransportError as error:
            self.failed.append(repr(error))
            return False
        said = [name for name, whole in TEXTS.items() if text == whole and finish == "stop"]
        if said:
            self.texts[said[0]] += 1
            self.first_token_seconds.append((began, first or 0.0))
        else:
            self.mixed.append(text)
        return False
