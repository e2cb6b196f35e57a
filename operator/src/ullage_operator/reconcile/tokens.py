"""Pool tokens: derived from the operator's master key, so that no Secret need ever be read back."""

import hashlib
import hmac

from ullage_api.names import pool_object_name
from ullage_operator.reconcile.observed import PoolToken


def pool_token(master_key: bytes, namespace: str, pool: str) -> PoolToken:
    """Return a pool's token and the name of its Secret.

    The name ends with digits of a second HMAC: nobody without the key can occupy it beforehand, so
    the operator may apply it without looking, and needs neither get nor list on tenants' Secrets.
    """
    value = _mac(master_key, "token", namespace, pool)
    suffix = _mac(master_key, "name", namespace, pool)[:10]
    return PoolToken(value=value, secret_name=f"{pool_object_name(pool)}-token-{suffix}")


def _mac(key: bytes, purpose: str, namespace: str, pool: str) -> str:
    message = f"{purpose}\0{namespace}\0{pool}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()
