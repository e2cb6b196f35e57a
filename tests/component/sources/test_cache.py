"""What the cache keeps, when it asks the source again, and who shares what."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.file_server import Fault, FileServer
from tests.support.model_sources import (
    SETTINGS,
    content,
    fetched,
    ignored,
    make_cache,
    model_bytes,
    truncate,
)
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import ModelCache
from ullage_runtime.models.sources.progress import ProgressCallback

MIB = 1 << 20
FETCHER = Path(__file__).with_name("fetch_in_a_process.py")


async def test_a_digest_that_is_there_is_used_without_asking(
    server: FileServer, cache: ModelCache, tmp_path: Path
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB))
    await fetched(cache, server.url("/m.gguf"), digest)
    again = await fetched(make_cache(tmp_path / "cache"), "https://elsewhere.invalid/x", digest)
    assert again.sha256 == digest
    assert len(server.seen) == 1


async def test_without_a_digest_the_source_is_asked_and_an_unchanged_file_not_sent_again(
    server: FileServer, cache: ModelCache, tmp_path: Path
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB))
    await fetched(cache, server.url("/m.gguf"))
    again = await fetched(make_cache(tmp_path / "cache"), server.url("/m.gguf"))
    assert again.sha256 == digest
    assert [request.status for request in server.seen] == [200, 304]
    assert server.sent_bytes() == MIB


async def test_last_modified_serves_where_there_is_no_tag(
    server: FileServer, cache: ModelCache
) -> None:
    server.add(
        "/m.gguf", model_bytes(MIB), etag=None, last_modified="Tue, 03 Nov 2026 10:00:00 GMT"
    )
    await fetched(cache, server.url("/m.gguf"))
    await fetched(cache, server.url("/m.gguf"))
    assert [request.status for request in server.seen] == [200, 304]


async def test_a_changed_file_is_fetched_and_both_versions_stay(
    server: FileServer, cache: ModelCache
) -> None:
    first = server.add("/m.gguf", model_bytes(MIB, seed=1), etag='"one"')
    await fetched(cache, server.url("/m.gguf"))
    second = server.add("/m.gguf", model_bytes(MIB, seed=2), etag='"two"')
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == second
    blobs = {path.name for path in cache._around.store.blob(first).parent.iterdir()}
    assert blobs == {first, second}


async def test_a_source_that_is_down_does_not_take_the_cached_copy_away(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB))
    await fetched(cache, server.url("/m.gguf"))
    server.faults.extend([Fault(status=503)] * 20)
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest


async def test_a_source_that_says_the_file_is_gone_is_believed(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(MIB))
    await fetched(cache, server.url("/m.gguf"))
    server.faults.append(Fault(status=410))
    with pytest.raises(LoadError, match="410") as caught:
        await fetched(cache, server.url("/m.gguf"))
    assert caught.value.final


async def test_a_damaged_blob_is_noticed_and_fetched_again(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB))
    model = await fetched(cache, server.url("/m.gguf"), digest)
    truncate(model, 1000)
    again = await fetched(cache, server.url("/m.gguf"), digest)
    assert content(again) == server.files["/m.gguf"].data


async def test_equal_files_of_two_addresses_are_kept_once(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/a.gguf", model_bytes(MIB))
    server.add("/b.gguf", model_bytes(MIB))
    paths = {(await fetched(cache, server.url(name))).path for name in ("/a.gguf", "/b.gguf")}
    assert paths == {str(cache._around.store.blob(digest))}


async def test_callers_who_want_the_same_share_one_download_and_its_progress(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(MIB))
    told: list[list[tuple[int, int | None]]] = [[], [], []]

    def teller(heard: list[tuple[int, int | None]]) -> ProgressCallback:
        return lambda done, total: heard.append((done, total))

    models = await asyncio.gather(
        *(cache.fetch(server.url("/m.gguf"), None, SETTINGS, teller(t)) for t in told)
    )
    assert len({model.path for model in models}) == 1
    assert len(server.gets()) == 1
    assert all(heard[-1] == (MIB, MIB) for heard in told)


async def test_one_caller_who_leaves_does_not_end_the_download_of_the_others(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB))
    server.faults.append(Fault(hold_after=500_000))
    first = asyncio.ensure_future(cache.fetch(server.url("/m.gguf"), None, SETTINGS, ignored))
    second = asyncio.ensure_future(cache.fetch(server.url("/m.gguf"), None, SETTINGS, ignored))
    await until(lambda: server.sent_bytes() >= 500_000)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).sha256 == digest


async def test_a_folder_that_cannot_be_written_is_said_plainly(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("in the way")
    server.add("/m.gguf", model_bytes(MIB))
    with pytest.raises(LoadError, match="cannot be used") as caught:
        await fetched(make_cache(tmp_path / "cache"), server.url("/m.gguf"))
    assert (caught.value.reason, caught.value.final) == (Reason.SOURCE_UNAVAILABLE, False)


async def test_a_lock_that_stands_still_is_not_waited_for_for_ever(
    server: FileServer, tmp_path: Path
) -> None:
    server.add("/m.gguf", model_bytes(MIB))
    server.faults.append(Fault(hold_after=100_000))
    holder = make_cache(tmp_path / "cache", read_seconds=30)
    task = asyncio.ensure_future(holder.fetch(server.url("/m.gguf"), None, SETTINGS, ignored))
    await until(lambda: server.sent_bytes() >= 100_000)
    other = make_cache(tmp_path / "cache", lock_stall_seconds=0.3)
    with pytest.raises(LoadError, match="another process holds") as caught:
        await fetched(other, server.url("/m.gguf"))
    assert not caught.value.final
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_two_processes_with_one_cache_fetch_a_file_once(
    server: FileServer, tmp_path: Path
) -> None:
    digest = server.add("/m.gguf", model_bytes(8 * MIB), etag=None)
    server.faults.append(Fault(cut_after=4 * MIB))
    server.files["/m.gguf"].last_modified = "Tue, 03 Nov 2026 10:00:00 GMT"
    processes = [await fetcher(server, tmp_path) for _ in range(2)]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    assert [output.decode().split()[-1] for output, _ in outputs] == [digest, digest]
    assert server.sent_bytes() <= 8 * MIB + MIB
    assert len(server.gets()) <= 3  # the second process may ask once whether it is still the same
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


async def test_a_killed_process_leaves_what_the_next_one_resumes(
    server: FileServer, tmp_path: Path
) -> None:
    digest = server.add("/m.gguf", model_bytes(8 * MIB))
    server.faults.append(Fault(hold_after=5 * MIB))
    process = await fetcher(server, tmp_path)
    partial = tmp_path / "cache" / "partial"
    await until(lambda: any(p.stat().st_size == 5 * MIB for p in partial.glob("*.part")), 30)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    after = await fetcher(server, tmp_path)
    output, _ = await after.communicate()
    assert output.decode().split()[-1] == digest
    assert server.gets()[-1].start == 5 * MIB
    assert server.sent_bytes() == 8 * MIB


async def fetcher(server: FileServer, tmp_path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(FETCHER),
        str(tmp_path / "cache"),
        server.url("/m.gguf"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


async def until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError):
            if condition():  # type: ignore[operator]
                return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
