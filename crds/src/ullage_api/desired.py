"""The desired document of a pool, derived from its resources: one function for every caller.

The operator and `ullage up` both call it, so the same YAML means the same on a cluster and on a
laptop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_deployment import ModelDeployment, Task
from ullage_api.kinds.model_source import AdapterSource
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.rollout import RolloutSettings
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import peer_url
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import (
    DesiredAdapter,
    DesiredCollection,
    DesiredFailure,
    DesiredModel,
    DesiredReindex,
    DesiredRevision,
    Peer,
    PoolDesired,
)

LOADED_APART: Final = frozenset({Task.EMBEDDING, Task.RERANK})
"""Tasks for which an engine loads a model in another way than for generating text."""

_CLAIM: Final = "pvc://"


@dataclass(frozen=True, slots=True)
class History:
    """What a model's earlier revisions mean for what is asked of pods."""

    held: DesiredRevision | None = None
    """An earlier revision that is wanted instead of the spec's."""
    last_good: DesiredRevision | None = None
    failure: DesiredFailure | None = None
    """Why what is wanted is not to be tried."""
    waiting: tuple[int, ...] = ()
    """Pods whose turn to take what is wanted has not come."""
    is_proven: bool = False
    """Whether what is wanted was found good last: other pods need not compare it once more."""


def desired_document(
    resources: Sequence[ModelDeployment],
    profile: PoolProfile,
    *,
    namespace: str,
    pool: str,
    placement: Mapping[str, Sequence[int]],
    histories: Mapping[str, History] | None = None,
    collections: Sequence[VectorCollection] = (),
    reindexes: Sequence[ReindexJob] = (),
) -> PoolDesired:
    """Return what a pool's pods should serve, not yet sealed with a sequence.

    `resources` are the pool's accepted members in any order. `placement` maps each model's name
    to the ordinals of the pods that hold it; a model that is absent from it is held by none.
    `histories` has what is remembered of a model's revisions, where anything is. The pool's
    `collections` are all on its one pod, and `reindexes` are the jobs of those collections.
    """
    known, mounts = histories or {}, claim_mounts(profile)
    models = tuple(
        _desired_model(
            resource,
            placement.get(resource.metadata.name, ()),
            known.get(resource.metadata.name, History()),
            desired_revision(resource, mounts),
        )
        for resource in sorted(resources, key=lambda r: r.metadata.name)
    )
    ordinals = range(max((max(p) + 1 for p in placement.values() if p), default=1))
    return PoolDesired(
        namespace=namespace,
        pool=pool,
        settings=profile.runtime,
        models=models,
        collections=tuple(
            _desired_collection(each) for each in sorted(collections, key=lambda c: c.metadata.name)
        ),
        reindexes=tuple(
            _desired_reindex(each) for each in sorted(reindexes, key=lambda r: r.metadata.name)
        ),
        peers=tuple(Peer(ordinal=o, url=peer_url(namespace, pool, o)) for o in ordinals),
    )


def claim_mounts(profile: PoolProfile) -> dict[str, str]:
    """Return where a profile's pods mount which claims: `pvc://` addresses are files there."""
    claims = {
        str(volume.get("name")): str(claim["claimName"])
        for volume in profile.volumes
        if isinstance(claim := volume.get("persistentVolumeClaim"), dict) and "claimName" in claim
    }
    return {
        claims[str(mount["name"])]: str(mount["mountPath"]).rstrip("/")
        for mount in profile.volume_mounts
        if mount.get("name") in claims and "mountPath" in mount and not mount.get("subPath")
    }


def _address(uri: str, mounts: Mapping[str, str]) -> str:
    """Return an address as a pod understands it; one of a claim nobody mounts stays as it is."""
    claim, _, path = uri.removeprefix(_CLAIM).partition("/")
    if not uri.startswith(_CLAIM) or claim not in mounts:
        return uri
    return f"file://{mounts[claim]}/{path}"


def desired_revision(
    resource: ModelDeployment, mounts: Mapping[str, str] | None = None
) -> DesiredRevision:
    """Return the revision that a spec asks for, by digest only where the spec says one.

    `mounts` are those of the pool's profile, by claim.
    """
    spec, known = resource.spec, mounts or {}
    return DesiredRevision(
        uri=_address(spec.model.uri, known),
        sha256=spec.model.sha256,
        adapters=tuple(_desired_adapter(a, known) for a in spec.model.adapters or ()),
        engine=spec.engine or EngineSettings(),
        task=spec.task if spec.task in LOADED_APART else None,
    )


def _desired_model(
    resource: ModelDeployment,
    ordinals: Sequence[int],
    history: History,
    asked: DesiredRevision,
) -> DesiredModel:
    spec = resource.spec
    wanted, rollout = spec.is_serving_wanted, spec.rollout or RolloutSettings()
    if history.held is not None:
        # It has shown itself, and whoever goes back is in a hurry.
        rollout = rollout.model_copy(
            update=dict.fromkeys(("validation", "canary", "watch_seconds"))
        )
    elif history.is_proven:
        rollout = rollout.model_copy(update={"canary": None})
    placed = tuple(sorted(ordinals)) if wanted else ()
    return DesiredModel(
        name=resource.metadata.name,
        uid=resource.metadata.uid,
        generation=resource.metadata.generation,
        task=spec.task,
        aliases=tuple(spec.aliases or ()),
        ordinals=placed,
        waiting=tuple(o for o in placed if o in history.waiting),
        suspended=not wanted,
        target=history.held or asked,
        last_good=history.last_good,
        failure=history.failure,
        residency=spec.residency or ResidencySettings(),
        rollout=rollout,
        serving=spec.serving or ServingLimits(),
    )


def _desired_collection(resource: VectorCollection) -> DesiredCollection:
    return DesiredCollection(
        name=resource.metadata.name,
        uid=resource.metadata.uid,
        generation=resource.metadata.generation,
        spec=resource.spec,
        dropped=resource.is_dropped,
    )


def _desired_reindex(resource: ReindexJob) -> DesiredReindex:
    return DesiredReindex(
        name=resource.metadata.name,
        uid=resource.metadata.uid,
        generation=resource.metadata.generation,
        created=resource.metadata.creation_timestamp,
        spec=resource.spec,
        deleted=resource.is_deleted,
    )


def _desired_adapter(adapter: AdapterSource, mounts: Mapping[str, str]) -> DesiredAdapter:
    return DesiredAdapter(
        name=adapter.name,
        uri=_address(adapter.uri, mounts),
        sha256=adapter.sha256,
        scale=float(adapter.scale or "1"),
    )
