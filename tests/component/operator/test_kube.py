"""The Kubernetes client against a scripted server: what it sends, and what it makes of answers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as aio_client

from ullage_operator.adapters.kube import AioKubeClient, path, problem
from ullage_operator.controller.errors import (
    ConflictError,
    GoneError,
    NameTakenError,
    RefusedError,
    TransientError,
)
from ullage_operator.reconcile.plan import Delete

CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "n", "uid": "u"},
}


@dataclass
class Calls:
    counted: list[tuple[str, str]] = field(default_factory=list)

    def called(self, verb: str, code: str) -> None:
        self.counted.append((verb, code))


@dataclass
class Server:
    """Answers with what the test lined up; the last answer stays."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.requests.append(
            (
                request.method,
                request.path,
                dict(request.query),
                request.headers.get("Content-Type", ""),
                json.loads(body) if body else None,
            )
        )
        status, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.json_response(answer, status=status, headers=self.headers)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[AioKubeClient, Calls]]:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    configuration = aio_client.Configuration(host=f"http://127.0.0.1:{port}")
    calls = Calls()
    client = AioKubeClient(aio_client.ApiClient(configuration), calls)
    try:
        yield client, calls
    finally:
        await client.close()
        await runner.cleanup()


def failure(reason: str, message: str = "words") -> dict[str, str]:
    return {"kind": "Status", "reason": reason, "message": message}


async def test_apply_is_a_server_side_apply_under_our_name() -> None:
    server = Server([(200, {"metadata": {}})])
    async with connected(server) as (client, calls):
        await client.apply(CONFIG_MAP)
    ((method, where, query, kind, body),) = server.requests
    assert (method, where) == ("PATCH", "/api/v1/namespaces/n/configmaps/c")
    assert query == {"fieldManager": "ullage-operator", "force": "true"}
    assert kind == "application/apply-patch+yaml"
    assert body == CONFIG_MAP
    assert calls.counted == [("apply", "200")]


async def test_status_is_applied_under_a_name_of_its_own() -> None:
    server = Server([(200, {})])
    async with connected(server) as (client, _):
        await client.apply_status(CONFIG_MAP)
    ((_, where, query, _, _),) = server.requests
    assert where.endswith("/configmaps/c/status")
    assert query["fieldManager"] == "ullage-operator-status"


async def test_what_a_post_made_is_turned_into_an_apply() -> None:
    entry = {"manager": "ullage-operator", "operation": "Update"}
    other = {"manager": "controller", "operation": "Update"}
    made = {"metadata": {"managedFields": [other, entry]}}
    server = Server([(201, made), (200, {"metadata": {}})])
    async with connected(server) as (client, _):
        await client.create(CONFIG_MAP)
    post, patch = server.requests
    assert (post[0], post[1]) == ("POST", "/api/v1/namespaces/n/configmaps")
    assert patch[3] == "application/json-patch+json"
    assert patch[4][-1] == {
        "op": "replace",
        "path": "/metadata/managedFields/1/operation",
        "value": "Apply",
    }
    assert [p["op"] for p in patch[4]] == ["test", "test", "replace"]


async def test_an_entry_that_has_moved_is_looked_for_again() -> None:
    entry = {"manager": "ullage-operator", "operation": "Update"}
    made = {"metadata": {"managedFields": [entry]}}
    moved = {"metadata": {"managedFields": [{"manager": "x", "operation": "Update"}, entry]}}
    server = Server([(201, made), (422, failure("Invalid")), (200, moved), (200, {"metadata": {}})])
    async with connected(server) as (client, _):
        await client.create(CONFIG_MAP)
    assert server.requests[-1][4][0]["path"] == "/metadata/managedFields/1/manager"


async def test_a_list_is_read_page_by_page() -> None:
    first = {"metadata": {"continue": "next"}, "items": [{"n": 1}]}
    second = {"metadata": {}, "items": [{"n": 2}]}
    server = Server([(200, first), (200, second)])
    async with connected(server) as (client, _):
        found = await client.list("v1", "Pod", "n", "a=b")
    assert found == [{"n": 1}, {"n": 2}]
    assert [r[2] for r in server.requests] == [
        {"limit": "500", "labelSelector": "a=b"},
        {"limit": "500", "labelSelector": "a=b", "continue": "next"},
    ]


