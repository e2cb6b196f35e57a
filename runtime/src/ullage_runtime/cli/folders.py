"""Folders of models, for `ullage up`: a ModelDeployment for each model that lies there."""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ullage_api.checks import ALIAS_PATTERN
from ullage_api.kinds.base import ObjectMeta
from ullage_api.kinds.model_deployment import ModelDeployment, ModelDeploymentSpec
from ullage_api.kinds.model_source import ModelSource
from ullage_runtime.cli.private import resource_name
from ullage_runtime.local import ManifestError, Manifests

if TYPE_CHECKING:  # importing it takes half a second, which `ullage --help` need not wait for
    from ullage_runtime.models.found import Found

DEFAULT_POOL = "default"
ORDINARY = frozenset({"model", "ggml-model"})
"""Names of files that say nothing, so that their folder's name is taken."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders that models are looked for in, and where what is known of their files is kept."""

    folders: tuple[pathlib.Path, ...]
    cache: pathlib.Path

    def added_to(self, manifests: Manifests) -> Manifests:
        """Return manifests with every model of the folders that they do not name themselves.

        Raises ManifestError for a folder that cannot be read.
        """
        from ullage_runtime.models.found import found_models

        roots = (*self.folders, *manifests.folders)
        named = {path for r in manifests.resources for path in _paths(r.spec.model.uri, roots)}
        taken = {name for resource in manifests.resources for name in resource.names}
        pool = next(iter(manifests.pools), DEFAULT_POOL)
        resources, skipped = [*manifests.resources], [*manifests.skipped]
        for folder in self.folders:
            try:
                findings = found_models(folder, self.cache)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ManifestError([f"--models-dir {folder}: {reason}"]) from error
            skipped += findings.skipped
            for found in findings.models:
                if os.path.realpath(found.path) not in named:
                    named.add(os.path.realpath(found.path))
                    resources.append(_resource(found, taken, pool))
        return replace(manifests, resources=tuple(resources), folders=roots, skipped=tuple(skipped))


def _resource(found: "Found", taken: set[str], pool: str) -> ModelDeployment:
    """Return the resource of a model, whose names nobody has taken; takes them."""
    source = ModelSource(uri=found.path.as_uri())
    name = next(name for name in _names(found.path) if name not in taken)
    taken.add(name)
    alias = found.path.name.removesuffix(".gguf")
    aliases = None
    if alias not in taken | ORDINARY and re.fullmatch(ALIAS_PATTERN, alias):
        taken.add(alias)
        aliases = [alias]
    spec = ModelDeploymentSpec(pool=pool, task=found.task, model=source, aliases=aliases)
    return ModelDeployment(metadata=ObjectMeta(name=name), spec=spec)


def _names(path: pathlib.Path) -> Iterator[str]:
    """Yield names for a model, the best first."""
    stem = path.name.removesuffix(".gguf")
    if stem not in ORDINARY:
        yield resource_name(stem)
    yield resource_name(path.parent.name if stem in ORDINARY else f"{path.parent.name}-{stem}")
    for number in range(2, 1 << 20):
        yield resource_name(f"{stem[:32]}-{number}")


def _paths(uri: str, roots: Iterable[pathlib.Path]) -> list[str]:
    """Return the real paths that a manifest's address of a file may mean."""
    if not uri.startswith("file:"):
        return []
    path = unquote(uri.removeprefix("file:")).removeprefix("//")
    return [os.path.realpath(root / place / path) for root in roots for place in ("", "models")]
