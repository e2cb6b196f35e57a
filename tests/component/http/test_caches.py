"""What a pod keeps of its answers: given again, told of, and forgotten."""

import asyncio
import json
import pathlib
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.support.encoder_models import Encoder, write_encoder
from tests.support.fake_models import MIB, World, until, wanted
from tests.support.runtimes import eventually, served
from tests.support.scripted_models import FakeModels, Gate, desired_model, fails_after, says
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ResponseCache, ServingLimits
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.cli.commands import app
from ullage_runtime.core.cache import CacheKey
from ullage_runtime.core.errors import EngineFailed
from ullage_runtime.http.auth import entry_line

PATIENCE = 60.0
EXAMPLES = pathlib.Path(__file__).parents[3] / "examples" / "models"
CHATS = "/v1/chat/completions"
KEEPS = ServingLimits(response_cache=ResponseCache(ttl_seconds=60))
ASKED: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "What is Ullage?"}],
    "temperature": 0,
}


def document(folder: pathlib.Path, *models: DesiredModel) -> PoolDesired:
    settings = RuntimeSettings(file_roots=(str(folder),))
    return PoolDesired(namespace="n", pool="p", settings=settings, models=models).sealed(1)


async def serving(runtime: Runtime) -> None:
    await eventually(
        lambda: all(m.reason is Reason.SERVING for m in runtime.models.report().models), PATIENCE
    )


