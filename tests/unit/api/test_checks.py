"""The rules in Python are the rules in the CRD."""

from collections.abc import Iterator
from typing import Any

import pytest

from ullage_api.checks import CHECKS, collection_problems, name_conflicts, problems
from ullage_api.crdgen import custom_resource_definition
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.vector_collection import VectorCollection


def resource(name: str = "chat", **spec: Any) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": name},
            "spec": {
                "pool": "default",
                "task": "Chat",
                "model": {"uri": "file:guide-v1.gguf"},
                **spec,
            },
        }
    )


def with_adapter(*others: dict[str, str], aliases: Any = None, **fields: str) -> ModelDeployment:
    adapter = {"name": "tone", "uri": "file:tone.gguf", **fields}
    model = {"uri": "file:guide-v1.gguf", "adapters": [adapter, *others]}
    return resource(model=model, aliases=aliases)


def validating(expect: dict[str, str], task: str = "Chat") -> ModelDeployment:
    prompts = [{"prompt": "2+2=", "expect": expect}]
    return resource(task=task, rollout={"validation": prompts})


def cel_rules(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        for child in node.values():
            yield from cel_rules(child)
    elif isinstance(node, list):
        for child in node:
            yield from cel_rules(child)


def test_every_rule_of_the_crd_that_needs_no_old_object_is_checked_in_python() -> None:
    crd = {
        r["message"]
        for r in cel_rules(custom_resource_definition(ModelDeployment))
        if "oldSelf" not in r["rule"]
    }
    ours = {check.message for check in CHECKS}
    assert crd - ours == set()
    # Lists of type set and map refuse duplicates without a rule; nothing else may be only ours.
    assert ours - crd == {
        "spec.aliases must not name one alias twice",
        "model.adapters must not name one adapter twice",
    }


def test_a_good_resource_has_no_problems() -> None:
    assert problems(resource(aliases=["light", "org/Chat:1.5"])) == []
    instructions = {"query": "query: ", "document": "passage: "}
    embeds = resource(task="Embedding", engine={"pooling": "CLS", "instructions": instructions})
    assert problems(embeds) == []
    for temperature, top_p in [("0", "1"), ("2.0", "0.0001"), ("0.7", "1.0")]:
        defaults = {"temperature": temperature, "topP": top_p, "maxTokens": 1}
        assert problems(resource(serving={"defaults": defaults})) == []
    for scale in ("0", "1.0", "0.0625", "8"):
        assert problems(with_adapter(scale=scale, aliases=["other:tone"])) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (resource("Chat"), "metadata.name must be at most 40"),
        (resource("a" * 41), "metadata.name must be at most 40"),
        (resource("chat\n"), "metadata.name must be"),
        (resource(pool="Default"), "pool must be lower-case"),
        (resource(aliases=["chat"]), "must not repeat metadata.name"),
        (resource(aliases=["-x"]), "an alias must be letters"),
        (resource(aliases=["x", "x"]), "one alias twice"),
        (resource(model={"uri": "ftp://host/x.gguf"}), "model.uri must begin with"),
        (resource(model={"uri": "hf://owner"}), "must be hf://<owner>"),
        (resource(model={"uri": "s3://B/x.gguf"}), "must be s3://<bucket>"),
        (resource(model={"uri": "oci://host"}), "must be oci://<registry>"),
        (resource(model={"uri": "pvc://claim"}), "must be pvc://<claim>"),
        (resource(model={"uri": "file:my model.gguf"}), "must not contain spaces"),
        (resource(model={"uri": "file:x.gguf", "sha256": "AB"}), "64 lower-case hexadecimal"),
        (with_adapter(name="a:b"), "model.adapters.name must be letters"),
        (with_adapter(name="-a"), "model.adapters.name must be letters"),
        (with_adapter(uri="ftp://host/x.gguf"), "model.adapters.uri must begin with"),
        (with_adapter(uri="hf://owner"), "model.adapters.uri with hf:// must be"),
        (with_adapter(uri="file:my own.gguf"), "model.adapters.uri must not contain spaces"),
        (with_adapter(sha256="AB"), "model.adapters.sha256 must be 64"),
        (with_adapter(scale="8.1"), "model.adapters.scale must be a number from '0' to '8'"),
        (with_adapter(scale="-1"), "model.adapters.scale must be a number from '0' to '8'"),
        (with_adapter({"name": "tone", "uri": "file:b.gguf"}), "must not name one adapter twice"),
        (
            resource(
                task="Rerank",
                model={"uri": "file:a.gguf", "adapters": [{"name": "b", "uri": "file:b.gguf"}]},
            ),
            "model.adapters are for tasks Chat and Completion",
        ),
        (resource(engine={"pooling": "Mean"}), "are for task Embedding"),
        (
            resource(task="Completion", serving={"responseCache": {"ttlSeconds": 60}}),
            "serving.responseCache is for task Chat",
        ),
        (resource(task="Rerank", engine={"instructions": {"query": "q"}}), "for task Embedding"),
        (validating({}), "expect must have one of contains and equals"),
        (validating({"contains": "4", "equals": "4"}), "expect must have one of contains"),
        (validating({"contains": "4"}, task="Embedding"), "expect is for tasks Chat and"),
        (resource(serving={"defaults": {"temperature": "2.1"}}), "defaults.temperature must be"),
        (resource(serving={"defaults": {"temperature": "-1"}}), "defaults.temperature must be"),
        (resource(serving={"defaults": {"temperature": "1e0"}}), "defaults.temperature must be"),
        (resource(serving={"defaults": {"topP": "0.0"}}), "defaults.topP must be a number above"),
        (resource(serving={"defaults": {"topP": "1.01"}}), "defaults.topP must be a number above"),
        (resource(serving={"defaults": {"topP": "nan"}}), "defaults.topP must be a number above"),
    ],
)
def test_a_broken_rule_is_named_with_its_fix(bad: ModelDeployment, words: str) -> None:
    (message,) = problems(bad)
    assert words in message


