"""Helpers around real engine workers."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil

from ullage_runtime.core.domain import Chunk, EngineSpec, GenerateRequest, Message, Sampling
from ullage_runtime.engines.procfs import proportional_set_size
from ullage_runtime.engines.registry import open_backend
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.models.pool import ModelPool

GREEDY = Sampling(temperature=0)


async def loaded(path: Path, context_length: int | None = None, **settings: object) -> WorkerEngine:
    """Return a worker with a model loaded; settings are those of its spec."""
    engine = await WorkerEngine.start("LlamaCpp")
    spec = EngineSpec(path=str(path), context_length=context_length, **settings)  # type: ignore[arg-type]
    try:
        await engine.load(spec)
    except BaseException:
        await engine.unload()
        raise
    return engine


def completion(prompt: str | tuple[int, ...], **sampling: object) -> GenerateRequest:
    """Return a greedy completion request."""
    wanted = {"temperature": 0, **sampling}
    return GenerateRequest("r", prompt=prompt, sampling=Sampling(**wanted))  # type: ignore[arg-type]


def chat(content: str, role: str = "user", **sampling: object) -> GenerateRequest:
    """Return a greedy chat request of one message."""
    wanted = {"temperature": 0, "max_tokens": 8, **sampling}
    return GenerateRequest(
        "r",
        messages=(Message(role, content),),
        sampling=Sampling(**wanted),  # type: ignore[arg-type]
    )


async def chunks_of(engine: WorkerEngine, request: GenerateRequest) -> list[Chunk]:
    """Return all chunks of a generation."""
    async with aclosing(engine.generate(request)) as chunks:  # type: ignore[type-var]
        return [chunk async for chunk in chunks]


async def text_of(engine: WorkerEngine, request: GenerateRequest) -> str:
    """Return the text of a generation."""
    return "".join(chunk.text for chunk in await chunks_of(engine, request))


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Poll a condition until it holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what it waits for is in another process
            await asyncio.sleep(0.02)


def ends_of(path: str, asked: Sequence[tuple[str, int, float]]) -> list[str]:
    """Return in which order requests end that have a name, a priority and an age in seconds.

    An engine that does one at a time begins the first before it knows of the others. It works in
    this very process, where requests can have come at any time; so that should be one of its own.
    """
    backend = open_backend("LlamaCpp", lambda _level, _text: None)
    backend.load(EngineSpec(path=path, context_length=512, parallel=1))
    now, ended = time.monotonic(), list[str]()
    for number, (name, priority, age) in enumerate(asked):
        request = replace(completion(name, max_tokens=8), request_id=name, priority=priority)
        backend.prepare(request, now - age).submit()
        if number == 0:
            backend.step()
    while backend.busy:
        ended += [n for n, o in backend.step() if isinstance(o, Chunk) and o.finish is not None]
    backend.close()
    return ended


def child_pids() -> set[int]:
    """Return the ids of this process's children, zombies included."""
    return {child.pid for child in psutil.Process().children()}


def workers() -> list[psutil.Process]:
    """Return this process's engine workers that have not ended, the oldest first."""
    found = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "ullage_runtime.engines.worker" in child.cmdline()
    ]
    return sorted(found, key=lambda process: process.create_time())


SLACK = 16 << 20
"""Bytes by which what a small model takes may differ from one measurement to the next.

A library's pages count less for each process the more of them share it.
"""


async def checked_ledger(pool: ModelPool, slack: int = SLACK, seconds: float = 60) -> None:
    """Wait until the ledger is what this process's workers and kept copies take; it must be.

    Bytes of `slack` are for each worker: both sides are measured, and not at the same moment.
    """
    seen: tuple[int, int] = (0, 0)

    async def agrees() -> bool:
        nonlocal seen
        device = pool.report().devices[0]
        pids = [worker.pid for worker in workers()]
        seen = device.ledger_bytes, sum(map(proportional_set_size, pids)) + device.warm_bytes
        return abs(seen[0] - seen[1]) <= slack * max(1, len(pids))

    try:
        await eventually(agrees, seconds)
    except TimeoutError:
        raise AssertionError(f"the ledger has {seen[0]} bytes, and {seen[1]} are taken") from None


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as short as it gets
