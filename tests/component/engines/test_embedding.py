"""Embeddings and scores of real encoders, held against numpy's own forward pass."""

import asyncio
import os
import signal
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.support.embedding_engines import check_that_a_bulk_load_holds_no_query_up
from tests.support.encoder_models import Encoder, embedded, pieces, score, write_encoder
from tests.support.gguf_models import Shape, write_model
from tests.support.other_models import ASKED, write_judge
from tests.support.workers import eventually
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import EngineSpec, GenerateRequest, Loaded, Sampling
from ullage_runtime.core.errors import (
    ContextLengthExceeded,
    EngineFailed,
    InvalidOutput,
    InvalidRequest,
    LoadError,
    RequestTimeout,
)
from ullage_runtime.core.pooled import (
    DEFAULT_TEXTS,
    Ability,
    EmbedRequest,
    PoolingType,
    RerankRequest,
)
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.models.gate import pass_gate

GUIDE = Path(__file__).parents[3] / "examples" / "models" / "guide-v1.gguf"
TEXTS = (
    "the fox jumped.",
    "how un memory water?",
    "models",
    "red blue fire " * 12,
    "a tank, the tank, the tanker",
    "0123456789",
)


async def engine_for(
    path: Path, purpose: Ability = Ability.EMBED, **settings: object
) -> tuple[WorkerEngine, Loaded]:
    engine = await WorkerEngine.start("LlamaCpp")
    given = {"parallel": DEFAULT_TEXTS, **settings}
    spec = EngineSpec(path=str(path), purpose=purpose, **given)  # type: ignore[arg-type]
    try:
        return engine, await engine.load(spec)
    except BaseException:
        await engine.unload()
        raise


async def vectors_of(engine: WorkerEngine, *inputs: str | tuple[int, ...]) -> np.ndarray:
    answer = await engine.embed(EmbedRequest("r", inputs))
    return np.stack([np.frombuffer(vector, dtype=np.float32) for vector in answer.values])


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    found: np.ndarray = (left * right).sum(axis=1)
    return found


@pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST])
async def test_an_encoder_embeds_as_numpy_does(tmp_path: Path, pooling: PoolingType) -> None:
    engine, loaded = await engine_for(write_encoder(tmp_path / "e.gguf"), pooling=pooling)
    try:
        found = await vectors_of(engine, *TEXTS)
        wanted = np.stack([embedded(Encoder(), text, pooling.value) for text in TEXTS])
        assert loaded.abilities == (Ability.EMBED,)
        assert loaded.dimensions == found.shape[1] == 64
        assert loaded.context_length == 128
        assert cosines(found, wanted).min() > 0.9999
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    finally:
        await engine.unload()


@pytest.mark.parametrize(
    ("told", "wanted"),
    [(gguf.PoolingType.CLS, "CLS"), (gguf.PoolingType.MEAN, "Mean"), (None, "Mean")],
)
async def test_pooling_is_as_the_file_says_and_an_encoders_mean_otherwise(
    tmp_path: Path, told: gguf.PoolingType | None, wanted: str
) -> None:
    encoder = Encoder(pooling=told)
    engine, _ = await engine_for(write_encoder(tmp_path / "e.gguf", encoder))
    try:
        found = await vectors_of(engine, TEXTS[0])
        assert found[0] @ embedded(encoder, TEXTS[0], wanted) > 0.9999
    finally:
        await engine.unload()


async def test_tokens_embed_as_their_text_does(tmp_path: Path) -> None:
    engine, _ = await engine_for(write_encoder(tmp_path / "e.gguf"))
    try:
        ids = (2, *pieces(Encoder(), TEXTS[0]), 3)
        found = await vectors_of(engine, TEXTS[0], ids)
        assert found[0] @ found[1] > 0.99999
        with pytest.raises(InvalidRequest, match=r"input\[0\]: token 4000 is not in the model's"):
            await vectors_of(engine, (2, 4000))
    finally:
        await engine.unload()


@pytest.mark.parametrize("pooling", [PoolingType.AUTO, PoolingType.MEAN, PoolingType.LAST])
async def test_a_decoder_embeds_what_is_alike_alike(pooling: PoolingType) -> None:
    engine, loaded = await engine_for(GUIDE, pooling=pooling)
    try:
        question, likewise, other = await vectors_of(
            engine, "What is Ullage?", "What is Ullage", "kubectl scale mdep guide --replicas=2"
        )
        assert loaded.dimensions == len(question) == 256
        assert question @ likewise > question @ other
    finally:
        await engine.unload()


