"""Whatever is wrong with a request is answered in OpenAI's shape, with a status that matches."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from ullage_runtime.core import errors
from ullage_runtime.core.errors import ServingError

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER = {"role": "user", "content": "hello"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[httpx.AsyncClient, FakeModels]]:
    models = FakeModels([desired_model("chat"), desired_model("off", suspended=True)])
    async with served(tmp_path_factory.mktemp("runtime"), models) as (_, client):
        yield client, models


@pytest.fixture
def client(server: tuple[httpx.AsyncClient, FakeModels]) -> httpx.AsyncClient:
    return server[0]


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    return dict(error)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": None}, "messages", "list"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "text parts"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "role 'tool'"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "is required",
        ),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "'system'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
            "type 'image_url', and models here read text only",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "surrogate"),
        ({"model": ""}, "model", "at least 1"),
        ({"model": 7}, "model", "string"),
        ({"temperature": "0.5"}, "temperature", "number"),
        ({"temperature": 2.1}, "temperature", "from 0 to 2"),
        ({"temperature": -1}, "temperature", "from 0 to 2"),
        ({"top_p": 0}, "top_p", "above 0 and up to 1"),
        ({"top_k": -2}, "top_k", "from 0 to 2147483647"),
        ({"max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_completion_tokens": True}, "max_completion_tokens", "integer"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": [""]}, "stop", "1 to 256"),
        ({"stop": ["x" * 257]}, "stop", "1 to 256"),
        ({"stop": [1]}, "stop", "list of strings"),
        ({"n": 10**9}, "n", "from 1 to 128"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream"),
        ({"seed": 1 << 70}, "seed", "from -2**63"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "'json_object'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "with the schema"),
        ({"grammar": "x", "guided_json": {}}, "guided_json", "send one of them"),
        ({"guided_regex": "a+"}, "guided_regex", "not supported here"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "from -100 to 100"),
        ({"presence_penalty": 2.5}, "presence_penalty", "from -2 to 2"),
        ({"echo": True}, "echo", "not supported here"),
    ],
)
async def test_a_bad_chat_is_refused_with_the_fields_name(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str | None, words: str
) -> None:
    body = json.dumps({"model": "chat", "messages": [USER], **fields})
    headers = {"Content-Type": "application/json"}
    response = await client.post(CHAT, content=body, headers=headers)
    error = error_of(response)
    assert response.status_code == 400
    assert error["code"] == error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"prompt": ["x"] * 17, "n": 8}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"echo": True, "logprobs": 0, "suffix": "x"}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": 7}, "suffix"),
    ],
)
async def test_a_bad_completion_is_refused_with_the_fields_name(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await client.post(TEXT, json={"model": "chat", "prompt": "x", **fields})
    assert response.status_code == 400
    assert error_of(response)["param"] == param


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "JSON object"),
        (b"[]", "JSON object"),
        (b'"x"', "JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"model": "\xff"}', "byte 11 is not UTF-8"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"model": ' + b"9" * 6000 + b"}", "6000 digits"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    client: httpx.AsyncClient, content: bytes, words: str
) -> None:
    response = await client.post(
        CHAT, content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert words in error_of(response)["message"]


async def test_a_body_that_is_not_declared_as_json_says_how_to(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps({"model": "chat", "messages": [USER]})
    response = await client.post(CHAT, content=body, headers=headers)
    assert response.status_code == 400
    assert "Content-Type: application/json" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("PUT", "/internal/v1/desired", 404, "not_found"),
    ],
)
async def test_what_is_not_there_is_said_in_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("PATCH", "/v1/collections/c/points/1", "GET"),
        ("PATCH", "/v1/collections/c/points/count", "POST"),
        ("PATCH", "/v1/collections/c/documents/upload", "POST"),
        ("PATCH", "/v1/collections/c/documents/a/b", "DELETE, GET"),
        ("PATCH", "/v1/responses/r", "DELETE, GET"),
    ],
)
async def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_listed(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post(CHAT, json={"model": "nobody", "messages": [USER]})
    assert response.status_code == 404
    error = error_of(response)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "chat" in error["message"]


async def test_a_suspended_model_says_so(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={"model": "off", "messages": [USER]})
    assert response.status_code == 503
    assert error_of(response)["code"] == "model_suspended"


def every_kind(kind: type[ServingError] = ServingError) -> list[type[ServingError]]:
    found = [] if kind is ServingError else [kind]
    return found + [k for child in kind.__subclasses__() for k in every_kind(child)]


@pytest.mark.parametrize(
    "kind", [k for k in every_kind() if k.__module__ == errors.__name__], ids=lambda k: k.__name__
)
async def test_every_error_of_the_tree_is_rendered_with_its_status_and_code(
    server: tuple[httpx.AsyncClient, FakeModels], kind: type[ServingError]
) -> None:
    client, models = server
    models.refusals["chat"] = kind("in words", retry_after=2, details={"required": 10})
    response = await client.post(CHAT, json={"model": "chat", "messages": [USER]})
    del models.refusals["chat"]
    assert response.status_code == kind.status
    assert response.headers["retry-after"] == "2"
    error = error_of(response)
    assert error["code"] == kind.code
    assert error["message"] == "in words"
    assert error["required"] == 10


async def test_a_sane_request_id_is_kept_and_another_is_replaced(client: httpx.AsyncClient) -> None:
    kept = await client.get("/livez", headers={"X-Request-Id": "trace-1:a.b"})
    replaced = await client.get("/livez", headers={"X-Request-Id": "bad id " + "x" * 200})
    assert kept.headers["x-request-id"] == "trace-1:a.b"
    assert len(replaced.headers["x-request-id"]) == 32
