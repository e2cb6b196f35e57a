"""Room in the cache: what leaves, what stays, and what another process is at."""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.file_server import FileServer
from tests.support.model_folders import (
    TREE_FILES,
    contents,
    encoder_files,
    publish_repository,
    tree_digest,
)
from tests.support.model_sources import content, fetched, make_cache, model_bytes
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import HubAccess, ModelCache

SIZE = 100_000
QUOTA = 3 * SIZE + SIZE // 2


@pytest.fixture
def small(tmp_path: Path, server: FileServer) -> ModelCache:
    for name in "abcdef":
        server.add(f"/{name}.gguf", model_bytes(SIZE, seed=ord(name)))
    return make_cache(tmp_path / "cache", max_bytes=QUOTA)


def blobs(cache: ModelCache) -> set[str]:
    return {path.name for path in (cache._around.store.root / "blobs" / "sha256").iterdir()}


def age(cache: ModelCache, sha256: str, seconds: float) -> None:
    """Pretend that content was last used so long ago."""
    mark = cache._around.store.root / "used" / sha256
    when = mark.stat().st_mtime - seconds
    os.utime(mark, (when, when))


async def filled(cache: ModelCache, server: FileServer, names: str) -> list[str]:
    """Fetch files and drop them; the first was used the longest ago."""
    digests = []
    for index, name in enumerate(names):
        digests.append((await fetched(cache, server.url(f"/{name}.gguf"))).sha256)
        age(cache, digests[-1], 100.0 * (len(names) - index))
    gc.collect()
    return digests


async def test_under_the_quota_what_was_used_least_recently_leaves(
    server: FileServer, small: ModelCache
) -> None:
    digests = await filled(small, server, "abc")
    await fetched(small, server.url("/a.gguf"))
    model = await fetched(small, server.url("/d.gguf"))
    assert blobs(small) == {digests[0], digests[2], model.sha256}


async def test_a_model_that_is_in_use_never_leaves(server: FileServer, small: ModelCache) -> None:
    kept = await fetched(small, server.url("/a.gguf"))
    age(small, kept.sha256, 1000)
    await filled(small, server, "bcd")
    assert content(kept) == model_bytes(SIZE, seed=ord("a"))
    assert kept.sha256 in blobs(small)


async def test_without_anything_that_may_leave_the_numbers_are_said(
    server: FileServer, small: ModelCache
) -> None:
    held = [await fetched(small, server.url(f"/{name}.gguf")) for name in "abc"]
    with pytest.raises(LoadError) as caught:
        await fetched(small, server.url("/d.gguf"))
    assert not caught.value.final
    assert "needs 97.7 KiB more in the cache, which may have 341.8 KiB" in caught.value.message
    assert "293.0 KiB that is in use" in caught.value.message
    assert len(held) == 3


async def test_a_tree_leaves_with_its_files_and_not_without_them(
    tmp_path: Path, server: FileServer
) -> None:
    files = encoder_files(SIZE)
    publish_repository(server, files)
    server.add("/a.gguf", model_bytes(SIZE))
    hub = HubAccess(endpoint=server.url(""), token=None)
    cache = make_cache(tmp_path / "cache", hub=hub, max_bytes=SIZE + SIZE // 2)
    tree = await fetched(cache, "hf://team/encoder")
    with pytest.raises(LoadError):
        await fetched(cache, server.url("/a.gguf"))
    assert contents(tree.path) == {name: files[name] for name in TREE_FILES}
    path = tree.path
    del tree
    gc.collect()
    model = await fetched(cache, server.url("/a.gguf"))
    assert not os.path.exists(path)  # noqa: ASYNC240, PTH110 - a test may block
    assert blobs(cache) == {model.sha256}
    del model
    gc.collect()
    assert (await fetched(cache, "hf://team/encoder")).sha256 == tree_digest(files)


async def test_files_that_two_trees_share_are_kept_once(tmp_path: Path, server: FileServer) -> None:
    files = encoder_files(SIZE)
    hub = HubAccess(endpoint=server.url(""), token=None)
    cache = make_cache(tmp_path / "cache", hub=hub, max_bytes=SIZE + SIZE // 2)
    publish_repository(server, files)
    first = await fetched(cache, "hf://team/encoder")
    publish_repository(server, {**files, "config.json": b"{}"}, commit="d" * 40)
    second = await fetched(cache, "hf://team/encoder")
    assert first.sha256 != second.sha256
    weights = [Path(model.path) / "model.onnx_data" for model in (first, second)]
    assert weights[0].samefile(weights[1])


async def test_an_unfinished_download_that_nobody_is_at_leaves_too(
    tmp_path: Path, server: FileServer, small: ModelCache
) -> None:
    root = tmp_path / "cache"
    (root / "partial").mkdir(parents=True)
    (root / "locks").mkdir()
    part = root / "partial" / f"{'0' * 64}.part"
    part.write_bytes(b"x" * 3 * SIZE)
    await fetched(small, server.url("/a.gguf"))
    assert not part.exists()


async def test_what_another_process_holds_stays_until_that_dies(
    tmp_path: Path, server: FileServer, small: ModelCache
) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("hold_in_a_process.py")),
        str(tmp_path / "cache"),
        server.url("/a.gguf"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert other.stdout is not None
        sha256 = (await other.stdout.readline()).decode().strip()
        assert sha256
        age(small, sha256, 1000)
        await filled(small, server, "bcd")
        assert sha256 in blobs(small)
    finally:
        other.send_signal(signal.SIGKILL)
        await other.wait()
    age(small, sha256, 1000)
    await fetched(small, server.url("/e.gguf"))
    assert sha256 not in blobs(small)
