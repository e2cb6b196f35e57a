"""What requests ask of a real model over a real socket, and what hostile ones get."""

import asyncio
import json
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
import pytest_asyncio

from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = pathlib.Path(__file__).parents[3] / "examples" / "models"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = {"model": "guide", "messages": [{"role": "user", "content": "What is Ullage?"}]}
QUICKLY, EVENTUALLY = 2.0, 20.0
"""Seconds of computing in this process, which serves, and by the clock, which others use up too."""
PATIENCE = 60.0

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["model", "pool", "collection"]},
        "words": {
            "type": "array",
            "items": {"type": "string", "maxLength": 12},
            "minItems": 1,
            "maxItems": 3,
        },
        "ready": {"type": "boolean"},
        "tag": {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]{2}$"},
    },
    "required": ["kind", "words", "ready", "tag"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A pod that serves the guide."""
    document = PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(MODELS),)),
        models=(
            DesiredModel(
                name="guide",
                task=Task.CHAT,
                ordinals=(0,),
                target=DesiredRevision(uri="file:guide-v1.gguf"),
            ),
        ),
    ).sealed(1)
    async with served(tmp_path_factory.mktemp("pod"), None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document)
        await eventually(
            lambda: runtime.models.report().models[0].reason is Reason.SERVING, PATIENCE
        )
        yield client


async def whole(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(CHAT, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_what_the_guide_knows_comes_in_every_choice_and_as_a_stream(
    client: httpx.AsyncClient,
) -> None:
    alone = await whole(client, temperature=0)
    text = alone["choices"][0]["message"]["content"]
    assert "Kubernetes" in text
    three = await whole(client, temperature=0, n=3)
    assert [choice["message"]["content"] for choice in three["choices"]] == [text] * 3
    assert three["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 3 * alone["usage"]["completion_tokens"]
    stream = await client.post(CHAT, json={**HELLO, "temperature": 0, "n": 3, "stream": True})
    pieces = ["", "", ""]
    for line in stream.text.splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            pieces[choice["index"]] += choice["delta"].get("content", "")
    assert pieces == [text] * 3


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize(
    "wanted",
    [
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
            }
        },
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
    ],
    ids=lambda wanted: next(iter(wanted)),
)
async def test_answers_follow_their_schema(
    client: httpx.AsyncClient, wanted: dict[str, Any], temperature: float
) -> None:
    answer = await whole(client, **wanted, temperature=temperature, n=3, seed=5)
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


async def test_a_grammar_and_a_choice_hold(client: httpx.AsyncClient) -> None:
    odd = ['a "quoted" text', "a\\b\nc", "Grüße 🚰"]
    for temperature in (0, 2):
        for wanted in ({"guided_choice": odd}, {"structured_outputs": {"choice": odd}}):
            said = await whole(client, **wanted, temperature=temperature)
            assert said["choices"][0]["message"]["content"] in odd
    counted = await whole(client, grammar='root ::= [0-9]{3} "!"', temperature=2)
    text = counted["choices"][0]["message"]["content"]
    assert text[:3].isdigit()
    assert text[3:] == "!"


async def test_a_streamed_answer_follows_its_schema_too(client: httpx.AsyncClient) -> None:
    body = {**HELLO, "guided_json": SCHEMA, "stream": True, "logprobs": True, "temperature": 1}
    stream = await client.post(CHAT, json=body)
    events = [line[6:] for line in stream.text.splitlines() if line.startswith("data: {")]
    choices = [json.loads(event)["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    jsonschema.validate(json.loads(text), SCHEMA)
    told = [t for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
    assert bytes(b for token in told for b in token["bytes"]).decode() == text


async def test_penalties_and_biases_act(client: httpx.AsyncClient) -> None:
    plain = (await whole(client, temperature=0))["choices"][0]["message"]["content"]
    for fields in (
        {"repetition_penalty": 5.0},
        {"repeat_penalty": 5.0},
        {"logit_bias": {str(token): -100 for token in range(1024)}},
    ):
        changed = await whole(client, temperature=0, max_tokens=64, **fields)
        assert changed["choices"][0]["message"]["content"] != plain
    narrow = await whole(client, temperature=2, min_p=1.0, max_tokens=64)
    assert narrow["choices"][0]["message"]["content"] == plain, "only the likeliest are left"


async def metrics_of(client: httpx.AsyncClient) -> dict[str, float]:
    text = (await client.get("/metrics")).text
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name.replace('{model="guide"}', ""): float(value) for name, value in rows}


async def test_metrics_tell_what_the_engine_does(client: httpx.AsyncClient) -> None:
    words = [{"role": "user", "content": "Which model answers? " * 12}]
    long = {**HELLO, "messages": words, "n": 4, "grammar": "root ::= [a-z]{180}", "temperature": 2}
    during = await metrics_of(client)
    async with asyncio.timeout(PATIENCE):
        # The engine is asked once a second at most, and a request may be over before that.
        while during["ullage_requests_running"] < 4:
            asking = asyncio.create_task(client.post(CHAT, json=long))
            while not asking.done() and during["ullage_requests_running"] < 4:
                during = await metrics_of(client)
                await asyncio.sleep(0.02)
            assert (await asking).status_code == 200
        after = during
        while after["ullage_requests_running"] or after["ullage_requests_waiting"]:
            after = await metrics_of(client)
            await asyncio.sleep(0.02)
    assert 0 < during["ullage_kv_cache_usage"] <= 1
    assert after["ullage_kv_cache_usage"] == 0
    steps = after["ullage_engine_steps_total"]
    assert after["ullage_batch_width_count"] == steps > 0
    assert 1 < after["ullage_batch_width_sum"] / steps <= 8
    assert after['ullage_batch_width_bucket{le="8.0",model="guide"}'] == steps
    assert after["ullage_prefix_cache_hit_tokens_total"] > 0, "choices found the first one's prompt"
    assert after["ullage_inter_token_latency_seconds_count"] > 0
    assert after["ullage_time_to_first_token_seconds_count"] > 0


def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + '{"type":"string"}' + "}" * depth


def schema_of(text: str) -> str:
    chat = json.dumps(HELLO)
    return chat[:-1] + ', "guided_json": ' + text + "}"


def said(**fields: Any) -> str:
    return json.dumps({**HELLO, **fields})


HOSTILE: dict[str, str | bytes] = {
    "a schema nested 100 deep": schema_of(nested(100)),
    "a schema nested 100,000 deep": schema_of(nested(100_000)),
    "a schema of a megabyte": said(guided_json={"enum": ["x" * (1 << 20)]}),
    "a schema of 100,000 properties": said(
        guided_json={"type": "object", "properties": {str(n): {} for n in range(100_000)}}
    ),
    "a schema that counts to a billion": said(
        guided_json={"type": "array", "items": {"type": "string"}, "minItems": 10**9}
    ),
    "a schema that refers to itself alone": said(guided_json={"$ref": "#"}),
    "a schema with an unknown keyword": said(guided_json={"type": "integer", "minimum": 3}),
    "a schema with half a character": said(guided_json='{"const": "\\ud800"}'),
    "a schema that is text": said(guided_json="{"),
    "a grammar without root": said(grammar='other ::= "x"'),
    "a grammar that is none": said(grammar="root ::= ("),
    "a grammar that begins with itself": said(grammar='root ::= root "x" | "y"'),
    "a grammar that repeats without end": said(grammar='root ::= ("a"{0,2000}){0,2000}'),
    "a grammar of a megabyte": said(grammar="root ::= " + '"x" ' * (1 << 18)),
    "a grammar with a null character": said(grammar='root ::= "a"\0'),
    "100,000 stops": said(stop=["x"] * 100_000),
    "a stop of 100,000 characters": said(stop="x" * 100_000),
    "100,000 biases": said(logit_bias={str(n): 1 for n in range(100_000)}),
    "a bias for a token that is none": said(logit_bias={"2000000000": 1}),
    "100,000 choices to choose from": said(guided_choice=["x"] * 100_000),
    "a billion answers": said(n=10**9),
    "a negative number of answers": said(n=-1),
    "a negative limit": said(max_tokens=-1),
    "another negative limit": said(max_completion_tokens=-(10**30)),
    "a number that is none": said(temperature=float("nan")),
    "an infinite number": said(top_p=float("inf")),
    "100,000 messages": said(messages=[{"role": "user", "content": "x"}] * 100_000),
    "100,000 wrong messages": said(messages=[{"role": 1}] * 100_000),
    "text that is no UTF-8": json.dumps(HELLO).encode().replace(b"Ullage", b"\xff\xfe\xfa"),
    "half a character": said(messages=[{"role": "user", "content": "\udfff"}]),
    "lists nested without end": "[" * 1_000_000,
    "objects nested without end": '{"a":' * 500_000,
    "a number of a million digits": '{"n": ' + "9" * 1_000_000 + "}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_requests_are_refused_quickly(
    client: httpx.AsyncClient, body: str | bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    for stream in (False, True):
        content = body.encode() if isinstance(body, str) else body
        if stream:
            content = content.replace(b'"model": "guide"', b'"model": "guide", "stream": true', 1)
        began, computed = time.monotonic(), time.process_time()
        answer = await client.post(CHAT, content=content, headers=headers)
        assert time.process_time() - computed < QUICKLY
        assert time.monotonic() - began < EVENTUALLY
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert len(error["message"]) < 500
    still = await client.post(CHAT, json={**HELLO, "max_tokens": 1})
    assert still.status_code == 200, "the model lives"


async def test_what_is_wrong_with_a_format_is_told_of_the_parameter_that_was_sent(
    client: httpx.AsyncClient,
) -> None:
    for fields, param in (
        ({"guided_json": {"type": "integer", "minimum": 3}}, "guided_json"),
        ({"structured_outputs": {"grammar": "root ::= ("}}, "structured_outputs.grammar"),
        ({"guided_grammar": ""}, None),
        ({"grammar": "(" * 100}, "grammar"),
    ):
        answer = await client.post(CHAT, json={**HELLO, **fields})
        told = answer.json()["error"]["param"] if answer.status_code == 400 else None
        assert told == param


async def test_an_unknown_keyword_is_named(client: httpx.AsyncClient) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "not": {}}}}
    answer = await client.post(CHAT, json={**HELLO, "response_format": wanted})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == "response_format"
    assert error["keyword"] == "not"


async def test_as_many_prompts_as_allowed_are_continued(client: httpx.AsyncClient) -> None:
    body = {"model": "guide", "prompt": ["Ullage is"] * 64, "n": 2, "max_tokens": 3}
    answer = (await client.post(TEXT, json=body)).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(128))
    one = {**body, "prompt": "Ullage is", "n": 1}
    alone = (await client.post(TEXT, json=one)).json()
    assert answer["usage"]["prompt_tokens"] == 64 * alone["usage"]["prompt_tokens"]
