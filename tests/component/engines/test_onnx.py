"""Encoders on onnxruntime, held against numpy's own forward pass of the same weights."""

import asyncio
import contextlib
import random
import resource
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from tests.support.embedding_engines import check_that_a_bulk_load_holds_no_query_up
from tests.support.encoder_models import CLS, SEP, Encoder, embedded, hidden, pieces, score
from tests.support.onnx_models import (
    Graph,
    graph_of,
    head_weights,
    save,
    write_json,
    write_onnx,
)
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Adapter, EngineSpec, GenerateRequest, Loaded
from ullage_runtime.core.errors import (
    ContextLengthExceeded,
    InvalidOutput,
    InvalidRequest,
    LoadError,
    UnsupportedOutput,
)
from ullage_runtime.core.pooled import (
    DEFAULT_TEXTS,
    Ability,
    EmbedRequest,
    Output,
    PoolingType,
    RerankRequest,
    Said,
)
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest
from ullage_runtime.engines.onnx.header import read_header
from ullage_runtime.engines.procfs import memory_share
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.models.gate import pass_gate

TEXTS = (
    "the fox jumped.",
    "how un memory water?",
    "models",
    "red blue fire " * 12,
    "a tank, the tank, the tanker",
    "0123456789",
)
LARGER = Encoder(width=256, layers=4, feed_forward=1024, context=512)


def spec_of(path: Path, **settings: object) -> EngineSpec:
    given = {"parallel": DEFAULT_TEXTS, "purpose": Ability.EMBED, "threads": 1, **settings}
    return EngineSpec(path=str(path), **given)  # type: ignore[arg-type]


@asynccontextmanager
async def engine_for(path: Path, **settings: object) -> AsyncIterator[tuple[WorkerEngine, Loaded]]:
    engine = await WorkerEngine.start(engine_of(str(path)))
    try:
        yield engine, await engine.load(spec_of(path, **settings))
    finally:
        await engine.unload()


async def vectors_of(engine: WorkerEngine, *inputs: str | tuple[int, ...]) -> np.ndarray:
    answer = await engine.embed(EmbedRequest("r", inputs))
    return np.stack([np.frombuffer(vector, dtype=np.float32) for vector in answer.values])


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    found: np.ndarray = (left * right).sum(axis=1)
    return found


@pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST])
@pytest.mark.parametrize("weights", ["inside", "outside"])
async def test_an_encoder_embeds_as_numpy_does(
    tmp_path: Path, pooling: PoolingType, weights: str
) -> None:
    folder = write_onnx(tmp_path, external=weights == "outside")
    async with engine_for(folder, pooling=pooling) as (engine, loaded):
        found = await vectors_of(engine, *TEXTS)
        wanted = np.stack([embedded(Encoder(), text, pooling.value) for text in TEXTS])
        assert loaded.engine == "ONNXRuntime"
        assert loaded.abilities == (Ability.EMBED,)
        assert loaded.dimensions == found.shape[1] == 64
        assert (loaded.context_length, loaded.layers_total) == (128, 2)
        assert cosines(found, wanted).min() > 0.99999
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


@pytest.mark.parametrize(
    ("told", "wanted"), [("cls_token", "CLS"), ("lasttoken", "Last"), (None, "Mean")]
)
async def test_pooling_is_as_the_files_say_and_the_mean_otherwise(
    tmp_path: Path, told: str | None, wanted: str
) -> None:
    folder = write_onnx(tmp_path, pooling=told)
    async with engine_for(folder) as (engine, _):
        found = await vectors_of(engine, TEXTS[0])
        assert found[0] @ embedded(Encoder(), TEXTS[0], wanted) > 0.99999


async def test_a_graph_that_pools_by_itself_is_left_to_it_unless_the_spec_says_otherwise(
    tmp_path: Path,
) -> None:
    folder = write_onnx(tmp_path)
    model = graph_of(Encoder())
    pooled = onnx.helper.make_node("ReduceMax", ["last_hidden_state"], ["largest"], keepdims=0)
    pooled.input.append("ones")
    model.graph.node.append(pooled)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "ones"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["largest"], ["sentence_embedding"]))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("sentence_embedding", 1, ["texts", 64])
    )
    save(model, folder / "model.onnx")
    async with engine_for(folder) as (engine, _):
        whole = await vectors_of(engine, "the fox")
        assert whole[0] @ embedded(Encoder(), "the fox") < 0.9
    async with engine_for(folder, pooling=PoolingType.MEAN) as (engine, _):
        mean = await vectors_of(engine, "the fox")
        assert mean[0] @ embedded(Encoder(), "the fox") > 0.99999


