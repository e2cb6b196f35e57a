"""The plainest source of models: a path is its own address."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from ullage_api.profile import RuntimeSettings
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel, Inspect


class LocalFiles:
    """Takes a path for a URI, and reads the digest off the file."""

    async def fetch(
        self,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        progress: Callable[[int, int | None], None],
        inspect: Inspect | None = None,
        precision: PrecisionType = PrecisionType.AUTO,
    ) -> CachedModel:
        data = await asyncio.to_thread(Path(uri).read_bytes)
        return CachedModel(path=uri, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
