"""Credentials of sources: a folder, mounted from a Secret, with one file per host.

A file's name is the host, its content what is shown there: a token, sent as `Authorization:
Bearer`; for a registry, user and password; for S3, the two parts of a key. Each request looks up
its own host, so a redirect to another host carries nothing of the first one's.
"""

from pathlib import Path

from ullage_runtime.models.sources.failures import unavailable

MAX_BYTES = 16_384


def credential(folder: Path | None, host: str) -> str | None:
    """Return what a host is shown, or None; read anew each time, since Secrets change. Blocks."""
    if folder is None or not host or host.startswith(".") or "/" in host:
        return None
    try:
        with (folder / host).open("rb") as file:
            text = file.read(MAX_BYTES).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise unavailable(f"the credential for {host} cannot be read: {error}") from error
    return text or None
