"""Clients of a search over HTTP, in a process of their own: `… URL KIND CLIENTS SECONDS`.

Prints the seconds of every answer as JSON.
"""

import asyncio
import json
import sys
import time
from itertools import cycle

import httpx

from bench.retrieval_data import Corpus

QUESTIONS = 2000


async def main(url: str, kind: str, clients: int, seconds: float) -> list[float]:
    """Ask for a while; return how long each answer took."""
    bodies = cycle(Corpus(seed=10 + clients).questions(kind, QUESTIONS))
    took: list[float] = []
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await client.post(url, json=next(bodies))
        until = time.perf_counter() + seconds

        async def ask() -> None:
            while (began := time.perf_counter()) < until:
                answer = await client.post(url, json=next(bodies))
                answer.raise_for_status()
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(ask() for _ in range(clients)))
    return took


if __name__ == "__main__":
    _url, _kind, _clients, _seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(main(_url, _kind, int(_clients), float(_seconds)))))