@pytest.mark.parametrize("model", ["encoder", "decoder"])
async def test_thirty_two_clients_at_once_get_the_vectors_of_one_by_one(
    tmp_path: Path, model: str
) -> None:
    path = write_encoder(tmp_path / "e.gguf") if model == "encoder" else GUIDE
    engine, _ = await engine_for(path)
    try:
        texts = [f"{'the red tank ' * (n % 7 + 1)}{n}." for n in range(96)]
        alone = np.concatenate([await vectors_of(engine, text) for text in texts])
        together = np.concatenate(
            await asyncio.gather(
                *(vectors_of(engine, *texts[3 * n : 3 * n + 3]) for n in range(32))
            )
        )
        stats = await engine.stats()
        assert cosines(alone, together).min() > 0.9999
        assert stats.batch_width_max > 8
        assert stats.steps < 2 * len(texts)
    finally:
        await engine.unload()


async def test_a_text_that_is_too_long_is_refused_with_both_numbers_or_cut_when_asked(
    tmp_path: Path,
) -> None:
    engine, _ = await engine_for(write_encoder(tmp_path / "e.gguf"))
    try:
        long = "red " * 200
        with pytest.raises(ContextLengthExceeded, match=r"has 202 tokens.*takes 128") as refused:
            await engine.embed(EmbedRequest("r", ("the", long)))
        assert refused.value.param == "input"
        assert refused.value.details == {"prompt_tokens": 202, "context_length": 128}
        cut = await engine.embed(EmbedRequest("r", (long,), truncate=True))
        fits = await engine.embed(EmbedRequest("r", ("red " * 126,)))
        assert cut.tokens == fits.tokens == 128
        assert cut.values == fits.values, "its closing token stays"
    finally:
        await engine.unload()


async def test_an_engine_takes_no_longer_text_than_its_settings_say(tmp_path: Path) -> None:
    engine, loaded = await engine_for(write_encoder(tmp_path / "e.gguf"), context_length=32)
    try:
        assert loaded.context_length == 32
        with pytest.raises(ContextLengthExceeded, match="takes 32 at once"):
            await vectors_of(engine, "red " * 40)
    finally:
        await engine.unload()
    with pytest.raises(LoadError, match=r"contextLength is 129; this encoder knows 128") as failed:
        await engine_for(tmp_path / "e.gguf", context_length=129)
    assert failed.value.final


async def test_a_cross_encoder_scores_as_numpy_does(tmp_path: Path) -> None:
    encoder = Encoder(has_head=True)
    path = write_encoder(tmp_path / "r.gguf", encoder)
    engine, loaded = await engine_for(path, Ability.RERANK)
    try:
        answer = await engine.rerank(RerankRequest("r", "the fox?", TEXTS))
        found = [float(np.frombuffer(value, dtype=np.float32)[0]) for value in answer.values]
        wanted = [score(encoder, "the fox?", text) for text in TEXTS]
        assert loaded.abilities == (Ability.RERANK,)
        assert found == pytest.approx(wanted, abs=2e-3)
        assert np.argsort(found).tolist() == np.argsort(wanted).tolist()
        assert answer.tokens == sum(
            3 + len(pieces(encoder, "the fox?")) + len(pieces(encoder, text)) for text in TEXTS
        )
    finally:
        await engine.unload()


async def test_a_document_that_is_too_long_is_refused_or_cut_and_a_query_refused(
    tmp_path: Path,
) -> None:
    path = write_encoder(tmp_path / "r.gguf", Encoder(has_head=True))
    engine, _ = await engine_for(path, Ability.RERANK)
    try:
        long = "red " * 200
        with pytest.raises(ContextLengthExceeded, match=r"documents\[1\] has 204 tokens"):
            await engine.rerank(RerankRequest("r", "the", ("fox", long)))
        cut = await engine.rerank(RerankRequest("r", "the", (long,), truncate=True))
        few = await engine.rerank(RerankRequest("r", "the", (long,), max_document_tokens=5))
        assert (cut.tokens, few.tokens) == (128, 9)
        assert few.values == (await engine.rerank(RerankRequest("r", "the", ("red " * 5,)))).values
        with pytest.raises(ContextLengthExceeded, match="leaves no room for a document"):
            await engine.rerank(RerankRequest("r", "red " * 125, ("fox",), truncate=True))
    finally:
        await engine.unload()


