"""What the options of a request do to the tokens of a real model."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.support.gguf_models import BOS, EOS, FIRST_BYTE, write_model
from tests.support.workers import chunks_of, completion, loaded, text_of
from ullage_runtime.core.domain import FinishReason, Usage
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.worker.engine import WorkerEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOT = {"temperature": 2.0, "top_k": 0, "max_tokens": 60, "seed": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerEngine]:
    """A worker with a tiny model."""
    engine = await loaded(write_model(tmp_path_factory.mktemp("models") / "tiny.gguf"))
    yield engine
    await engine.unload()


def token(character: str) -> int:
    return FIRST_BYTE + ord(character)


async def test_log_probabilities_are_the_models_own(engine: WorkerEngine) -> None:
    chunks = await chunks_of(engine, completion("Hello", max_tokens=12, logprobs=5))
    told = [one for chunk in chunks for one in chunk.logprobs]
    assert len(told) == 12
    for one in told:
        assert one.chosen == one.likeliest[0], "a greedy token is the likeliest"
        values = [likely.logprob for likely in one.likeliest]
        assert values == sorted(values, reverse=True)
        assert 0 < sum(math.exp(value) for value in values) <= 1 + 1e-6
    biased = completion(
        "Hello", max_tokens=1, logprobs=5, logit_bias=((token("Q"), 100.0),), presence_penalty=1.0
    )
    first = (await chunks_of(engine, biased))[-1].logprobs[0]
    assert first.chosen.text == b"Q"
    assert first.likeliest == told[0].likeliest, "told is what the model thought before the bias"
    assert first.chosen.logprob < first.likeliest[0].logprob


async def test_a_prompts_own_log_probabilities_are_those_of_generating_it(
    engine: WorkerEngine,
) -> None:
    said = await chunks_of(engine, completion("Hello", max_tokens=40, logprobs=3))
    told = [one for chunk in said for one in chunk.logprobs]
    ids = (BOS, *(FIRST_BYTE + byte for byte in b"Hello"))
    generated = tuple(FIRST_BYTE + one.chosen.text[0] for one in told)
    asked = replace(completion((*ids, *generated), max_tokens=2, logprobs=3), echo=True)
    chunks = await chunks_of(engine, asked)
    first, *scored = [one for chunk in chunks for one in chunk.logprobs]
    assert first.is_first
    assert first.chosen.text == b"<s>"
    assert len(scored) == len("Hello") + 40 + 2
    for before, again in zip(told, scored[len("Hello") :], strict=False):
        assert again.chosen.text == before.chosen.text
        # Other batches round otherwise.
        assert again.chosen.logprob == pytest.approx(before.chosen.logprob, abs=0.02)
        assert len(again.likeliest) == 3
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.cached_tokens == 0, "what is cached has no logits"


async def test_a_prompt_is_told_without_an_answer(engine: WorkerEngine) -> None:
    asked = replace(completion("Hello", max_tokens=0, logprobs=0), echo=True)
    (chunk,) = await chunks_of(engine, asked)
    assert chunk.text == "Hello"
    assert chunk.finish is FinishReason.LENGTH
    assert chunk.usage == Usage(prompt_tokens=6)
    assert [one.chosen.text for one in chunk.logprobs] == [b"H", b"e", b"l", b"l", b"o"]
    assert not any(one.is_first for one in chunk.logprobs), "a BOS was put before it"
    alone = replace(completion((FIRST_BYTE,), max_tokens=0, logprobs=0), echo=True)
    ((one,),) = [chunk.logprobs for chunk in await chunks_of(engine, alone)]
    assert one.is_first


async def test_prompts_that_are_scored_share_steps_with_everybody(engine: WorkerEngine) -> None:
    prompts = ["HelloThere," * n for n in range(1, 6)]
    plain = [completion(p, max_tokens=10, logprobs=1) for p in prompts]
    alone = [await chunks_of(engine, replace(each, echo=True)) for each in plain]
    together = await asyncio.gather(
        *(chunks_of(engine, replace(each, echo=True)) for each in plain),
        *(chunks_of(engine, each) for each in plain),
    )
    for prompt, one, other in zip(prompts, alone, together, strict=False):
        tokens = [t.chosen for chunk in one for t in chunk.logprobs]
        again = [t.chosen for chunk in other for t in chunk.logprobs]
        assert b"".join(t.text for t in tokens).startswith(prompt.encode())
        assert [t.logprob for t in again[: len(prompt)]] == pytest.approx(
            [t.logprob for t in tokens[: len(prompt)]], abs=0.02
        )


async def test_log_probabilities_cost_nothing_when_nobody_asks(engine: WorkerEngine) -> None:
    chunks = await chunks_of(engine, completion("Hello", max_tokens=5))
    assert [chunk.logprobs for chunk in chunks] == [()] * len(chunks)


async def test_a_bias_forces_and_forbids_tokens(engine: WorkerEngine) -> None:
    always = completion("Hello", max_tokens=6, logit_bias=((token("Q"), 100.0),))
    assert await text_of(engine, always) == "QQQQQQ"
    first = (await text_of(engine, completion("Hello", max_tokens=1, logprobs=0)))[:1]
    plain = await chunks_of(engine, completion("Hello", max_tokens=1, logprobs=0))
    likeliest = FIRST_BYTE + plain[-1].logprobs[0].chosen.text[0]
    never = completion("Hello", max_tokens=1, logprobs=0, logit_bias=((likeliest, -100.0),))
    other = await chunks_of(engine, never)
    assert FIRST_BYTE + other[-1].logprobs[0].chosen.text[0] != likeliest, first


async def test_penalties_keep_an_answer_from_repeating(engine: WorkerEngine) -> None:
    forced = {"max_tokens": 8, "logit_bias": ((token("Q"), 50.0), (token("R"), 45.0))}
    assert await text_of(engine, completion("Hello", **forced)) == "Q" * 8
    for penalty in ({"presence_penalty": 60.0}, {"frequency_penalty": 60.0}):
        text = await text_of(engine, completion("Hello", **forced, **penalty))
        assert text[:2] == "QR"
    hot = [
        await text_of(engine, completion("aaaaaaaa", **HOT, repetition_penalty=by))
        for by in (1.0, 5.0)
    ]
    assert len(set(hot[1])) > len(set(hot[0])) or hot[0] != hot[1]


@pytest.mark.parametrize(
    "narrow", [{"min_p": 0.99}, {"typical_p": 0.0001}, {"top_p": 0.0001}, {"top_k": 1}]
)
async def test_narrow_choices_leave_one_token(
    engine: WorkerEngine, narrow: dict[str, float]
) -> None:
    options = {**HOT, "temperature": 1.0, "max_tokens": 20}
    texts = {
        await text_of(engine, completion("Hello", **{**options, **narrow, "seed": seed}))
        for seed in range(4)
    }
    assert len(texts) == 1


async def test_an_answer_ends_at_tokens_that_were_named_and_not_before_it_may(
    engine: WorkerEngine,
) -> None:
    free = {"temperature": 0, "max_tokens": 30}
    told = await chunks_of(engine, completion("Hello", logprobs=0, **free))
    tokens = [FIRST_BYTE + one.chosen.text[0] for chunk in told for one in chunk.logprobs]
    last = tokens[9]
    first = tokens.index(last)
    ended = await chunks_of(engine, completion("Hello", stop_tokens=(last,), logprobs=0, **free))
    assert ended[-1].finish is FinishReason.STOP
    assert sum(len(chunk.logprobs) for chunk in ended) == first, "the token itself is not told"
    later = completion("Hello", stop_tokens=(last,), min_tokens=20, logprobs=0, **free)
    kept = [one.chosen.text for chunk in await chunks_of(engine, later) for one in chunk.logprobs]
    assert len(kept) >= 20
    assert bytes([last - FIRST_BYTE]) not in kept[:20]


async def test_an_answer_that_would_end_goes_on_when_it_must(engine: WorkerEngine) -> None:
    wants_to_end = {"logit_bias": ((EOS, 100.0),), "max_tokens": 12}
    for fields, tokens in (({}, 0), ({"min_tokens": 5}, 5), ({"ignores_end": True}, 12)):
        chunks = await chunks_of(engine, completion("Hello", **wants_to_end, **fields, logprobs=0))
        assert sum(len(chunk.logprobs) for chunk in chunks) == tokens
        ended = FinishReason.LENGTH if tokens == 12 else FinishReason.STOP
        assert chunks[-1].finish is ended


async def test_a_grammar_holds_whatever_the_model_would_say(engine: WorkerEngine) -> None:
    for seed in range(8):
        options = {**HOT, "seed": seed, "grammar": 'root ::= ("yes" | "no") "!"'}
        chunks = await chunks_of(engine, completion("Is it?", **options))
        assert "".join(c.text for c in chunks) in {"yes!", "no!"}
        assert chunks[-1].finish is FinishReason.STOP


async def test_of_what_a_grammar_leaves_the_most_typical_is_the_likelier_of_two(
    engine: WorkerEngine,
) -> None:
    for prompt in ("a", "b", "c", "d", "e", "f"):
        asked = {"grammar": 'root ::= ("yes" | "no") "!"', "max_tokens": 8}
        likelier = await text_of(engine, completion(prompt, **asked))
        typical = {**asked, "temperature": 1.0, "typical_p": 1e-9, "top_k": 0}
        assert await text_of(engine, completion(prompt, **typical)) == likelier


async def test_a_json_schema_holds(engine: WorkerEngine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "sizes": {"type": "array", "items": {"enum": [1, 2, 3]}, "maxItems": 3},
            "when": {"type": "string", "format": "date"},
            "kind": {"enum": ["a", "b"]},
        },
        "required": ["name", "sizes", "when", "kind"],
        "additionalProperties": False,
    }
    for seed in range(5):
        options = {**HOT, "max_tokens": 400, "seed": seed, "json_schema": json.dumps(schema)}
        chunks = await chunks_of(engine, completion("Tell me", **options))
        assert chunks[-1].finish is FinishReason.STOP
        value = json.loads("".join(c.text for c in chunks))
        assert sorted(value) == ["kind", "name", "sizes", "when"]
        assert value["kind"] in {"a", "b"}
        assert set(value["sizes"]) <= {1, 2, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"grammar": 'start ::= "a"'},
        {"grammar": "root ::= root"},
        {"grammar": "root ::= ("},
        {"grammar": 'root ::= "a" missing'},
        {"json_schema": '{"type": "integer", "minimum": 3}'},
        {"json_schema": '{"type": "string", "pattern": "^\\\\d+$"}'},
        {"logit_bias": ((100_000, 1.0),)},
        {"logit_bias": ((-1, 1.0),)},
        {"logprobs": 21},
        {"repetition_penalty": 0.0},
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_refused_and_the_worker_lives(
    engine: WorkerEngine, wrong: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest):
        await chunks_of(engine, completion("Hello", max_tokens=5, **wrong))
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_a_grammar_that_no_token_can_follow_ends_the_answer_with_an_error(
    engine: WorkerEngine,
) -> None:
    grammar = 'root ::= "a" [b-a]'  # a range that holds no character
    with pytest.raises(InvalidRequest, match="goes on with the grammar"):
        await chunks_of(engine, completion("Hello", max_tokens=5, grammar=grammar))
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_a_grammar_that_multiplies_is_ended_before_it_holds_others_up(
    engine: WorkerEngine,
) -> None:
    rules = [f'{chr(97 + n)} ::= {chr(98 + n)} {chr(98 + n)}? | "y"' for n in range(24)]
    grammar = "\n".join(["root ::= a", *rules, 'y ::= "x"'])
    began = asyncio.get_running_loop().time()
    with pytest.raises(InvalidRequest, match="too ambiguous"):
        await chunks_of(engine, completion("Hello", max_tokens=40, grammar=grammar))
    assert asyncio.get_running_loop().time() - began < 30
    assert await text_of(engine, completion("Hello", max_tokens=5))
