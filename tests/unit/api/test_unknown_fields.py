from ullage_api.kinds.base import unknown_fields
from ullage_api.kinds.model_deployment import ModelDeployment


def manifest(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat", "labels": {"anything": "goes"}, "ownerReferences": []},
        "spec": {"pool": "default", "task": "Chat", "model": {"uri": "file:a.gguf"}, **spec},
    }


def test_a_correct_manifest_has_no_unknown_field() -> None:
    assert unknown_fields(ModelDeployment, manifest(engine={"contextLength": 512})) == []


def test_a_misspelt_field_is_named_with_its_whole_path() -> None:
    data = manifest(engine={"contextLenght": 512}, replica=2)
    assert unknown_fields(ModelDeployment, data) == ["spec.engine.contextLenght", "spec.replica"]


def test_a_misspelt_field_within_a_list_is_named_with_its_index() -> None:
    data = manifest() | {"status": {"conditions": [{"type": "Ready", "state": "True"}]}}
    assert unknown_fields(ModelDeployment, data) == ["status.conditions[0].state"]


def test_an_unknown_field_is_ignored_on_reading() -> None:
    assert ModelDeployment.model_validate(manifest(future={"a": 1})).spec.pool == "default"