async def test_a_file_beneath_its_tokenizer_is_served_by_its_own_name(tmp_path: Path) -> None:
    write_onnx(tmp_path, name="onnx/model_O4.onnx", external=True)
    async with engine_for(tmp_path / "onnx" / "model_O4.onnx") as (engine, _):
        assert (await vectors_of(engine, "the"))[0] @ embedded(Encoder(), "the") > 0.99999


async def test_tokens_embed_as_their_text_does_and_are_those_of_the_vocabulary(
    tmp_path: Path,
) -> None:
    async with engine_for(write_onnx(tmp_path)) as (engine, _):
        ids = (2, *pieces(Encoder(), TEXTS[0]), 3)
        told = await engine.tokenize(TokenizeRequest("r", text=TEXTS[0], with_pieces=True))
        assert told.ids == ids
        assert told.pieces[:3] == (b"[CLS]", b"the", b"fox")
        assert await engine.detokenize(DetokenizeRequest("r", ids[1:3])) == "the fox"
        found = await vectors_of(engine, TEXTS[0], ids)
        assert found[0] @ found[1] > 0.99999
        with pytest.raises(InvalidRequest, match=r"input\[0\]: token 4000 is not in the model's"):
            await vectors_of(engine, (2, 4000))
        chat = GenerateRequest("r", messages=())
        with pytest.raises(InvalidRequest, match="no chat template"):
            await engine.tokenize(TokenizeRequest("r", chat=chat))


async def test_thirty_two_clients_at_once_get_the_vectors_of_one_by_one(tmp_path: Path) -> None:
    async with engine_for(write_onnx(tmp_path)) as (engine, _):
        texts = [f"{'the red tank ' * (n % 7 + 1)}{n}." for n in range(96)]
        alone = np.concatenate([await vectors_of(engine, text) for text in texts])
        before = await engine.stats()
        together = np.concatenate(
            await asyncio.gather(
                *(vectors_of(engine, *texts[3 * n : 3 * n + 3]) for n in range(32))
            )
        )
        stats = await engine.stats()
        assert cosines(alone, together).min() > 0.99999
        assert stats.batch_width_max > 8
        assert stats.steps - before.steps < len(texts)


async def test_a_text_that_is_too_long_is_refused_with_both_numbers_or_cut_when_asked(
    tmp_path: Path,
) -> None:
    async with engine_for(write_onnx(tmp_path)) as (engine, _):
        long = "red " * 200
        with pytest.raises(ContextLengthExceeded, match=r"has 202 tokens.*takes 128") as refused:
            await engine.embed(EmbedRequest("r", ("the", long)))
        assert refused.value.details == {"prompt_tokens": 202, "context_length": 128}
        with pytest.raises(ContextLengthExceeded, match=r"takes 128 at once"):
            await engine.embed(EmbedRequest("r", ("x " * 500_000,)))
        cut = await engine.embed(EmbedRequest("r", (long,), truncate=True))
        fits = await engine.embed(EmbedRequest("r", ("red " * 126,)))
        assert cut.tokens == fits.tokens == 128
        assert cut.values == fits.values


async def test_vectors_that_are_not_finite_are_an_error_and_pass_no_gate(tmp_path: Path) -> None:
    async with engine_for(write_onnx(tmp_path, Encoder(broken=True))) as (engine, loaded):
        with pytest.raises(LoadError, match=r"cannot embed.*finite") as failed:
            await pass_gate(engine, loaded)
        assert failed.value.final
        with pytest.raises(InvalidOutput, match="text 0"):
            await vectors_of(engine, "the")
        assert (await engine.stats()).requests_running == 0


ALL = (Output.DENSE, Output.SPARSE, Output.COLBERT)


