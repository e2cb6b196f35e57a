"""The pool's ServiceAccount, NetworkPolicy and PodDisruptionBudget."""

from collections.abc import Iterable

from ullage_api.names import INTERNAL_PORT, pool_object_name
from ullage_operator.reconcile.manifests.common import (
    Manifest,
    manifest,
    object_labels,
    selector_labels,
    worker_labels,
)
from ullage_operator.reconcile.observed import Member, OperatorConfig


def service_account(namespace: str, pool: str, owners: Iterable[Member]) -> Manifest:
    """Return the pods' ServiceAccount; it has no rights and its token is not mounted."""
    return manifest(
        "v1",
        "ServiceAccount",
        name=pool_object_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={"automountServiceAccountToken": False},
    )


def network_policy(
    namespace: str, pool: str, config: OperatorConfig, owners: Iterable[Member]
) -> Manifest:
    """Return the policy: everybody may call `http`; operator, peers and workers `internal`."""
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": config.namespace}},
        "podSelector": {"matchLabels": dict(config.pod_labels)},
    }
    peers = {"podSelector": {"matchLabels": selector_labels(pool)}}
    workers = {"podSelector": {"matchLabels": worker_labels(pool)}}
    return manifest(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name=pool_object_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={
            "spec": {
                "podSelector": {"matchLabels": selector_labels(pool)},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"ports": [{"port": "http", "protocol": "TCP"}]},
                    {
                        "ports": [{"port": "internal", "protocol": "TCP"}],
                        "from": [operator, peers, workers],
                    },
                ],
            }
        },
    )


def worker_policy(namespace: str, pool: str, owners: Iterable[Member]) -> Manifest:
    """Return the policy of reindex workers: they call the pool's pods, and nobody calls them."""
    pods = {"podSelector": {"matchLabels": selector_labels(pool)}}
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return manifest(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name=f"{pool_object_name(pool)}-reindex",
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={
            "spec": {
                "podSelector": {"matchLabels": worker_labels(pool)},
                "policyTypes": ["Ingress", "Egress"],
                "egress": [
                    {"ports": names},
                    {"ports": [{"port": INTERNAL_PORT, "protocol": "TCP"}], "to": [pods]},
                ],
            }
        },
    )


def disruption_budget(namespace: str, pool: str, owners: Iterable[Member]) -> Manifest:
    """Return the budget by which node drains take one pod of the pool at a time."""
    return manifest(
        "policy/v1",
        "PodDisruptionBudget",
        name=pool_object_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels(pool)}},
        },
    )
