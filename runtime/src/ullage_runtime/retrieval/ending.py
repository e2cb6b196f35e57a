"""Processes of ours that are told to end, and are killed when they do not."""

import asyncio
import contextlib


async def ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """End a process; tell whether it did so itself, within a time."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return True
