"""Operator and runtime, both real processes, agree on a real model: only the kubelet is played."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.network import free_ports
from tests.support.gguf_models import write_model
from tests.support.operators import MDEP, PATIENCE, Operator, define_pools, eventually
from tests.support.played_teams import POOLS, Team, model
from tests.support.swaps import lacking, write_pair
from ullage_api.names import INTERNAL_PORT

ADDRESS = f"127.{201 + os.getpid() % 50}.1.1"
SECOND_ADDRESS = f"127.{201 + os.getpid() % 50}.1.2"


@contextmanager
def runtime(team: Team, pod: str, folder: Path, address: str = ADDRESS) -> Iterator[str]:
    """Run the process that the pod's container would run; yield its public address."""
    found = team.cluster.get_json("pod", pod, "-n", team.namespace)
    document = team.kubelet.mount(found, folder)
    (folder / "desired.json").write_text(document.model_dump_json(by_alias=True))
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "ULLAGE_HOST": "127.0.0.1",
        "ULLAGE_PORT": str(port),
        "ULLAGE_INTERNAL_HOST": address,
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
    write_pair(folder)
    lacking(folder / "lacking.gguf")
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


def told(team: Team, name: str) -> list[str]:
    """Return what Events say of a model, in the order in which it happened."""
    found = team.cluster.get_json("events.v1.events.k8s.io", "-n", team.namespace)["items"]
    mine = (e for e in found if e["regarding"]["name"] == name)
    return [f"{e['reason']}: {e['note']}" for e in sorted(mine, key=lambda e: e["eventTime"])]


def revisions(status: dict[str, Any]) -> tuple[str | None, ...]:
    """Return what answers on each pod."""
    return tuple(p.get("revision") for p in status.get("placements", ()))


def answered(url: str) -> str:
    body = {"model": "good", "messages": [{"role": "user", "content": "Who?"}], "temperature": 0}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


ROLLOUT = {"canary": {"steps": [{"weight": 50, "seconds": 2}]}, "watchSeconds": 2}


def test_two_pods_take_a_new_revision_one_after_the_other_and_a_bad_one_not_at_all(
    platform: Cluster, team: Team, running: Operator, files: Path, tmp_path: Path
) -> None:
    profile: dict[str, Any] = {
        "image": "x",
        "replicas": {"min": 2, "max": 2},
        "runtime": {"fileRoots": [str(files)]},
    }
    define_pools(platform, **POOLS, pair=profile)
    names = ("ullage-pair-0", "ullage-pair-1")

    def spec(file: str) -> None:
        team.apply(
            model("good", pool="pair", replicas=2, model={"uri": f"file:{file}"}, rollout=ROLLOUT)
        )

    try:
        spec("alpha.gguf")
        for name in names:
            eventually(f"{name} exists", partial(team.kubelet.get, team.namespace, name))
        with (
            runtime(team, names[0], tmp_path / "0") as first,
            runtime(team, names[1], tmp_path / "1", SECOND_ADDRESS) as second,
        ):
            team.kubelet.set_ready(team.namespace, names[0], address=ADDRESS)
            team.kubelet.set_ready(team.namespace, names[1], address=SECOND_ADDRESS)
            team.reaches("good", "False", "UpToDate", kind="Progressing")
            old = team.status("good")["activeRevision"]
            assert revisions(team.status("good")) == (old, old)

            seen: list[tuple[str | None, ...]] = [(old, old)]
            shares: list[list[int]] = []
            spec("beta.gguf")

            def is_everywhere() -> bool:
                status = team.status("good")
                if revisions(status) != seen[-1]:
                    seen.append(revisions(status))
                    if len(seen) == 2:
                        assert "beta" in answered(first)
                        assert "alpha" in answered(second)
                shares.append([a["weight"] for a in status.get("arms", ())])
                return len(seen) > 2 and status["transition"] == "UpToDate"

            eventually("both have it", is_everywhere, show=lambda: (seen, team.status("good")))
            new = team.status("good")["activeRevision"]
            assert seen == [(old, old), (new, old), (new, new)]
            assert [50, 50] in shares
            assert "beta" in answered(second)
            took = httpx.get(f"{second}/rollouts/good", timeout=10, trust_env=False).json()["swap"]
            assert [arm["weight"] for arm in took["arms"]] == [0, 100], "no second canary"
            story = told(team, "good")
            steps = [
                f"RollingOut: revision {new} gets 50 % of the requests for 2 s",
                f"RollingOut: revision {new} answers and is watched for 2 s",
                "UpToDate: 2 of 2 pods serve the target",
            ]
            last = [index for index, said in enumerate(story) if said in steps]
            assert [story[index] for index in last][-3:] == steps, story

            spec("text.gguf")
            team.reaches("good", "False", "InvalidModel", kind="Progressing")
            status = team.status("good")
            assert status["transition"] == "BlockedByFailedLoad"
            assert revisions(status) == (new, new)
            assert status["readyReplicas"] == 2
            kept = httpx.get(f"{second}/rollouts/good", timeout=10, trust_env=False).json()
            assert (kept["active"], kept["swap"]) == (new, took), "it was never tried there"

            spec("lacking.gguf")

            def is_told() -> bool:
                said: str = team.condition("good", "Progressing")["message"]
                return "tensor 'output_norm.weight' not found" in said

            eventually("status has what the engine said", is_told)
            assert revisions(team.status("good")) == (new, new)
    finally:
        define_pools(platform, **POOLS)
