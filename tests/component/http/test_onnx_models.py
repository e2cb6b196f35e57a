"""An ONNX encoder behind the API, beside GGUF models in the same pod."""

import asyncio
import base64
import pathlib
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.encoder_models import Encoder, embedded, pieces, score, write_encoder
from tests.support.gguf_models import write_model
from tests.support.onnx_models import write_builds, write_onnx
from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings, Instructions
from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.engines.conversion import Precision
from ullage_runtime.engines.onnx.conversion.converting import convert

PATIENCE = 60.0
ENCODER, RANKER = Encoder(), Encoder(has_head=True)
TEXTS = ["the fox jumped.", "how un memory water?", "red blue fire " * 8]
EMBEDDINGS = "/v1/embeddings"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("files")
    write_onnx(folder / "encoder", ENCODER)
    write_onnx(folder / "split", ENCODER, external=True)
    write_onnx(folder / "ranker", RANKER)
    write_onnx(folder / "heads", ENCODER, heads=True)
    write_onnx(folder / "nan", Encoder(broken=True))
    write_onnx(folder / "lost", ENCODER, external=True)
    (folder / "lost" / "model.onnx_data").unlink()
    write_encoder(folder / "encoder.gguf", ENCODER)
    write_model(folder / "tiny.gguf")
    return folder


def model(name: str, file: str, task: Task = Task.EMBEDDING, **engine: Any) -> DesiredModel:
    settings = EngineSettings(threads=1, **engine)
    apart = None if task is Task.CHAT else task
    target = DesiredRevision(uri=f"file:{file}", engine=settings, task=apart)
    return DesiredModel(name=name, task=task, ordinals=(0,), target=target)


def document(files: pathlib.Path, *models: DesiredModel, sequence: int = 1) -> PoolDesired:
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(files),)),
        models=models,
    ).sealed(sequence)


async def vectors(client: httpx.AsyncClient, name: str, **fields: Any) -> np.ndarray:
    answer = await client.post(EMBEDDINGS, json={"model": name, "input": TEXTS, **fields})
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]])


async def test_onnx_and_gguf_serve_the_same_encoder_beside_a_chat_model(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    instructions = Instructions(query="how ", document="the ")
    models = (
        model("onnx", "encoder", instructions=instructions),
        model("split", "split/model.onnx"),
        model("gguf", "encoder.gguf"),
        model("chat", "tiny.gguf", Task.CHAT),
    )
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(files, *models))

        def serves() -> bool:
            return all(m.reason is Reason.SERVING for m in runtime.models.report().models)

        await eventually(serves, PATIENCE)
        wanted = np.stack([embedded(ENCODER, text) for text in TEXTS])
        for name in ("onnx", "split", "gguf"):
            assert (await vectors(client, name) * wanted).sum(axis=1).min() > 0.999
        asked = await vectors(client, "onnx", input_type="query")
        assert asked[0] @ embedded(ENCODER, "how the fox jumped.") > 0.999
        short = await vectors(client, "onnx", dimensions=16)
        assert short.shape == (3, 16)
        assert np.linalg.norm(short, axis=1) == pytest.approx(np.ones(3), abs=1e-5)

        ranked = await client.post(
            "/v1/rerank",
            json={"model": "onnx", "query": "the fox", "documents": ["water", "the fox"]},
        )
        assert [each["index"] for each in ranked.json()["results"]] == [1, 0]

        told = await client.post("/tokenize", json={"model": "onnx", "prompt": "the fox"})
        assert told.json()["count"] == 4

        refusals: list[tuple[dict[str, Any], int, str]] = [
            ({"embedding_type": "sparse"}, 400, "unsupported_output"),
            ({"dimensions": 65}, 400, "dimension_mismatch"),
            ({"input": "red " * 4000}, 400, "context_length_exceeded"),
            ({"input": ["a"] * 10_000}, 400, "invalid_request_error"),
            ({"input": ""}, 400, "invalid_request_error"),
            ({"input": [4000]}, 400, "invalid_request_error"),
        ]
        for body, status, code in refusals:
            answer = await client.post(EMBEDDINGS, json={"model": "onnx", "input": "the", **body})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        half = await client.post(
            EMBEDDINGS,
            content=b'{"model": "onnx", "input": "\\ud83d"}',
            headers={"content-type": "application/json"},
        )
        assert half.status_code == 400
        assert (await vectors(client, "onnx")).shape == (3, 64)

        metrics = (await client.get("/metrics")).text
        assert 'ullage_engine_prompt_tokens_total{model="onnx"}' in metrics
        report = runtime.models.report().models
        engines = {m.name: m.active.engine for m in report if m.active is not None}
        assert (engines["onnx"], engines["gguf"]) == ("ONNXRuntime", "LlamaCpp")


