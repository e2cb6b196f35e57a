"""A pool's plan: its shared objects, the placement of its models and its desired document.

Everything that members share is decided here and nowhere else, from one fresh look, so that two
workers with different lists never undo each other.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ullage_api.checks import name_conflicts
from ullage_api.conditions import Reason
from ullage_api.desired import History, claim_mounts, desired_document, desired_revision
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.names import HOLDS_LABEL_PREFIX
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_operator.reconcile import history, turns
from ullage_operator.reconcile.collection import handed_on, is_wanted, refusals
from ullage_operator.reconcile.manifests.common import Manifest, spec_hash
from ullage_operator.reconcile.manifests.configuration import (
    DESIRED_LIMIT,
    config_map,
    desired_size,
    fingerprint,
    token_secret,
)
from ullage_operator.reconcile.manifests.policies import (
    disruption_budget,
    network_policy,
    service_account,
    worker_policy,
)
from ullage_operator.reconcile.manifests.services import client_service, headless_service
from ullage_operator.reconcile.manifests.stateful_set import collections_claim, stateful_set
from ullage_operator.reconcile.observed import (
    Child,
    Member,
    PodView,
    PoolNote,
    PoolObserved,
    profile_in_effect,
)
from ullage_operator.reconcile.placement import Demand, placed, pool_size
from ullage_operator.reconcile.plan import Apply, Delete, Plan, Push, Verb
from ullage_operator.reconcile.reindex_view import is_told

HOLDS: Final = "holds"
"""Value of a pod's label for each model it holds."""

DELETION_SECONDS: Final = 1.0
"""Time after which an object that is being deleted is looked at again."""

PUSH_SECONDS: Final = 2.0
"""Time after which a pod that has not acknowledged is looked at again."""

MOUNT_SECONDS: Final = 30.0
"""Age from which a pod that cannot mount its volumes makes us apply the token Secret again."""

_MOUNTING: Final = frozenset({"ContainerCreating", "CreateContainerConfigError"})


def by_age(members: Sequence[ModelDeployment]) -> list[ModelDeployment]:
    """Return the members that are not being deleted, oldest first, then by name."""
    live = [m for m in members if m.metadata.deletion_timestamp is None]
    return sorted(live, key=lambda m: (m.metadata.creation_timestamp or "", m.metadata.name))


def alias_losers(members: Sequence[ModelDeployment]) -> dict[str, str]:
    """Return the members whose name or alias an older one has, with what to tell them."""
    return {m.metadata.name: message for m, message in name_conflicts(by_age(members))}


def decide_pool(observed: PoolObserved) -> Plan:
    """Return what is to be done so that the pool is what its members ask for."""
    models = by_age(observed.members)
    kept = [c for c in observed.collections if is_wanted(c)]
    owners: list[Member] = [*models, *kept]
    if not owners:
        return Plan(why=("no member is left; garbage collection removes the pool's objects",))
    profile = profile_in_effect(observed)
    if profile is None:
        return Plan(why=("there is no profile for this pool; its members say so",))
    losers = alias_losers(observed.members)
    accepted = [m for m in models if m.metadata.name not in losers]
    document, full, why = _document(observed, accepted, profile)
    replicas = pool_size(_demands(observed, accepted), profile.replicas.min, profile.replicas.max)
    secret = token_secret(observed.namespace, observed.pool, observed.token, owners)
    has_volume = profile.replicas.max == 1 and (bool(document.collections) or observed.volume)
    manifests = _manifests(
        observed, profile, document, secret, owners, replicas, has_collections=has_volume
    )
    applies, waiting = _applies(observed, manifests, secret)
    if has_volume and not observed.volume:
        claim = collections_claim(observed.namespace, observed.pool, profile)
        applies = (Apply(Verb.CREATE, claim, "there is no volume for collections"), *applies)
    push = _push(observed, document)
    waits = [DELETION_SECONDS] * bool(waiting) + [PUSH_SECONDS] * bool(push)
    waits += [MOUNT_SECONDS - p.age_seconds for p in observed.pods if _may_mount_yet(p)]
    return Plan(
        applies=(*applies, *_holder_labels(observed, document)),
        deletes=_stale(observed, manifests),
        push=push,
        note=full,
        document=document,
        requeue_after=min(waits, default=None),
        why=(*why, *waiting),
    )


def _demands(observed: PoolObserved, accepted: Sequence[ModelDeployment]) -> list[Demand]:
    return [
        Demand(m.metadata.name, m.spec.replicas, _footprint(observed, m))
        for m in accepted
        if m.spec.is_serving_wanted
    ]


