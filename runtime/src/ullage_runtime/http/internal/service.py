"""Accepting desired documents, and keeping the last one over a restart."""

import asyncio
import os
import pathlib

import structlog
from pydantic import ValidationError

from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.models.ports import Models
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.reindex.reindexes import Reindexes

log = structlog.stdlib.get_logger(__name__)


class DesiredDocuments:
    """The way of every desired document, pushed or mounted, into the pod.

    The last accepted one is kept in the state folder, because a mounted file may be older than
    what the operator has pushed since.
    """

    def __init__(
        self,
        models: Models,
        collections: Collections,
        reindexes: Reindexes,
        state_dir: pathlib.Path,
    ) -> None:
        self._models = models
        self._collections = collections
        self._reindexes = reindexes
        self._path = state_dir / "desired.json"
        self._lock = asyncio.Lock()

    async def accept(self, document: PoolDesired) -> bool:
        """Have the document brought about; False when a newer one is in effect.

        Raises ValueError when the document cannot be meant for this pod.
        """
        async with self._lock:
            accepted = await self._apply(document)
            if accepted:
                await self._keep(document)
                log.info(
                    "desired document accepted",
                    sequence=document.sequence,
                    hash=document.hash,
                    models=len(document.models),
                    collections=len(document.collections),
                )
            return accepted

    async def _apply(self, document: PoolDesired) -> bool:
        accepted = await self._models.apply(document)
        if accepted:
            await self._collections.apply(document.collections)
            await self._reindexes.apply(document.reindexes)
        return accepted

    async def _keep(self, document: PoolDesired) -> None:
        text = document.model_dump_json(by_alias=True)
        try:
            await asyncio.to_thread(_write, self._path, text)
        except OSError as error:
            # It is in effect all the same; only a restart would fall back to the mounted file.
            log.error("the desired document cannot be kept", error=str(error))  # noqa: TRY400

    async def restore(self) -> None:
        """Bring about what was last accepted before this process began, if anything was."""
        try:
            text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
            await self._apply(PoolDesired.model_validate_json(text))
        except FileNotFoundError:
            return
        except (OSError, ValueError, ValidationError) as error:
            # The mounted file, or the operator, will say it again.
            log.warning("the kept desired document is ignored", error=str(error))


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
