"""What the operator does about a situation, word for word: one folder per situation.

`input.yaml` holds what a person would see in the cluster; `plan.yaml` what the operator then does:
every manifest exactly as the API server receives it. `make golden` rewrites the plans after a
change that is meant.
"""

import difflib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.facts import World, heard, known, pod
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.profile import PoolProfile
from ullage_api.wire.pod_report import PodReport
from ullage_operator.reconcile.collection import decide_collection
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.observed import ProfileView
from ullage_operator.reconcile.plan import Plan
from ullage_operator.reconcile.pool import decide_pool
from ullage_operator.reconcile.reindex import decide_reindex

HERE = Path(__file__).parent
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
CASES = sorted(p.parent.name for p in HERE.glob("*/input.yaml"))


def world(case: str) -> World:
    given = yaml.safe_load((HERE / case / "input.yaml").read_text())
    raw = given.get("profile")
    view = (
        known(PoolProfile.model_validate(raw))
        if raw is not None
        else ProfileView(None, known=tuple(given.get("knownPools", ())))
    )
    result = World(profile=view).add(
        *(ModelDeployment.model_validate(member) for member in given["resources"])
    )
    result.add_collections(
        *(VectorCollection.model_validate(each) for each in given.get("collections", ()))
    )
    result.add_reindexes(*(ReindexJob.model_validate(each) for each in given.get("jobs", ())))
    if given.get("poolExists"):
        result.carry_out(decide_pool(result.pool()))
    for ordinal, fields in enumerate(given.get("pods", ())):
        result.pods[ordinal] = pod(ordinal, **fields)
    for ordinal, report in enumerate(given.get("reports", ())):
        document = result.desired
        known_document = {
            "acknowledged": document.sequence,
            "acknowledgedHash": document.hash,
        }
        result.reports[ordinal] = heard(PodReport.model_validate(known_document | report))
    return result


def plain(plan: Plan) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "applies": [
            {"verb": a.verb.value, "why": a.why, "manifest": dict(a.manifest)} for a in plan.applies
        ],
        "deletes": [f"{d.kind} {d.name}" for d in plan.deletes],
        "push": list(plan.push.pods) if plan.push else [],
        "status": plan.status,
        "events": [
            {"type": "Warning" if e.warning else "Normal", "reason": e.reason, "note": e.message}
            for e in plan.events
        ],
        "note": plan.note.message if plan.note else None,
        "requeueAfter": plan.requeue_after,
        "why": list(plan.why),
    }
    return {key: value for key, value in parts.items() if value}


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def rendered(case: str) -> str:
    given = world(case)
    plans = {"pool": plain(decide_pool(given.pool()))}
    given.carry_out(decide_pool(given.pool()))
    plans |= {name: plain(decide_model(given.model(name))) for name in sorted(given.members)}
    plans |= {
        name: plain(decide_collection(given.collection(name))) for name in sorted(given.collections)
    }
    plans |= {name: plain(decide_reindex(given.reindex(name))) for name in sorted(given.reindexes)}
    return yaml.dump(plans, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)


@pytest.mark.parametrize("case", CASES)
def test_the_operator_does_what_the_golden_file_says(case: str) -> None:
    text = rendered(case)
    golden = HERE / case / "plan.yaml"
    if UPDATE:
        golden.write_text(text)
    difference = difflib.unified_diff(
        golden.read_text().splitlines(), text.splitlines(), str(golden), "decided", lineterm=""
    )
    assert not (shown := "\n".join(difference)), f"{shown}\nmeant? run `make golden`"