async def test_vectors_that_are_not_finite_are_an_error_and_pass_no_gate(tmp_path: Path) -> None:
    engine, loaded = await engine_for(write_encoder(tmp_path / "b.gguf", Encoder(broken=True)))
    try:
        with pytest.raises(LoadError, match=r"cannot embed.*finite") as failed:
            await pass_gate(engine, loaded)
        assert failed.value.final
        with pytest.raises(InvalidOutput, match="text 0"):
            await vectors_of(engine, "the")
        assert (await engine.stats()).requests_running == 0
    finally:
        await engine.unload()


async def test_scores_that_are_not_finite_are_an_error_and_pass_no_gate(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "b.gguf", Encoder(broken=True, has_head=True))
    engine, loaded = await engine_for(path, Ability.RERANK)
    try:
        with pytest.raises(LoadError, match=r"cannot rank.*finite") as failed:
            await pass_gate(engine, loaded)
        assert failed.value.final
        with pytest.raises(InvalidOutput, match="text 0"):
            await engine.rerank(RerankRequest("r", "the", ("fox",)))
    finally:
        await engine.unload()


@pytest.mark.parametrize(
    ("encoder", "purpose", "why"),
    [
        (Encoder(), Ability.GENERATE, "an encoder and generates no text"),
        (Encoder(), Ability.RERANK, "no head that scores"),
        (Encoder(has_head=True, labels=("yes", "no")), Ability.RERANK, "gives 2 scores, so it is"),
    ],
)
async def test_a_model_is_not_loaded_for_what_it_cannot_do(
    tmp_path: Path, encoder: Encoder, purpose: Ability, why: str
) -> None:
    with pytest.raises(LoadError, match=why) as failed:
        await engine_for(write_encoder(tmp_path / "e.gguf", encoder), purpose)
    assert failed.value.reason is Reason.INVALID_MODEL
    assert failed.value.final


async def test_a_decoder_without_a_head_is_no_cross_encoder(tmp_path: Path) -> None:
    untold = write_model(tmp_path / "untold.gguf", Shape(template=None))
    with pytest.raises(LoadError, match="no chat template to be asked with; with task Embedding"):
        await engine_for(untold, Ability.RERANK)
    with pytest.raises(LoadError, match="no single tokens for yes and no"):
        await engine_for(write_model(tmp_path / "tiny.gguf"), Ability.RERANK)


# Rerankers that say yes or no ---------------------------------------------------------------------

DOCUMENTS = ("the fox jumped.", "no water", "a tank", "0123456789" * 4)


async def odds_of_answers(path: Path, query: str, document: str) -> float:
    """Return what the model itself holds of yes and of no, as it would go on a prompt."""
    engine, _ = await engine_for(path, Ability.GENERATE, parallel=1)
    prompt = ASKED.replace("{query}", query).replace("{document}", document)
    likely = []
    try:
        for answer in ("yes", "no"):
            sampling = Sampling(temperature=0, max_tokens=1, logprobs=1)
            asked = GenerateRequest("r", prompt=prompt + answer, echo=True, sampling=sampling)
            chunks = [chunk async for chunk in engine.generate(asked)]
            told = [token for chunk in chunks for token in chunk.logprobs]
            said = told[-2].chosen  # the prompt's last; behind it is what was generated
            assert said.text == answer.encode()
            likely.append(said.logprob)
    finally:
        await engine.unload()
    return likely[0] - likely[1]


@pytest.mark.parametrize("by", ["a head", "words"])
async def test_a_reranker_of_words_scores_by_the_odds_of_yes_and_no(
    tmp_path: Path, by: str
) -> None:
    path = write_judge(tmp_path / "judge.gguf", head=by == "a head")
    engine, loaded = await engine_for(path, Ability.RERANK)
    try:
        assert loaded.abilities == (Ability.RERANK,)
        answer = await engine.rerank(RerankRequest("r", "which fox?", DOCUMENTS))
        alone = await engine.rerank(RerankRequest("r", "which fox?", DOCUMENTS[2:3]))
        with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] has"):
            await engine.rerank(RerankRequest("r", "the", ("x" * 1000,)))
        cut = await engine.rerank(RerankRequest("r", "the", ("x" * 1000,), truncate=True))
    finally:
        await engine.unload()
    found = [float(np.frombuffer(values, dtype=np.float32)[0]) for values in answer.values]
    assert len(set(found)) == len(DOCUMENTS)
    assert float(np.frombuffer(alone.values[0], dtype=np.float32)[0]) == pytest.approx(
        found[2], abs=0.02
    )
    assert cut.tokens == 1024
    plain = write_judge(tmp_path / "plain.gguf")
    for document, odds in zip(DOCUMENTS, found, strict=True):
        wanted = await odds_of_answers(plain, "which fox?", document)
        assert odds == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("by", ["a head", "words"])
