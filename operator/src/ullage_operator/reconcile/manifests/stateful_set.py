"""The pool's StatefulSet and its pod template."""

from collections.abc import Iterable
from typing import Any, Final

from ullage_api.names import (
    CREDENTIALS_SECRET,
    HTTP_PORT,
    INTERNAL_PORT,
    headless_service_name,
    pool_object_name,
    volume_name,
)
from ullage_api.profile import PoolProfile
from ullage_operator.reconcile.manifests.common import (
    Manifest,
    manifest,
    object_labels,
    selector_labels,
)
from ullage_operator.reconcile.manifests.configuration import DESIRED_KEY, TOKEN_KEY
from ullage_operator.reconcile.observed import Member

USER: Final = 65532
"""The image's user; without rights on any host."""

GRACE_SECONDS: Final = 30
"""Time after the drain in which engines unload and processes end."""

DESIRED_DIR: Final = "/etc/ullage/desired"
TOKEN_DIR: Final = "/etc/ullage/token"  # noqa: S105 - a folder
KEYS_DIR: Final = "/etc/ullage/keys"
CREDENTIALS_DIR: Final = "/etc/ullage/credentials"
CACHE_DIR: Final = "/var/cache/ullage"
STATE_DIR: Final = "/var/lib/ullage"
COLLECTIONS_DIR: Final = f"{STATE_DIR}/collections"
"""The folder of the state folder that the runtime keeps collections in."""

READ_ONLY_MODE: Final = 0o440


def stateful_set(
    namespace: str,
    pool: str,
    profile: PoolProfile,
    *,
    replicas: int,
    secret_name: str,
    owners: Iterable[Member],
    has_collections: bool = False,
) -> Manifest:
    """Return the StatefulSet of a pool's pods; all start and stop at once.

    With `has_collections` its one pod has the pool's volume for them.
    """
    spec: dict[str, Any] = {
        "replicas": replicas,
        "serviceName": headless_service_name(pool),
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 3,
        "updateStrategy": {"type": profile.update_strategy.value},
        "selector": {"matchLabels": selector_labels(pool)},
        "template": {
            "metadata": {"labels": object_labels(pool)},
            "spec": pod_spec(pool, profile, secret_name, has_collections=has_collections),
        },
    }
    if profile.cache.storage_class is not None:
        spec["volumeClaimTemplates"] = [_cache_claim(profile)]
        # Nothing of a pool stays behind; a scaled-down pod's cache waits for its return.
        spec["persistentVolumeClaimRetentionPolicy"] = {
            "whenDeleted": "Delete",
            "whenScaled": "Retain",
        }
    return manifest(
        "apps/v1",
        "StatefulSet",
        name=pool_object_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={"spec": spec},
    )


