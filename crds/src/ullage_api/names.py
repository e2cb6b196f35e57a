"""Names that more than one component must spell alike: group, labels, ports and derived names."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

GROUP: Final = "ullage.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "ullage.dev/v1alpha1"
CATEGORY: Final = "ullage"

MANAGED_BY: Final = "ullage-operator"
"""Value of `app.kubernetes.io/managed-by` on every object the operator makes."""

POOL_LABEL: Final = f"{GROUP}/pool"
"""Label on every object and pod of a pool; the value is the pool's name."""

REINDEX_LABEL: Final = f"{GROUP}/reindex-job"
"""Label on the worker of a reindex job, and on its pod; the value is the ReindexJob's name."""

HOLDS_LABEL_PREFIX: Final = f"models.{GROUP}/"
"""Prefix of the label that marks a pod as holding a model: `models.ullage.dev/<name>`."""

SPEC_HASH_ANNOTATION: Final = f"{GROUP}/spec-hash"
"""Annotation on children: the hash of what the operator last applied."""

ROLLBACK_ANNOTATION: Final = f"{GROUP}/rollback-to"
"""Annotation by which a user holds an earlier revision of a model until the spec changes."""

COLLECTION_FINALIZER: Final = f"{GROUP}/collection"
"""Finalizer of a VectorCollection whose data is deleted with it; removed once the data is gone."""

REINDEX_FINALIZER: Final = f"{GROUP}/reindex"
"""Finalizer of a ReindexJob that is not over: its deletion cancels it before it goes."""

HTTP_PORT: Final = 8080
"""Default port of a runtime pod's public HTTP surface."""

INTERNAL_PORT: Final = 8081
"""Default port of a runtime pod's `/internal` surface."""

SAMPLE_MODELS_DIR: Final = "/usr/share/ullage/models"
"""Folder of the runtime image that holds the example models; a default root for `file:` URIs."""

CREDENTIALS_SECRET: Final = "ullage-credentials"  # noqa: S105 - the name of a Secret
"""A namespace's optional Secret of tokens for model sources: each key is a host."""

MAX_NAME_LENGTH: Final = 40
"""Longest name of a resource, so that the names derived from it stay within a DNS label."""

NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label: what a Service, and therefore every resource of ours, may be called."""

ADAPTER_SEPARATOR: Final = ":"
"""Between a model's name and an adapter's, where a client asks for both."""

_NAME = re.compile(NAME_PATTERN)


def is_valid_name(name: str) -> bool:
    """Tell whether a resource may bear this name."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def canonical_json(value: object) -> str:
    """Return the one JSON text of a plain value: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def short_hash(value: object, length: int = 10) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a plain value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def revision_name(
    sha256: str, engine: Mapping[str, object], adapters: Sequence[Mapping[str, object]] = ()
) -> str:
    """Return the name of a revision: a short hash of its artifacts' digests and engine settings.

    `adapters` have a name, a digest and a scale each. Sampling defaults, limits and labels are no
    part of it, so changing them never reloads a model.
    """
    parts: dict[str, object] = {"sha256": sha256, "engine": dict(engine)}
    if adapters:
        parts["adapters"] = [dict(adapter) for adapter in adapters]
    return short_hash(parts)


def adapter_name(model: str, adapter: str) -> str:
    """Return the name by which a client asks for a model with one of its adapters."""
    return f"{model}{ADAPTER_SEPARATOR}{adapter}"


def pool_object_name(pool: str) -> str:
    """Return the name shared by a pool's StatefulSet, Services, ConfigMap and other objects."""
    return f"ullage-{pool}"


def pod_name(pool: str, ordinal: int) -> str:
    """Return the name of a pool's pod."""
    return f"{pool_object_name(pool)}-{ordinal}"


def headless_service_name(pool: str) -> str:
    """Return the name of the headless Service that gives a pool's pods their DNS names."""
    return f"{pool_object_name(pool)}-pods"


def model_service_name(model: str) -> str:
    """Return the name of the Service that stands for one model."""
    return f"{model}-model"


def revision_object_name(model: str, revision: str) -> str:
    """Return the name of the ControllerRevision that keeps one revision of a model."""
    return f"{model}-{revision}"


def model_url(namespace: str, model: str) -> str:
    """Return the address, within the cluster, of a model's OpenAI-compatible API."""
    return f"http://{model_service_name(model)}.{namespace}.svc/v1"


def collection_url(namespace: str, pool: str, collection: str) -> str:
    """Return the address, within the cluster, of a collection's API."""
    return f"http://{pool_object_name(pool)}.{namespace}.svc/v1/collections/{collection}"


def reindex_worker_name(uid: str) -> str:
    """Return the name of the batch/v1 Job that runs the worker of a ReindexJob."""
    return f"ullage-reindex-{uid}"


def volume_name(pool: str) -> str:
    """Return the name of the PersistentVolumeClaim that keeps a pool's collections."""
    return f"{pool_object_name(pool)}-collections"


def peer_url(namespace: str, pool: str, ordinal: int, port: int = HTTP_PORT) -> str:
    """Return the address at which one pod of a pool reaches another."""
    host = f"{pod_name(pool, ordinal)}.{headless_service_name(pool)}.{namespace}.svc"
    return f"http://{host}:{port}"
