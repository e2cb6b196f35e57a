import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from ullage_api import crdgen
from ullage_api.kinds.model_deployment import ModelDeployment

ROOT = pathlib.Path(__file__).parents[3]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


def schema() -> dict[str, Any]:
    crd = crdgen.custom_resource_definition(ModelDeployment)
    result: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return result


def test_the_committed_files_are_what_the_models_generate() -> None:
    assert crdgen.main([str(ROOT / "crds"), "--check"]) == 0


def test_a_stale_file_fails_the_check_and_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / crdgen.file_name(ModelDeployment)
    path.write_text("old")
    assert crdgen.main([str(tmp_path), "--check"]) == 1
    assert path.read_text() == "old"
    assert crdgen.main([str(tmp_path)]) == 0
    assert yaml.safe_load(path.read_text())["kind"] == "CustomResourceDefinition"


def test_every_field_is_described() -> None:
    bare = [
        path
        for path, node in nodes(schema())
        if not node.get("description")
        and not path.endswith("[]")
        and path.lstrip(".") not in {"apiVersion", "kind", "metadata"}
    ]
    assert bare == []


def test_every_string_list_and_map_is_bounded() -> None:
    unbounded = [
        path
        for path, node in nodes(schema())
        if path.startswith((".spec", ".status"))
        and (
            (node.get("type") == "string" and not {"maxLength", "enum", "format"} & set(node))
            or (node.get("type") == "array" and "maxItems" not in node)
        )
    ]
    assert unbounded == []


def test_the_schema_has_no_keyword_that_is_not_structural() -> None:
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "const", "title", "additionalProperties"}
    assert [p for p, node in nodes(schema()) if forbidden & set(node)] == []


def test_no_number_is_a_float() -> None:
    assert [p for p, node in nodes(schema()) if node.get("type") == "number"] == []


def test_replicas_is_the_only_default() -> None:
    assert [p for p, node in nodes(schema()) if "default" in node] == [".spec.replicas"]


def test_a_choice_between_two_types_is_refused() -> None:
    class Ambiguous(BaseModel):
        value: Annotated[int | str, Field(description="Either.")]

    with pytest.raises(ValueError, match="not structural: 2 alternatives"):
        crdgen.structural_schema(Ambiguous.model_json_schema())


def test_the_written_file_has_no_yaml_anchors() -> None:
    assert "&id" not in crdgen.rendered(ModelDeployment)
