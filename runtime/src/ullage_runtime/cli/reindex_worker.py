"""`ullage reindex-worker`: drives one reindex job of a pod, as a process of its own."""

import asyncio
import os
import signal
import socket
import time
from typing import Annotated

import typer

from ullage_runtime.core.reindexing.rate import Pace
from ullage_runtime.logs import set_up_logging
from ullage_runtime.retrieval.reindex.wire import TOKEN_VARIABLE
from ullage_runtime.retrieval.reindex.worker.driving import Driving, ExitCode
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod
from ullage_runtime.settings import load_settings


def reindex_worker(
    pod: Annotated[
        str, typer.Option("--pod", help="Address of the pod's internal port.", show_default=False)
    ],
    job: Annotated[str, typer.Option("--job", help="Name of the job.", show_default=False)],
) -> None:
    """Drive a reindex job: copy at a pace that nobody notices, then verify.

    Pods and the operator start this by themselves. The pool's token is read from the environment
    variable ULLAGE_POOL_TOKEN. Exit status: 0 when nothing is left to do, 1 when the pod did not
    answer for ten minutes, 2 when it refuses, 3 when another worker drives the job, 143 when it
    was asked to end.
    """
    set_up_logging(load_settings().values)
    raise typer.Exit(asyncio.run(_drive(pod, job)))


async def _drive(url: str, job: str) -> ExitCode:
    pod = Pod(url, job, os.environ.get(TOKEN_VARIABLE))
    # Who it is has to differ from any other worker's, also from this one's after a restart.
    worker = f"{socket.gethostname()[:64]}/{os.getpid()}/{time.time_ns()}"
    leased = Leased(pod, worker, Pace(), time.monotonic)
    try:
        driving = asyncio.ensure_future(Driving(pod, leased).run())
        # As a container's first process it would not even hear it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, driving.cancel)
        return await driving
    except asyncio.CancelledError:
        await leased.let_go()
        return ExitCode.TERMINATED
    finally:
        await pod.close()
