"""Artifacts: the files of a revision, which are its model's and those of its adapters."""

from collections.abc import Callable
from dataclasses import dataclass

from ullage_api.names import canonical_json
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import ReportedAdapter, ReportedRevision
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel, Inspect, ModelSourcePort

Fetching = Callable[[str], Callable[[int, int | None], None]]
"""Told what is being fetched, in words; returns who is told how far it is."""


@dataclass(frozen=True, slots=True)
class FetchedAdapter:
    """An adapter's file, with what the revision says of it."""

    name: str
    scale: float
    file: CachedModel


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Everything of a revision that has to be there before it is loaded."""

    want: DesiredRevision
    model: CachedModel
    adapters: tuple[FetchedAdapter, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.model.size + sum(adapter.file.size for adapter in self.adapters)

    @property
    def revision(self) -> str:
        """The revision's name."""
        name = self.pinned().name
        if name is None:
            raise AssertionError("what was fetched has digests")
        return name

    @property
    def key(self) -> str:
        """What an estimate of it holds for: equal files loaded with equal settings."""
        digests = [adapter.file.sha256 for adapter in self.adapters]
        return canonical_json([self.model.sha256, digests, self.want.settings])

    def pinned(self) -> DesiredRevision:
        """Return the revision with the digests that its files turned out to have."""
        adapters = tuple(
            wanted.model_copy(update={"sha256": fetched.file.sha256})
            for wanted, fetched in zip(self.want.adapters, self.adapters, strict=True)
        )
        return self.want.model_copy(update={"sha256": self.model.sha256, "adapters": adapters})

    def reported(self) -> ReportedRevision:
        """Return the revision as the pod's report shows it before it is loaded."""
        return ReportedRevision(
            revision=self.revision,
            uri=self.want.uri,
            sha256=self.model.sha256,
            file_bytes=self.size,
            adapters=tuple(
                ReportedAdapter(name=adapter.name, sha256=adapter.file.sha256)
                for adapter in self.adapters
            ),
        )


async def fetch_artifacts(
    source: ModelSourcePort,
    want: DesiredRevision,
    settings: RuntimeSettings,
    fetching: Fetching,
    inspect: Inspect | None = None,
) -> Artifacts:
    """Return a revision's files, one fetched after the other; raises LoadError."""
    told = fetching("the weights")
    precision = PrecisionType(want.engine.precision or PrecisionType.AUTO)
    model = await source.fetch(want.uri, want.sha256, settings, told, inspect, precision)
    adapters: list[FetchedAdapter] = []
    for wanted in want.adapters:
        told = fetching(f"adapter {wanted.name!r}")
        try:
            file = await source.fetch(wanted.uri, wanted.sha256, settings, told)
        except LoadError as error:
            raise LoadError(
                error.reason, f"adapter {wanted.name!r}: {error.message}", error.final
            ) from error
        adapters.append(FetchedAdapter(wanted.name, wanted.scale, file))
    return Artifacts(want, model, tuple(adapters))