def pod_spec(
    pool: str, profile: PoolProfile, secret_name: str, *, has_collections: bool
) -> Manifest:
    """Return what a pod of the pool is made of; it meets PodSecurity's `restricted`."""
    spec: Manifest = {
        "serviceAccountName": pool_object_name(pool),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.drain_seconds + GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector_labels(pool)},
            }
        ],
        "containers": [_container(profile, has_collections=has_collections)],
        "volumes": _volumes(pool, profile, secret_name, has_collections=has_collections),
    }
    optional: dict[str, Any] = {
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
        "nodeSelector": profile.node_selector,
        "tolerations": list(profile.tolerations),
        "affinity": profile.affinity,
        "runtimeClassName": profile.runtime_class_name,
        "priorityClassName": profile.priority_class_name,
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(profile: PoolProfile, *, has_collections: bool) -> Manifest:
    mounts: list[Manifest] = [
        {"name": "desired", "mountPath": DESIRED_DIR, "readOnly": True},
        {"name": "token", "mountPath": TOKEN_DIR, "readOnly": True},
        {"name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": True},
        {"name": "cache", "mountPath": CACHE_DIR},
        {"name": "state", "mountPath": STATE_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if has_collections:
        mounts.append({"name": "collections", "mountPath": COLLECTIONS_DIR})
    if profile.auth.secret_name is not None:
        mounts.append({"name": "keys", "mountPath": KEYS_DIR, "readOnly": True})
    return {
        "name": "runtime",
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "internal", "containerPort": INTERNAL_PORT, "protocol": "TCP"},
        ],
        "env": _environment(profile),
        "resources": profile.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/livez", period=1, failures=120),
        "livenessProbe": _probe("/livez", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "volumeMounts": [*mounts, *profile.volume_mounts],
    }


def _environment(profile: PoolProfile) -> list[Manifest]:
    fixed = {
        "ULLAGE_HOST": "0.0.0.0",
        "ULLAGE_PORT": str(HTTP_PORT),
        "ULLAGE_INTERNAL_PORT": str(INTERNAL_PORT),
        "ULLAGE_MODEL_CACHE_DIR": CACHE_DIR,
        "ULLAGE_STATE_DIR": STATE_DIR,
        "ULLAGE_DESIRED_FILE": f"{DESIRED_DIR}/{DESIRED_KEY}",
        "ULLAGE_INTERNAL_TOKEN_FILE": f"{TOKEN_DIR}/{TOKEN_KEY}",
        "ULLAGE_CREDENTIALS_DIR": CREDENTIALS_DIR,
        "ULLAGE_DRAIN_SECONDS": str(profile.drain_seconds),
        "ULLAGE_LOG_FORMAT": "json",
    }
    if profile.auth.secret_name is not None:
        fixed["ULLAGE_API_KEYS_DIR"] = KEYS_DIR
    pod_name = {
        "name": "ULLAGE_POD_NAME",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
    }
    plain: list[Manifest] = [{"name": name, "value": value} for name, value in fixed.items()]
    ours = [pod_name, *plain]
    # An admin's entry replaces ours: two of one name would make server-side apply fail.
    theirs = {str(entry.get("name")) for entry in profile.env}
    return [*(entry for entry in ours if entry["name"] not in theirs), *profile.env]


def _volumes(
    pool: str, profile: PoolProfile, secret_name: str, *, has_collections: bool
) -> list[Manifest]:
    volumes: list[Manifest] = [
        {
            "name": "desired",
            "configMap": {
                "name": pool_object_name(pool),
                "items": [{"key": DESIRED_KEY, "path": DESIRED_KEY}],
            },
        },
        {"name": "token", "secret": {"secretName": secret_name, "defaultMode": READ_ONLY_MODE}},
        # The team's own tokens for model sources. It may be absent, and appear later.
        {
            "name": "credentials",
            "secret": {
                "secretName": CREDENTIALS_SECRET,
                "optional": True,
                "defaultMode": READ_ONLY_MODE,
            },
        },
        # Stored responses take 256 MiB of it, and their write-ahead log a little more.
        {"name": "state", "emptyDir": {"sizeLimit": "512Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    if profile.cache.storage_class is None:
        volumes.append({"name": "cache", "emptyDir": {"sizeLimit": profile.cache.size}})
    if has_collections:
        claim = {"claimName": volume_name(pool)}
        volumes.append({"name": "collections", "persistentVolumeClaim": claim})
    if profile.auth.secret_name is not None:
        keys = {"secretName": profile.auth.secret_name, "defaultMode": READ_ONLY_MODE}
        volumes.append({"name": "keys", "secret": keys})
    return [*volumes, *profile.volumes]


def _cache_claim(profile: PoolProfile) -> Manifest:
    return {
        "metadata": {"name": "cache"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": profile.cache.storage_class,
            "resources": {"requests": {"storage": profile.cache.size}},
        },
    }


def collections_claim(namespace: str, pool: str, profile: PoolProfile) -> Manifest:
    """Return the claim to the volume that keeps a pool's collections.

    It has no owner: what was kept outlives the pool, and its next collection finds it there. It is
    made once and never changed; whoever needs more room enlarges it.
    """
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": profile.collections.size}},
    }
    if profile.collections.storage_class is not None:
        spec["storageClassName"] = profile.collections.storage_class
    return manifest(
        "v1",
        "PersistentVolumeClaim",
        name=volume_name(pool),
        namespace=namespace,
        labels=object_labels(pool),
        owners=(),
        body={"spec": spec},
    )


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
