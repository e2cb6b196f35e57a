"""Files over HTTP, from a real server that cuts, lies and stalls."""

import asyncio
import hashlib
import json
import random
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
)
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import ModelCache
from ullage_runtime.models.sources.limits import Limits

MIB = 1 << 20


async def failed(
    cache: ModelCache, uri: str, sha256: str | None = None, /, **settings: object
) -> LoadError:
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, sha256, **settings)
    return caught.value


def leftovers(cache: ModelCache) -> list[str]:
    return sorted(p.name for p in (cache._around.store.root / "partial").iterdir())


async def test_a_file_arrives_under_its_digest(server: FileServer, cache: ModelCache) -> None:
    data = model_bytes(3 * MIB)
    digest = server.add("/m.gguf", data)
    model = await fetched(cache, server.url("/m.gguf"), digest)
    assert content(model) == data
    assert (model.sha256, model.size) == (digest, len(data))
    assert Path(model.path).name == digest
    assert leftovers(cache) == []


async def test_a_file_cut_at_twenty_random_bytes_arrives_whole_and_no_byte_comes_twice(
    server: FileServer, cache: ModelCache
) -> None:
    data = model_bytes(2 * MIB)
    server.add("/m.gguf", data)
    chance = random.Random(7)  # noqa: S311 - test data
    server.faults.extend(Fault(cut_after=chance.randrange(100, 120_000)) for _ in range(20))
    model = await fetched(cache, server.url("/m.gguf"))
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    assert len(server.gets()) == 21
    assert server.sent_bytes() == len(data)


async def test_a_server_without_ranges_is_read_anew_from_the_start(
    server: FileServer, cache: ModelCache
) -> None:
    data = model_bytes(MIB)
    server.add("/m.gguf", data, ranges=False)
    server.faults.append(Fault(cut_after=500_000))
    model = await fetched(cache, server.url("/m.gguf"))
    assert content(model) == data
    assert [request.status for request in server.gets()] == [200, 200]


async def test_a_file_that_changes_midway_is_fetched_anew_and_never_mixed(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(MIB, seed=1), etag='"one"')
    server.faults.append(Fault(hold_after=600_000))
    task = asyncio.ensure_future(fetched(cache, server.url("/m.gguf")))
    await until(lambda: server.sent_bytes() >= 600_000)
    changed = model_bytes(MIB, seed=2)
    server.add("/m.gguf", changed, etag='"two"')
    model = await task
    assert content(model) == changed


async def test_a_server_that_ignores_if_range_is_caught_by_its_new_tag(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(MIB, seed=1), etag='"one"')
    server.faults.append(Fault(cut_after=600_000))
    changed = model_bytes(MIB, seed=2)
    server.faults.append(
        Fault(
            status=206,
            headers={"ETag": '"two"', "Content-Range": f"bytes 600000-{MIB - 1}/{MIB}"},
        )
    )
    task = asyncio.ensure_future(fetched(cache, server.url("/m.gguf")))
    await until(lambda: len(server.seen) >= 1)
    server.add("/m.gguf", changed, etag='"two"')
    model = await task
    assert content(model) == changed


async def test_bytes_without_a_validator_are_not_pieced_together(
    server: FileServer, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", flush_bytes=1)
    data = model_bytes(MIB)
    server.add("/m.gguf", data, etag=None)
    server.faults.append(Fault(hold_after=500_000))
    await cancelled_midway(server, cache, "/m.gguf", 500_000)
    model = await fetched(make_cache(tmp_path / "cache"), server.url("/m.gguf"))
    assert content(model) == data
    assert server.gets()[-1].start == 0


async def test_a_length_that_is_too_long_is_noticed_and_tried_only_so_often(
    server: FileServer, cache: ModelCache
) -> None:
    data = model_bytes(100_000)
    server.add("/m.gguf", data)
    server.faults.extend([Fault(declared_length=200_000)] * 50)
    error = await failed(cache, server.url("/m.gguf"))
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, False)
    assert len(server.seen) < 20


async def test_a_wrong_digest_says_both_and_leaves_nothing(
    server: FileServer, cache: ModelCache
) -> None:
    actual = server.add("/m.gguf", model_bytes(100_000))
    expected = "0" * 64
    error = await failed(cache, server.url("/m.gguf"), expected)
    assert (error.reason, error.final) == (Reason.CHECKSUM_MISMATCH, True)
    assert expected in error.message
    assert actual in error.message
    assert leftovers(cache) == []
    assert len(server.gets()) == 1


async def test_a_mismatch_of_pieces_is_judged_only_after_one_fetch_in_one_piece(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/m.gguf", model_bytes(MIB, seed=2), etag=None)
    right = server.files["/m.gguf"].data
    server.files["/m.gguf"].data = model_bytes(MIB, seed=1)
    server.faults.append(Fault(cut_after=500_000))
    task = asyncio.ensure_future(fetched(cache, server.url("/m.gguf"), digest))
    await until(lambda: server.sent_bytes() >= 500_000)
    server.files["/m.gguf"].data = right
    assert (await task).sha256 == digest


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "credentials"),
        (403, "credentials"),
        (404, "no such file"),
        (410, "removed"),
        (400, ""),
    ],
)
async def test_an_answer_that_will_not_change_is_final_and_asked_for_once(
    server: FileServer, cache: ModelCache, status: int, says: str
) -> None:
    server.faults.append(Fault(status=status))
    error = await failed(cache, server.url("/m.gguf?token=secret"))
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, True)
    assert str(status) in error.message
    assert "127.0.0.1" in error.message
    assert says in error.message
    assert "secret" not in error.message
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_an_answer_that_may_pass_is_tried_again(
    server: FileServer, cache: ModelCache, status: int
) -> None:
    digest = server.add("/m.gguf", model_bytes(50_000))
    server.faults.extend([Fault(status=status)] * 2)
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest
    assert len(server.seen) == 3


