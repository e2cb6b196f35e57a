"""The documentation says what the code does: every reason, error code and field, and no other."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import typer.core
import yaml
from pydantic import BaseModel

from tests.conformance.applicability import EXEMPTIONS, Suite
from ullage_api.conditions import ConditionType, Reason
from ullage_api.kinds.base import unknown_fields
from ullage_api.kinds.model_deployment import ModelDeployment, ModelDeploymentSpec
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_api.kinds.vector_collection import VectorCollection, VectorCollectionSpec
from ullage_api.profile import PoolProfile
from ullage_runtime.cli.commands import app
from ullage_runtime.core.errors import ServingError
from ullage_runtime.engines.prompting.grammar import HONOURED
from ullage_runtime.http.errors import MethodNotAllowed, UnknownPath
from ullage_runtime.http.openai.schema import ChatRequest, CompletionRequest
from ullage_runtime.http.retrieval.schema import SearchBody

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

HEADS = ("| condition", "| reason", "| field", "| status", "| parameter", "| member")
"""How the first lines of tables begin."""

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ANCHOR = re.compile(r"[^a-z0-9 _-]")


def tables(text: str, heading: str, end: str = "\n## ") -> Iterator[list[str]]:
    """Yield the cells of every row in the tables beneath a heading, up to the next one."""
    section = text.split(heading, 1)[1].split(end, 1)[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and not line.startswith(HEADS):
            yield cells


def named(cell: str) -> list[str]:
    """Return what a table cell names in code style."""
    return re.findall(r"`([^`]+)`", cell)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of a model's fields, as YAML has them."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        nested = [m for m in _models(field.annotation) if issubclass(m, BaseModel)]
        if nested:
            yield from leaves(nested[0], f"{path}.")
        else:
            yield path


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in _models(part)]


def served_errors() -> set[tuple[int, str]]:
    """Return status and code of every error that the runtime answers with."""
    assert {MethodNotAllowed, UnknownPath} <= set(ServingError.__subclasses__())
    found: set[tuple[int, str]] = set()
    waiting: list[type[ServingError]] = [ServingError]
    while waiting:
        error = waiting.pop()
        found.add((error.status, error.code))
        waiting.extend(error.__subclasses__())
    return found


def test_every_reason_is_explained_once_and_no_other_is() -> None:
    rows = tables((DOCS / "errors.md").read_text(), "## Reasons of conditions", "\n### SourceUnav")
    assert sorted(named(row[0])[0] for row in rows) == sorted(reason.value for reason in Reason)


def test_every_error_code_is_explained_with_its_status_and_no_other_is() -> None:
    rows = tables((DOCS / "errors.md").read_text(), "## Error codes of the API")
    assert {(int(row[0]), named(row[1])[0]) for row in rows} == served_errors()


def test_every_field_of_a_model_is_explained_and_no_other_is() -> None:
    rows = tables((DOCS / "models.md").read_text(), "## Fields of `spec`")
    assert sorted(n for row in rows for n in named(row[0])) == sorted(leaves(ModelDeploymentSpec))


def test_fields_that_take_what_was_in_an_environment_file_are_there() -> None:
    rows = tables((DOCS / "tiers.md").read_text(), "## From `.env` to fields")
    known = {*leaves(ModelDeploymentSpec), *leaves(PoolProfile), "metadata.name", "model.adapters"}
    told = {n.partition(": ")[0] for row in rows for n in named(row[1])}
    beginnings = tuple({name.partition(".")[0] + "." for name in known})
    assert {name for name in told if name.startswith(beginnings)} <= known


def test_every_field_of_a_collection_is_explained_and_no_other_is() -> None:
    rows = tables((DOCS / "collections.md").read_text(), "## Fields of a collection", "\n### ")
    told = sorted(n for row in rows for n in named(row[0]))
    assert told == sorted(leaves(VectorCollectionSpec))


def test_every_field_of_a_reindex_job_is_explained_and_no_other_is() -> None:
    rows = tables((DOCS / "reindexing.md").read_text(), "## Fields of a job")
    assert sorted(named(row[0])[0] for row in rows) == sorted(leaves(ReindexJobSpec))


def test_every_way_of_a_reindex_job_is_explained() -> None:
    rows = tables((DOCS / "reindexing.md").read_text(), "## What the status says")
    assert {plan.value for plan in ReindexPlan} <= {
        named(row[0])[0] for row in rows if named(row[0])
    }


def test_every_member_of_a_search_is_explained_and_no_other_is() -> None:
    rows = tables((DOCS / "collections.md").read_text(), "## Search")
    assert sorted(n for row in rows for n in named(row[0])) == sorted(SearchBody.model_fields)


def test_every_field_of_a_pool_is_explained_and_no_other_is() -> None:
    rows = tables((DOCS / "pools.md").read_text(), "## Fields of a profile")
    assert sorted(n for row in rows for n in named(row[0])) == sorted(leaves(PoolProfile))


def test_every_conformance_test_that_does_not_pass_is_told_with_its_reason() -> None:
    rows = tables((DOCS / "conformance.md").read_text(), "## What does not apply")
    told = [(*named(row[0]), *named(row[1]), *row[2:]) for row in rows if row[0] != "suite"]
    assert told == [(e.suite, e.test, e.how, e.reason) for e in EXEMPTIONS]


def test_every_conformance_suite_is_told() -> None:
    suites = (DOCS / "conformance.md").read_text().partition("## What does not apply")[0]
    assert {suite.value for suite in Suite} <= set(named(suites))


def test_every_condition_is_explained() -> None:
    explained = {
        name
        for page, heading in (
            ("models.md", "## What the status says"),
            ("collections.md", "## On a cluster"),
            ("reindexing.md", "## What the status says"),
        )
        for row in tables((DOCS / page).read_text(), heading)
        for name in named(row[0])
    }
    assert {kind.value for kind in ConditionType} <= explained


def test_every_parameter_is_explained_for_its_endpoint_and_no_other_is() -> None:
    rows = list(tables((DOCS / "api.md").read_text(), "## Parameters", "\n### "))
    for endpoint, request in (("chat", ChatRequest), ("completions", CompletionRequest)):
        explained = [n for row in rows if row[1] in {endpoint, "both"} for n in named(row[0])]
        assert sorted(explained) == sorted(request.model_fields)


def test_every_keyword_of_a_schema_is_named_and_no_other_is() -> None:
    sentence = (DOCS / "api.md").read_text().split("A schema may use")[1].split(", each where")[0]
    assert sorted(named(sentence)) == sorted(HONOURED)


def commands() -> Iterator[tuple[str, str]]:
    """Yield each `ullage …` line of the pages' examples, with its page."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                command = line.split("#")[0].split(" | ")[-1].strip()
                if command.startswith("ullage "):
                    yield page.name, command


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_commands_have_the_options_they_are_shown_with(page: str, command: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    name, *words = shlex.split(command)[1:]
    assert name in group.commands, f"{page} shows {command}"
    group.commands[name].make_context(name, words, resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page.name} links to {target}"


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {_ANCHOR.sub("", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_examples_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        for data in yaml.safe_load_all(block):
            for kind in (ModelDeployment, VectorCollection):
                if data.get("kind") == kind.__name__:
                    assert unknown_fields(kind, data) == []
                    kind.model_validate(data)
            for profile in data.get("pools", {}).values():
                PoolProfile.model_validate({"image": "ullage-runtime:dev", **profile})