def _footprint(observed: PoolObserved, member: ModelDeployment) -> int:
    """Return the bytes a member takes on a pod, from what was measured, estimated or remembered."""
    sizes = [0]
    for view in observed.reports:
        entry = view.report.model(member.metadata.name) if view.report is not None else None
        for revision in (entry.active, entry.target) if entry is not None else ():
            if revision is not None:
                known = revision.resident_bytes or revision.estimated_bytes or revision.file_bytes
                sizes.append(known or 0)
    memory = member.status.memory if member.status is not None else None
    if memory is not None:
        sizes.append(memory.resident_bytes or memory.estimated_bytes or 0)
    return max(sizes)


def _document(
    observed: PoolObserved, accepted: Sequence[ModelDeployment], profile: PoolProfile
) -> tuple[PoolDesired, PoolNote | None, tuple[str, ...]]:
    """Return the sealed document, a note if not everybody fits into it, and why it is so."""
    fitting = list(accepted)
    document, why = _draft(observed, fitting, profile)
    while desired_size(document) > DESIRED_LIMIT and fitting:
        # In proportion to the excess, and at least one: the youngest leave.
        keep = len(fitting) * DESIRED_LIMIT // desired_size(document)
        fitting = fitting[: min(keep, len(fitting) - 1)]
        document, why = _draft(observed, fitting, profile)
    left = tuple(m.metadata.name for m in accepted[len(fitting) :])
    note = None
    if left:
        message = (
            f"pool {observed.pool!r} is full: its desired document holds {len(fitting)} models in "
            f"{desired_size(document) >> 10} of {DESIRED_LIMIT >> 10} KiB, and {len(left)} are "
            "left out; use another pool"
        )
        note = PoolNote(Reason.POOL_FULL, message, models=left)
    return _sealed(observed, document), note, why


def _draft(
    observed: PoolObserved, members: Sequence[ModelDeployment], profile: PoolProfile
) -> tuple[PoolDesired, tuple[str, ...]]:
    demands = _demands(observed, members)
    size = pool_size(demands, profile.replicas.min, profile.replicas.max)
    before = observed.record.desired if observed.record is not None else None
    uids = {m.metadata.name: m.metadata.uid for m in members}
    # A model that was deleted and made anew under its name starts without a place.
    known = {m.name: m for m in (before.models if before else ()) if uids.get(m.name) == m.uid}
    previous = {name: m.ordinals for name, m in known.items()}
    collections = handed_on(observed.collections, refusals(observed))
    names = {c.metadata.name for c in collections}
    placement, mounts = placed(demands, size, previous), claim_mounts(profile)
    document = desired_document(
        members,
        profile,
        namespace=observed.namespace,
        pool=observed.pool,
        placement=placement.ordinals,
        histories={
            m.metadata.name: _history(
                observed,
                m,
                desired_revision(m, mounts),
                placement.ordinals.get(m.metadata.name, ()),
                known.get(m.metadata.name),
            )
            for m in members
        },
        collections=collections,
        reindexes=[r for r in observed.reindexes if r.spec.collection in names and is_told(r)],
    )
    return document, placement.why


def _history(
    observed: PoolObserved,
    member: ModelDeployment,
    asked: DesiredRevision,
    ordinals: Sequence[int],
    before: DesiredModel | None,
) -> History:
    """Return what a member's revisions mean for its pods, and whose turn has not come."""
    records = history.of(member, observed.revisions)
    known = history.history(member, records, asked)
    if known.held is not None:
        return known  # whoever goes back is in a hurry
    name, uid = member.metadata.name, member.metadata.uid
    pods = turns.Pods.of(name, uid, observed.pods, observed.reports)
    late = turns.waiting(asked, ordinals, before=before, records=records, pods=pods)
    return replace(known, waiting=late)


def _sealed(observed: PoolObserved, document: PoolDesired) -> PoolDesired:
    """Return the document with its sequence: the same for the same content, else a higher one.

    A pod keeps the highest sequence it has accepted. Should the ConfigMap be lost, what the pods
    acknowledged says how high we must go to be heard.
    """
    before = observed.record.desired if observed.record is not None else None
    last = before.sequence if before is not None else 0
    digest = document.content_hash()
    heard = [v.report for v in observed.reports if v.report is not None]
    ahead = [r.acknowledged for r in heard if r.acknowledged_hash != digest]
    if before is not None and before.hash == digest and all(a <= last for a in ahead):
        return document.sealed(last)
    return document.sealed(max([last, *(r.acknowledged for r in heard)]) + 1)


def _manifests(
    observed: PoolObserved,
    profile: PoolProfile,
    document: PoolDesired,
    secret: Manifest,
    owners: Sequence[Member],
    replicas: int,
    *,
    has_collections: bool,
) -> list[Manifest]:
    """Return the pool's readable objects in the order in which they are needed."""
    namespace, pool = observed.namespace, observed.pool
    workers = [worker_policy(namespace, pool, owners)] if has_collections else []
    return [
        # First, as pods are told of the document once it is written, and of nothing else.
        config_map(document, profile, secret, owners),
        service_account(namespace, pool, owners),
        headless_service(namespace, pool, owners),
        client_service(namespace, pool, owners),
        network_policy(namespace, pool, observed.config, owners),
        *workers,
        disruption_budget(namespace, pool, owners),
        stateful_set(
            namespace,
            pool,
            profile,
            replicas=replicas,
            secret_name=observed.token.secret_name,
            owners=owners,
            has_collections=has_collections,
        ),
    ]