async def test_one_pass_gives_the_vector_the_weights_and_the_vectors_of_tokens(
    tmp_path: Path,
) -> None:
    folder = write_onnx(tmp_path, heads=True)
    sparse, colbert = head_weights(Encoder())
    async with engine_for(folder) as (engine, loaded):
        assert (loaded.outputs, loaded.dimensions) == (ALL, 64)
        before = await engine.stats()
        answer = await engine.embed(EmbedRequest("r", TEXTS, outputs=ALL))
        assert (await engine.stats()).prompt_tokens - before.prompt_tokens == answer.tokens
        for text, said in zip(TEXTS, answer.said, strict=True):
            ids = [CLS, *pieces(Encoder(), text), SEP]
            vectors = hidden(Encoder(), ids)
            found = np.frombuffer(said.values, dtype=np.float32)
            assert found == pytest.approx(embedded(Encoder(), text, "CLS"), abs=1e-4)
            weights = np.maximum(vectors @ sparse, 0)[:, 0]
            wanted = {
                token: max(weights[n] for n, other in enumerate(ids) if other == token)
                for token in ids[1:-1]
            }
            assert weights_of(said) == pytest.approx(
                {token: weight for token, weight in wanted.items() if weight > 0}, abs=1e-4
            )
            rows = vectors[1:] @ colbert
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            assert said.colbert is not None
            assert said.colbert.width == 32
            told = [np.frombuffer(row, dtype=np.float32) for row in said.colbert.rows]
            assert np.stack(told) == pytest.approx(rows, abs=1e-4)


def weights_of(said: Said) -> dict[int, float]:
    assert said.sparse is not None
    tokens = np.frombuffer(said.sparse.tokens, dtype=np.int32)
    weights = np.frombuffer(said.sparse.weights, dtype=np.float32)
    return {int(token): float(weight) for token, weight in zip(tokens, weights, strict=True)}


async def test_each_request_gets_what_it_asks_for_though_they_are_computed_together(
    tmp_path: Path,
) -> None:
    async with engine_for(write_onnx(tmp_path, heads=True)) as (engine, _):
        wants = (ALL[:1], ALL[1:2], ALL[2:], ALL)
        requests = [EmbedRequest("r", TEXTS, outputs=wants[n % 4]) for n in range(16)]
        answers = await asyncio.gather(*map(engine.embed, requests))
        for request, answer in zip(requests, answers, strict=True):
            for said in answer.said:
                given = (bool(said.values), said.sparse is not None, said.colbert is not None)
                assert given == tuple(output in request.outputs for output in ALL)
        only = await engine.embed(EmbedRequest("r", ((5,),), outputs=ALL))
        assert only.said[0].colbert is not None
        assert only.said[0].colbert.values == b"", "the first token's vector is the whole text's"


async def test_an_output_that_a_file_does_not_give_is_refused_with_what_would(
    tmp_path: Path,
) -> None:
    async with engine_for(write_onnx(tmp_path)) as (engine, loaded):
        assert loaded.outputs == (Output.DENSE,)
        with pytest.raises(UnsupportedOutput, match=r"no sparse and colbert ones; an ONNX build"):
            await engine.embed(EmbedRequest("r", TEXTS, outputs=ALL))


async def test_vectors_of_tokens_are_bounded_by_the_request(tmp_path: Path) -> None:
    async with engine_for(write_onnx(tmp_path, heads=True)) as (engine, _):
        many = EmbedRequest("r", ((5,) * 128,) * 4097, outputs=(Output.COLBERT,))
        with pytest.raises(InvalidRequest, match=r"a request may have 524288: send fewer"):
            await engine.embed(many)


async def test_a_head_whose_weights_are_no_numbers_passes_no_gate(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, heads=True)
    model = onnx.load_model(str(folder / "model.onnx"))
    (sparse,) = (each for each in model.graph.initializer if each.name == "sparse")
    broken = np.full((64, 1), np.nan, dtype=np.float32)
    sparse.CopyFrom(onnx.numpy_helper.from_array(broken, "sparse"))
    save(model, folder / "model.onnx")
    async with engine_for(folder) as (engine, loaded):
        with pytest.raises(LoadError, match=r"cannot embed.*tokens are not finite"):
            await pass_gate(engine, loaded)
        assert (await vectors_of(engine, "the")).shape == (1, 64)


