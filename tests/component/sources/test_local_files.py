"""Files of the pod: which may be read, and that they are hashed once."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.model_sources import SETTINGS, fetched, make_cache, model_bytes
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import ModelCache

LONG_AGO = (1_700_000_000, 1_700_000_000)


@pytest.fixture
def roots(tmp_path: Path) -> tuple[str, ...]:
    for name in ("first", "second", "outside"):
        (tmp_path / name).mkdir()
    return (str(tmp_path / "first"), str(tmp_path / "second"))


def put(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, LONG_AGO)
    return hashlib.sha256(data).hexdigest()


async def failed(
    cache: ModelCache, uri: str, roots: tuple[str, ...], sha256: str | None = None, **more: object
) -> LoadError:
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, sha256, file_roots=roots, **more)
    return caught.value


async def test_a_file_is_used_where_it_lies(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    path = tmp_path / "first" / "a model.gguf"
    digest = put(path, model_bytes(5000))
    model = await fetched(cache, f"file://{tmp_path}/first/a%20model.gguf", file_roots=roots)
    assert (model.path, model.sha256, model.size) == (str(path), digest, 5000)


async def test_a_name_is_looked_up_beneath_the_folders_in_order(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    later = put(tmp_path / "second" / "sub" / "m.gguf", model_bytes(5000, seed=2))
    model = await fetched(cache, "file:sub/m.gguf", file_roots=roots)
    assert model.sha256 == later
    first = put(tmp_path / "first" / "sub" / "m.gguf", model_bytes(5000, seed=1))
    model = await fetched(cache, "file:sub/m.gguf", file_roots=roots)
    assert model.sha256 == first


@pytest.mark.parametrize(
    "uri",
    [
        "file://{tmp}/outside/m.gguf",
        "file://{tmp}/first/../outside/m.gguf",
        "file:../outside/m.gguf",
        "file:%2e%2e/outside/m.gguf",
        "file:link.gguf",
        "file://{tmp}/first/link.gguf",
        "file:folder/m.gguf",
        "file:dangling.gguf",
        "file:///etc/passwd",
        "file://{tmp}/first-not/m.gguf",
    ],
)
async def test_no_way_leads_out_of_the_folders(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...], uri: str
) -> None:
    put(tmp_path / "outside" / "m.gguf", model_bytes(5000))
    put(tmp_path / "first-not" / "m.gguf", model_bytes(5000))
    (tmp_path / "first" / "link.gguf").symlink_to(tmp_path / "outside" / "m.gguf")
    (tmp_path / "first" / "dangling.gguf").symlink_to(tmp_path / "outside" / "none.gguf")
    (tmp_path / "first" / "folder").symlink_to(tmp_path / "outside")
    error = await failed(cache, uri.format(tmp=tmp_path), roots)
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, True)
    assert "runtime.fileRoots" in error.message
    assert "outside/none" not in error.message


async def test_a_link_within_the_folders_is_followed(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    put(tmp_path / "second" / "v2.gguf", model_bytes(5000))
    (tmp_path / "first" / "current.gguf").symlink_to(tmp_path / "second" / "v2.gguf")
    model = await fetched(cache, "file:current.gguf", file_roots=roots)
    assert model.path == str(tmp_path / "second" / "v2.gguf")


async def test_folders_that_are_links_themselves_hold_what_they_lead_to(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    put(tmp_path / "first" / "m.gguf", model_bytes(5000))
    (tmp_path / "alias").symlink_to(tmp_path / "first")
    model = await fetched(
        cache, f"file://{tmp_path}/alias/m.gguf", file_roots=(str(tmp_path / "alias"),)
    )
    assert model.path == str(tmp_path / "first" / "m.gguf")


async def test_what_is_no_file_is_refused_and_never_opened(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    (tmp_path / "first" / "folder").mkdir()
    os.mkfifo(tmp_path / "first" / "pipe")
    assert "holds no model" in (await failed(cache, "file:folder", roots)).message
    assert "is a pipe" in (await failed(cache, "file:pipe", roots)).message
    error = await failed(cache, "file:///dev/zero", ("/dev",))
    assert "is a device" in error.message
    assert error.final


async def test_a_missing_file_may_still_come(cache: ModelCache, roots: tuple[str, ...]) -> None:
    error = await failed(cache, "file:none.gguf", roots)
    assert (error.reason, error.final) == (Reason.SOURCE_UNAVAILABLE, False)
    assert roots[0] in error.message


async def test_no_folders_mean_no_files(cache: ModelCache) -> None:
    error = await failed(cache, "file:m.gguf", ())
    assert error.final
    assert "runtime.fileRoots" in error.message


async def test_a_wrong_digest_says_both_and_leaves_the_file(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    digest = put(tmp_path / "first" / "m.gguf", model_bytes(5000))
    error = await failed(cache, "file:m.gguf", roots, "0" * 64)
    assert (error.reason, error.final) == (Reason.CHECKSUM_MISMATCH, True)
    assert digest in error.message
    assert "0" * 64 in error.message
    assert (tmp_path / "first" / "m.gguf").exists()


@pytest.mark.parametrize("data", [b"", b"<html>", b"not a model at all"])
async def test_what_is_no_model_is_invalid(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...], data: bytes
) -> None:
    put(tmp_path / "first" / "m.gguf", data)
    error = await failed(cache, "file:m.gguf", roots)
    assert (error.reason, error.final) == (Reason.INVALID_MODEL, True)


async def test_a_file_above_the_profiles_size_is_refused(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    put(tmp_path / "first" / "m.gguf", model_bytes(5000))
    error = await failed(cache, "file:m.gguf", roots, max_model_bytes=4999)
    assert "runtime.maxModelBytes" in error.message


async def test_a_restart_does_not_hash_again_and_a_change_does(
    cache: ModelCache, tmp_path: Path, roots: tuple[str, ...]
) -> None:
    path = tmp_path / "first" / "m.gguf"
    put(path, model_bytes(5000, seed=1))
    settings = SETTINGS.model_copy(update={"file_roots": roots})
    hashed: list[int] = []

    async def fetch_again() -> str:
        one = make_cache(tmp_path / "cache", hash_bytes=1000, progress_seconds=0)
        told: list[int] = []
        model = await one.fetch("file:m.gguf", None, settings, lambda done, _: told.append(done))
        hashed.append(len(told))
        return model.sha256

    first = await fetch_again()
    assert await fetch_again() == first
    digest = put(path, model_bytes(5001, seed=2))
    assert await fetch_again() == digest
    assert hashed == [6, 1, 7]
