"""Pool profiles: each is validated by itself, and a change is told."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ullage_operator.adapters.profiles import ConfigMapProfiles, parse_profiles
from ullage_operator.controller.ports import RawObject
from ullage_operator.reconcile.plan import Delete, Manifest


class OneConfigMap:
    """An API server that holds one ConfigMap."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> RawObject | None:
        assert (api_version, kind, namespace, name) == ("v1", "ConfigMap", "system", "pools")
        return {"data": {"pools.yaml": self.text}} if self.text is not None else None

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: str = ""
    ) -> Sequence[RawObject]:
        raise AssertionError

    async def create(self, manifest: Manifest) -> RawObject:
        raise AssertionError

    async def apply(self, manifest: Manifest) -> RawObject:
        raise AssertionError

    async def apply_status(self, manifest: Manifest) -> RawObject:
        raise AssertionError

    async def delete(self, namespace: str, target: Delete) -> None:
        raise AssertionError


def test_a_broken_profile_does_not_spoil_the_others() -> None:
    found = parse_profiles(
        json.dumps(
            {
                "good": {"image": "x"},
                "wrong": {"image": "x", "replicas": {"min": 3, "max": 1}},
                "typo": {"image": "x", "drainSecond": 3},
                "Bad Name": {"image": "x"},
                "empty": None,
            }
        )
    )
    assert set(found.profiles) == {"good"}
    assert "replicas.min (3) must not exceed replicas.max (1)" in found.errors["wrong"]
    assert found.errors["typo"] == "unknown fields: drainSecond"
    assert "pool name 'Bad Name'" in found.errors["Bad Name"]
    assert "empty" in found.errors
    view = found.view("wrong")
    assert (view.profile, view.exists, view.known) == (None, True, ("good",))


@pytest.mark.parametrize("text", ["{", "- a", "just words"])
def test_what_is_no_map_says_so_for_every_pool(text: str) -> None:
    view = parse_profiles(text).view("default")
    assert view.profile is None
    assert view.exists
    assert "pools.yaml" in view.error


def test_an_absent_profile_lists_the_known_ones() -> None:
    view = parse_profiles("default: {image: x}").view("gpu")
    assert (view.exists, view.known) == (False, ("default",))
    assert view.error


async def test_a_change_is_told_and_what_is_the_same_is_not() -> None:
    told: list[Any] = []
    client = OneConfigMap("default: {image: x}")
    profiles = ConfigMapProfiles(client, "system", "pools", lambda: told.append(1))
    assert "not been read" in profiles.view("default").error
    await profiles.load()
    await profiles.load()
    assert len(told) == 1
    assert profiles.view("default").profile is not None
    client.text = "default: {image: y}"
    await profiles.load()
    assert len(told) == 2
    client.text = None
    await profiles.load()
    assert "does not exist" in profiles.view("default").error
    assert profiles.poll_age() >= 0