async def test_a_graph_that_pools_by_itself_is_not_pooled_otherwise(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, heads=True)
    with pytest.raises(LoadError, match=r"pools by itself, into dense_vecs; leave engine.pooling"):
        async with engine_for(folder, pooling=PoolingType.MEAN):
            pass


RANKER = Encoder(has_head=True)


async def test_a_cross_encoder_scores_as_numpy_does_with_both_types_of_token(
    tmp_path: Path,
) -> None:
    folder = write_onnx(tmp_path, RANKER)
    async with engine_for(folder, purpose=Ability.RERANK) as (engine, loaded):
        query, documents = "how the fox", ("the fox", *TEXTS)
        answer = await engine.rerank(RerankRequest("r", query, documents))
        found = [float(np.frombuffer(values, dtype=np.float32)[0]) for values in answer.values]
        wanted = [score(RANKER, query, text, typed=True) for text in documents]
        assert found == pytest.approx(wanted, abs=1e-4)
        assert found != pytest.approx([score(RANKER, query, t) for t in documents], abs=1e-2)
        assert (loaded.abilities, loaded.dimensions) == ((Ability.RERANK,), 0)
        with pytest.raises(InvalidRequest, match="the model is loaded to rerank"):
            await vectors_of(engine, "the")


async def test_a_document_that_is_too_long_is_refused_or_cut_when_asked(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, RANKER)
    async with engine_for(folder, purpose=Ability.RERANK) as (engine, _):
        long = "red " * 200
        with pytest.raises(ContextLengthExceeded, match=r"documents\[1\] has 204 tokens"):
            await engine.rerank(RerankRequest("r", "the", ("fox", long)))
        cut = await engine.rerank(RerankRequest("r", "the", (long,), truncate=True))
        few = await engine.rerank(RerankRequest("r", "the", (long,), max_document_tokens=5))
        assert (cut.tokens, few.tokens) == (128, 9)


async def test_scores_that_are_not_finite_pass_no_gate(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, replace(RANKER, broken=True))
    async with engine_for(folder, purpose=Ability.RERANK) as (engine, loaded):
        with pytest.raises(LoadError, match=r"cannot rank.*finite"):
            await pass_gate(engine, loaded)


async def test_a_classifier_of_several_labels_is_no_cross_encoder(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, replace(RANKER, labels=("yes", "no")))
    with pytest.raises(LoadError, match="gives 2 scores of a pair"):
        async with engine_for(folder, purpose=Ability.RERANK):
            pass


async def test_an_engine_refuses_what_it_is_not_loaded_for(tmp_path: Path) -> None:
    async with engine_for(write_onnx(tmp_path)) as (engine, _):
        with pytest.raises(InvalidRequest, match="the model is loaded to embed"):
            await engine.rerank(RerankRequest("r", "the", ("fox",)))


# What cannot be loaded ---------------------------------------------------------------------------


def _unknown_operator(folder: Path) -> None:
    model = graph_of(Encoder())
    model.graph.node[0].op_type = "Shazam"
    save(model, folder / "model.onnx")


def _missing_data(folder: Path) -> None:
    save(graph_of(Encoder()), folder / "model.onnx", external=True)
    (folder / "model.onnx_data").unlink()


def _short_data(folder: Path) -> None:
    save(graph_of(Encoder()), folder / "model.onnx", external=True)
    with (folder / "model.onnx_data").open("rb+") as file:
        file.truncate(1000)


def _data_elsewhere(folder: Path) -> None:
    _redirected(folder, "../secret")


def _data_at_the_root(folder: Path) -> None:
    _redirected(folder, "/etc/passwd")


