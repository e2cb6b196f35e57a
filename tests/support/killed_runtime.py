"""A runtime that kills itself when a step of a swap is in its journal: `FOLDER MARK DELAY`.

It serves `alpha`, says its address, reads a line, and swaps to `beta` with every kind of step. The
marks of `ENDS` stand for a swap that came to nothing, and is known to have.
"""

import asyncio
import json
import os
import pathlib
import signal
import sys
import time

from tests.support.swaps import ENDS, EVERY_STEP, document, pool_with, serving, settled
from tests.support.workers import workers
from ullage_api.kinds.rollout import SwapStep
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.swap import Mark
from ullage_runtime.models.journal import Committed, Failure, FileJournal


class Fatal(FileJournal):
    """A journal after whose note the process is no more, at once or a moment later."""

    def __init__(self, path: pathlib.Path, mark: str, delay: float) -> None:
        super().__init__(path, time.time)
        self._mark, self._delay = mark, delay
        self.armed = False

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        await super().note(model, mark, want, detail)
        self._look(mark.value)
        if self.armed and self._mark == "KeptRolledBack" and mark is SwapStep.CANARY:
            workers()[-1].send_signal(signal.SIGKILL)

    async def commit(self, model: str, committed: Committed) -> None:
        await super().commit(model, committed)
        self._look("Committed")

    async def fail(self, model: str, failure: Failure) -> None:
        await super().fail(model, failure)
        if self._mark in ENDS:
            self._look(self._mark)

    def _look(self, mark: str) -> None:
        if not self.armed or mark != self._mark:
            return
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, os.kill, os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: pathlib.Path, mark: str, delay: float) -> None:
    journal = Fatal(folder / "state" / "swaps.sqlite", mark, delay)
    pool = pool_with(journal)
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        sys.stdout.write(json.dumps({"url": runtime.url}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        journal.armed = True
        strategy = "DrainThenLoad" if mark == "Draining" else "Auto"
        rollout = ENDS.get(mark, {"strategy": strategy, **EVERY_STEP})
        await pool.apply(document(folder, "beta", 2, **rollout))
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