def _applies(
    observed: PoolObserved, manifests: Sequence[Manifest], secret: Manifest
) -> tuple[tuple[Apply, ...], tuple[str, ...]]:
    """Return what is to be written, and what must first be gone."""
    record = observed.record
    children = {(c.kind, c.name): c for c in observed.children}
    if record is not None:
        children["ConfigMap", record.child.name] = record.child
    applies: list[Apply] = []
    waiting: list[str] = []
    if reason := _secret_is_due(observed, secret):
        applies.append(Apply(Verb.UPSERT, secret, reason))
    for manifest in manifests:
        child = children.get((manifest["kind"], manifest["metadata"]["name"]))
        if child is not None and child.deleting:
            waiting.append(f"{child.kind} {child.name} is being deleted; it is made again after")
        elif write := apply_of(manifest, child):
            applies.append(write)
    return tuple(applies), tuple(waiting)


def apply_of(manifest: Manifest, child: Child | None) -> Apply | None:
    """Return how an object of ours gets from what it is to what it should be; None if it is so."""
    if child is None:
        return Apply(Verb.CREATE, manifest, "it does not exist")
    owners = frozenset(o["uid"] for o in manifest["metadata"]["ownerReferences"])
    if child.spec_hash == spec_hash(manifest) and child.owner_uids == owners:
        return None
    precondition = {"uid": child.uid}
    if manifest["kind"] == "ConfigMap":
        # Its sequence may only follow the one we read.
        precondition["resourceVersion"] = child.resource_version
    metadata = {**manifest["metadata"], **precondition}
    return Apply(Verb.APPLY, {**manifest, "metadata": metadata}, "what is wanted has changed")


def _secret_is_due(observed: PoolObserved, secret: Manifest) -> str | None:
    if observed.record is None or observed.record.secret != fingerprint(secret):
        return "the token Secret was not yet applied like this"
    if any(p.trouble in _MOUNTING and p.age_seconds >= MOUNT_SECONDS for p in observed.pods):
        return "a pod cannot start; its token Secret may have been deleted"
    return None


def _may_mount_yet(pod: PodView) -> bool:
    return pod.trouble in _MOUNTING and pod.age_seconds < MOUNT_SECONDS


def _holder_labels(observed: PoolObserved, document: PoolDesired) -> list[Apply]:
    """Return label changes: each pod says which models are placed on it, for scalers to count."""
    changes = []
    for pod in observed.pods:
        holds = frozenset(m.name for m in document.models if pod.ordinal in m.ordinals)
        if pod.deleting or holds == pod.holds:
            continue
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name,
                "namespace": observed.namespace,
                "uid": pod.uid,
                "labels": {f"{HOLDS_LABEL_PREFIX}{name}": HOLDS for name in sorted(holds)},
            },
        }
        changes.append(Apply(Verb.APPLY, manifest, "the models placed on it have changed"))
    return changes


def _push(observed: PoolObserved, document: PoolDesired) -> Push | None:
    lagging = tuple(p.name for p in observed.pods if _lags(observed, p, document))
    return Push(document, lagging) if lagging else None


def _lags(observed: PoolObserved, pod: PodView, document: PoolDesired) -> bool:
    """Whether a pod has reported, and reported another document than this one.

    A pod that has not reported yet starts from the mounted file; the next reconcile sees.
    """
    view = next((v for v in observed.reports if v.pod == pod.name), None)
    if pod.deleting or view is None or view.report is None:
        return False
    report = view.report
    return (report.acknowledged, report.acknowledged_hash) != (document.sequence, document.hash)


def _stale(observed: PoolObserved, manifests: Sequence[Manifest]) -> tuple[Delete, ...]:
    """Return the pool's objects that are wanted no more, such as those of an older operator."""
    wanted = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    return tuple(
        Delete(c.api_version, c.kind, c.name, c.uid, "the pool needs it no more")
        for c in observed.children
        if (c.kind, c.name) not in wanted and not c.deleting
    )


def with_conflict(plan: Plan, taken: str) -> Plan:
    """Return what is left of a plan once the API server said that a name belongs to somebody else.

    Nothing more is written: what follows may rest on the object.
    """
    message = f"{taken} exists and was not made by Ullage; rename or remove it"
    note = PoolNote(Reason.NAME_TAKEN, message)
    # What could not be kept in the ConfigMap is not told to pods either.
    return replace(plan, applies=(), note=note, push=None, document=None, requeue_after=30.0)
