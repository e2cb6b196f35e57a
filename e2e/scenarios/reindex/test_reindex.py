"""The model under a live collection is another one, while it is searched and written.

`ULLAGE_E2E_REINDEX_POINTS` says how many points it has. Up to 1,000 are embedded by small models;
more, such as 10,000, by models of MiniLM's size, which takes some minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from e2e.scenarios.file_server import FileServer
from e2e.scenarios.platform import AFTER_TRAFFIC_SECONDS, EXAMPLES, RUNTIME_IMAGE, Platform
from e2e.scenarios.searched import Expected, Searches, Writes, text_of
from e2e.scenarios.team import VCOL, Team, new_team
from tests.support.argo_health import health
from tests.support.encoder_models import Encoder, write_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RXJ = "reindexjobs.ullage.dev"
POINTS = int(os.environ.get("ULLAGE_E2E_REINDEX_POINTS", "300"))
MINILM = Encoder(width=384, layers=6, heads=12, feed_forward=1536, context=512)
"""The shape of all-MiniLM-L6-v2."""
ENCODER = MINILM if POINTS > 1000 else Encoder(context=512)
OLD, NEW = "embed", "embed-2"
SEEDS = {OLD: 8, NEW: 9}
"""Those of models whose answers can be told apart, in both sizes."""
BATCH = 100
"""Points of one request."""
SLOWLY = {"pointsPerSecond": max(8, POINTS // 60)}
PATIENCE = 60 + POINTS / 10

pytestmark = pytest.mark.timeout(300 + POINTS / 4)


@dataclass(frozen=True, slots=True)
class Library:
    """A team with a collection that is full, and two models for it."""

    team: Team
    url: str
    expected: Expected
    tree: str
    """What Git has once the collection is to have the other model."""

    def job(self, name: str) -> dict[str, Any]:
        """Return a ReindexJob as the API server has it."""
        return self.team.get(name, RXJ)

    def apply(self, text: str) -> list[str]:
        """Apply manifests; return what kubectl says of each."""
        said = self.team.kubectl("apply", "-f", "-", input=text).stdout
        return [line.split()[-1] for line in said.splitlines()]

    def patch(self, name: str, **spec: Any) -> None:
        """Change some of a job's spec, as a person would."""
        body = json.dumps({"spec": spec})
        self.team.kubectl("patch", RXJ, name, "--type=merge", "-p", body)

    def start(self, name: str, **spec: Any) -> None:
        """Create a job."""
        self.team.apply(
            {
                "apiVersion": "ullage.dev/v1alpha1",
                "kind": "ReindexJob",
                "metadata": {"name": name},
                "spec": {"collection": "notes", **spec},
            }
        )

    def becomes(self, name: str, kind: str, status: str, reason: str | None = None) -> None:
        """Wait until a condition of a job is as wanted."""
        self.team.wait_condition(name, kind, status, reason, resource=RXJ, timeout=PATIENCE)

    def reaches(self, name: str, phase: str) -> dict[str, Any]:
        """Wait until a job's status says that it is in a phase, and return the status."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.job(name).get("status", {}))
            return found.get("phase") == phase

        self.team.wait(f"{name}: {phase}", there, timeout=PATIENCE, show=lambda: found)
        return found

    def workers(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a job's worker."""
        chosen = ("--namespace", self.team.namespace, "-l", f"ullage.dev/reindex-job={name}")
        items: list[dict[str, Any]] = self.team.cluster.get_json("pods", *chosen)["items"]
        return items

    def seen(self) -> dict[str, Any]:
        """Return what applying the same again must leave as it is."""
        kinds = f"{RXJ},{VCOL},modeldeployments.ullage.dev"
        ours = self.team.cluster.get_json(kinds, "-n", self.team.namespace)["items"]
        listed = self.team.cluster.get_json("events.events.k8s.io", "-n", self.team.namespace)
        jobs = self.team.cluster.get_json("jobs", "-n", self.team.namespace)["items"]
        named = {each["kind"] for each in ours}
        return {
            "generations": {
                (each["kind"], each["metadata"]["name"]): each["metadata"]["generation"]
                for each in ours
            },
            "events": sum(each["regarding"]["kind"] in named for each in listed["items"]),
            "workers": [each["metadata"]["uid"] for each in jobs],
        }


