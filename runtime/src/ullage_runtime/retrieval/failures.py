"""What clients are told when a store or a log does not do what it was asked."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ullage_runtime.core.errors import (
    CollectionUnavailable,
    DiskFull,
    InvalidRequest,
    RequestTimeout,
)
from ullage_runtime.retrieval.log.changes import NotApplied
from ullage_runtime.retrieval.stores.port import StoreRefused, StoreTimeout, StoreUnavailable

RETRY_SECONDS: Final = 2.0


@contextmanager
def told(collection: str) -> Iterator[None]:
    """Turn errors of stores and logs into those of the API."""
    try:
        yield
    except StoreTimeout as error:
        raise RequestTimeout(f"collection {collection!r}: {error}") from error
    except StoreUnavailable as error:
        raise CollectionUnavailable(
            f"collection {collection!r}: {error}", retry_after=RETRY_SECONDS
        ) from error
    except (StoreRefused, NotApplied) as error:
        raise InvalidRequest(f"collection {collection!r}: {error}") from error
    except sqlite3.OperationalError as error:
        if "disk is full" in str(error) or "disk I/O" in str(error):
            raise _full(collection) from error
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _full(collection) from error
        raise


def _full(collection: str) -> DiskFull:
    return DiskFull(
        f"collection {collection!r}: the volume has no room left, so nothing was accepted; enlarge "
        "it, or delete what is not needed"
    )
