"""The alerts that the chart brings: they speak PromQL, and only of metrics that there are."""

import re
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.chart import CHART, ROOT, only, rendered

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
KNOWN = (ROOT / "docs" / "metrics.md").read_text() + "".join(
    path.read_text() for path in (ROOT / "operator" / "src").rglob("metrics.py")
)


def test_there_are_none_unless_they_are_wanted() -> None:
    assert "PrometheusRule" not in {each["kind"] for each in rendered()}


def test_they_are_rendered_as_they_are_written_braces_and_all() -> None:
    objects = rendered("--set", "metrics.rules.enabled=true,metrics.rules.labels.release=prom")
    rule = only(objects, "PrometheusRule")
    assert rule["spec"] == ALERTS
    assert rule["metadata"]["labels"]["release"] == "prom"


def test_each_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_can_be_evaluated_and_says_what_to_do(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    named = set(re.findall(r"\bullage_\w+", rule["expr"]))
    assert named
    unknown = {n for n in named if re.sub(r"_(bucket|sum|count|total)$", "", n) not in KNOWN}
    assert not unknown
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    told = set(re.findall(r"\$labels\.(\w+)", yaml.safe_dump(rule["annotations"])))
    kept = set(re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert told <= kept, "a label that the expression drops is empty in the message"
