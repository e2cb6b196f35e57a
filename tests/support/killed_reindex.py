"""A process that reindexes, writes and kills itself in a phase: `FOLDER PHASE DELAY SEED`.

It says every write before it begins, and again once it is acknowledged.
"""

import asyncio
import itertools
import os
import pathlib
import random
import signal
import sys
from typing import Any

from tests.support.reindexed import Place, place, spec

POINTS = 60
WISHES: dict[str, tuple[str, dict[str, Any]]] = {
    "RollingBack": ("Soaking", {"rollback": True}),
    "Cancelling": ("Copying", {"cancel": True}),
    "Paused": ("Copying", {"suspend": True}),
}
"""In which phase what is wished, so that a phase is reached."""


def job_of(phase: str) -> dict[str, Any]:
    """The job's spec in a history that ends in a phase."""
    return {"rollbackSeconds": 600 if phase in {"Soaking", "RollingBack"} else 0}


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def writing(here: Place, dice: random.Random) -> None:
    for turn in itertools.count():
        number = dice.randrange(2 * POINTS)
        if dice.random() < 0.3:
            say("begin", number, -1)
            await here.notes.delete([number], wait=True)
            say("done", number, -1)
        else:
            say("begin", number, turn)
            await here.write(number, turn=turn)
            say("done", number, turn)


async def main(folder: pathlib.Path, phase: str, delay: float, seed: int) -> None:
    async with place(folder, spec()) as here:
        await here.write(*range(POINTS))
        await here.wants(spec("large"), 2)
        loop = asyncio.get_running_loop()

        def look() -> None:
            if here.report().phase == phase:
                loop.call_later(delay, os.kill, os.getpid(), signal.SIGKILL)

        here.reindexes.on_change = look
        users = asyncio.create_task(writing(here, random.Random(seed)))  # noqa: S311 - likewise
        await here.job(**job_of(phase))
        if phase in WISHES:
            before, wish = WISHES[phase]
            await here.reached(before)
            await here.job(**job_of(phase), **wish)
        await users


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