def test_a_name_that_another_model_of_the_pool_has_is_a_conflict_of_the_later_one() -> None:
    first, second = resource("chat", aliases=["light"]), resource("light")
    ((loser, message),) = name_conflicts([first, second])
    assert loser is second
    assert "'light' is already a name of model 'chat'" in message


def test_a_name_with_an_adapter_is_a_name_too() -> None:
    ((loser, message),) = name_conflicts([with_adapter(), resource("b", aliases=["chat:tone"])])
    assert loser.metadata.name == "b"
    assert "'chat:tone' is already a name of model 'chat'" in message


def collection(name: str = "notes", **spec: Any) -> VectorCollection:
    given = {"pool": "default", "embedding": {"modelDeployment": "chat"}, **spec}
    return VectorCollection.model_validate({"metadata": {"name": name}, "spec": given})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"aliases": ["notes"]}, "must not repeat metadata.name"),
        ({"aliases": ["a/b"]}, "letters, digits and any of . _ - in between"),
        ({"aliases": ["a", "a"]}, "must not name one alias twice"),
        ({"overrides": {"quantization_config": {}}}, "must have one of scalar and binary"),
        (
            {"overrides": {"quantization_config": {"scalar": {"quantile": "1.5"}}}},
            "scalar.quantile must be",
        ),
        (
            {"overrides": {"params": {"quantization": {"oversampling": "0"}}}},
            "quantization.oversampling must be",
        ),
    ],
)
def test_a_collections_own_rules_hold_in_python_too(spec: dict[str, Any], words: str) -> None:
    models = [resource(task="Embedding")]
    crd = {r["message"] for r in cel_rules(custom_resource_definition(VectorCollection))}
    (problem,) = collection_problems([collection(**spec)], models)
    assert words in problem
    assert problem.removeprefix("notes: ") in crd or "twice" in problem
    assert list(collection_problems([collection()], models)) == []


def test_an_alias_of_a_collection_belongs_to_the_first_and_a_name_goes_before_all() -> None:
    models = [resource(task="Embedding")]
    collections = [
        collection("a", aliases=["docs", "b"]),
        collection("b", aliases=["docs", "own"]),
    ]
    assert list(collection_problems(collections, models)) == [
        "a: 'b' is already a name of collection 'b' in this pool",
        "b: 'docs' is already a name of collection 'a' in this pool",
    ]
