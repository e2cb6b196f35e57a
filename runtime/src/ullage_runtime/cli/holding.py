"""Holding: earlier revisions that are served instead of what manifests ask for."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ullage_api.desired import History
from ullage_api.kinds.model_deployment import ModelDeployment, ModelDeploymentSpec
from ullage_api.wire.pool_desired import DesiredRevision


@dataclass(frozen=True, slots=True)
class _Held:
    revision: DesiredRevision
    spec: ModelDeploymentSpec


@dataclass(slots=True)
class Holds:
    """What somebody went back to; each lasts until its model's manifest changes."""

    _held: dict[str, _Held] = field(default_factory=dict)

    def hold(self, resource: ModelDeployment, revision: DesiredRevision) -> None:
        """Have an earlier revision served."""
        self._held[resource.metadata.name] = _Held(revision, resource.spec)

    def histories(self, resources: Iterable[ModelDeployment]) -> dict[str, History]:
        """Return what is held for these manifests; what another spec was held for ends."""
        specs = {each.metadata.name: each.spec for each in resources}
        self._held = {n: held for n, held in self._held.items() if specs.get(n) == held.spec}
        return {name: History(held=held.revision) for name, held in self._held.items()}
