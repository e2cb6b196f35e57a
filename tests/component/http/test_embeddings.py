"""Embeddings, rankings and tokens, from a socket to real encoders and back."""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest

from tests.support.encoder_models import Encoder, embedded, score, write_encoder
from tests.support.gguf_models import write_model
from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings, Instructions
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, Peer, PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.http.auth import entry_line

PATIENCE = 60.0
ENCODER, RANKER = Encoder(), Encoder(has_head=True)
TEXTS = ["the fox jumped.", "how un memory water?", "red blue fire " * 8]
MANY = [f"{number} the red fox jumped. " * 7 for number in range(2000)]
EMBEDDINGS = "/v1/embeddings"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("files")
    write_encoder(folder / "encoder.gguf", ENCODER)
    write_encoder(folder / "ranker.gguf", RANKER)
    write_model(folder / "tiny.gguf")
    return folder


def model(name: str, file: str, task: Task, **fields: Any) -> DesiredModel:
    engine = fields.pop("engine", EngineSettings(threads=1))
    apart = task if task in {Task.EMBEDDING, Task.RERANK} else None
    given = {"ordinals": (0,), "serving": ServingLimits(request_seconds=60), **fields}
    target = DesiredRevision(uri=f"file:{file}.gguf", engine=engine, task=apart)
    return DesiredModel(name=name, task=task, target=target, **given)


def document(files: pathlib.Path, *models: DesiredModel, peers: tuple[Peer, ...] = ()) -> Any:
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(files),)),
        models=models,
        peers=peers,
    ).sealed(1)


async def serving(runtime: Runtime) -> None:
    def serves() -> bool:
        return all(m.reason is Reason.SERVING for m in runtime.models.report().models)

    await eventually(serves, PATIENCE)


@contextlib.asynccontextmanager
async def pod(
    folder: pathlib.Path, files: pathlib.Path, *models: DesiredModel, **settings: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with served(folder, None, **settings) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(files, *models))
        await serving(runtime)
        yield runtime, client


EMBED = model("embed", "encoder", Task.EMBEDDING)
RANK = model("rank", "ranker", Task.RERANK)
CHAT = model("chat", "tiny", Task.CHAT)


def wanted(texts: list[str]) -> np.ndarray:
    return np.stack([embedded(ENCODER, text) for text in texts])


def cosines(left: Any, right: Any) -> float:
    return float((np.array(left) * np.array(right)).sum(axis=1).min())


async def test_openais_client_gets_vectors_as_numbers_and_as_base64(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with (
        pod(tmp_path, files, EMBED) as (runtime, client),
        openai.AsyncOpenAI(
            base_url=f"{runtime.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
        ) as openais,
    ):
        numbers = await openais.embeddings.create(
            model="embed", input=TEXTS, encoding_format="float"
        )
        packed = await openais.embeddings.create(model="embed", input=TEXTS)
        assert [each.index for each in numbers.data] == [0, 1, 2]
        assert cosines([each.embedding for each in numbers.data], wanted(TEXTS)) > 0.999
        for one, other in zip(packed.data, numbers.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding, abs=1e-7)
        assert numbers.usage.prompt_tokens == numbers.usage.total_tokens > len(TEXTS)
        raw = await client.post(
            EMBEDDINGS, json={"model": "embed", "input": "the", "encoding_format": "base64"}
        )
        (only,) = raw.json()["data"]
        vector = np.frombuffer(base64.b64decode(only["embedding"]), dtype="<f4")
        assert cosines([vector], wanted(["the"])) > 0.999

        short = await openais.embeddings.create(model="embed", input="the", dimensions=16)
        cut = wanted(["the"])[0][:16]
        assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1, abs=1e-6)
        assert cosines([short.data[0].embedding], [cut / np.linalg.norm(cut)]) > 0.999
        with pytest.raises(openai.BadRequestError, match="gives 64 dimensions; 65 are more") as no:
            await openais.embeddings.create(model="embed", input="the", dimensions=65)
        assert no.value.code == "dimension_mismatch"


