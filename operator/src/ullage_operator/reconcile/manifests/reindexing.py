"""The batch/v1 Job that runs the worker of a reindex job."""

from typing import Any, Final

from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.names import (
    INTERNAL_PORT,
    MANAGED_BY,
    REINDEX_LABEL,
    peer_url,
    pool_object_name,
    reindex_worker_name,
)
from ullage_api.profile import PoolProfile
from ullage_operator.reconcile.manifests.common import Manifest, manifest, worker_labels
from ullage_operator.reconcile.manifests.configuration import TOKEN_KEY
from ullage_operator.reconcile.manifests.stateful_set import USER

TOKEN_VARIABLE: Final = "ULLAGE_POOL_TOKEN"  # noqa: S105 - the name of a variable

RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
"""What a worker takes: vectors never pass through it."""

RESTARTS: Final = 1000
"""Ends of its container that are put up with; each costs a page, and pauses grow in between."""


def worker_job(resource: ReindexJob, pool: str, profile: PoolProfile, secret: str) -> Manifest:
    """Return the Job that drives a reindex: it talks to the pool's pod and to nobody else."""
    metadata = resource.metadata
    labels = {
        **worker_labels(pool),
        REINDEX_LABEL: metadata.name,
        "app.kubernetes.io/component": "reindex-worker",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "app.kubernetes.io/part-of": "ullage",
    }
    template = {"metadata": {"labels": labels}, "spec": _pod(resource, pool, profile, secret)}
    return manifest(
        "batch/v1",
        "Job",
        name=reindex_worker_name(metadata.uid),
        namespace=metadata.namespace,
        labels=labels,
        owners=[resource],
        body={"spec": {"backoffLimit": RESTARTS, "template": template}},
    )


def _pod(resource: ReindexJob, pool: str, profile: PoolProfile, secret: str) -> Manifest:
    spec: Manifest = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": pool_object_name(pool),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(resource, pool, profile, secret)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    # Where the pool's pods may run its worker may: the nodes have the image.
    optional: dict[str, Any] = {
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
        "nodeSelector": profile.node_selector,
        "tolerations": list(profile.tolerations),
        "priorityClassName": profile.priority_class_name,
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(resource: ReindexJob, pool: str, profile: PoolProfile, secret: str) -> Manifest:
    metadata = resource.metadata
    pod = peer_url(metadata.namespace, pool, 0, INTERNAL_PORT)
    token = {"secretKeyRef": {"name": secret, "key": TOKEN_KEY}}
    return {
        "name": "worker",
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "command": ["ullage", "reindex-worker", "--pod", pod, "--job", metadata.name],
        "env": [
            {"name": TOKEN_VARIABLE, "valueFrom": token},
            {"name": "ULLAGE_LOG_FORMAT", "value": "json"},
        ],
        "resources": RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - its own volume
    }