def _redirected(folder: Path, location: str) -> None:
    save(graph_of(Encoder()), folder / "model.onnx", external=True)
    model = onnx.load_model(str(folder / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    save(model, folder / "model.onnx")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"')


def _anothers_tokenizer(folder: Path) -> None:
    write_onnx(folder, vocabulary=(*Encoder().vocabulary, "one", "more"))


def _one_shape(folder: Path) -> None:
    model = graph_of(Encoder())
    for each in model.graph.input:
        each.type.tensor_type.shape.dim[1].dim_value = 32
    save(model, folder / "model.onnx")


def _other_inputs(folder: Path) -> None:
    model = graph_of(Encoder())
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", 1, ["texts", 3]))
    save(model, folder / "model.onnx")


def _scores_only(folder: Path) -> None:
    graph = Graph()
    tokens = graph.add("Cast", "input_ids", to=1)
    graph.add("Add", graph.add("Cast", "attention_mask", to=1), tokens)
    save(graph.model(("logits", tokens, ["texts", 1])), folder / "model.onnx")


def _no_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x08\x0a")


def _another_format(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(np.random.default_rng(3).bytes(20_000))


def _empty(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")


def _further_stage(folder: Path) -> None:
    kinds = ("Transformer", "Pooling", "Dense")
    stages = [{"idx": n, "type": f"sentence_transformers.models.{k}"} for n, k in enumerate(kinds)]
    write_json(folder / "wrapped.json", stages=stages)
    text = (folder / "wrapped.json").read_text()
    (folder / "modules.json").write_text(text.removeprefix('{"stages": ').removesuffix("}"))


def _other_pooling(folder: Path) -> None:
    write_json(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_unknown_operator, "Shazam"),
        (_missing_data, r"weights in 'model.onnx_data', which is not there"),
        (_short_data, "wants more of 'model.onnx_data' than there is"),
        (_data_elsewhere, r"'\.\./secret', which does not lie beside it"),
        (_data_at_the_root, r"'/etc/passwd', which does not lie beside it"),
        (_no_tokenizer, "no tokenizer.json beside model.onnx"),
        (_broken_tokenizer, "tokenizer.json cannot be read"),
        (_anothers_tokenizer, "the tokenizer is another model's"),
        (_one_shape, "one shape only.*dynamic axes"),
        (_other_inputs, "wants an input 'pixels'"),
        (_scores_only, "no vectors of tokens but logits"),
        (_no_model, "has no inputs or no outputs"),
        (_another_format, "no whole ONNX file"),
        (_empty, "cannot be read"),
        (_further_stage, "more than pooling.*Dense"),
        (_other_pooling, "pooling_mode_max_tokens, which is not supported"),
    ],
)
async def test_what_cannot_be_loaded_is_refused_for_good_with_the_reason(
    tmp_path: Path, spoil: object, why: str
) -> None:
    folder = write_onnx(tmp_path)
    assert callable(spoil)
    spoil(folder)
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        with pytest.raises(LoadError, match=why) as failed:
            await estimated_and_loaded(engine, spec_of(folder))
        assert failed.value.reason is Reason.INVALID_MODEL
        assert failed.value.final
        assert len(failed.value.message) < 1000
        assert (await engine.stats()).resident_bytes > 0, "its process lives"
    finally:
        await engine.unload()


async def estimated_and_loaded(engine: WorkerEngine, spec: EngineSpec) -> None:
    await engine.estimate(spec)
    await engine.load(spec)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"purpose": Ability.GENERATE}, "its task is Embedding or Rerank"),
        ({"purpose": Ability.RERANK}, "no cross-encoder; with task Embedding it ranks by"),
        ({"adapters": (Adapter("a", "/nowhere"),)}, "remove model.adapters"),
        ({"context_length": 129}, "this encoder knows 128 positions"),
    ],
)
async def test_a_model_is_not_loaded_for_what_it_cannot_do(
    tmp_path: Path, settings: dict[str, object], why: str
) -> None:
    with pytest.raises(LoadError, match=why) as failed:
        async with engine_for(write_onnx(tmp_path), **settings):
            pass
    assert failed.value.final


async def test_positions_are_counted_as_the_family_does(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path)
    write_json(
        folder / "config.json",
        model_type="xlm-roberta",
        max_position_embeddings=64,
        pad_token_id=1,
    )
    async with engine_for(folder) as (_, loaded):
        assert loaded.context_length == 62


def test_a_folder_without_a_model_for_any_engine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(
        LoadError, match=r"holds: pytorch_model.bin; GGUF, ONNX and safetensors can"
    ):
        engine_of(str(tmp_path))