async def test_texts_and_tokens_are_embedded_alike_in_every_form_of_input(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, EMBED) as (_, client):
        told = await client.post("/tokenize", json={"model": "embed", "prompt": TEXTS[0]})
        tokens = told.json()["tokens"]
        assert told.json()["max_model_len"] == 128
        for given, count in (
            (TEXTS[0], 1),
            (tokens, 1),
            ([tokens, tokens], 2),
            ([TEXTS[0], tokens], 2),
        ):
            answer = await client.post(EMBEDDINGS, json={"model": "embed", "input": given})
            assert answer.status_code == 200, answer.text
            vectors = [each["embedding"] for each in answer.json()["data"]]
            assert cosines(vectors, wanted([TEXTS[0]] * count)) > 0.999
            assert answer.json()["usage"]["prompt_tokens"] == count * len(tokens)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"input": ""}, "input 0 is empty", "invalid_request_error"),
    ({"input": []}, "not empty", "invalid_request_error"),
    ({"input": ["a"] * 2049}, "at most 2048 inputs", "invalid_request_error"),
    ({"input": [["a"]]}, "input 0 must be a text", "invalid_request_error"),
    ({"input": "\ud800"}, "unpaired surrogate", "invalid_request_error"),
    ({"input": [4000]}, "not in the model's vocabulary", "invalid_request_error"),
    ({"input": "a " * 500}, "takes 128 at once", "context_length_exceeded"),
    ({"input": "a", "dimensions": 0}, "greater than or equal to 1", "invalid_request_error"),
    ({"input": "a", "input_type": "poem"}, "must be one of query", "invalid_request_error"),
    ({"input": "a", "normalize": False}, "not supported", "invalid_request_error"),
    ({"input": "a", "truncate": "START"}, "must be true, false", "invalid_request_error"),
    ({"input": "a", "return_dense": False}, "not supported", "invalid_request_error"),
    ({"input": "a", "embedding_type": "bits"}, "embedding_type", "invalid_request_error"),
    (
        {"input": "a", "embedding_type": "sparse", "dimensions": 8},
        "none are asked for",
        "invalid_request_error",
    ),
    ({"input": "a", "return_sparse": True}, "an ONNX build", "unsupported_output"),
    ({"input": "a", "embedding_type": "colbert"}, "no colbert ones", "unsupported_output"),
    (
        {"input": "a", "task": "query", "input_type": "passage"},
        "contradict",
        "invalid_request_error",
    ),
]