@pytest.fixture(scope="module")
def library(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Return a full collection that is searched by `embed`."""
    with new_team(platform.cluster) as team:
        platform.cluster.create_volumes(f"{team.namespace}-library")
        files, folder = FileServer(team), tmp_path_factory.mktemp("encoders")
        files.start(RUNTIME_IMAGE)
        urls = {
            name: files.put(write_encoder(folder / f"{name}.gguf", replace(ENCODER, seed=seed)))
            for name, seed in SEEDS.items()
        }
        before, after = (_here(EXAMPLES / f"{each}.yaml", urls) for each in ("search", "reindex"))
        models = [each for each in after if each["kind"] == "ModelDeployment"]
        team.apply(*before, *models)
        team.wait_condition("notes", "Ready", "True", "Serving", timeout=180, resource=VCOL)
        team.wait_condition(NEW, "Ready", "True", timeout=120)
        with team.reach("ullage-library") as url:
            expected = Expected.of(url, (OLD, NEW))
            _fill(f"{url}/collections/notes")
            yield Library(team, url, expected, yaml.safe_dump_all(after))


def _here(path: Path, urls: dict[str, str]) -> list[dict[str, Any]]:
    """Return an example's manifests with the pool and the models that there are here.

    There is no reranker: findings have the scores of vectors, which say whose they are.
    """
    everything = yaml.safe_load_all(path.read_text())
    manifests = [each for each in everything if each["spec"].get("task") != "Rerank"]
    for each in manifests:
        each["spec"].pop("rerank", None)
        name, spec = each["metadata"]["name"], each["spec"]
        if each["kind"] != "ReindexJob":
            spec["pool"] = "library"
        if each["kind"] == "ModelDeployment":
            spec["model"] = {"uri": urls[name]}
    return manifests


def _fill(path: str) -> None:
    for first in range(0, POINTS, BATCH):
        numbers = range(first, min(POINTS, first + BATCH))
        points = [{"id": number, "text": text_of(number)} for number in numbers]
        answer = httpx.put(
            f"{path}/points", params={"wait": True}, json={"points": points}, timeout=120
        )
        answer.raise_for_status()


def points_of(library: Library) -> int:
    path = f"{library.url}/collections/notes/points/count"
    return int(httpx.post(path, json={}, timeout=30).raise_for_status().json()["count"])


def test_another_model_takes_over_under_traffic_and_goes_back_at_once(
    library: Library, platform: Platform
) -> None:
    team, marks = library.team, {"start": time.monotonic()}
    assert points_of(library) == POINTS
    with (
        Searches(library.url, "notes", library.expected) as searches,
        Writes(library.url, "notes") as writes,
    ):
        searches.wait_for(20, OLD)
        marks["applied"] = time.monotonic()
        assert library.apply(library.tree) == ["unchanged", "unchanged", "configured", "created"]
        assert library.apply(library.tree) == ["unchanged"] * 4
        library.becomes("notes-to-embed-2", "Complete", "False", "Reindexing")
        assert library.apply(library.tree) == ["unchanged"] * 4
        library.becomes("notes-to-embed-2", "Switched", "True")
        marks["switched"] = searches.first(NEW, marks["applied"]).ended
        searches.wait_for(20, NEW)
        still(library, searches)

        marks["asked"] = time.monotonic()
        library.patch("notes-to-embed-2", rollback=True)
        marks["accepted"] = time.monotonic()
        searches.wait_for(20, OLD)
        library.reaches("notes-to-embed-2", "Cancelled")
        marks["over"] = time.monotonic()
    searches.require()
    writes.require()
    back = searches.first(OLD, marks["asked"]).ended
    status = library.job("notes-to-embed-2")["status"]
    between = list(itertools.pairwise(marks.items()))
    print(
        "reindex:",
        json.dumps(
            {
                "points": POINTS,
                "searches": len(searches.answers),
                "writes": writes.turn,
                "longest_write_ms": round(1000 * writes.longest),
                "seconds_to_switch": round(marks["switched"] - marks["applied"], 2),
                "rollback_ms": round(1000 * (back - marks["asked"])),
                "rollback_ms_since_accepted": round(1000 * (back - marks["accepted"])),
                **{a: searches.summary(x, y) for (a, x), (_, y) in between},
                "verification": status["verification"],
            }
        ),
    )
    # On a machine that others use, as much later as a search then takes longer.
    slow = searches.summary(marks["start"], marks["asked"])["p95_ms"] / 1000
    assert back - marks["accepted"] <= 1.0 + slow
    searches.require_order(marks["applied"], NEW, until=marks["asked"])
    searches.require_order(marks["asked"], OLD)
    assert status["target"]["generation"] == 2
    team.wait_condition("notes", "InSync", "False", "RolledBack", resource=VCOL)
    unchanged(library, platform)


def still(library: Library, searches: Searches) -> None:
    """Apply the same while the new model answers, and see that nothing comes of it."""
    before = library.seen()
    assert library.apply(library.tree) == ["unchanged"] * 4
    searches.wait_for(20, NEW)
    assert library.seen() == before


def unchanged(library: Library, platform: Platform) -> None:
    """Apply the same once all is over, and see that the operator writes nothing at all."""
    platform.wait_until_settled(library.team.namespace, seconds=AFTER_TRAFFIC_SECONDS)
    since, before = datetime.now(UTC), library.seen()
    assert library.apply(library.tree) == ["unchanged"] * 4
    platform.wait_until_settled(library.team.namespace)
    assert platform.operator_writes(since=since, namespace=library.team.namespace) == []
    assert library.seen() == before


def test_jobs_take_turns_are_paused_and_approved_and_are_given_up_on_both_sides_of_the_switch(
    library: Library,
) -> None:
    team = library.team
    with (
        Searches(library.url, "notes", library.expected) as searches,
        Writes(library.url, "notes") as writes,
    ):
        library.start("first", rate=SLOWLY)
        library.reaches("first", "Copying")
        library.start("low", priority="Low", rollbackSeconds=0)
        library.becomes("low", "Complete", "False", "TargetBusy")
        library.start("high", priority="High", rate=SLOWLY, cutover="Manual")
        library.becomes("high", "Complete", "False", "TargetBusy")
        library.patch("first", cancel=True)
        library.reaches("first", "Cancelled")

        # The later one goes first, and what its worker has done outlives that worker's pod.
        library.reaches("high", "Copying")
        assert library.job("low")["status"]["phase"] == "Queued"
        copied = copies(library, "high")
        (worker,) = library.workers("high")
        name = worker["metadata"]["name"]
        team.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        team.wait("another worker is there", lambda: another(library, "high", worker))
        library.patch("high", suspend=True)
        library.becomes("high", "Suspended", "True", "Suspended")
        assert health("ReindexJob", library.job("high"))["status"] == "Suspended"
        team.wait("no worker is left", lambda: not library.workers("high"))
        library.patch("high", suspend=False, rate={"pointsPerSecond": 100_000})
        library.becomes("high", "Suspended", "True", "WaitingForApproval")
        assert health("ReindexJob", library.job("high"))["status"] == "Suspended"
        assert library.job("high")["status"]["points"]["copied"] >= copied
        searches.require()
        assert {each.model for each in searches.answers} <= {OLD, None}

        library.patch("high", approve=True)
        library.becomes("high", "Switched", "True")
        searches.wait_for(10, NEW)
        library.patch("high", cancel=True)
        searches.wait_for(10, OLD)
        assert library.reaches("high", "Cancelled")["points"]["copied"] >= copied

        library.becomes("low", "Complete", "True", "Succeeded")
        searches.wait_for(10, NEW)
    searches.require()
    writes.require()
    team.wait_condition("notes", "InSync", "True", resource=VCOL)
    team.wait("no worker is left", lambda: not library.workers("low"))
    team.kubectl("delete", RXJ, "--all", "--timeout=60s", timeout=70)


def copies(library: Library, name: str) -> int:
    """Wait until some of a job's points are copied, and return how many."""
    found: list[int] = []

    def there() -> bool:
        found.append(library.job(name)["status"]["points"]["copied"])
        return found[-1] > 0

    library.team.wait(f"{name} has copied something", there, timeout=PATIENCE)
    return found[-1]


def another(library: Library, name: str, than: dict[str, Any]) -> bool:
    """Whether a job has a running worker that is not the one it had."""
    return any(
        each["metadata"]["uid"] != than["metadata"]["uid"] and each["status"]["phase"] == "Running"
        for each in library.workers(name)
    )
