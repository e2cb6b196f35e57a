"""Tokens of real vocabularies, asked for while the engine generates."""

import asyncio
from pathlib import Path

import pytest

from tests.support.encoder_models import CLS, SEP, Encoder, pieces, write_encoder
from tests.support.gguf_models import BOS, FIRST_BYTE, Shape, write_model
from tests.support.workers import chat, chunks_of, completion, eventually, loaded
from ullage_runtime.core.domain import EngineSpec, Usage
from ullage_runtime.core.errors import ContextLengthExceeded, EngineFailed, InvalidRequest
from ullage_runtime.core.pooled import Ability
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest
from ullage_runtime.engines.worker.engine import WorkerEngine


async def test_text_becomes_tokens_and_text_again(tmp_path: Path) -> None:
    engine = await loaded(write_model(tmp_path / "tiny.gguf"))
    try:
        whole = await engine.tokenize(TokenizeRequest("r", "héllo", with_pieces=True))
        bare = await engine.tokenize(TokenizeRequest("r", "héllo", add_special=False))
        assert whole.ids == (BOS, *(FIRST_BYTE + byte for byte in "héllo".encode()))
        assert whole.pieces[:2] == (b"<s>", b"h")
        assert b"".join(whole.pieces[1:]) == "héllo".encode()
        assert (bare.ids, bare.pieces) == (whole.ids[1:], ())
        assert await engine.detokenize(DetokenizeRequest("r", bare.ids)) == "héllo"
        assert await engine.detokenize(DetokenizeRequest("r", whole.ids)) == "<s>héllo"
        assert (await engine.tokenize(TokenizeRequest("r", "", add_special=False))).ids == ()
        assert await engine.detokenize(DetokenizeRequest("r", ())) == ""
        with pytest.raises(InvalidRequest, match="token 70000 is not in"):
            await engine.detokenize(DetokenizeRequest("r", (70000,)))
    finally:
        await engine.unload()


async def test_a_chat_has_the_tokens_that_its_answer_counts(tmp_path: Path) -> None:
    engine = await loaded(write_model(tmp_path / "tiny.gguf"))
    try:
        asked = chat("How many tokens is this?", max_tokens=1)
        tokens = await engine.tokenize(TokenizeRequest("r", chat=asked))
        last = (await chunks_of(engine, asked))[-1]
        assert last.usage == Usage(len(tokens.ids), 1)
    finally:
        await engine.unload()


async def test_word_pieces_are_told_as_they_are(tmp_path: Path) -> None:
    engine = await WorkerEngine.start("LlamaCpp")
    path = write_encoder(tmp_path / "e.gguf")
    try:
        with pytest.raises(EngineFailed, match="not loaded"):
            await engine.tokenize(TokenizeRequest("r", "the"))
        await engine.load(EngineSpec(path=str(path), purpose=Ability.EMBED))
        tokens = await engine.tokenize(TokenizeRequest("r", "the fox jumped."))
        assert tokens.ids == (CLS, *pieces(Encoder(), "the fox jumped."), SEP)
    finally:
        await engine.unload()


async def test_tokenizing_much_does_not_hold_a_generation_up(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", Shape(context=8192))
    engine = await loaded(path, 8192)
    try:
        stream = asyncio.create_task(chunks_of(engine, completion("Hello", max_tokens=8000)))

        async def generating() -> bool:
            return (await engine.stats()).generated_tokens > 0

        await eventually(generating)
        text = "much ado about nothing " * 2000
        before = (await engine.stats()).steps
        tokens = await engine.tokenize(TokenizeRequest("r", text))
        during = (await engine.stats()).steps - before
        assert len(tokens.ids) > len(text)
        assert during > 3, "the engine went on meanwhile"
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
    finally:
        await engine.unload()


async def test_a_text_that_would_take_the_tokenizer_long_is_refused(tmp_path: Path) -> None:
    engine = await loaded(write_model(tmp_path / "tiny.gguf"))
    try:
        with pytest.raises(InvalidRequest, match="has 262145 bytes; at most 262144"):
            await engine.tokenize(TokenizeRequest("r", "x" * ((256 << 10) + 1)))
    finally:
        await engine.unload()


async def test_a_giant_prompt_is_refused_quickly_and_holds_nobody_up(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", Shape(context=32_768, extra_tokens=300))
    engine = await loaded(path, 32_768)
    try:
        # So many bytes could be few tokens, as the vocabulary has long ones; here each is a token
        # and more, and tokenized as a whole they would take minutes.
        giants = [
            asyncio.create_task(chunks_of(engine, completion("  " * 60_000, max_tokens=1)))
            for _ in range(12)
        ]
        await eventually(lambda: waits(engine, 4))
        await chunks_of(engine, completion("Hello", max_tokens=1))
        assert not all(giant.done() for giant in giants), "the short one waited for all of them"
        for giant in giants:
            with pytest.raises(ContextLengthExceeded, match="context is 32768 tokens"):
                await giant
    finally:
        await engine.unload()


async def waits(engine: WorkerEngine, count: int) -> bool:
    return (await engine.stats()).requests_waiting >= count
