"""Operator and runtime, both real processes, agree on a real model: only the kubelet is played."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.network import free_ports
from tests.support.gguf_models import write_model
from tests.support.operators import MDEP, PATIENCE, Operator, define_pools, eventually
from tests.support.played_teams import POOLS, Team, model
from ullage_api.names import INTERNAL_PORT

ADDRESS = f"127.{201 + os.getpid() % 50}.1.1"


@contextmanager
def runtime(team: Team, pod: str, folder: Path) -> Iterator[str]:
    """Run the process that the pod's container would run; yield its public address."""
    found = team.cluster.get_json("pod", pod, "-n", team.namespace)
    document = team.kubelet.mount(found, folder)
    (folder / "desired.json").write_text(document.model_dump_json(by_alias=True))
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "ULLAGE_HOST": "127.0.0.1",
        "ULLAGE_PORT": str(port),
        "ULLAGE_INTERNAL_HOST": ADDRESS,
        "ULLAGE_INTERNAL_PORT": str(INTERNAL_PORT),
        "ULLAGE_POD_NAME": pod,
        "ULLAGE_MODEL_CACHE_DIR": str(folder / "cache"),
        "ULLAGE_STATE_DIR": str(folder / "state"),
        "ULLAGE_DESIRED_FILE": str(folder / "desired.json"),
        "ULLAGE_INTERNAL_TOKEN_FILE": str(folder / "token"),
        "ULLAGE_DRAIN_SECONDS": "1",
        "ULLAGE_LOG_FORMAT": "json",
    }
    log = folder / "runtime.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ullage_runtime"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        eventually("the runtime is ready", is_ready, show=log.read_text)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "tiny.gguf")
    (folder / "text.gguf").write_text("this is no model")
    return folder


def test_a_real_model_is_loaded_shown_and_given_back(
    platform: Cluster, team: Team, running: Operator, files: Path, tmp_path: Path
) -> None:
    profile: dict[str, Any] = {"image": "x", "runtime": {"fileRoots": [str(files)]}}
    define_pools(platform, **POOLS, real=profile)
    try:
        tiny = {"uri": "file:tiny.gguf"}
        team.apply(model("good", pool="real", model=tiny))
        eventually("the pod exists", lambda: team.kubelet.get(team.namespace, "ullage-real-0"))
        with runtime(team, "ullage-real-0", tmp_path / "pod") as url:
            team.kubelet.set_ready(team.namespace, "ullage-real-0", address=ADDRESS)
            team.reaches("good", "True", "Serving")
            status = team.status("good")
            digest = hashlib.sha256((files / "tiny.gguf").read_bytes()).hexdigest()
            assert status["sha256"] == digest
            assert status["memory"]["residentBytes"] > 0
            assert status["activeRevision"] == status["targetRevision"]
            assert "<none>" not in team.kubectl("get", MDEP, "good", "-o", "wide").stdout

            team.apply(
                model("wrong", pool="real", model={**tiny, "sha256": "0" * 64}),
                model("absent", pool="real", model={"uri": "file:nowhere.gguf"}),
                model("text", pool="real", model={"uri": "file:text.gguf"}),
            )
            team.reaches("wrong", "False", "ChecksumMismatch")
            team.reaches("text", "False", "InvalidModel")
            team.reaches("absent", "False", "SourceUnavailable", kind="WeightsReady")
            assert team.condition("good")["status"] == "True"

            body = {"model": "good", "messages": [{"role": "user", "content": "Hello"}]}
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                json=body | {"max_tokens": 4},
                timeout=PATIENCE,
                trust_env=False,
            )
            assert answer.status_code == 200, answer.text

            team.kubectl("patch", MDEP, "good", "--type=merge", '-p={"spec":{"suspend":true}}')
            eventually(
                "its memory is free",
                lambda: team.status("good")["memory"]["residency"] == "Disk",
                show=lambda: team.status("good"),
            )
            answer = httpx.post(
                f"{url}/v1/chat/completions", json=body, timeout=PATIENCE, trust_env=False
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_suspended")
    finally:
        define_pools(platform, **POOLS)
