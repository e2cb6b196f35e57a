"""The operator's process, told to end while the API server keeps it waiting for some answer."""

import asyncio
import base64
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.support.processes import environment, free_port

PATIENCE = 90.0

RESOURCES = {
    "/api/v1": ["namespaces", "pods"],
    "/apis/apps/v1": ["statefulsets"],
    "/apis/apiextensions.k8s.io/v1": ["customresourcedefinitions"],
    "/apis/ullage.dev/v1alpha1": ["modeldeployments", "vectorcollections", "reindexjobs"],
}
KINDS = {
    "modeldeployments": "ModelDeployment",
    "vectorcollections": "VectorCollection",
    "reindexjobs": "ReindexJob",
}


def api_resources(path: str) -> dict[str, Any]:
    listed = [
        {
            "name": plural,
            "singularName": plural[:-1],
            "kind": KINDS.get(plural, plural),
            "namespaced": True,
            "verbs": ["get", "list", "watch", "patch"],
        }
        for plural in RESOURCES[path]
    ]
    return {"kind": "APIResourceList", "resources": listed}


def api_groups() -> dict[str, Any]:
    groups = []
    for path in RESOURCES:
        _, root, *named = path.split("/")
        if root == "apis":
            version = {"groupVersion": "/".join(named), "version": named[1]}
            groups.append({"name": named[0], "versions": [version], "preferredVersion": version})
    return {"kind": "APIGroupList", "groups": groups}


class SlowServer:
    """An API server, just real enough for the operator to start, that keeps one request waiting."""

    def __init__(self, agent: str, path: str) -> None:
        self._held = (agent, path)
        self.waiting = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        agent = request.headers["User-Agent"].partition("/")[0]
        if (agent, request.path) == self._held:
            self.waiting.set()
            await asyncio.Event().wait()
        if request.path == "/api":
            return web.json_response({"versions": ["v1"]})
        if request.path == "/apis":
            return web.json_response(api_groups())
        if request.path in RESOURCES:
            return web.json_response(api_resources(request.path))
        if "/secrets/" in request.path:
            return web.json_response({"data": {"key": base64.b64encode(b"k" * 32).decode()}})
        if "/configmaps/" in request.path:
            return web.json_response({"data": {"pools.yaml": "{}"}})
        if "watch" in request.query:
            await asyncio.Event().wait()
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})


@asynccontextmanager
async def served(server: SlowServer, folder: Path) -> AsyncIterator[Path]:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = folder / "kubeconfig"
    named = {
        "clusters": [{"name": "c", "cluster": {"server": url(runner)}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    kubeconfig.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named})
    )
    try:
        yield kubeconfig
    finally:
        await runner.cleanup()


def url(runner: web.AppRunner) -> str:
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize(
    ("agent", "path"),
    [
        ("ullage-operator", "/apis/ullage.dev/v1alpha1"),
        ("ullage-operator", "/api/v1/namespaces/ullage-system/configmaps/ullage-pools"),
        ("kopf", "/api"),
        ("kopf", "/apis"),
        ("kopf", "/apis/apps/v1"),
        ("kopf", "/apis/ullage.dev/v1alpha1/modeldeployments"),
    ],
)
async def test_an_operator_that_still_waits_for_the_api_server_ends_without_complaint(
    agent: str, path: str, tmp_path: Path
) -> None:
    server = SlowServer(agent, path)
    async with served(server, tmp_path) as kubeconfig:
        settings = {"operator_probe_port": free_port(), "operator_metrics_port": 0}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ullage_operator",
            cwd=tmp_path,
            env={
                **environment(tmp_path, operator_listen_address="127.0.0.1", **settings),
                "KUBECONFIG": str(kubeconfig),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                await server.waiting.wait()
                process.send_signal(signal.SIGTERM)
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, said.decode()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line for line in lines if line["level"] not in {"info", "debug"}] == []
