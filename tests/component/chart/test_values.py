"""The values' schema: what it refuses, in words that name the mistake, and what it lets through."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.chart import CHART, EXAMPLES, helm, only, rendered, template
from ullage_api.kinds.base import unknown_fields
from ullage_api.profile import PoolProfile

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES_FILES = sorted(EXAMPLES.glob("values-*.yaml"))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("operator.imag.tag=x", "'imag'"),
        ("operators=x", "'operators'"),
        ("pools.default.imagePullPolcy=Always", "'imagePullPolcy'"),
        ("pools.default.runtime.allowHTTP=true", "'allowHTTP'"),
        ("pools.Default.drainSeconds=5", "'Default'"),
        ("watch.namespace=team-a", "'namespace'"),
        ("metrics.serviceMonitor.intervall=5s", "'intervall'"),
    ],
)
def test_a_misspelt_value_is_refused_and_named(setting: str, named: str) -> None:
    done = template("--set", setting)
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pools.default.drainSeconds=-1", "/pools/default/drainSeconds"),
        ("pools.default.replicas.min=0", "/pools/default/replicas/min"),
        ("pools.default.imagePullPolicy=Sometimes", "/pools/default/imagePullPolicy"),
        ("operator.logLevel=loud", "/operator/logLevel"),
        ("operator.image.digest=abc", "/operator/image/digest"),
        ("crds.install=maybe", "/crds/install"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(setting: str, said: str) -> None:
    done = template("--set", setting)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_service_monitor_without_its_service_is_refused() -> None:
    done = template("--set", "metrics.serviceMonitor.enabled=true,metrics.service.enabled=false")
    assert done.returncode != 0
    assert "metrics.service.enabled" in done.stderr


def test_helm_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("path", VALUES_FILES, ids=lambda path: path.name)
def test_example_values_render_and_their_pools_are_valid_profiles(path: Path) -> None:
    objects = rendered(f"--values={path}")
    pools = yaml.safe_load(only(objects, "ConfigMap")["data"]["pools.yaml"])
    for name, profile in pools.items():
        PoolProfile.model_validate(profile)
        assert unknown_fields(PoolProfile, profile) == [], name


def test_every_default_value_is_described_and_every_described_value_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    described = set(SCHEMA["properties"]) - {"global"}
    assert set(values) == described
    for section, schema in SCHEMA["properties"].items():
        if section not in {"pools", "global"} and "properties" in schema:
            assert set(values[section]) == set(schema["properties"]), section


def test_a_full_profile_passes_the_schema_that_was_derived_from_it() -> None:
    profile = PoolProfile(image="runtime:1").to_wire()
    jsonschema.Draft7Validator(SCHEMA).validate({"pools": {"default": profile}})


def test_the_schema_knows_every_field_of_a_profile() -> None:
    fields = {field.alias or name for name, field in PoolProfile.model_fields.items()}
    assert set(SCHEMA["definitions"]["poolProfile"]["properties"]) == fields


def test_a_pool_without_an_image_gets_the_runtime_image() -> None:
    objects = rendered("--set", "runtime.image.repository=r,runtime.image.tag=v7")
    pools = yaml.safe_load(only(objects, "ConfigMap")["data"]["pools.yaml"])
    assert pools["default"]["image"] == "r:v7"


def test_large_numbers_reach_the_profiles_whole() -> None:
    objects = rendered(f"--values={EXAMPLES / 'values-cache.yaml'}")
    pools = yaml.safe_load(only(objects, "ConfigMap")["data"]["pools.yaml"])
    assert pools["default"]["runtime"]["maxModelBytes"] == 64 << 30