async def test_what_does_not_exist_is_none() -> None:
    async with connected(Server([(404, failure("NotFound"))])) as (client, _):
        assert await client.get("v1", "Pod", "n", "p") is None


async def test_a_busy_server_is_asked_again() -> None:
    server = Server([(503, failure("x")), (429, failure("x")), (200, {"metadata": {}})])
    async with connected(server) as (client, calls):
        await client.get("v1", "Pod", "n", "p")
    assert [code for _, code in calls.counted] == ["503", "429", "200"]


async def test_a_server_that_stays_away_is_a_transient_error() -> None:
    server = Server([(503, failure("x", "down for repairs"))])
    async with connected(server) as (client, calls):
        with pytest.raises(TransientError, match="down for repairs"):
            await client.get("v1", "Pod", "n", "p")
    assert len(calls.counted) == 4


async def test_a_post_that_may_have_worked_is_not_repeated() -> None:
    server = Server([(500, failure("x"))])
    async with connected(server) as (client, _):
        with pytest.raises(TransientError):
            await client.create(CONFIG_MAP)
    assert len(server.requests) == 1


async def test_a_post_that_was_turned_away_is_repeated() -> None:
    server = Server([(429, failure("x")), (201, {"metadata": {}})], {"Retry-After": "0"})
    async with connected(server) as (client, _):
        await client.create(CONFIG_MAP)
    assert len(server.requests) == 2


async def test_nobody_there_is_a_transient_error() -> None:
    configuration = aio_client.Configuration(host="http://127.0.0.1:9")
    client = AioKubeClient(aio_client.ApiClient(configuration), Calls())
    try:
        with pytest.raises(TransientError):
            await client.create(CONFIG_MAP)
    finally:
        await client.close()


async def test_deleting_is_limited_to_what_was_seen_and_content_with_nothing() -> None:
    server = Server([(404, failure("NotFound"))])
    async with connected(server) as (client, _):
        await client.delete("n", Delete("v1", "Service", "s", "u", "why"))
    ((method, where, _, _, body),) = server.requests
    assert (method, where) == ("DELETE", "/api/v1/namespaces/n/services/s")
    assert body["preconditions"] == {"uid": "u"}


async def test_what_is_served_is_read_from_discovery() -> None:
    served = {"resources": [{"kind": "ModelDeployment"}]}
    async with connected(Server([(200, served)])) as (client, _):
        assert await client.serves("ullage.dev/v1alpha1", "ModelDeployment")
        assert not await client.serves("ullage.dev/v1alpha1", "Other")
    async with connected(Server([(404, failure("NotFound"))])) as (client, _):
        assert not await client.serves("ullage.dev/v1alpha1", "ModelDeployment")


@pytest.mark.parametrize(
    ("method", "status", "reason", "expected"),
    [
        ("GET", 404, "NotFound", GoneError),
        ("POST", 409, "AlreadyExists", NameTakenError),
        ("PATCH", 409, "Conflict", ConflictError),
        ("GET", 410, "Expired", TransientError),
        ("GET", 401, "Unauthorized", TransientError),
        ("GET", 500, "InternalError", TransientError),
        ("POST", 403, "Forbidden", RefusedError),
        ("PATCH", 422, "Invalid", RefusedError),
    ],
)
def test_each_answer_is_the_error_it_stands_for(
    method: str, status: int, reason: str, expected: type[Exception]
) -> None:
    text = json.dumps(failure(reason, "in words")).encode()
    found = problem(method, "/x", status, text, {})
    assert type(found) is expected
    assert "in words" in str(found)


def test_an_apply_that_does_not_fit_the_type_is_refused_although_the_server_says_500() -> None:
    words = "failed to convert new object: unable to convert unstructured object to apps/v1"
    text = json.dumps(failure("InternalError", words)).encode()
    assert type(problem("PATCH", "/x", 500, text, {})) is RefusedError


def test_a_namespace_that_is_ending_is_as_good_as_gone() -> None:
    status = failure("Forbidden") | {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    assert type(problem("POST", "/x", 403, json.dumps(status).encode(), {})) is GoneError


def test_an_answer_that_is_no_json_is_shown_as_it_is() -> None:
    assert "<html>" in str(problem("GET", "/x", 502, b"<html>", {}))


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert path("v1", "Pod", "n", "../x") == "/api/v1/namespaces/n/pods/..%2Fx"
