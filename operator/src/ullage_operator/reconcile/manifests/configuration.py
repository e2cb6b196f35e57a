"""The pool's ConfigMap and its token Secret."""

import base64
from collections.abc import Iterable
from typing import Final

from ullage_api.names import GROUP, canonical_json, pool_object_name, short_hash
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.reconcile.manifests.common import Manifest, manifest, object_labels
from ullage_operator.reconcile.observed import Member, PoolToken

DESIRED_KEY: Final = "desired.json"
PROFILE_KEY: Final = "profile.json"
TOKEN_KEY: Final = "token"  # noqa: S105 - the name of the Secret's entry, not a secret

SECRET_ANNOTATION: Final = f"{GROUP}/token-secret"
"""On the ConfigMap: fingerprint of the token Secret as last applied."""

DESIRED_LIMIT: Final = 900 << 10
"""Most bytes of a desired document; a ConfigMap holds 1 MiB in all."""


def desired_size(document: PoolDesired) -> int:
    """Return how many bytes the document takes in the ConfigMap."""
    return len(canonical_json(document.to_wire()).encode())


def config_map(
    document: PoolDesired,
    profile: PoolProfile,
    secret: Manifest,
    owners: Iterable[Member],
) -> Manifest:
    """Return the ConfigMap that pods start from, and that outlives the operator's memory.

    The profile is kept beside the document, not mounted: should the platform's break or vanish,
    the pool goes on with this one.
    """
    return manifest(
        "v1",
        "ConfigMap",
        name=pool_object_name(document.pool),
        namespace=document.namespace,
        labels=object_labels(document.pool),
        owners=owners,
        annotations={SECRET_ANNOTATION: fingerprint(secret)},
        body={
            "data": {
                DESIRED_KEY: canonical_json(document.to_wire()),
                PROFILE_KEY: canonical_json(profile.to_wire()),
            }
        },
    )


def token_secret(namespace: str, pool: str, token: PoolToken, owners: Iterable[Member]) -> Manifest:
    """Return the Secret that pods read their internal token from."""
    return manifest(
        "v1",
        "Secret",
        name=token.secret_name,
        namespace=namespace,
        labels=object_labels(pool),
        owners=owners,
        body={
            "type": "Opaque",
            "immutable": True,
            "data": {TOKEN_KEY: base64.b64encode(token.value.encode()).decode()},
        },
    )


def fingerprint(secret: Manifest) -> str:
    """Return what tells one state of the Secret from another, without a trace of its value.

    The name changes with the token, so name and owners suffice.
    """
    metadata = secret["metadata"]
    return short_hash([metadata["name"], metadata["labels"], metadata["ownerReferences"]])
