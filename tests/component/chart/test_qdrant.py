"""The Qdrant that the chart brings for those who have none, and the job of its snapshots."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, only, rendered

ON = ("--set", "qdrant.enabled=true")
NAME = "ullage-qdrant"


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return rendered(*ON)


def test_there_is_none_unless_it_is_wanted() -> None:
    assert "StatefulSet" not in {each["kind"] for each in rendered()}


def test_its_data_outlives_pod_and_release(objects: list[dict[str, Any]]) -> None:
    spec = only(objects, "StatefulSet")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    claims = {each["metadata"]["name"] for each in spec["volumeClaimTemplates"]}
    mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"storage", "snapshots"} == claims < {each["name"] for each in mounts}


def test_its_pods_meet_the_restricted_pod_security_standard(objects: list[dict[str, Any]]) -> None:
    job = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod in (only(objects, "StatefulSet")["spec"]["template"]["spec"], job):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_selectors_find_its_pod_and_not_the_operators(objects: list[dict[str, Any]]) -> None:
    labels = only(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    service = only(objects, "Service", NAME)["spec"]["selector"].items()
    policy = only(objects, "NetworkPolicy", NAME)["spec"]
    assert service <= labels
    assert policy["podSelector"]["matchLabels"].items() <= labels
    operator = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not service <= operator
    job = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    allowed = policy["ingress"][0]["from"][1]["podSelector"]["matchLabels"]
    assert allowed.items() <= job.items()
    assert policy["egress"] == []


def test_the_key_reaches_server_and_job_and_stands_nowhere() -> None:
    objects = rendered(*ON, "--set", "qdrant.apiKey.secretName=secret")
    job = only(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod, variable in (
        (only(objects, "StatefulSet")["spec"]["template"]["spec"], "QDRANT__SERVICE__API_KEY"),
        (job, "QDRANT_API_KEY"),
    ):
        environment = {each["name"]: each for each in pod["containers"][0]["env"]}
        source = environment[variable]["valueFrom"]["secretKeyRef"]
        assert source == {"name": "secret", "key": "api-key"}


def test_a_changed_configuration_replaces_the_pod() -> None:
    def state(*given: str) -> tuple[Any, Any]:
        objects = rendered(*ON, *given)
        template = only(objects, "StatefulSet")["spec"]["template"]
        config = only(objects, "ConfigMap", NAME)["data"]["production.yaml"]
        return yaml.safe_load(config), template["metadata"]["annotations"]

    before, after = state(), state("--set", "qdrant.config.log_level=DEBUG")
    assert before[0] == {"telemetry_disabled": True}
    assert after[0] == {"telemetry_disabled": True, "log_level": "DEBUG"}
    assert before[1] != after[1]


def test_without_a_schedule_there_are_no_snapshots() -> None:
    objects = rendered(*ON, "--set", "qdrant.snapshots.schedule=")
    assert "CronJob" not in {each["kind"] for each in objects}


class Snapshots(BaseHTTPRequestHandler):
    """Qdrant's paths of snapshots."""

    kept: dict[str, list[dict[str, Any]]]
    number: int

    def answered(self, result: Any, status: int = 200) -> None:
        body = json.dumps({"result": result}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert self.headers["api-key"] == "key"
        parts = self.path.strip("/").split("/")
        if len(parts) == 1:
            self.answered({"collections": [{"name": name} for name in self.kept]})
        else:
            self.answered(self.kept[parts[1]])

    def do_POST(self) -> None:
        name = self.path.split("/")[2]
        if name == "broken":
            self.answered(None, 500)
            return
        type(self).number += 1
        made = {"name": f"s{self.number:03}", "creation_time": f"2026-01-01T00:00:{self.number:02}"}
        self.kept[name].insert(0, made)
        self.answered(made)

    def do_DELETE(self) -> None:
        _, _, name, _, snapshot = self.path.partition("?")[0].split("/")
        self.kept[name] = [each for each in self.kept[name] if each["name"] != snapshot]
        self.answered("done")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Snapshots.kept, Snapshots.number = {"notes-1": [], "broken": [], "other": []}, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Snapshots) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_the_newest_snapshots_are_kept_and_a_failure_is_of_one_collection(server: str) -> None:
    script = str(CHART / "files" / "snapshots.py")
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-I", script, server, "2"],
            env={"QDRANT_API_KEY": "key", "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "broken: no snapshot: HTTP Error 500" in done.stderr
    names = {name: [each["name"] for each in kept] for name, kept in Snapshots.kept.items()}
    assert names == {"notes-1": ["s007", "s005"], "broken": [], "other": ["s008", "s006"]}