async def test_a_server_that_stays_broken_is_given_up_for_now(
    server: FileServer, cache: ModelCache
) -> None:
    server.faults.extend([Fault(status=503)] * 50)
    error = await failed(cache, server.url("/m.gguf"))
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, False)
    assert "503" in error.message
    assert len(server.seen) == Limits().attempts


async def test_retry_after_is_waited_for(server: FileServer, cache: ModelCache) -> None:
    server.add("/m.gguf", model_bytes(50_000))
    server.faults.append(Fault(status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    await fetched(cache, server.url("/m.gguf"))
    assert time.monotonic() - began >= 1


async def test_a_retry_after_beyond_bearing_is_not_waited_for(
    server: FileServer, cache: ModelCache
) -> None:
    server.faults.append(Fault(status=503, headers={"Retry-After": "86400"}))
    error = await failed(cache, server.url("/m.gguf"))
    assert not error.final
    assert "86400 s" in error.message


async def test_a_silent_server_is_left_after_its_time(server: FileServer, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", read_seconds=0.1, attempts=2)
    server.faults.extend([Fault(silent=True)] * 2)
    error = await failed(cache, server.url("/m.gguf"))
    assert not error.final
    assert "127.0.0.1 sent nothing" in error.message


async def test_a_stalled_body_is_resumed(server: FileServer, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", read_seconds=0.2)
    digest = server.add("/m.gguf", model_bytes(MIB))
    server.faults.append(Fault(hold_after=300_000))
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest
    assert [request.start for request in server.gets()] == [0, 300_000]


async def test_a_closed_port_is_not_final(cache: ModelCache) -> None:
    error = await failed(cache, "http://127.0.0.1:9/m.gguf")
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, False)
    assert "127.0.0.1 cannot be reached" in error.message


async def test_a_web_page_is_recognised_before_the_rest_is_fetched(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", b"<!DOCTYPE html><html><title>Log in</title>" + b" " * 8 * MIB)
    error = await failed(cache, server.url("/m.gguf"))
    assert (error.reason, error.final) == (Reason.INVALID_MODEL, True)
    assert "web page" in error.message
    assert leftovers(cache) == []
    assert server.sent_bytes() < 8 * MIB


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"some other file" * 100])
async def test_what_is_no_model_is_refused(
    server: FileServer, cache: ModelCache, data: bytes
) -> None:
    server.add("/m.gguf", data)
    error = await failed(cache, server.url("/m.gguf"))
    assert (error.reason, error.final) == (Reason.INVALID_MODEL, True)
    assert leftovers(cache) == []


async def test_an_announced_size_above_the_profile_is_refused_at_once(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(MIB))
    error = await failed(cache, server.url("/m.gguf"), max_model_bytes=1000)
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, True)
    assert f"({MIB} bytes)" in error.message
    assert "1000 bytes, runtime.maxModelBytes" in error.message
    assert leftovers(cache) == []


async def test_a_volume_without_room_is_known_up_front_with_numbers(
    server: FileServer, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", disk_reserve_bytes=1 << 60)
    server.add("/m.gguf", model_bytes(MIB))
    error = await failed(cache, server.url("/m.gguf"))
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, False)
    assert "needs 1.0 MiB more" in error.message
    assert "free" in error.message


async def test_progress_grows_to_the_whole_and_is_told_seldom(
    server: FileServer, cache: ModelCache
) -> None:
    server.add("/m.gguf", model_bytes(4 * MIB))
    told: list[tuple[int, int | None]] = []
    await cache.fetch(
        server.url("/m.gguf"), None, SETTINGS, lambda done, total: told.append((done, total))
    )
    assert told == sorted(told)
    assert told[-1] == (4 * MIB, 4 * MIB)
    assert len(told) < 20


async def test_a_cancelled_fetch_ends_promptly_and_is_resumed(
    server: FileServer, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", flush_bytes=1)
    digest = server.add("/m.gguf", model_bytes(2 * MIB))
    server.faults.append(Fault(hold_after=MIB))
    await cancelled_midway(server, cache, "/m.gguf", MIB)
    assert len(leftovers(cache)) == 2
    model = await fetched(make_cache(tmp_path / "cache"), server.url("/m.gguf"))
    assert model.sha256 == digest
    assert server.gets()[-1].start == MIB
    assert server.sent_bytes() == 2 * MIB


async def test_another_boot_trusts_only_the_bytes_that_were_synced(
    server: FileServer, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "cache", sync_bytes=256 << 10, flush_bytes=1)
    digest = server.add("/m.gguf", model_bytes(2 * MIB))
    server.faults.append(Fault(hold_after=MIB + 1000))
    await cancelled_midway(server, cache, "/m.gguf", MIB + 1000)
    (sidecar,) = (tmp_path / "cache" / "partial").glob("*.json")
    known = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**known, "boot": "another"}))
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest
    assert server.gets()[-1].start == known["synced"]
    assert MIB - (256 << 10) < known["synced"] <= MIB + 1000


async def cancelled_midway(server: FileServer, cache: ModelCache, path: str, sent: int) -> None:
    task = asyncio.ensure_future(cache.fetch(server.url(path), None, SETTINGS, ignored))
    partial = cache._around.store.part(server.url(path))
    await until(lambda: partial.exists() and partial.stat().st_size == sent)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1


async def until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
