"""Services: how clients, peers and one model's callers find a pool's pods."""

from collections.abc import Iterable

from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.names import (
    HTTP_PORT,
    INTERNAL_PORT,
    POOL_LABEL,
    headless_service_name,
    model_service_name,
    pool_object_name,
)
from ullage_operator.reconcile.manifests.common import (
    MODEL_LABEL,
    Manifest,
    manifest,
    object_labels,
    selector_labels,
)
from ullage_operator.reconcile.observed import Member

_CLIENT_PORT: Manifest = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}


def client_service(namespace: str, pool: str, owners: Iterable[Member]) -> Manifest:
    """Return the Service by which clients reach any pod of the pool."""
    return manifest(
        "v1",
        "Service",
        name=pool_object_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={"spec": {"selector": selector_labels(pool), "ports": [_CLIENT_PORT]}},
    )


def headless_service(namespace: str, pool: str, owners: Iterable[Member]) -> Manifest:
    """Return the Service that gives each pod its DNS name, ready or not."""
    ports = [
        {"name": "http", "port": HTTP_PORT, "protocol": "TCP", "targetPort": "http"},
        {"name": "internal", "port": INTERNAL_PORT, "protocol": "TCP", "targetPort": "internal"},
    ]
    return manifest(
        "v1",
        "Service",
        name=headless_service_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": selector_labels(pool),
                "ports": ports,
            }
        },
    )


def model_service(resource: ModelDeployment) -> Manifest:
    """Return the Service that stands for one model.

    It selects every pod of the pool, by fixed labels: a pod without the model forwards to one that
    has it, and Kubernetes drops dead pods by itself, operator or no operator.
    """
    pool = resource.spec.pool
    name = resource.metadata.name
    return manifest(
        "v1",
        "Service",
        name=model_service_name(name),
        namespace=resource.metadata.namespace,
        labels={
            "app.kubernetes.io/component": "model",
            "app.kubernetes.io/managed-by": object_labels(pool)["app.kubernetes.io/managed-by"],
            "app.kubernetes.io/part-of": "ullage",
            POOL_LABEL: pool,
            MODEL_LABEL: name,
        },
        owners=(resource,),
        body={"spec": {"selector": selector_labels(pool), "ports": [_CLIENT_PORT]}},
    )
