"""The processes of the embedded store: a volume's owner, and the child that builds indexes.

`python -m ullage_runtime.retrieval.edge own FOLDER SOCKET PARENT` with the API key in the
environment, and `… optimise FOLDER LAYOUT`.
"""

import asyncio
import json
import os
import pathlib
import signal
import socket
import sys
from typing import Any

from ullage_runtime.engines.orphans import die_with_parent
from ullage_runtime.retrieval.edge.owning import KEY_VARIABLE, UNUSABLE, VOLUME_IN_USE
from ullage_runtime.retrieval.edge.refusals import VolumeError, VolumeInUse


def main(arguments: list[str]) -> int:
    """Run the process that the arguments name; return its exit status."""
    match arguments:
        case ["own", folder, fd, parent]:
            die_with_parent(int(parent), UNUSABLE)
            return own(pathlib.Path(folder), int(fd), os.environ[KEY_VARIABLE])
        case ["optimise", folder, layout]:
            return optimise(pathlib.Path(folder), json.loads(layout))
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2


def own(folder: pathlib.Path, fd: int, key: str) -> int:
    """Serve a volume on a listening socket until SIGTERM."""
    import uvloop

    from ullage_runtime.retrieval.edge.shards import Shards

    try:
        shards = Shards(folder)
    except VolumeInUse as error:
        sys.stderr.write(f"{error}\n")
        return VOLUME_IN_USE
    except VolumeError as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    try:
        uvloop.run(_serve(shards, socket.socket(fileno=fd), key))
    finally:
        shards.close()
    return 0


async def _serve(shards: "object", sock: socket.socket, key: str) -> None:
    from ullage_runtime.retrieval.edge.facade import Facade
    from ullage_runtime.retrieval.edge.optimising import Optimiser
    from ullage_runtime.retrieval.edge.shards import Shards
    from ullage_runtime.server import Server

    assert isinstance(shards, Shards)  # noqa: S101 - imported here only
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    optimiser = Optimiser(shards)
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    server = Server(Facade(shards, optimiser, key), sock)
    await server.start()
    work = asyncio.create_task(optimiser.run())
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
    for task in (work, ended):
        task.cancel()
    await asyncio.gather(work, ended, return_exceptions=True)
    await server.stop()
    if work.done() and not work.cancelled() and work.exception() is not None:
        raise work.exception() or AssertionError


def optimise(folder: pathlib.Path, layout: dict[str, Any]) -> int:
    """Build the indexes of a shard that nobody else has open, as a layout has them."""
    import qdrant_edge as edge

    from ullage_runtime.retrieval.edge.layout import config_of

    die_with_parent(os.getppid(), UNUSABLE)
    os.nice(10)
    shard = edge.EdgeShard.load(str(folder), config_of(layout))
    shard.optimize()
    shard.flush()
    shard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
