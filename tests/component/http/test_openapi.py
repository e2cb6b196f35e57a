"""The OpenAPI documents: what somebody who generates a client from them gets to see."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion as TheirChatCompletion
from pydantic import BaseModel

from tests.support.processes import free_port
from tests.support.runtimes import served, settings_for
from tests.support.scripted_models import FakeModels, desired_model
from ullage_runtime.app import running
from ullage_runtime.core.errors import LeaseHeld, ReindexNotRunning, ServingError, StaleLease
from ullage_runtime.http.auth import entry_line
from ullage_runtime.http.errors import MethodNotAllowed, UnknownPath
from ullage_runtime.http.openai.objects import ChatCompletion, ChatCompletionChunk, Completion

WORKERS = {LeaseHeld, ReindexNotRunning, StaleLease}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.fixture
async def public(tmp_path: pathlib.Path) -> dict[str, Any]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "me").write_text(entry_line("mine"))
    async with served(tmp_path, FakeModels(), api_keys_dir=keys) as (_, client):
        answer = await client.get("/openapi.json", headers={"Authorization": "Bearer mine"})
        document: dict[str, Any] = answer.json()
        return document


async def test_methods_of_generated_clients_have_names_that_people_would_choose(
    public: dict[str, Any],
) -> None:
    names = [operation["operationId"] for _, _, operation in operations(public)]
    assert len(set(names)) == len(names)
    assert {"listModels", "getModel", "createChatCompletion", "createCompletion"} <= set(names)
    assert all("_" not in name for name in names)


async def test_every_operation_says_what_it_answers_and_takes(public: dict[str, Any]) -> None:
    for method, path, operation in operations(public):
        assert operation["description"], (method, path)
        assert len(operation["tags"]) == 1, (method, path)
        assert "422" not in operation["responses"], (method, path)
        for status, answer in operation["responses"].items():
            for media in answer["content"].values():
                assert media.get("schema") or media["itemSchema"], (method, path, status)
    tags = {tag["name"] for tag in public["tags"]}
    assert {o["tags"][0] for _, _, o in operations(public)} == tags


async def test_every_error_of_the_api_is_told_where_it_may_happen(public: dict[str, Any]) -> None:
    told = {
        (int(status), code)
        for _, _, operation in operations(public)
        for status, answer in operation["responses"].items()
        for code in answer["description"].split("`")[1::2]
        if int(status) >= 400
    }
    waiting, expected = [ServingError], set()
    while waiting:
        error = waiting.pop()
        waiting.extend(error.__subclasses__())
        # Answers to what the document does not have: unknown paths, and what workers say.
        if error not in {UnknownPath, MethodNotAllowed, *WORKERS}:
            expected.add((error.status, error.code))
    assert expected <= told


async def test_all_but_probes_need_a_key(public: dict[str, Any]) -> None:
    (scheme,) = public["components"]["securitySchemes"].values()
    assert scheme["scheme"] == "bearer"
    unlocked = {path for _, path, operation in operations(public) if "security" not in operation}
    assert unlocked == {"/livez", "/readyz"}


async def test_without_keys_the_document_asks_for_none(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels()) as (_, client):
        document = (await client.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
    assert not [o for _, _, o in operations(document) if "security" in o]


async def test_the_operators_document_needs_the_pools_token(tmp_path: pathlib.Path) -> None:
    import httpx

    token = tmp_path / "token"
    token.write_text("the-token")
    settings = settings_for(tmp_path, internal_token_file=token, internal_port=free_port())
    async with (
        running(settings, FakeModels()) as runtime,
        httpx.AsyncClient(trust_env=False, headers={"Authorization": "Bearer the-token"}) as client,
    ):
        assert runtime.internal is not None
        url = f"http://127.0.0.1:{runtime.internal.port}/openapi.json"
        document = (await client.get(url)).json()
    names = {o["operationId"] for _, _, o in operations(document)}
    assert {"putDesired", "getReport"} <= names
    unlocked = {path for _, path, o in operations(document) if "security" not in o}
    assert unlocked == {"/livez", "/readyz", "/metrics"}


async def test_references_lead_somewhere(public: dict[str, Any]) -> None:
    schemas = set(public["components"]["schemas"])
    text = json.dumps(public)
    referred = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert referred <= schemas
    assert {"ChatCompletionChunk", "ErrorAnswer"} <= schemas


def strictly(model: type[BaseModel], data: Any) -> None:
    """Assert that data has what the type says and nothing else."""
    model.model_validate(data, strict=True, extra="forbid")


async def test_answers_are_what_the_document_says(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models) as (_, client):
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        strictly(ChatCompletion, whole)
        TheirChatCompletion.model_validate(whole)
        streamed = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        stream = await client.post("/v1/chat/completions", json=streamed)
        *chunks, done = stream.text.strip().split("\n\n")
        assert done == "data: [DONE]"
        for chunk in chunks:
            strictly(ChatCompletionChunk, json.loads(chunk.removeprefix("data: ")))
        likely = {**CHAT, "logprobs": True, "top_logprobs": 1}
        strictly(ChatCompletion, (await client.post("/v1/chat/completions", json=likely)).json())
        prompt = {"model": "chat", "prompt": "once", "max_tokens": 3, "logprobs": 1}
        strictly(Completion, (await client.post("/v1/completions", json=prompt)).json())
