"""Why a file cannot be had, as load errors, and the one that is worth another attempt."""

from dataclasses import dataclass

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.sizes import human_bytes


@dataclass(slots=True)
class AttemptFailed(Exception):  # noqa: N818 - it is about one attempt and never leaves the package
    """One attempt failed for a cause that may pass."""

    message: str
    retry_after: float | None = None
    """Seconds the server asked for, if it did."""
    pointless: bool = False
    """Whether a further attempt within seconds would fail alike, as with a bad certificate."""

    def __str__(self) -> str:
        return self.message


def refused(message: str) -> LoadError:
    """Return the error for a source that only another spec or profile can make available."""
    return LoadError(Reason.SOURCE_UNAVAILABLE, message, final=True)


def unavailable(message: str) -> LoadError:
    """Return the error for a source that may become available by itself."""
    return LoadError(Reason.SOURCE_UNAVAILABLE, message, final=False)


def checksum_mismatch(what: str, *, expected: str, actual: str) -> LoadError:
    """Return the error for bytes that are not those which were asked for."""
    return LoadError(
        Reason.CHECKSUM_MISMATCH,
        f"{what} has sha256 {actual}, but {expected} was expected; correct model.sha256 or the "
        "file it names",
        final=True,
    )


def too_large(what: str, size: int, limit: int) -> LoadError:
    """Return the error for a file above the profile's limit."""
    return refused(
        f"{what} has {human_bytes(size)} ({size} bytes); the pool's profile allows "
        f"{human_bytes(limit)} ({limit} bytes, runtime.maxModelBytes)"
    )
