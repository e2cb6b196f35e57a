"""A reindex worker in a process of its own: `… URL JOB limited|unlimited`.

It is what `ullage reindex-worker` is; unlimited, nothing slows it down.
"""

import asyncio
import os
import sys
import time
from dataclasses import dataclass

from ullage_runtime.core.reindexing.rate import MOST_RATE, Pace, Pressure
from ullage_runtime.retrieval.reindex.wire import TOKEN_VARIABLE
from ullage_runtime.retrieval.reindex.worker.driving import Driving
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod


@dataclass(slots=True)
class Unlimited(Pace):
    """As fast as it goes, whoever is held up."""

    rate: float = MOST_RATE

    def adjust(self, pressure: Pressure, now: float) -> None:
        """Change nothing."""


async def main(url: str, job: str, kind: str) -> int:
    """Drive the job; return how it ended."""
    pod = Pod(url, job, os.environ[TOKEN_VARIABLE])
    pace = Unlimited() if kind == "unlimited" else Pace()
    try:
        leased = Leased(pod, f"bench/{os.getpid()}", pace, time.monotonic)
        return await Driving(pod, leased).run()
    finally:
        await pod.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
