"""CustomResourceDefinitions, generated from the pydantic models.

`python -m ullage_api.crdgen DIRECTORY` writes one file per kind; `--check` only compares and exits
1 when a file differs. Pydantic's JSON schema is not structural in Kubernetes' sense: references
are inlined, null alternatives become optional fields, and titles, defaults and keywords that the
API server refuses are removed.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ullage_api.kinds.base import Resource
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import CATEGORY, GROUP, VERSION

KINDS: tuple[type[Resource], ...] = (ModelDeployment, VectorCollection, ReindexJob)

KEPT_DEFAULTS = frozenset({("spec", "replicas")})
"""The only defaults the schema carries: `/scale` answers 500 without a number of replicas."""

_DROPPED = ("title", "$defs", "default")


def structural_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the structural OpenAPI v3 schema of a pydantic JSON schema."""
    return _structural(schema, schema.get("$defs", {}), ())


def _structural(
    node: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    merged = _resolved(node, definitions)
    result = {k: v for k, v in merged.items() if k not in _DROPPED}
    if path in KEPT_DEFAULTS and "default" in merged:
        result["default"] = merged["default"]
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in result:
        result.pop("additionalProperties", None)
        result["properties"] = {
            name: _structural(child, definitions, (*path, name))
            for name, child in result["properties"].items()
        }
        required = [name for name in result.pop("required", ()) if name in result["properties"]]
        if required:
            result["required"] = required
    if isinstance(result.get("items"), Mapping):
        result["items"] = _structural(result["items"], definitions, (*path, "[]"))
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    return result


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node with its reference inlined and its null alternative removed."""
    result = dict(node)
    if "anyOf" in result:
        choices = [c for c in result.pop("anyOf") if c.get("type") != "null"]
        if len(choices) != 1:
            raise ValueError(f"not structural: {len(choices)} alternatives in {node}")
        result = {**_resolved(choices[0], definitions), **result}
    if "$ref" in result:
        name = result.pop("$ref").rsplit("/", 1)[-1]
        result = {**_resolved(definitions[name], definitions), **result}
    return result


def custom_resource_definition(kind: type[Resource]) -> dict[str, Any]:
    """Return the CRD of a kind as the plain mapping that the API server receives."""
    raw = structural_schema(kind.model_json_schema(by_alias=True, mode="validation"))
    properties = raw["properties"]
    schema = {
        "type": "object",
        "description": (kind.__doc__ or "").strip().splitlines()[0],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": properties["spec"],
            "status": properties["status"],
        },
        "x-kubernetes-validations": [dict(r) for r in kind.RULES],
    }
    plural = kind.PLURAL
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": plural,
                "singular": kind.__name__.lower(),
                "shortNames": list(kind.SHORT_NAMES),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        **({"scale": dict(kind.SCALE)} if kind.SCALE else {}),
                    },
                    "additionalPrinterColumns": [c.to_wire() for c in kind.COLUMNS],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def file_name(kind: type[Resource]) -> str:
    """Return the name of the file that holds a kind's CRD."""
    return f"{kind.PLURAL}.{GROUP}.yaml"


def rendered(kind: type[Resource]) -> str:
    """Return the YAML text of a kind's CRD, with the line that says it is generated."""
    # The round trip makes shared parts distinct, which YAML would otherwise write as anchors.
    plain = json.loads(json.dumps(custom_resource_definition(kind)))
    text = yaml.safe_dump(plain, sort_keys=False, width=100, allow_unicode=True)
    return f"# Generated by `make crds` from crds/src/ullage_api/kinds; do not edit.\n{text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CRDs, or with `--check` compare them; return the exit status."""
    parser = argparse.ArgumentParser(prog="crdgen", description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare only; 1 on a difference")
    options = parser.parse_args(arguments)
    stale = []
    for kind in KINDS:
        path = options.directory / file_name(kind)
        text = rendered(kind)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path)
        if not options.check:
            path.write_text(text)
    if options.check and stale:
        names = ", ".join(str(p) for p in stale)
        sys.stderr.write(f"out of date: {names}; run `make crds` and commit the result\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
