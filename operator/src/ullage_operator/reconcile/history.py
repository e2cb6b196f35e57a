"""What a model's recorded revisions mean for what its pods are asked to do."""

from collections.abc import Iterable, Sequence
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.desired import History
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.revision import Outcome
from ullage_api.names import ROLLBACK_ANNOTATION
from ullage_api.wire.pool_desired import DesiredFailure, DesiredRevision
from ullage_operator.reconcile.observed import RevisionRecord

_BLOCKING: Final = frozenset(reason.value for reason in Reason if reason != Reason.WILL_NEVER_FIT)
"""Failures that other pods need not repeat. Whether a model fits each finds out for itself, in no
time, for its memory may be another's."""


def of(resource: ModelDeployment, records: Iterable[RevisionRecord]) -> tuple[RevisionRecord, ...]:
    """Return the revisions of this very resource, the newest first.

    Those of one that had its name before are not its own.
    """
    name, uid = resource.metadata.name, resource.metadata.uid
    mine = (
        r
        for r in records
        if r.model == name and (r.child is None or r.child.owner_uids == frozenset({uid}))
    )
    return tuple(sorted(mine, key=lambda r: (-r.number, r.name)))


def asked_back(resource: ModelDeployment) -> str | None:
    """Return the revision that the resource's annotation asks to go back to."""
    return resource.metadata.annotations.get(ROLLBACK_ANNOTATION) or None


def held(resource: ModelDeployment, records: Iterable[RevisionRecord]) -> RevisionRecord | None:
    """Return the revision that is held instead of the spec's: the one asked for, if it is known.

    A spec that has changed since is newer than the wish to go back.
    """
    name, generation = asked_back(resource), resource.metadata.generation
    found = next((r for r in records if r.name == name), None)
    if found is None or found.held_generation not in {None, generation}:
        return None
    return found


def last_good(records: Sequence[RevisionRecord]) -> RevisionRecord | None:
    """Return what was last found good, of records of which the newest is first."""
    return next((r for r in records if r.outcome is Outcome.GOOD), None)


def is_proven(records: Sequence[RevisionRecord], wanted: DesiredRevision) -> bool:
    """Whether what was last found good is what is wanted."""
    good = last_good(records)
    return good is not None and is_asked_for(good.spec, wanted)


def history(
    resource: ModelDeployment, records: Sequence[RevisionRecord], asked: DesiredRevision
) -> History:
    """Return what the desired document says of a model's earlier revisions.

    `asked` is what its spec asks for. A failure counts until the spec changes, whatever of it does.
    """
    back, good = held(resource, records), last_good(records)
    wanted = back.spec if back is not None else asked
    failed = next((r for r in records if _is_blocked(r, resource, wanted)), None)
    return History(
        held=back.spec if back is not None else None,
        last_good=good.spec if good is not None and good.spec != wanted else None,
        failure=(
            DesiredFailure(reason=Reason(failed.reason), message=failed.message)
            if failed is not None
            else None
        ),
        is_proven=is_proven(records, wanted),
    )


def _is_blocked(record: RevisionRecord, resource: ModelDeployment, wanted: DesiredRevision) -> bool:
    return (
        record.outcome is Outcome.FAILED
        and record.generation == resource.metadata.generation
        and record.reason in _BLOCKING
        and is_asked_for(record.spec, wanted)
    )


def is_asked_for(known: DesiredRevision, wanted: DesiredRevision) -> bool:
    """Whether a revision, whose digests are known, is what a wish asks for as far as it says."""
    pairs = list(zip(known.adapters, wanted.adapters, strict=False))
    return (
        (known.uri, known.settings) == (wanted.uri, wanted.settings)
        and wanted.sha256 in {None, known.sha256}
        and len(known.adapters) == len(wanted.adapters)
        and all((a.name, a.uri, a.scale) == (b.name, b.uri, b.scale) for a, b in pairs)
        and all(b.sha256 in {None, a.sha256} for a, b in pairs)
    )


def known_names(records: Iterable[RevisionRecord]) -> str:
    """Return the names of revisions for people."""
    named = (f"{r.name} ({r.outcome.value})" if r.outcome else r.name for r in records)
    return ", ".join(named) or "none"