async def cached(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    answer = await client.get("/cache/stats")
    states: list[dict[str, Any]] = answer.json()["caches"]
    return next(each for each in states if each["name"] == name)


def pieces(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


# Embeddings --------------------------------------------------------------------------------------


async def test_texts_that_were_embedded_are_not_computed_again_until_they_are_forgotten(
    tmp_path: pathlib.Path,
) -> None:
    write_encoder(tmp_path / "encoder.gguf", Encoder())
    target = DesiredRevision(
        uri="file:encoder.gguf", engine=EngineSettings(threads=1), task=Task.EMBEDDING
    )
    embed = DesiredModel(name="embed", task=Task.EMBEDDING, ordinals=(0,), target=target)
    texts = ["the red fox", "blue water", "the red fox"]
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(tmp_path, embed))
        await serving(runtime)

        async def embedded(given: list[str]) -> dict[str, Any]:
            answer = await client.post("/v1/embeddings", json={"model": "embed", "input": given})
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        first, again = await embedded(texts), await embedded(texts)
        assert again["data"] == first["data"]
        assert first["data"][0]["embedding"] == first["data"][2]["embedding"]
        (usage, later) = (each["usage"] for each in (first, again))
        assert later["prompt_tokens"] == usage["prompt_tokens"]
        assert later["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]
        assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
        state = await cached(client, "embeddings")
        assert state["models"] == [
            {"model": "embed", "hits": 2, "disk": 0, "shared": 0, "misses": 2}
        ]
        assert (state["entries"], state["limit"]) == (2, state["max"])
        metrics = (await client.get("/metrics")).text
        assert (
            'ullage_cache_lookups_total{cache="embeddings",model="embed",outcome="hit"} 2.0'
            in metrics
        )
        # A ranking by cosine asks the same cache.
        ranked = await client.post(
            "/v1/rerank", json={"model": "embed", "query": "the", "documents": texts}
        )
        assert ranked.status_code == 200, ranked.text
        assert (await cached(client, "embeddings"))["entries"] == 3

        cleared = (await client.delete("/cache", params={"model": "embed"})).json()
        assert (cleared["entries"], cleared["bytes"] > 0) == (3, True)
        assert (await embedded(texts))["data"] == first["data"]
        assert (await cached(client, "embeddings"))["models"][0]["misses"] == 5


async def test_vectors_that_were_warmed_up_are_there_after_a_restart_until_they_are_cleared(
    tmp_path: pathlib.Path,
) -> None:
    write_encoder(tmp_path / "encoder.gguf", Encoder())
    target = DesiredRevision(uri="file:encoder.gguf", task=Task.EMBEDDING)
    embed = DesiredModel(name="embed", task=Task.EMBEDDING, ordinals=(0,), target=target)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the fox {number}" for number in range(100)) + "\nthe fox 7\n\n")
    kept = {"embeddings_disk_cache_max_bytes": MIB}

    async def warm(url: str) -> dict[str, int]:
        command = ["cache", "warm", "embed", str(texts), "--url", url, "--json"]
        answer = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert answer.exit_code == 0, answer.output
        told: dict[str, int] = json.loads(answer.stdout)
        return told

    async with served(tmp_path, None, **kept) as (runtime, client):
        await runtime.models.apply(document(tmp_path, embed))
        await serving(runtime)
        told = await warm(runtime.url)
        assert (told["texts"], told["cachedTokens"]) == (100, 0)
        assert (await cached(client, "embeddings"))["disk"]["entries"] == 100
    async with served(tmp_path, None, **kept) as (runtime, client):
        await runtime.models.apply(document(tmp_path, embed))
        await serving(runtime)
        again = await warm(runtime.url)
        assert again["cachedTokens"] == again["tokens"] == told["tokens"]
        state = await cached(client, "embeddings")
        lookups = {"hits": 0, "disk": 100, "shared": 0, "misses": 0}
        assert state["models"] == [{"model": "embed", **lookups}]
        assert state["entries"] == 100
        metrics = (await client.get("/metrics")).text
        assert 'ullage_cache_bytes{cache="embeddings",what="disk"}' in metrics
        assert (await client.delete("/cache")).json()["entries"] == 200
        assert (await cached(client, "embeddings"))["disk"]["entries"] == 0


async def test_memory_that_gets_short_takes_the_caches_room(tmp_path: pathlib.Path) -> None:
    world = World()
    world.engines.load_seconds = 0.01
    pool = world.pool()
    async with served(tmp_path, pool) as (_, client):
        await pool.apply(world.document(wanted()))
        await until(pool, lambda m: m.reason is Reason.SERVING)
        caches = pool._around.caches
        caches.answers.cache.max_bytes = caches.answers.cache.limit_bytes = MIB
        caches.answers.keep(CacheKey("t", "chat", "r", b""), (), 1000, 60)
        world.device.used = 950 * MIB
        await eventually(lambda: pool.report().level is MemoryLevel.CRITICAL, PATIENCE)
        await eventually(lambda: not caches.answers.cache.size.entries, PATIENCE)
        assert (await client.get("/memory/stats")).json()["level"] == "Critical"


# Answers -----------------------------------------------------------------------------------------


async def test_a_real_models_answer_is_given_again_whole_and_as_a_stream(
    tmp_path: pathlib.Path,
) -> None:
    target = DesiredRevision(uri="file:guide-v1.gguf", engine=EngineSettings(threads=1))
    chat = DesiredModel(name="chat", task=Task.CHAT, ordinals=(0,), target=target, serving=KEEPS)
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(EXAMPLES, chat))
        await serving(runtime)
        first = await client.post(CHATS, json=ASKED)
        assert first.headers["cache-status"] == "ullage; fwd=miss"
        again = await client.post(CHATS, json=ASKED)
        assert again.headers["cache-status"] == "ullage; hit"
        one, other = first.json(), again.json()
        assert other["choices"] == one["choices"]
        assert other["id"] != one["id"]
        tokens = one["usage"]["prompt_tokens"]
        assert one["usage"] | {"prompt_tokens_details": {"cached_tokens": tokens}} == other["usage"]
        streamed = await client.post(CHATS, json={**ASKED, "stream": True})
        assert streamed.headers["cache-status"] == "ullage; hit"
        deltas = [piece["choices"][0] for piece in pieces(streamed.text)]
        text = "".join(each["delta"].get("content", "") for each in deltas)
        assert text == one["choices"][0]["message"]["content"]
        assert deltas[0]["delta"]["role"] == "assistant"
        assert deltas[-1]["finish_reason"] == one["choices"][0]["finish_reason"]


async def test_an_answer_that_was_streamed_is_given_again_to_the_same_key_only(
    tmp_path: pathlib.Path,
) -> None:
    models = FakeModels([desired_model("chat", serving=KEEPS)], {"chat": lambda _: says("a", "b")})
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("one", "two"):
        (keys / name).write_text(entry_line(f"key-{name}"))
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):

        async def status(key: str, **given: Any) -> str | None:
            headers = {"Authorization": f"Bearer key-{key}"}
            answer = await client.post(CHATS, json={**ASKED, **given}, headers=headers)
            assert answer.status_code == 200, answer.text
            told: str | None = answer.headers.get("cache-status")
            return told

        assert await status("one", stream=True) == "ullage; fwd=miss"
        assert await status("one") == "ullage; hit"
        assert await status("two") == "ullage; fwd=miss"
        for other in (
            {"max_tokens": 3},
            {"messages": [{"role": "user", "content": "?"}]},
            {"n": 2},
            {"stop": "."},
        ):
            assert await status("one", **other) == "ullage; fwd=miss"
            assert await status("one", **other) == "ullage; hit"
        assert await status("one", temperature=0.1) is None
        headers = {"Authorization": "Bearer key-two"}
        assert (await client.delete("/cache", headers=headers)).json()["entries"] == 1
        assert await status("one") == "ullage; hit"
        assert await status("two") == "ullage; fwd=miss"


