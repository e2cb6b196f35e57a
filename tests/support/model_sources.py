"""Model-like bytes, and caches with short waits, for the tests of sources."""

import random
from dataclasses import replace
from pathlib import Path

from ullage_api.profile import RuntimeSettings
from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources import Dialing, HubAccess, Limits, ModelCache, S3Access

LIMITS = Limits(
    connect_seconds=2,
    read_seconds=2,
    backoff_seconds=0.01,
    backoff_cap_seconds=0.05,
    lock_poll_seconds=0.05,
    flush_bytes=16 << 10,
    disk_reserve_bytes=0,
)
SETTINGS = RuntimeSettings(file_roots=(), allow_http=True, allow_private_addresses=True)
NOWHERE = HubAccess(endpoint="http://127.0.0.1:9", token=None)


def model_bytes(size: int, seed: int = 1) -> bytes:
    """Return bytes that begin like a model and are otherwise random."""
    return b"GGUF\x03\x00\x00\x00" + random.Random(seed).randbytes(size - 8)  # noqa: S311 - data


def content(model: CachedModel) -> bytes:
    """Return the bytes of a fetched model."""
    return Path(model.path).read_bytes()


def truncate(model: CachedModel, size: int) -> None:
    """Damage a fetched model."""
    path = Path(model.path)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:size])


def ignored(done: int, total: int | None) -> None:
    """Take progress and do nothing with it."""


def make_cache(
    root: Path,
    *,
    limits: Limits = LIMITS,
    dialing: Dialing | None = None,
    hub: HubAccess = NOWHERE,
    s3: S3Access | None = None,
    credentials: Path | None = None,
    max_bytes: int | None = None,
    **changes: object,
) -> ModelCache:
    """Return a cache without proxies, token or long waits; `changes` are those of its limits."""
    return ModelCache(
        root,
        limits=replace(limits, **changes),  # type: ignore[arg-type]
        dialing=dialing or Dialing(proxies={}),
        hub=hub,
        s3=s3 or S3Access(key=None),
        credentials=credentials,
        max_bytes=max_bytes,
    )


async def fetched(
    cache: ModelCache, uri: str, sha256: str | None = None, /, **settings: object
) -> CachedModel:
    """Fetch with permissive settings, changed as given."""
    return await cache.fetch(uri, sha256, SETTINGS.model_copy(update=settings), ignored)
