"""The operator's master key, from which pools' tokens are derived."""

import base64
import secrets
from typing import Final

import structlog

from ullage_api.names import MANAGED_BY
from ullage_operator.controller.errors import NameTakenError, RefusedError
from ullage_operator.controller.ports import KubeClient

log = structlog.get_logger(__name__)

KEY_ENTRY: Final = "key"
KEY_BYTES: Final = 32


async def master_key(client: KubeClient, namespace: str, name: str) -> bytes:
    """Return the key in a Secret of the operator's own namespace, made at first start."""
    raw = await client.get("v1", "Secret", namespace, name)
    if raw is None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": MANAGED_BY},
            },
            "type": "Opaque",
            "immutable": True,
            "data": {KEY_ENTRY: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()},
        }
        try:
            raw = await client.create(manifest)
            log.info("master key made", namespace=namespace, name=name)
        except NameTakenError:
            raw = await client.get("v1", "Secret", namespace, name)
    data = (raw or {}).get("data") or {}
    key = base64.b64decode(data.get(KEY_ENTRY, ""))
    if len(key) < KEY_BYTES:
        raise RefusedError(
            f"Secret {namespace}/{name} must hold at least {KEY_BYTES} bytes under {KEY_ENTRY!r}; "
            "delete it to have one made"
        )
    return key
