"""Pool profiles from the platform's ConfigMap, read again and again, validated one by one.

The ConfigMap's entry `pools.yaml` maps each pool's name to its profile. It is polled rather than
watched: one GET every few seconds needs no stream kept alive, and no right but get.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import yaml
from pydantic import ValidationError

from ullage_api.kinds.base import unknown_fields
from ullage_api.profile import PoolProfile, checked_pool_name
from ullage_operator.controller.errors import ReconcileError
from ullage_operator.controller.ports import KubeClient
from ullage_operator.reconcile.observed import ProfileView

log = structlog.get_logger(__name__)

PROFILES_KEY: Final = "pools.yaml"
POLL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """All profiles as last read."""

    profiles: Mapping[str, PoolProfile] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """Why there are none at all: no ConfigMap, or no YAML in it."""

    def view(self, pool: str) -> ProfileView:
        """Return what is known of one pool's profile."""
        error = "" if pool in self.profiles else self.errors.get(pool, self.problem)
        return ProfileView(
            profile=self.profiles.get(pool),
            error=error or ("" if pool in self.profiles else "it is not defined any more"),
            exists=pool in self.profiles or pool in self.errors or bool(self.problem),
            known=tuple(sorted(self.profiles)),
        )


def parse_profiles(text: str) -> ProfileSet:
    """Return the profiles in a YAML text; a broken one does not spoil the others."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return ProfileSet(problem=f"{PROFILES_KEY} is not YAML: {_one_line(error)}")
    if not isinstance(document, dict):
        return ProfileSet(problem=f"{PROFILES_KEY} must map pool names to profiles")
    profiles: dict[str, PoolProfile] = {}
    errors: dict[str, str] = {}
    for name, raw in document.items():
        try:
            profiles[checked_pool_name(str(name))] = _profile(raw)
        except ValidationError as error:
            errors[str(name)] = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'profile'}: {e['msg']}" for e in error.errors()
            )
        except ValueError as error:
            errors[str(name)] = str(error)
    return ProfileSet(profiles, errors)


def _profile(raw: Any) -> PoolProfile:
    unknown = unknown_fields(PoolProfile, raw)
    if unknown:
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    return PoolProfile.model_validate(raw)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class ConfigMapProfiles:
    """Profiles, kept up to date by a poll."""

    def __init__(
        self, client: KubeClient, namespace: str, name: str, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._on_change = on_change
        self._current = ProfileSet(problem="the profiles have not been read yet")
        self._loop = asyncio.get_running_loop()
        self._polled = self._loop.time()

    def view(self, pool: str) -> ProfileView:
        """Return what is known of one pool's profile."""
        return self._current.view(pool)

    def poll_age(self) -> float:
        """Return the seconds since the last poll, successful or not."""
        return self._loop.time() - self._polled

    async def load(self) -> None:
        """Read the ConfigMap once and tell of a change."""
        raw = await self._client.get("v1", "ConfigMap", self._namespace, self._name)
        where = f"ConfigMap {self._namespace}/{self._name}"
        if raw is None:
            found = ProfileSet(problem=f"{where} does not exist")
        else:
            text = (raw.get("data") or {}).get(PROFILES_KEY, "")
            found = parse_profiles(text) if text else ProfileSet(problem=f"{where} is empty")
        if found == self._current:
            return
        self._current = found
        log.info("profiles read", known=sorted(found.profiles), broken=dict(found.errors))
        if found.problem:
            log.warning("no profiles", problem=found.problem)
        self._on_change()

    async def keep_up(self) -> None:
        """Read the ConfigMap every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._polled = self._loop.time()
            try:
                await self.load()
            except ReconcileError as error:
                # The last ones stay; the next poll is soon.
                log.warning("profiles unreadable", error=str(error))
