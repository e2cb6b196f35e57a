"""Documents in, answers out, and the pod's death changes nothing."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from e2e.scenarios.file_server import FileServer
from e2e.scenarios.lesser_models import write_judge
from e2e.scenarios.platform import EXAMPLES
from e2e.scenarios.team import VCOL, Team
from tests.support import docstrings
from ullage_runtime.cli.commands import app

SEARCH = EXAMPLES / "search.yaml"
ROOT = EXAMPLES.parent
DOCSTRINGS = int(os.environ.get("ULLAGE_E2E_DOCSTRINGS", "25"))
"""How many of the standard library's docstrings are taken in beside documentation."""
DOCUMENTATION = [ROOT / "README.md", *(ROOT / "docs" / n for n in ("collections.md", "memory.md"))]
LOOKED_AT = 5
"""Findings that the reranker orders anew; all are answered, since its order means nothing here."""


@pytest.fixture
def library(team: Team, files: FileServer, tmp_path: Path) -> Team:
    """Return a team that has applied the example, in the pool that may hold collections.

    The reranker is one that is here: it takes what the real one would take, and means nothing.
    """
    team.cluster.create_volumes(f"{team.namespace}-library")
    judge = write_judge(EXAMPLES / "models" / "guide-v1.gguf", tmp_path / "judge.gguf")
    manifests = list(yaml.safe_load_all(SEARCH.read_text()))
    for each in manifests:
        each["spec"]["pool"] = "library"
    _, reranker, notes = manifests
    reranker["spec"]["model"]["uri"] = files.put(judge)
    notes["spec"]["rerank"] |= {"min": LOOKED_AT, "max": LOOKED_AT}
    team.apply(*manifests)
    team.wait_condition("reranker", "Ready", "True", timeout=180)
    team.wait_condition("notes", "Ready", "True", "Serving", timeout=180, resource=VCOL)
    return team


def ullage(url: str, *arguments: str) -> dict[str, Any]:
    """Run a command as a person does who can reach the pool, and return its JSON."""
    command = [*arguments, "--collection", "notes", "--json", "--url", url.removesuffix("/v1")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def sources(url: str, query: str) -> list[str]:
    found = ullage(url, "search", query, "--mode", "sparse", "--limit", str(LOOKED_AT))
    assert found["degraded"] == [], found
    assert found["ranked_by"] == "CrossEncoder", found
    return [hit["payload"]["document"] for hit in found["results"]]


def row(team: Team) -> list[str]:
    return team.kubectl("get", VCOL, "notes", "--no-headers").stdout.split()


def test_documentation_is_taken_in_asked_and_found_again_after_the_pod_was_deleted(
    library: Team, tmp_path: Path
) -> None:
    # A name may be there twice, in branches of one module.
    items = list({item.name: item for item in docstrings.items()[:DOCSTRINGS]}.values())
    lines = tmp_path / "docstrings.jsonl"
    lines.write_text(
        "".join(json.dumps({"id": item.name, "text": item.body}) + "\n" for item in items)
    )
    asked = items[0]
    with library.reach("ullage-library") as url:
        taken = ullage(url, "ingest", *map(str, DOCUMENTATION), str(lines))
        print(f"taken in: {taken}")
        assert taken["failed"] == 0, taken
        assert any(name.endswith("memory.md") for name in sources(url, "PSI memory pressure"))
        assert asked.name in sources(url, asked.body[:200])
        points = httpx.get(f"{url}/collections/notes", timeout=30).json()["points"]

    def told() -> bool:
        return row(library)[1:6] == ["embed", "Balanced", str(points), "True", "Serving"]

    library.wait("kubectl get vcol tells the points", told, show=lambda: row(library), timeout=90)

    pod = library.kubectl("get", "pod", "ullage-library-0", "-o", "name").stdout.strip()
    library.kubectl("delete", pod, "--timeout=60s", timeout=70)
    library.wait_condition("notes", "Ready", "True", "Serving", timeout=180, resource=VCOL)
    with library.reach("ullage-library") as url:
        library.wait("it is found again", lambda: answers(url, asked), timeout=90)
        assert httpx.get(f"{url}/collections/notes", timeout=30).json()["points"] == points


def answers(url: str, asked: docstrings.Item) -> bool:
    try:
        return asked.name in sources(url, asked.body[:200])
    except (httpx.HTTPError, AssertionError):
        return False
