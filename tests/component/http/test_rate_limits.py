"""Limits per key, as clients meet them: refusals, headers and what is charged."""

import asyncio
import pathlib
from typing import Any

import httpx
import openai
import pytest

from tests.support.runtimes import eventually, served
from tests.support.scripted_models import FakeModels, Gate, desired_model
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pool_desired import DesiredModel, Peer
from ullage_runtime.core.errors import ModelLoading
from ullage_runtime.http.auth import entry_line

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
STREAMED = {**HELLO, "stream": True}


def limited(requests: int = 0, tokens: int = 0, **fields: object) -> DesiredModel:
    limits = ServingLimits(requests_per_minute=requests, tokens_per_minute=tokens)
    return desired_model("chat", serving=limits, **fields)


def left(response: httpx.Response, unit: str = "tokens") -> int:
    return int(response.headers[f"x-ratelimit-remaining-{unit}"])


async def test_a_request_too_many_is_refused_with_the_time_to_come_back(
    tmp_path: pathlib.Path,
) -> None:
    async with served(tmp_path, FakeModels([limited(2)])) as (_, client):
        whole = await client.post(CHAT, json=HELLO)
        stream = await client.post(CHAT, json=STREAMED)
        refused = await client.post(CHAT, json=HELLO)
        metrics = (await client.get("/metrics")).text
    assert [left(r, "requests") for r in (whole, stream, refused)] == [1, 0, 0]
    assert stream.text.endswith("data: [DONE]\n\n")
    assert whole.headers["x-ratelimit-limit-requests"] == "2"
    assert whole.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in whole.headers
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert 'ullage_rate_limited_requests_total{model="chat"} 1.0' in metrics


async def test_what_a_request_really_took_is_charged_in_the_end(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels([limited(tokens=1000)])) as (_, client):
        whole = await client.post(CHAT, json=HELLO)
        await client.post(CHAT, json=STREAMED)
        last = await client.post(CHAT, json=HELLO)
    # Each answer is 5 + 3 tokens, and 17 a second come back.
    assert 992 <= left(whole) <= 1000
    assert 976 <= left(last) <= 1000
    assert last.headers["x-ratelimit-limit-tokens"] == "1000"


async def test_tokens_beyond_the_budget_are_owed(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels([limited(tokens=7)])) as (_, client):
        assert (await client.post(CHAT, json=HELLO)).status_code == 200
        refused = await client.post(CHAT, json=HELLO)
    assert refused.status_code == 429
    # 8 of 7 tokens are used and about 6 more are asked for.
    assert 55 <= int(refused.headers["retry-after"]) <= 60


async def test_a_prompt_beyond_the_whole_budget_is_refused_for_good(
    tmp_path: pathlib.Path,
) -> None:
    body: dict[str, Any] = {"model": "chat", "prompt": "x" * 405}
    async with served(tmp_path, FakeModels([limited(tokens=100)])) as (runtime, client):
        refused = await client.post("/v1/completions", json=body)
        async with openai.AsyncOpenAI(base_url=f"{runtime.url}/v1", api_key="none") as sdk:
            with pytest.raises(openai.RateLimitError):
                await sdk.completions.create(**body)
        metrics = (await client.get("/metrics")).text
    assert refused.status_code == 429
    assert "about 102 tokens, more than all of the 100 tokens" in refused.json()["error"]["message"]
    assert "retry-after" not in refused.headers
    # OpenAI's client, which tries again by itself, was told not to.
    assert 'ullage_rate_limited_requests_total{model="chat"} 2.0' in metrics


async def test_a_request_that_failed_gives_its_tokens_back(tmp_path: pathlib.Path) -> None:
    models = FakeModels([limited(tokens=100)])
    models.refusals["chat"] = ModelLoading("still loading", retry_after=3)
    async with served(tmp_path, models) as (_, client):
        for _ in range(20):
            failed = await client.post(CHAT, json=HELLO)
            assert failed.status_code == 503
    assert left(failed) >= 90


async def test_a_client_that_leaves_has_used_what_was_made_for_it(tmp_path: pathlib.Path) -> None:
    gate = Gate()
    async with served(tmp_path, FakeModels([limited(tokens=60)], {"chat": gate})) as (_, client):
        asking = asyncio.create_task(client.post(CHAT, json=HELLO))
        await asyncio.wait_for(gate.began.wait(), 10)
        asking.cancel()
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        gate.opened.set()
        second = await client.post(CHAT, json=HELLO)
    # 5 of the prompt and 1 made, then 5 + 2; one a second comes back.
    assert 47 <= left(second) <= 50


async def test_each_key_has_its_own_budget_and_a_changed_limit_holds_at_once(
    tmp_path: pathlib.Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("a", "b"):
        (keys / name).write_text(entry_line(f"key-{name}"))
    models = FakeModels([limited(1)])
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):

        async def asked(key: str) -> int:
            headers = {"Authorization": f"Bearer key-{key}"}
            return (await client.post(CHAT, json=HELLO, headers=headers)).status_code

        assert [await asked(key) for key in "aba"] == [200, 200, 429]
        models.have(limited(2))
        assert [await asked(key) for key in "aba"] == [200, 200, 429]
        models.have(limited(0))
        assert [await asked(key) for key in "aba"] == [200, 200, 200]


async def test_a_forwarded_answer_brings_the_holders_headers(tmp_path: pathlib.Path) -> None:
    holder = FakeModels([limited(1, ordinals=(1,))], ordinal=1)
    async with served(tmp_path / "b", holder) as (holding, _):
        peers = [Peer(ordinal=1, url=holding.url)]
        front = FakeModels([limited(1, ordinals=(1,))], peers=peers)
        async with served(tmp_path / "a", front) as (_, client):
            answer = await client.post(CHAT, json=STREAMED)
            refused = await client.post(CHAT, json=HELLO)
    assert answer.headers.get_list("x-ratelimit-remaining-requests") == ["0"]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 50


async def test_a_browser_may_read_the_headers(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels([limited(1)])) as (_, client):
        answer = await client.post(CHAT, json=HELLO, headers={"Origin": "http://localhost:3000"})
    assert "x-ratelimit-remaining-requests" in answer.headers["access-control-expose-headers"]


async def test_a_model_without_limits_says_nothing_of_them(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models) as (_, client):
        answer = await client.post(CHAT, json=HELLO)
        await eventually(lambda: models.leases == 0)
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