def mutant(original: bytes, seed: int) -> bytes:
    """Return a damaged copy: bytes changed, left out, doubled, or the end missing."""
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    data = bytearray(original)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(data))
        match seed % 8:
            case 0:
                del data[at : at + chance.randint(1, 8)]
            case 1:
                data[at:at] = data[at : at + chance.randint(1, 64)]
            case 2:
                data[at : at + 1] = b"\xff" * chance.randint(1, 10)
            case _:  # the lengths stay right, so that onnxruntime gets to see it
                data[at] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if seed % 10 == 0 else data)


def refusal(path: Path) -> LoadError | None:
    """Return what is wrong with a header, which is said for good and in a few words."""
    try:
        read_header(path)
    except LoadError as error:
        found = error
    else:
        return None
    assert found.reason is Reason.INVALID_MODEL
    assert found.final
    assert len(found.message) < 1000
    return found


async def test_hostile_headers_never_take_the_server_down(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "whole", external=True)
    original = (folder / "model.onnx").read_bytes()
    engine = await WorkerEngine.start("ONNXRuntime")
    refused = tried = 0
    try:
        for seed in range(1000):
            path = folder / "model.onnx"
            path.write_bytes(mutant(original, seed))
            if refusal(path) is not None:
                refused += 1
                continue
            tried += 1
            with contextlib.suppress(LoadError):
                await engine.load(spec_of(folder))
            if engine_is_gone(engine):
                await engine.unload()
                engine = await WorkerEngine.start("ONNXRuntime")
    finally:
        await engine.unload()
    assert refused > 200
    assert tried > 50


def engine_is_gone(engine: WorkerEngine) -> bool:
    return memory_share(engine.pid).total == 0


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["inside", "outside"])
async def test_an_estimate_holds_for_whatever_is_embedded(tmp_path: Path, weights: str) -> None:
    encoder = replace(LARGER, width=512, feed_forward=2048, heads=8)
    folder = write_onnx(tmp_path, encoder, external=weights == "outside")
    spec = spec_of(folder)
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        footprint = await engine.estimate(spec)
        await engine.load(spec)
        at_rest = memory_share(engine.pid).private
        chance = random.Random(5)  # noqa: S311 - the same texts every time
        for _ in range(30):
            texts = ["red " * chance.randint(1, 120) for _ in range(chance.randint(1, 16))]
            await vectors_of(engine, *texts)
        await vectors_of(engine, "red " * 510)
        actual = (await engine.stats()).resident_bytes
        grown = memory_share(engine.pid).private
    finally:
        await engine.unload()
    files = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    assert footprint.weights == pytest.approx(files, rel=0.01)
    assert 0.75 < actual / footprint.total < 1.1
    assert grown / at_rest < 1.1, "the load has seen the largest batch"


async def test_a_model_whose_longest_text_takes_too_much_is_not_loaded(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path, Encoder(context=4096))
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        limited(engine, more=400 << 20)
        with pytest.raises(LoadError, match="no memory for 1 texts of up to 4096") as failed:
            await engine.load(spec_of(folder, context_length=4096))
        assert not failed.value.final
        loaded = await engine.load(spec_of(folder, context_length=512))
        assert loaded.context_length == 512
    finally:
        await engine.unload()


def limited(engine: WorkerEngine, more: int) -> None:
    """Let an engine's process have so many bytes of addresses more than it has."""
    taken = psutil.Process(engine.pid).memory_info().vms
    limit = resource.RLIMIT_AS
    resource.prlimit(engine.pid, limit, (taken + more, resource.RLIM_INFINITY))


async def test_a_bulk_load_does_not_hold_a_query_up_and_is_cancelled_between_batches(
    tmp_path: Path,
) -> None:
    async with engine_for(write_onnx(tmp_path, LARGER)) as (engine, _):
        await check_that_a_bulk_load_holds_no_query_up(engine)


def test_a_copy_of_a_folder_has_the_same_header(tmp_path: Path) -> None:
    folder = write_onnx(tmp_path / "a", external=True)
    shutil.copytree(folder, tmp_path / "b")
    first, second = (read_header(tmp_path / each / "model.onnx") for each in "ab")
    assert first == second
    assert first.inputs == ["input_ids", "attention_mask", "token_type_ids"]
    assert first.outputs == ["last_hidden_state"]
    assert first.outer_bytes == (folder / "model.onnx_data").stat().st_size
