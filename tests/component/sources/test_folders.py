"""Models of several files, from a hub that speaks like the real one and from the pod's folders."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.file_server import Fault, FileServer
from tests.support.model_folders import (
    COMMIT,
    TREE_FILES,
    contents,
    encoder_files,
    publish_repository,
    tree_digest,
    write_files,
)
from tests.support.model_sources import SETTINGS, fetched, ignored, make_cache
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources import HubAccess, ModelCache

URI = "hf://team/encoder"
FILES = encoder_files()


@pytest.fixture
def hub_cache(tmp_path: Path, server: FileServer) -> ModelCache:
    return make_cache(tmp_path / "cache", hub=HubAccess(endpoint=server.url(""), token=None))


async def failed(
    cache: ModelCache, uri: str, sha256: str | None = None, /, **settings: object
) -> LoadError:
    assert SETTINGS.allow_http
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, sha256, **settings)
    return caught.value


async def test_of_a_repository_only_the_files_that_are_needed_are_fetched(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    model = await fetched(hub_cache, URI)
    assert contents(model.path) == {name: FILES[name] for name in TREE_FILES}
    assert model.sha256 == tree_digest(FILES)
    assert model.size == sum(len(FILES[name]) for name in TREE_FILES)
    asked = sorted(request.path.rsplit("/", 1)[-1] for request in server.gets()[1:])
    assert asked == sorted(TREE_FILES)


async def test_a_folder_of_the_pod_has_the_same_digest_and_stays_where_it_is(
    tmp_path: Path, cache: ModelCache
) -> None:
    folder = tmp_path / "models" / "encoder"
    write_files(folder, FILES)
    model = await fetched(cache, "file:encoder", file_roots=(str(tmp_path / "models"),))
    assert (model.path, model.sha256) == (str(folder), tree_digest(FILES))
    again = await fetched(cache, f"{folder.as_uri()}/", model.sha256, file_roots=(str(tmp_path),))
    assert again == model


async def test_a_file_that_needs_others_brings_them(
    tmp_path: Path, server: FileServer, hub_cache: ModelCache
) -> None:
    files = {f"onnx/{n}" if "onnx" in n else n: data for n, data in FILES.items()}
    names = ("config.json", "onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json")
    publish_repository(server, files)
    model = await fetched(hub_cache, f"{URI}/onnx/model.onnx")
    assert model.path.endswith(f"{model.sha256}/onnx/model.onnx")
    assert model.sha256 == tree_digest(files, names)
    assert Path(model.path).parents[1].joinpath("tokenizer.json").is_file()


async def test_of_a_models_builds_only_the_one_in_the_precision_is_fetched(
    tmp_path: Path, server: FileServer, hub_cache: ModelCache
) -> None:
    builds = {name.replace("model.", "model_fp16."): data for name, data in FILES.items()}
    publish_repository(server, FILES | {n: data[:-1] for n, data in builds.items() if "16" in n})
    settings = SETTINGS.model_copy(update={"file_roots": (str(tmp_path),)})
    models = {}
    for precision in PrecisionType:
        if precision is PrecisionType.INT8:
            with pytest.raises(LoadError, match=r"no int8 build.*f16 \(model_fp16.onnx\)"):
                await hub_cache.fetch(URI, None, settings, ignored, None, precision)
            continue
        model = await hub_cache.fetch(URI, None, settings, ignored, None, precision)
        models[precision] = model
        is_whole = precision is PrecisionType.AUTO
        folder = Path(model.path) if is_whole else Path(model.path).parent
        build = "model_fp16.onnx" if precision is PrecisionType.F16 else "model.onnx"
        assert set(contents(folder)) == {
            "config.json",
            build,
            f"{build}_data",
            "tokenizer.json",
        }
        pinned = await hub_cache.fetch(URI, model.sha256, settings, ignored, None, precision)
        assert pinned == model
        write_files(tmp_path / "models", contents(folder))
        lying = "file:models"
        copied = await hub_cache.fetch(lying, None, settings, ignored, None, precision)
        assert copied.sha256 == model.sha256
        assert Path(copied.path).name == ("models" if is_whole else build)
    assert models[PrecisionType.F16].sha256 != models[PrecisionType.F32].sha256
    asked = [request.path for request in server.gets() if request.path.endswith("_data")]
    assert len(asked) == 2, "what several builds need is fetched once"


async def test_a_file_cut_in_any_of_several_files_goes_on_where_it_was(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    chance = random.Random(3)  # noqa: S311 - test data
    server.faults.append(Fault())  # the listing
    server.faults.extend(Fault(cut_after=chance.randrange(100, 20_000)) for _ in range(20))
    model = await fetched(hub_cache, URI)
    assert model.sha256 == tree_digest(FILES)
    sent = sum(request.sent for request in server.gets() if "/resolve/" in request.path)
    assert sent == model.size


async def test_a_commit_that_is_cached_asks_nobody_and_a_branch_asks_once(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    model = await fetched(hub_cache, URI)
    asked = len(server.seen)
    assert await fetched(hub_cache, URI) == model
    assert [request.path for request in server.seen[asked:]] == [
        "/api/models/team/encoder/revision/main?blobs=true"
    ]
    asked = len(server.seen)
    await fetched(hub_cache, f"{URI}@{COMMIT}")
    await fetched(hub_cache, f"{URI}@{COMMIT}")
    # The first one lists; what the other revision brought is there by its digest or its tag.
    assert len([r for r in server.seen[asked:] if r.path.startswith("/api/")]) == 1


async def test_a_digest_of_all_files_is_checked_and_then_found_without_asking(
    tmp_path: Path, server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    digest = tree_digest(FILES)
    await fetched(hub_cache, URI, digest)
    asked = len(server.seen)
    await fetched(hub_cache, "hf://other/place", digest)
    assert len(server.seen) == asked
    error = await failed(make_cache(tmp_path / "new", hub=hub_cache._around.hub), URI, "0" * 64)
    assert error.reason is Reason.CHECKSUM_MISMATCH
    assert digest in error.message


async def test_a_file_that_is_not_what_the_hub_says_is_refused(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    server.files[f"/team/encoder/resolve/{COMMIT}/model.onnx_data"].data = b"x" * 300_000
    assert (await failed(hub_cache, URI)).reason is Reason.CHECKSUM_MISMATCH


async def test_a_web_page_in_place_of_weights_is_refused(
    server: FileServer, hub_cache: ModelCache
) -> None:
    files = {**FILES, "model.onnx": b"<!DOCTYPE html><html>" + b" " * 2000}
    publish_repository(server, files)
    error = await failed(hub_cache, URI)
    assert error.reason is Reason.INVALID_MODEL
    assert "web page" in error.message


async def test_all_files_together_may_be_too_large(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    error = await failed(hub_cache, URI, max_model_bytes=305_000)
    assert "runtime.maxModelBytes" in error.message
    assert not [r for r in server.gets() if "/resolve/" in r.path]


async def test_a_damaged_file_of_a_tree_is_fetched_anew(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    model = await fetched(hub_cache, URI)
    damaged = Path(model.path) / "model.onnx_data"
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    again = await fetched(hub_cache, URI)
    assert again.sha256 == tree_digest(FILES)
    assert contents(again.path) == {name: FILES[name] for name in TREE_FILES}


async def test_names_that_lead_out_of_the_folder_are_refused(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, {**FILES, "../evil.json": b"{}"})
    error = await failed(hub_cache, URI)
    assert error.final
    assert "../evil.json" in error.message


async def test_several_models_in_a_repository_have_to_be_told_apart(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, {"a.gguf": FILES["other/part.gguf"], "b.gguf": b"GGUF"})
    error = await failed(hub_cache, URI)
    assert "name one of them: a.gguf, b.gguf" in error.message


async def test_links_of_a_folder_may_lead_within_the_pools_folders_and_not_out_of_them(
    tmp_path: Path, cache: ModelCache
) -> None:
    folder = tmp_path / "models" / "snapshot"
    write_files(tmp_path / "models" / "blobs", {"1": FILES["model.onnx"]})
    folder.mkdir()
    (folder / "model.onnx").symlink_to("../blobs/1")
    roots = (str(tmp_path / "models"),)
    assert (await fetched(cache, "file:snapshot", file_roots=roots)).sha256 == tree_digest(
        FILES, ("model.onnx",)
    )
    (tmp_path / "secret.json").write_text("{}")
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    assert "runtime.fileRoots" in (await failed(cache, "file:snapshot", file_roots=roots)).message


async def test_a_folder_without_a_model_is_looked_at_again(
    tmp_path: Path, cache: ModelCache
) -> None:
    (tmp_path / "empty").mkdir()
    error = await failed(cache, "file:empty", file_roots=(str(tmp_path),))
    assert not error.final
    assert "holds no model" in error.message


async def test_callers_who_want_a_folder_at_once_share_one_fetch(
    server: FileServer, hub_cache: ModelCache
) -> None:
    publish_repository(server, FILES)
    first, second = await asyncio.gather(fetched(hub_cache, URI), fetched(hub_cache, URI))
    assert first == second
    assert len(server.gets()) == 1 + len(TREE_FILES)