async def test_a_cross_encoder_ranks_in_every_shape_of_the_field(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(files, model("rank", "ranker", Task.RERANK)))

        def serves() -> bool:
            return all(m.reason is Reason.SERVING for m in runtime.models.report().models)

        await eventually(serves, PATIENCE)
        query = "how the fox"
        raw = [score(RANKER, query, text, typed=True) for text in TEXTS]
        best = sorted(range(len(TEXTS)), key=lambda index: -raw[index])
        body: dict[str, Any] = {"query": query, "documents": TEXTS, "model": "rank"}
        answer = (await client.post("/v1/rerank", json=body)).json()["results"]
        assert [each["index"] for each in answer] == best
        chances = [1 / (1 + np.exp(-raw[index])) for index in best]
        assert [each["relevance_score"] for each in answer] == pytest.approx(chances, abs=1e-4)
        asked = {"query": query, "texts": TEXTS, "raw_scores": True}
        found = (await client.post("/rerank", json=asked)).json()
        assert [each["score"] for each in found] == pytest.approx(
            [raw[index] for index in best], abs=1e-4
        )
        pairs = {"model": "rank", "text_1": query, "text_2": TEXTS, "raw_scores": True}
        scored = (await client.post("/score", json=pairs)).json()["data"]
        assert [each["score"] for each in scored] == pytest.approx(raw, abs=1e-4)


@pytest.mark.parametrize(
    ("folder", "why"), [("nan", "not finite"), ("lost", "model.onnx_data', which is not there")]
)
async def test_a_damaged_model_is_refused_while_the_others_serve(
    tmp_path: pathlib.Path, files: pathlib.Path, folder: str, why: str
) -> None:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        models = (model("good", "encoder"), model("bad", folder))
        await runtime.models.apply(document(files, *models))

        def settled() -> bool:
            found = {m.name: m for m in runtime.models.report().models}
            return found["good"].reason is Reason.SERVING and why in (found["bad"].message or "")

        await eventually(settled, PATIENCE)
        assert (await vectors(client, "good")).shape == (3, 64)


async def test_one_request_has_all_that_a_model_says_of_a_text(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(files, model("m3", "heads")))

        async def asked(**fields: Any) -> list[dict[str, Any]]:
            answer = await client.post(EMBEDDINGS, json={"model": "m3", "input": TEXTS, **fields})
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]
            return found

        plain = await asked()
        assert set(plain[0]) == {"object", "index", "embedding"}
        everything = await asked(return_sparse=True, return_colbert_vecs=True)
        sparse = await asked(embedding_type="sparse")
        colbert = await asked(embedding_type="colbert")
        packed = await asked(embedding_type="colbert", encoding_format="base64")
        short = await asked(dimensions=16, return_sparse=True)
        for place, text in enumerate(TEXTS):
            told = everything[place]
            assert told["embedding"] == plain[place]["embedding"]
            assert told["embedding"] == pytest.approx(embedded(ENCODER, text, "CLS"), abs=1e-4)
            assert told["sparse_embedding"] == sparse[place]["embedding"]
            weights = told["sparse_embedding"]
            assert weights["indices"] == sorted(set(weights["indices"]))
            assert set(weights["indices"]) <= set(pieces(ENCODER, text))
            assert all(weight > 0 for weight in weights["values"])
            assert told["colbert_vecs"] == colbert[place]["embedding"]
            rows = np.array(told["colbert_vecs"])
            assert rows.shape == (len(pieces(ENCODER, text)) + 1, 32)
            assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
            raw = [base64.b64decode(row) for row in packed[place]["embedding"]]
            unpacked = np.stack([np.frombuffer(row, dtype="<f4") for row in raw])
            assert unpacked == pytest.approx(rows)
            assert len(short[place]["embedding"]) == 16
            assert short[place]["sparse_embedding"] == weights