async def test_a_bad_request_says_what_is_wrong(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    headers = {"content-type": "application/json"}
    async with pod(tmp_path, files, EMBED) as (_, client):
        for body, words, code in BAD:
            text = json.dumps({"model": "embed", **body})  # with half characters, unlike httpx
            answer = await client.post(EMBEDDINGS, content=text, headers=headers)
            assert answer.status_code == 400, answer.text
            assert words in answer.json()["error"]["message"]
            assert answer.json()["error"]["code"] == code


async def test_a_model_of_another_task_says_which_endpoint_is_its_own(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    turn = {"messages": [{"role": "user", "content": "hi"}]}
    async with pod(tmp_path, files, EMBED, RANK, CHAT) as (_, client):
        for path, body, name, right in (
            (EMBEDDINGS, {"input": "a"}, "chat", "/v1/chat/completions"),
            (EMBEDDINGS, {"input": "a"}, "rank", "/v1/rerank"),
            ("/v1/chat/completions", turn, "embed", "/v1/embeddings"),
            ("/v1/completions", {"prompt": "a"}, "embed", "/v1/embeddings"),
            ("/v1/responses", {"input": "a"}, "rank", "/v1/rerank"),
            ("/v1/rerank", {"query": "a", "documents": ["b"]}, "chat", "/v1/chat/completions"),
        ):
            answer = await client.post(path, json={"model": name, **body})
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["message"].endswith(f"use {right}")
            assert answer.json()["error"]["param"] == "model"


async def test_instructions_go_before_the_texts_of_their_role(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    instructions = Instructions(query="how ", document="the ")
    instructed = model(
        "embed", "encoder", Task.EMBEDDING, engine=EngineSettings(instructions=instructions)
    )
    async with pod(tmp_path, files, instructed) as (_, client):
        for given, before in (
            ({"input_type": "query"}, "how "),
            ({"input_type": "search_document"}, "the "),
            ({"task": "retrieval.passage"}, "the "),
            ({}, ""),
        ):
            answer = await client.post(
                EMBEDDINGS, json={"model": "embed", "input": "tank", **given}
            )
            vector = answer.json()["data"][0]["embedding"]
            assert cosines([vector], wanted([f"{before}tank"])) > 0.999
        refused = await client.post(
            EMBEDDINGS, json={"model": "embed", "input": [5, 6], "input_type": "query"}
        )
        assert refused.json()["error"]["param"] == "input_type"
        ranked = await client.post(
            "/v1/rerank", json={"model": "embed", "query": "tank", "documents": ["tank", "fox"]}
        )
        found = {r["index"]: r["relevance_score"] for r in ranked.json()["results"]}
        query = embedded(ENCODER, "how tank")
        for index, text in enumerate(["the tank", "the fox"]):
            assert found[index] == pytest.approx(query @ embedded(ENCODER, text), abs=1e-4)


async def test_documents_are_ranked_in_the_shapes_of_the_field(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    raw = [score(RANKER, "the fox?", text) for text in TEXTS]
    order = sorted(range(len(TEXTS)), key=lambda index: -raw[index])
    sigmoids = [1 / (1 + np.exp(-value)) for value in raw]
    async with pod(tmp_path, files, RANK) as (_, client):
        asked = {"model": "rank", "query": "the fox?", "documents": TEXTS}
        for path in ("/v1/rerank", "/v2/rerank"):
            answer = (await client.post(path, json=asked)).json()
            assert [r["index"] for r in answer["results"]] == order
            assert [r["relevance_score"] for r in answer["results"]] == pytest.approx(
                [sigmoids[index] for index in order], abs=1e-3
            )
            assert answer["usage"]["total_tokens"] > 0
            assert "document" not in answer["results"][0]
        objects = [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]]
        best = await client.post(
            "/v1/rerank",
            json={**asked, "documents": objects, "top_n": 1, "return_documents": True},
        )
        (only,) = best.json()["results"]
        assert only["document"] == {"text": TEXTS[order[0]]}

        teis = await client.post(
            "/rerank",
            json={"query": "the fox?", "texts": TEXTS, "raw_scores": True, "return_text": True},
        )
        assert [each["text"] for each in teis.json()] == [TEXTS[index] for index in order]
        assert [each["score"] for each in teis.json()] == pytest.approx(
            [raw[index] for index in order], abs=2e-3
        )

        many = await client.post(
            "/score", json={"model": "rank", "text_1": "the fox?", "text_2": TEXTS}
        )
        pairs = await client.post(
            "/score",
            json={"model": "rank", "text_1": ["the fox?"] * 3, "text_2": TEXTS},
        )
        for answer in (many, pairs):
            assert [each["index"] for each in answer.json()["data"]] == [0, 1, 2]
            found = [each["score"] for each in answer.json()["data"]]
            assert found == pytest.approx(sigmoids, abs=1e-3)


BAD_RANKINGS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/rerank", {"query": "", "documents": ["a"]}, "query"),
    ("/v1/rerank", {"query": "a", "documents": []}, "not empty"),
    ("/v1/rerank", {"query": "a", "documents": [{"title": "b"}]}, "an object with a text"),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
    ("/v1/rerank", {"query": "a", "documents": ["b"] * 2049}, "at most 2048 texts"),
    ("/v1/rerank", {"query": "a", "documents": ["b " * 500]}, "takes 128 at once"),
    ("/rerank", {"query": "a", "texts": [1]}, "must be a string"),
    ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, "as many of each"),
]


async def test_a_bad_ranking_says_what_is_wrong(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, RANK) as (_, client):
        for path, body, words in BAD_RANKINGS:
            answer = await client.post(path, json={"model": "rank", **body})
            assert answer.status_code == 400, answer.text
            assert words in answer.json()["error"]["message"]


async def test_which_ranker_is_meant_must_be_said_where_there_are_none_or_several(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, EMBED) as (_, client):
        answer = await client.post("/rerank", json={"query": "a", "texts": ["b"]})
        assert answer.status_code == 400
        assert "there is none" in answer.json()["error"]["message"]
        named = await client.post("/rerank", json={"model": "embed", "query": "a", "texts": ["b"]})
        assert named.status_code == 200


async def test_thirty_two_clients_get_the_vectors_of_one(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    texts = [f"{'the red tank ' * (n % 5 + 1)}{n}." for n in range(64)]
    async with pod(tmp_path, files, EMBED) as (_, client):

        async def vectors(*given: str) -> list[list[float]]:
            answer = await client.post(EMBEDDINGS, json={"model": "embed", "input": list(given)})
            assert answer.status_code == 200, answer.text
            return [each["embedding"] for each in answer.json()["data"]]

        alone = [(await vectors(text))[0] for text in texts]
        pairs = await asyncio.gather(*(vectors(*texts[2 * n : 2 * n + 2]) for n in range(32)))
        assert cosines(alone, [vector for pair in pairs for vector in pair]) > 0.9999


async def test_a_killed_engines_work_is_done_by_its_replacement(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, EMBED, CHAT) as (runtime, client):
        worker = next(
            child.pid
            for child in psutil.Process().children(recursive=True)
            if "ullage_runtime.engines.worker" in " ".join(child.cmdline())
            and "encoder.gguf" in " ".join(m.path for m in child.memory_maps())
        )
        asking = asyncio.create_task(
            client.post(EMBEDDINGS, json={"model": "embed", "input": MANY})
        )

        def running() -> int:
            return sum(m.requests_running for m in runtime.models.report().models)

        await eventually(lambda: running() == 1, PATIENCE)
        os.kill(worker, signal.SIGKILL)
        answer = await asking
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) == len(MANY)
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert (
            await client.post("/v1/chat/completions", json={"model": "chat", **chat})
        ).status_code == 200
        again = await client.post(EMBEDDINGS, json={"model": "embed", "input": "the"})
        assert again.status_code == 200, again.text


async def test_a_client_that_leaves_ends_its_work(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, EMBED) as (runtime, client):

        def running() -> int:
            return runtime.models.report().models[0].requests_running

        asking = asyncio.create_task(
            client.post(EMBEDDINGS, json={"model": "embed", "input": MANY})
        )
        await eventually(lambda: running() == 1, PATIENCE)
        asking.cancel()
        await eventually(lambda: running() == 0, PATIENCE)
        assert (
            await client.post(EMBEDDINGS, json={"model": "embed", "input": "the"})
        ).status_code == 200


async def test_keys_and_rate_limits_hold_for_embeddings_as_for_chats(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "a").write_text(entry_line("key-a"))
    limited = model("embed", "encoder", Task.EMBEDDING, serving=ServingLimits(tokens_per_minute=40))
    async with pod(tmp_path, files, limited, api_keys_dir=keys) as (_, client):
        body = {"model": "embed", "input": "the fox"}
        assert (await client.post(EMBEDDINGS, json=body)).status_code == 401
        headers = {"Authorization": "Bearer key-a"}
        first = await client.post(EMBEDDINGS, json=body, headers=headers)
        assert first.status_code == 200
        used = first.json()["usage"]["total_tokens"]
        assert int(first.headers["x-ratelimit-remaining-tokens"]) == 40 - used
        body["input"] = "the fox " * 20
        refused = await client.post(EMBEDDINGS, json=body, headers=headers)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_pod_that_does_not_hold_the_model_passes_the_request_on(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with (
        served(tmp_path / "b", None, pod_name="ullage-default-1") as (holder, _),
        served(tmp_path / "a", None, pod_name="ullage-default-0") as (front, client),
    ):
        client.timeout = httpx.Timeout(PATIENCE)
        peers = (Peer(ordinal=1, url=holder.url),)
        there = EMBED.model_copy(update={"ordinals": (1,)})
        for runtime in (holder, front):
            await runtime.models.apply(document(files, there, peers=peers))
        await serving(holder)
        answer = await client.post(EMBEDDINGS, json={"model": "embed", "input": TEXTS})
        assert answer.status_code == 200, answer.text
        vectors = [each["embedding"] for each in answer.json()["data"]]
        assert cosines(vectors, wanted(TEXTS)) > 0.999
        told = await client.post("/tokenize", json={"model": "embed", "prompt": "the"})
        assert told.json()["count"] == 3
        ranked = await client.post(
            "/v1/rerank", json={"model": "embed", "query": "the", "documents": TEXTS}
        )
        assert len(ranked.json()["results"]) == 3
        assert front.models.report().models[0].active is None


async def test_a_change_of_task_loads_the_file_anew(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, model("m", "tiny", Task.CHAT)) as (runtime, client):
        (before,) = runtime.models.report().models
        changed = document(files, model("m", "tiny", Task.EMBEDDING)).sealed(2)
        await runtime.models.apply(changed)

        def embeds() -> bool:
            (now,) = runtime.models.report().models
            return now.active is not None and now.active.revision != before.active.revision  # type: ignore[union-attr]

        await eventually(embeds, PATIENCE)
        answer = await client.post(EMBEDDINGS, json={"model": "m", "input": "Hello"})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"][0]["embedding"]) == 64


async def test_tokens_are_told_and_untold_as_vllms_and_llama_servers_clients_ask(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, files, CHAT) as (_, client):

        async def tokenize(**body: Any) -> dict[str, Any]:
            answer = await client.post("/tokenize", json={"model": "chat", **body})
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        whole = await tokenize(prompt="héllo", return_token_strs=True)
        bare = await tokenize(prompt="héllo", add_special_tokens=False)
        assert whole["count"] == len(whole["tokens"]) == 7
        assert whole["tokens"][1:] == bare["tokens"]
        assert whole["token_strs"][:2] == ["<s>", "h"]
        assert (bare["token_strs"], bare["max_model_len"]) == (None, 512)
        llamas = await tokenize(content="hé", with_pieces=True)
        assert [each["piece"] for each in llamas["tokens"]] == ["h", [0xC3], [0xA9]]

        turn = {"role": "user", "content": "hi"}
        chat = await tokenize(messages=[turn])
        asked = {"model": "chat", "messages": [turn], "max_tokens": 1}
        answer = (await client.post("/v1/chat/completions", json=asked)).json()
        assert chat["count"] == answer["usage"]["prompt_tokens"]

        back = await client.post("/detokenize", json={"model": "chat", "tokens": bare["tokens"]})
        assert back.json() == {"prompt": "héllo", "content": "héllo"}
        for path, body, words in (
            ("/tokenize", {}, "exactly one of prompt, content and messages"),
            ("/tokenize", {"prompt": "a", "content": "b"}, "not prompt and content"),
            ("/tokenize", {"prompt": "a" * (1 << 19)}, "send it in parts"),
            ("/detokenize", {"tokens": [99999]}, "not in the model's vocabulary"),
            ("/detokenize", {"tokens": "a"}, "must be a list of token ids"),
        ):
            refused = await client.post(path, json={"model": "chat", **body})
            assert refused.status_code == 400, refused.text
            assert words in refused.json()["error"]["message"]


async def test_tokens_are_told_while_every_place_in_the_engine_is_taken(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    narrow = model(
        "chat", "tiny", Task.CHAT, engine=EngineSettings(threads=1, parallel=1, context_length=4096)
    )
    long = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4000, "model": "chat"}
    async with pod(tmp_path, files, narrow) as (runtime, client):
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=long)) for _ in range(4)
        ]

        def waiting() -> int:
            return runtime.models.report().models[0].requests_waiting

        await eventually(lambda: waiting() == 2, PATIENCE)
        began = time.monotonic()
        told = await client.post("/tokenize", json={"model": "chat", "prompt": "the"})
        assert told.status_code == 200
        assert waiting() == 2, "it did not wait for one of those"
        assert time.monotonic() - began < 10
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
