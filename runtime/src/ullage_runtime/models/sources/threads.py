"""Short blocking work, off the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *args: object) -> Result:
    """Run a short function in a thread; a cancelled caller waits until it has come to its end.

    So no write goes on behind the back of whoever closes, reads or removes the file next.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # marks it as seen: cancellation is what the caller hears of
        raise