async def test_a_precision_is_a_revision_of_its_own_and_one_that_is_not_there_leaves_the_old(
    tmp_path: pathlib.Path,
) -> None:
    wide = Encoder(width=128, feed_forward=256)
    folder = write_builds(tmp_path / "files" / "m", wide)
    wanted = np.stack([embedded(wide, text) for text in TEXTS])
    revisions: set[str | None] = set()
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)

        async def apply(sequence: int, precision: str) -> DesiredModel:
            desired = document(
                tmp_path / "files", model("m", "m", precision=precision), sequence=sequence
            )
            await runtime.models.apply(desired)
            return desired.models[0]

        for sequence, (precision, least) in enumerate(
            (("f32", 0.99999), ("int8", 0.99), ("f16", 0.999)), 1
        ):
            desired = await apply(sequence, precision)
            known = frozenset({None, *revisions})
            await eventually(lambda: runtime.models.revision(desired) not in known, PATIENCE)  # noqa: B023
            revisions.add(runtime.models.revision(desired))
            assert least < (await vectors(client, "m") * wanted).sum(axis=1).min()
        assert len(revisions) == 3
        (folder / "onnx" / "model_quantized.onnx").unlink()
        desired = await apply(4, "int8")

        def refused() -> bool:
            report = runtime.models.report().model("m")
            return report is not None and "has no int8 build" in (report.message or "")

        await eventually(refused, PATIENCE)
        assert runtime.models.revision(desired) in revisions
        assert (await vectors(client, "m")).shape == (3, wide.width)


async def test_an_embedder_is_swapped_for_its_8_bit_build_under_traffic_and_for_no_narrower_one(
    tmp_path: pathlib.Path,
) -> None:
    wide = Encoder(width=128, feed_forward=256)
    source = write_onnx(tmp_path / "files" / "f32", wide)
    convert(source, tmp_path / "files" / "int8", Precision.INT8)
    whole, rounded = (
        document(tmp_path / "files", model("m", name), sequence=number)
        for number, name in enumerate(("f32", "int8"), 1)
    )
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(whole)
        before = await vectors(client, "m")
        first = runtime.models.revision(whole.models[0])
        statuses: list[int] = []
        over = asyncio.Event()

        async def ask(client_number: int) -> None:
            asked = 0
            while not over.is_set():
                asked += 1
                text = f"the fox {client_number} {asked}"
                answer = await client.post(EMBEDDINGS, json={"model": "m", "input": text})
                statuses.append(answer.status_code)

        askers = [asyncio.create_task(ask(number)) for number in range(4)]
        try:
            await runtime.models.apply(rounded)
            await eventually(
                lambda: runtime.models.revision(rounded.models[0]) not in (None, first), PATIENCE
            )
            answered = len(statuses)
            await eventually(lambda: len(statuses) > answered + 20, PATIENCE)
        finally:
            over.set()
            await asyncio.gather(*askers)
        assert set(statuses) == {200}
        after = await vectors(client, "m")
        cosines = (before * after).sum(axis=1)
        assert 0.99 < cosines.min() < 0.9999999

        write_onnx(tmp_path / "files" / "narrow", ENCODER)
        narrow = document(tmp_path / "files", model("m", "narrow"), sequence=3)
        await runtime.models.apply(narrow)

        def is_refused() -> bool:
            report = runtime.models.report().model("m")
            return report is not None and report.reason is Reason.VALIDATION_FAILED

        await eventually(is_refused, PATIENCE)
        (report,) = runtime.models.report().models
        assert f"its vectors have {ENCODER.width} dimensions" in report.message
        assert f"have {wide.width}" in report.message
        assert (await vectors(client, "m") == after).all()
