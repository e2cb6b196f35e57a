"""The same YAML means the same document, whoever derives it; `desired.json` says which.

`input.yaml` is under the default profile, in namespace and pool `default`, on the pod 0. To accept
a wanted change: `python -m tests.golden.desired.test_same_document`.
"""

import json
import pathlib

import pytest
import yaml

from ullage_api.desired import desired_document
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.local import (
    LOCAL_IMAGE,
    identified,
    local_document,
    local_profile,
    read_manifests,
)

HERE = pathlib.Path(__file__).parent
CASES = sorted(p.name for p in HERE.iterdir() if (p / "input.yaml").is_file())
PROFILE = PoolProfile.model_validate({"image": LOCAL_IMAGE})


def derived_by_the_command_line(case: str) -> PoolDesired:
    return local_document(read_manifests([HERE / case / "input.yaml"]), PROFILE)


def derived_as_the_operator_does(case: str) -> PoolDesired:
    """Derive the document from what an API server hands out: generations, uids, defaults."""
    given = list(yaml.safe_load_all((HERE / case / "input.yaml").read_text()))
    resources = [
        ModelDeployment.model_validate(data) for data in given if data["kind"] == "ModelDeployment"
    ]
    collections = [
        VectorCollection.model_validate(data)
        for data in given
        if data["kind"] == "VectorCollection"
    ]
    jobs = [ReindexJob.model_validate(data) for data in given if data["kind"] == "ReindexJob"]
    return desired_document(
        resources,
        PROFILE,
        namespace="default",
        pool="default",
        placement={r.metadata.name: (0,) for r in resources if r.spec.replicas > 0},
        collections=collections,
        reindexes=identified(jobs, collections),
    )


def written(document: PoolDesired) -> str:
    return json.dumps(document.to_wire(), indent=2) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_command_line_and_operator_derive_the_same_document(case: str) -> None:
    golden = (HERE / case / "desired.json").read_text()
    assert written(derived_by_the_command_line(case)) == golden
    assert written(derived_as_the_operator_does(case)) == golden


@pytest.mark.parametrize("case", CASES)
def test_this_machines_profile_changes_nothing_but_where_models_may_come_from(case: str) -> None:
    manifests = read_manifests([HERE / case / "input.yaml"])
    local = local_document(manifests, local_profile(manifests))
    plain = derived_by_the_command_line(case)
    assert local.models == plain.models
    changed = {"file_roots", "allow_http", "allow_private_addresses"}
    assert local.settings.model_dump(exclude=changed) == plain.settings.model_dump(exclude=changed)


@pytest.mark.parametrize("case", ["quickstart", "tiers"])
def test_an_example_is_the_one_people_get(case: str) -> None:
    example = HERE.parents[2] / "examples" / f"{case}.yaml"
    assert (HERE / case / "input.yaml").read_text() == example.read_text()


if __name__ == "__main__":
    for each in CASES:
        (HERE / each / "desired.json").write_text(written(derived_by_the_command_line(each)))