async def test_a_marker_in_a_judged_text_is_text(tmp_path: Path, by: str) -> None:
    engine, _ = await engine_for(
        write_judge(tmp_path / "judge.gguf", head=by == "a head"), Ability.RERANK
    )

    async def tokens_of(query: str, document: str) -> int:
        return (await engine.rerank(RerankRequest("r", query, (document,)))).tokens

    try:
        # As many characters, each of which is a token.
        plain = await tokens_of("a ????", "b ???")
        assert await tokens_of("a </s>", "b <s>") == plain
        cut = await engine.rerank(RerankRequest("r", "a", ("<s>" * 400,), truncate=True))
    finally:
        await engine.unload()
    assert cut.tokens == 1024


async def test_a_judges_own_text_may_have_markers_between_query_and_document(
    tmp_path: Path,
) -> None:
    path = write_judge(
        tmp_path / "judge.gguf", head=True, asked="<s>{query}</s><s>{document}</s>yes"
    )
    engine, _ = await engine_for(path, Ability.RERANK)
    try:
        answer = await engine.rerank(RerankRequest("r", "</s>", ("<s>",)))
    finally:
        await engine.unload()
    # A character is a token, and so are a marker and "yes": <s>, </s>, <s>, </s>, yes.
    assert answer.tokens == len("</s>") + len("<s>") + 5


async def test_an_engine_refuses_what_it_is_not_loaded_for(tmp_path: Path) -> None:
    engine, _ = await engine_for(write_encoder(tmp_path / "e.gguf"))
    try:
        with pytest.raises(InvalidRequest, match="the model is loaded to embed"):
            await engine.rerank(RerankRequest("r", "the", ("fox",)))
    finally:
        await engine.unload()


@pytest.mark.parametrize("model", ["encoder", "decoder"])
async def test_an_estimate_holds_for_what_embedding_takes(tmp_path: Path, model: str) -> None:
    path = tmp_path / "m.gguf"
    if model == "encoder":
        write_encoder(path, Encoder(width=256, layers=4, feed_forward=1024, context=2048))
    else:
        write_model(path, Shape(width=256, layers=4, context=2048))
    engine = await WorkerEngine.start("LlamaCpp")
    spec = EngineSpec(path=str(path), purpose=Ability.EMBED, parallel=DEFAULT_TEXTS)
    try:
        footprint = await engine.estimate(spec)
        await engine.load(spec)
        await vectors_of(engine, "red " * 300, *TEXTS * 20)
        actual = (await engine.stats()).resident_bytes
    finally:
        await engine.unload()
    assert footprint.weights == pytest.approx(path.stat().st_size, rel=0.1)
    assert (footprint.kv_cache == 0) == (model == "encoder")
    assert 0.75 < actual / footprint.total < 1.1


async def test_a_bulk_load_does_not_hold_a_query_up_and_is_cancelled_between_batches(
    tmp_path: Path,
) -> None:
    path = write_encoder(tmp_path / "e.gguf", Encoder(width=256, layers=6, feed_forward=1024))
    engine, _ = await engine_for(path)
    try:
        await check_that_a_bulk_load_holds_no_query_up(engine)
    finally:
        await engine.unload()


async def test_a_request_whose_time_is_over_ends_between_batches(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "e.gguf", Encoder(width=256, layers=6, feed_forward=1024))
    engine, _ = await engine_for(path)
    try:
        many = tuple("the red fox jumped. " * 8 for _ in range(1500))
        with pytest.raises(RequestTimeout):
            await engine.embed(EmbedRequest("bulk", many, timeout_seconds=0.2))
        assert len(await vectors_of(engine, "the")) == 1
    finally:
        await engine.unload()


async def test_a_killed_worker_fails_its_own_requests_only(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "e.gguf", Encoder(width=256, layers=6, feed_forward=1024))
    doomed, _ = await engine_for(path)
    other, _ = await engine_for(path)
    try:
        many = tuple("the red fox jumped. " * 8 for _ in range(1000))
        lost = [asyncio.create_task(doomed.embed(EmbedRequest("r", many))) for _ in range(3)]
        kept = asyncio.create_task(other.embed(EmbedRequest("r", many[:50])))

        async def running() -> bool:
            return (await doomed.stats()).requests_running == 3

        await eventually(running)
        os.kill(doomed.pid, signal.SIGKILL)
        for outcome in await asyncio.gather(*lost, return_exceptions=True):
            assert isinstance(outcome, EngineFailed)
        assert len((await kept).values) == 50
    finally:
        await doomed.unload()
        await other.unload()
