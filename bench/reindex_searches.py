"""Searches at a steady rate, in a process of their own: `… URL KIND A_SECOND`.

They go on until standard input ends. Prints JSON: for each, when it was due by the machine's clock
and how many seconds after that its answer was there, or null where it
was an error. Who waits does not ask less often.
"""

import asyncio
import json
import sys
import threading
import time
from itertools import cycle

import httpx

from bench.retrieval_data import Corpus

QUESTIONS = 2000


async def main(url: str, kind: str, a_second: float) -> list[tuple[float, float | None]]:
    """Ask until standard input ends; return when each was due and what its answer took."""
    bodies = cycle(Corpus(seed=11).questions(kind, QUESTIONS))
    took: list[tuple[float, float | None]] = []
    over = threading.Event()
    # A thread that nobody waits for: whoever fails ends at once.
    threading.Thread(target=_read, args=(over,), daemon=True).start()
    async with (
        httpx.AsyncClient(trust_env=False, timeout=60) as client,
        asyncio.TaskGroup() as asked,
    ):
        await client.post(url, json=next(bodies))

        async def ask(due: float) -> None:
            answer = await client.post(url, json=next(bodies))
            took.append((due, time.time() - due if answer.is_success else None))

        began = time.time()
        number = 0
        while not over.is_set():
            due = began + number / a_second
            await asyncio.sleep(max(0.0, due - time.time()))
            asked.create_task(ask(due))
            number += 1
    return took


def _read(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    _url, _kind, _a_second = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(main(_url, _kind, float(_a_second)))))
