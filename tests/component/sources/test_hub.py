"""Files of the hub, from a real local endpoint that speaks like it."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.file_server import Fault, FileServer, file_server
from tests.support.model_sources import SETTINGS, fetched, make_cache, model_bytes
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import HubAccess, ModelCache

COMMIT = "a" * 40
LATER = "b" * 40
URI = "hf://team/tiny/gguf/m.gguf"
STRICT = {"allow_http": False, "allow_private_addresses": False}


@pytest.fixture
async def cdn() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


def publish(
    hub: FileServer, cdn: FileServer, data: bytes, commit: str = COMMIT, token: str | None = None
) -> str:
    """Put a large file on the hub: its own answer redirects to where the bytes are."""
    digest = cdn.add(f"/blob/{commit}", data, etag='"of-the-cdn"')
    for revision in ("main", commit):
        hub.add(
            f"/team/tiny/resolve/{revision}/gguf/m.gguf",
            b"",
            location=cdn.url(f"/blob/{commit}"),
            token=token,
            headers={
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
            },
        )
    return digest


def cache_of(tmp_path: Path, hub: FileServer, token: str | None = None) -> ModelCache:
    return make_cache(tmp_path / "cache", hub=HubAccess(endpoint=hub.url(""), token=token))


async def test_a_file_of_the_hub_is_fetched_at_the_commit_its_revision_stands_for(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    digest = publish(server, cdn, model_bytes(200_000))
    cache = cache_of(tmp_path, server)
    model = await fetched(cache, URI)
    assert model.sha256 == digest
    assert [(r.method, r.path) for r in server.seen] == [
        ("HEAD", "/team/tiny/resolve/main/gguf/m.gguf"),
        ("GET", f"/team/tiny/resolve/{COMMIT}/gguf/m.gguf"),
    ]
    entry = cache._around.store.known(URI)
    assert entry is not None
    assert entry.commit == COMMIT


async def test_a_revision_that_did_not_move_costs_one_question(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(200_000))
    cache = cache_of(tmp_path, server)
    await fetched(cache, URI)
    await fetched(cache, URI)
    assert [request.method for request in server.seen] == ["HEAD", "GET", "HEAD"]


async def test_a_revision_that_moved_brings_the_new_file(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(200_000))
    cache = cache_of(tmp_path, server)
    await fetched(cache, URI)
    digest = publish(server, cdn, model_bytes(200_000, seed=2), commit=LATER)
    assert (await fetched(cache, URI)).sha256 == digest


async def test_a_pinned_commit_that_is_cached_asks_nobody(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(200_000))
    cache = cache_of(tmp_path, server)
    await fetched(cache, f"{URI}@{COMMIT}")
    asked = len(server.seen)
    await fetched(cache, f"{URI}@{COMMIT}")
    assert len(server.seen) == asked


async def test_a_small_file_kept_in_git_itself_is_fetched_too(
    server: FileServer, tmp_path: Path
) -> None:
    for revision in ("main", COMMIT):
        server.add(
            f"/team/tiny/resolve/{revision}/gguf/m.gguf",
            model_bytes(10_000),
            etag='"' + "c" * 40 + '"',
            headers={"X-Repo-Commit": COMMIT},
        )
    cache = cache_of(tmp_path, server)
    await fetched(cache, URI)
    await fetched(cache, URI)
    assert [request.method for request in server.seen] == ["HEAD", "GET", "HEAD"]


async def test_the_token_goes_to_the_hub_and_to_nobody_else(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    digest = publish(server, cdn, model_bytes(200_000), token="hf_secret")
    assert (await fetched(cache_of(tmp_path, server, "hf_secret"), URI)).sha256 == digest
    assert {r.headers.get("authorization") for r in server.seen} == {"Bearer hf_secret"}
    assert {r.headers.get("authorization") for r in cdn.seen} == {None}


async def test_the_token_does_not_go_to_other_sources(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    cdn.add("/m.gguf", model_bytes(1000))
    await fetched(cache_of(tmp_path, server, "hf_secret"), cdn.url("/m.gguf"))
    assert cdn.seen[0].headers.get("authorization") is None


async def test_a_gated_file_says_what_to_set(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(1000), token="hf_secret")
    error = await failed(cache_of(tmp_path, server), URI)
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, True)
    assert "401" in error.message
    assert "HF_TOKEN" in error.message


async def test_an_unknown_file_is_final(server: FileServer, tmp_path: Path) -> None:
    error = await failed(cache_of(tmp_path, server), URI)
    assert error.final
    assert "404" in error.message


async def test_a_hub_that_is_busy_is_asked_again(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    digest = publish(server, cdn, model_bytes(1000))
    server.faults.extend([Fault(status=429), Fault(status=503)])
    assert (await fetched(cache_of(tmp_path, server), URI)).sha256 == digest


async def test_a_hub_that_is_down_does_not_take_the_cached_copy_away(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    digest = publish(server, cdn, model_bytes(1000))
    cache = cache_of(tmp_path, server)
    await fetched(cache, URI)
    server.faults.extend([Fault(status=500)] * 20)
    assert (await fetched(cache, URI)).sha256 == digest


async def test_another_digest_than_the_hubs_is_known_before_the_download(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(1000))
    error = await failed(cache_of(tmp_path, server), URI, "0" * 64)
    assert (error.reason, error.final) == (Reason.CHECKSUM_MISMATCH, True)
    assert cdn.seen == []


async def test_bytes_that_are_not_those_the_hub_promised_are_refused(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(1000))
    cdn.files[f"/blob/{COMMIT}"].data = model_bytes(1000, seed=9)
    error = await failed(cache_of(tmp_path, server), URI)
    assert error.reason is Reason.CHECKSUM_MISMATCH


async def test_a_size_above_the_profile_is_refused_before_the_download(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    publish(server, cdn, model_bytes(1000))
    error = await failed(cache_of(tmp_path, server), URI, max_model_bytes=999)
    assert "runtime.maxModelBytes" in error.message
    assert cdn.seen == []


async def test_an_endpoint_that_an_admin_set_may_be_private_but_leads_nowhere_private(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    data = model_bytes(1000)
    headers = {"X-Repo-Commit": COMMIT}
    for revision in ("main", COMMIT):
        server.add(f"/team/tiny/resolve/{revision}/gguf/m.gguf", data, headers=headers)
    model = await fetched(cache_of(tmp_path, server), URI, **STRICT)
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    publish(server, cdn, model_bytes(1000, seed=3), commit=LATER)
    error = await failed(cache_of(tmp_path, server), f"{URI}@{LATER}", **STRICT)
    assert error.final
    assert cdn.seen == []


async def test_endpoint_and_token_come_from_the_environment(
    server: FileServer, cdn: FileServer, tmp_path: Path
) -> None:
    digest = publish(server, cdn, model_bytes(1000), token="hf_secret")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("fetch_in_a_process.py")),
        str(tmp_path / "cache"),
        URI,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "HF_ENDPOINT": server.url(""),
            "HF_TOKEN": "hf_secret",
            "HF_HOME": str(tmp_path / "hub"),
        },
    )
    output, _ = await process.communicate()
    assert output.decode().split()[-1] == digest


async def failed(
    cache: ModelCache, uri: str, sha256: str | None = None, /, **settings: object
) -> LoadError:
    assert SETTINGS.allow_http
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, sha256, **settings)
    return caught.value