async def test_a_hit_waits_for_no_room_and_is_counted_like_any_answer(
    tmp_path: pathlib.Path,
) -> None:
    models = FakeModels([desired_model("chat", serving=KEEPS)])
    async with served(tmp_path, models) as (_, client):
        await client.post(CHATS, json=ASKED)
        models.queue["chat"] = asyncio.Event()
        again = await client.post(CHATS, json=ASKED)
        assert again.json()["choices"][0]["message"]["content"] == "You said: What is Ullage?"
        metrics = (await client.get("/metrics")).text
        assert 'ullage_generations_total{model="chat",outcome="finished"} 2.0' in metrics
        assert 'ullage_tokens_total{kind="completion",model="chat"} 6.0' in metrics


@pytest.mark.parametrize("limits", [None, ResponseCache(ttl_seconds=0)])
async def test_without_the_field_nothing_is_kept(
    tmp_path: pathlib.Path, limits: ResponseCache | None
) -> None:
    serving = ServingLimits(response_cache=limits)
    models = FakeModels([desired_model("chat", serving=serving)])
    async with served(tmp_path, models) as (_, client):
        for _ in range(2):
            assert "cache-status" not in (await client.post(CHATS, json=ASKED)).headers
        assert len(models.requests) == 2
        assert (await cached(client, "answers"))["entries"] == 0


async def test_what_breaks_off_is_not_kept(tmp_path: pathlib.Path) -> None:
    error = EngineFailed("gone", retry_after=1)
    gate = Gate()
    models = FakeModels([desired_model("chat", serving=KEEPS)])
    async with served(tmp_path, models) as (_, client):
        models.scripts["chat"] = fails_after("one", error=error)
        assert (await client.post(CHATS, json=ASKED)).status_code == error.status
        models.scripts["chat"] = gate
        leaving = asyncio.create_task(client.post(CHATS, json=ASKED))
        async with asyncio.timeout(PATIENCE):
            await gate.began.wait()
            leaving.cancel()
            await gate.cancelled.wait()
        assert (await cached(client, "answers"))["entries"] == 0
        assert (await cached(client, "answers"))["models"][0] == {
            "model": "chat",
            "hits": 0,
            "disk": 0,
            "shared": 0,
            "misses": 2,
        }
