"""The examples say what the contract understands, and nothing that it would ignore."""

from pathlib import Path

import pytest
import yaml

from tests.support.chart import EXAMPLES
from ullage_api.checks import collection_problems, name_conflicts, problems, reindex_problems
from ullage_api.kinds.base import unknown_fields
from ullage_api.kinds.memory import ResidencyPolicy
from ullage_api.kinds.model_deployment import ModelDeployment, Task
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection

MANIFESTS = sorted(path for path in EXAMPLES.glob("*.yaml") if not path.name.startswith("values-"))


def resources(path: Path) -> list[ModelDeployment]:
    return [each for each in everything(path) if isinstance(each, ModelDeployment)]


Kind = ModelDeployment | VectorCollection | ReindexJob
KINDS: dict[str, type[Kind]] = {
    kind.__name__: kind for kind in (ModelDeployment, VectorCollection, ReindexJob)
}


def everything(path: Path) -> list[Kind]:
    found: list[Kind] = []
    for document in filter(None, yaml.safe_load_all(path.read_text())):
        kind = KINDS[document["kind"]]
        assert unknown_fields(kind, document) == []
        found.append(kind.model_validate(document))
    return found


def test_there_are_examples() -> None:
    assert {path.name for path in MANIFESTS} >= {"quickstart.yaml", "two-models.yaml"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_an_example_keeps_every_rule(path: Path) -> None:
    found = resources(path)
    assert found
    assert [problem for each in found for problem in problems(each)] == []
    assert list(name_conflicts(found)) == []
    collections = [each for each in everything(path) if isinstance(each, VectorCollection)]
    assert list(collection_problems(collections, found)) == []
    jobs = [each for each in everything(path) if isinstance(each, ReindexJob)]
    assert list(reindex_problems(jobs, collections)) == []


def test_the_quickstart_is_the_model_that_the_runtime_image_carries() -> None:
    (guide,) = resources(EXAMPLES / "quickstart.yaml")
    assert guide.metadata.name == "guide"
    assert guide.spec.model.uri == "file:guide-v1.gguf"


def test_the_two_models_share_one_pool() -> None:
    found = resources(EXAMPLES / "two-models.yaml")
    assert {each.spec.pool for each in found} == {"default"}
    assert len(found) == 2


def test_the_tiers_are_five_names_in_one_pool_that_come_when_they_are_asked() -> None:
    found = resources(EXAMPLES / "tiers.yaml")
    assert {each.spec.pool for each in found} == {"default"}
    names = ["LIGHT", "MEDIUM", "HEAVY", "EMBEDDING", "RERANKER"]
    assert [each.spec.aliases for each in found] == [[name] for name in names]
    policies = [each.spec.residency.policy for each in found if each.spec.residency]
    assert policies == [ResidencyPolicy.ON_DEMAND] * 5


def test_the_search_example_has_an_embedder_a_reranker_and_a_collection_that_asks_both() -> None:
    embed, reranker, notes = everything(EXAMPLES / "search.yaml")
    assert isinstance(embed, ModelDeployment)
    assert isinstance(reranker, ModelDeployment)
    assert isinstance(notes, VectorCollection)
    assert (embed.spec.task, reranker.spec.task) == (Task.EMBEDDING, Task.RERANK)
    assert notes.spec.embedding.model_deployment == embed.metadata.name
    assert notes.spec.rerank is not None
    assert notes.spec.rerank.model_deployment == reranker.metadata.name


def test_the_reindex_example_wants_the_same_collection_with_another_embedder() -> None:
    (before,) = (e for e in everything(EXAMPLES / "search.yaml") if isinstance(e, VectorCollection))
    (after,) = (e for e in everything(EXAMPLES / "reindex.yaml") if isinstance(e, VectorCollection))
    assert after.spec.embedding != before.spec.embedding
    same = after.spec.model_copy(update={"embedding": before.spec.embedding})
    assert same == before.spec
    models = {each.metadata.name: each.spec for each in resources(EXAMPLES / "reindex.yaml")}
    assert all(
        models[each.metadata.name] == each.spec for each in resources(EXAMPLES / "search.yaml")
    )
