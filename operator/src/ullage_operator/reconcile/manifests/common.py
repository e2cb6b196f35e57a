"""What every object of ours carries: names, labels, owners and the hash of what was applied."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ullage_api.names import GROUP, MANAGED_BY, POOL_LABEL, SPEC_HASH_ANNOTATION, short_hash
from ullage_operator.reconcile.observed import Owner

WORKER_NAME: Final = "ullage-reindex-worker"
"""Value of `app.kubernetes.io/name` on the pods of reindex workers."""

RUNTIME_NAME: Final = "ullage-runtime"
"""Value of `app.kubernetes.io/name` on runtime pods; part of every selector, so never changed."""

MODEL_LABEL: Final = f"{GROUP}/model"
"""Label on the objects of one model, as opposed to those of its whole pool."""

Manifest = dict[str, Any]


def selector_labels(pool: str) -> dict[str, str]:
    """Return the labels that find a pool's pods; they are fixed for the pool's life."""
    return {"app.kubernetes.io/name": RUNTIME_NAME, POOL_LABEL: pool}


def object_labels(pool: str) -> dict[str, str]:
    """Return the labels of every object of a pool.

    `app.kubernetes.io/instance` is left out on purpose: GitOps tools track by it, and would take
    our objects for their own.
    """
    return {
        **selector_labels(pool),
        "app.kubernetes.io/component": "runtime",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "app.kubernetes.io/part-of": "ullage",
    }


def worker_labels(pool: str) -> dict[str, str]:
    """Return the labels that find the pods of a pool's reindex workers."""
    return {"app.kubernetes.io/name": WORKER_NAME, POOL_LABEL: pool}


def owner_references(owners: Iterable[Owner]) -> list[Manifest]:
    """Return references to the owners, by name; garbage collection waits for the last of them.

    None is the controller and none blocks its own deletion: the owners share the object.
    """
    return [
        {
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.metadata.name,
            "uid": owner.metadata.uid,
            "blockOwnerDeletion": False,
        }
        for owner in sorted(owners, key=lambda o: (o.metadata.name, o.metadata.uid))
    ]


def manifest(
    api_version: str,
    kind: str,
    *,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    owners: Iterable[Owner],
    body: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return an object with its spec hash, which covers all of it, owners included."""
    metadata: Manifest = {
        "name": name,
        "namespace": namespace,
        "labels": dict(labels),
    }
    if references := owner_references(owners):
        metadata["ownerReferences"] = references
    whole: Manifest = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}
    digest = short_hash({**whole, "annotations": dict(annotations or {})}, length=16)
    metadata["annotations"] = {**(annotations or {}), SPEC_HASH_ANNOTATION: digest}
    return whole


def spec_hash(whole: Mapping[str, Any]) -> str:
    """Return the spec hash that an object built here carries."""
    return str(whole["metadata"]["annotations"][SPEC_HASH_ANNOTATION])
