# ruff: noqa: INP001 - a script beside the chart, not a package
"""Keeps the chart in step with the contract: CRDs, the schema of its pools, Argo CD's settings.

`python charts/generate.py` writes what differs; `--check` only compares and exits 1 when something
differs. The CRDs are copied byte for byte; `definitions.poolProfile` of the values schema is
derived from `PoolProfile`, and the rest of that schema is written by hand. Argo CD's health scripts
are put into the form in which its ConfigMap takes them.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ullage_api.names import MAX_NAME_LENGTH, NAME_PATTERN
from ullage_api.profile import PoolProfile

ROOT = Path(__file__).resolve().parent.parent
CRDS = ROOT / "crds"
CHART = ROOT / "charts" / "ullage"
ARGOCD = ROOT / "charts" / "argocd" / "resource_customizations"
ARGOCD_PATCH = CHART / "files" / "argocd" / "argocd-cm.yaml"

VOLATILE = {
    "ModelDeployment": ("/status/memory", "/status/performance", "/status/placements"),
    "VectorCollection": (
        "/status/points",
        "/status/documents",
        "/status/indexedVectors",
        "/status/pendingChanges",
        "/status/recallPercent",
    ),
    "ReindexJob": (
        "/status/points",
        "/status/progress",
        "/status/rate",
        "/status/etaSeconds",
        "/status/checkpointTime",
    ),
}
"""What changes without anything that a GitOps tool would act on."""

OPTIONAL_IN_VALUES = frozenset({"image"})
"""Fields that a profile must have and that the chart fills in from its other values."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pydantic JSON schema for people: no references, nulls or unknown keys."""
    return _strict(schema, schema.get("$defs", {}))


def _strict(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    result = _resolved(node, definitions)
    for key in ("title", "$defs"):
        result.pop(key, None)
    if result.get("default", "") is None:
        del result["default"]
    if "properties" in result:
        # A section's default is that of its fields.
        result.pop("default", None)
        result["additionalProperties"] = False
        result["properties"] = {
            name: _strict(child, definitions) for name, child in result["properties"].items()
        }
    if isinstance(result.get("items"), Mapping):
        result["items"] = _strict(result["items"], definitions)
    return result


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node with its reference inlined and its null alternative removed."""
    result = dict(node)
    if "anyOf" in result:
        choices = [choice for choice in result.pop("anyOf") if choice.get("type") != "null"]
        if len(choices) != 1:
            raise ValueError(f"{len(choices)} alternatives where one was expected: {node}")
        result = {**_resolved(choices[0], definitions), **result}
    if "$ref" in result:
        name = result.pop("$ref").rsplit("/", 1)[-1]
        result = {**_resolved(definitions[name], definitions), **result}
    return result


def profile_schema() -> dict[str, Any]:
    """Return the schema of one entry of the chart's `pools`."""
    schema = strict_schema(PoolProfile.model_json_schema(by_alias=True, mode="validation"))
    required = [name for name in schema.pop("required", ()) if name not in OPTIONAL_IN_VALUES]
    return {**schema, **({"required": required} if required else {})}


def pools_schema() -> dict[str, Any]:
    """Return the schema of the chart's `pools`."""
    return {
        "type": "object",
        "description": "Pool profiles by the name that teams write in spec.pool.",
        "propertyNames": {"pattern": NAME_PATTERN, "maxLength": MAX_NAME_LENGTH},
        "additionalProperties": {"$ref": "#/definitions/poolProfile"},
    }


def argocd_patch() -> str:
    """Return what Argo CD's ConfigMap `argocd-cm` should have besides, as a patch."""
    lines = ["data:"]
    for script in sorted(ARGOCD.glob("*/*/health.lua")):
        kind = f"{script.parent.parent.name}_{script.parent.name}"
        lines.append(f"  resource.customizations.health.{kind}: |")
        lines.append(textwrap.indent(script.read_text().rstrip(), "    "))
        lines.append(f"  resource.customizations.ignoreResourceUpdates.{kind}: |")
        lines.append("    jsonPointers:")
        lines += [f"      - {pointer}" for pointer in VOLATILE[script.parent.name]]
    return "\n".join(lines) + "\n"


def generated_files() -> dict[Path, str]:
    """Return the text that each generated file of the chart should have."""
    values = json.loads((CHART / "values.schema.json").read_text())
    values["properties"]["pools"] = pools_schema()
    values["definitions"]["poolProfile"] = profile_schema()
    files = {CHART / "values.schema.json": json.dumps(values, indent=2, ensure_ascii=False) + "\n"}
    for source in sorted(CRDS.glob("*.yaml")):
        files[CHART / "files" / "crds" / source.name] = source.read_text()
    files[ARGOCD_PATCH] = argocd_patch()
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or with `--check` compare them; return the exit status."""
    parser = argparse.ArgumentParser(prog="charts/generate.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; 1 on a difference")
    check = parser.parse_args(arguments).check
    files = generated_files()
    stale = [p for p, text in files.items() if not p.exists() or p.read_text() != text]
    orphans = sorted(set((CHART / "files" / "crds").glob("*")) - set(files))
    if check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in (*stale, *orphans))
        if names:
            sys.stderr.write(f"out of date: {names}; run `make crds` and commit the result\n")
        return 1 if names else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    for path in orphans:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
