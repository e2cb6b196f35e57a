"""Runtimes on real sockets: in this process with any models, or as a process of their own."""

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from ullage_runtime.app import Runtime, running
from ullage_runtime.models.ports import Models
from ullage_runtime.settings import Settings


def settings_for(folder: pathlib.Path, **given: Any) -> Settings:
    return Settings(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "internal_host": "127.0.0.1",
            "internal_port": 0,
            "state_dir": folder / "state",
            "model_cache_dir": folder / "cache",
            "drain_seconds": 0.2,
            **given,
        }
    )


@contextlib.asynccontextmanager
async def served(
    folder: pathlib.Path, models: Models | None, **settings: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with (
        running(settings_for(folder, **settings), models) as runtime,
        httpx.AsyncClient(base_url=runtime.url, timeout=20, trust_env=False) as client,
    ):
        yield runtime, client


async def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come about within {seconds} s")
        await asyncio.sleep(0.01)
