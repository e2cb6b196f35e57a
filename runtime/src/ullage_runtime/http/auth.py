"""API keys: a folder with one hashed key per file, and who may use which model.

The folder is a mounted Secret. A file's name is the key's id, which is the tenant; its content is
`sha256:<64 hexadecimal digits>`, optionally followed by ` models=a,b`, the only models the key may
use. Keys are compared by their digests, so neither the folder nor a comparison's time tells them.
"""

import hashlib
import os
import pathlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ullage_runtime.core.errors import Forbidden, Unauthorized

log = structlog.stdlib.get_logger(__name__)

KEY_PREFIX = "ullage-"
MAX_ENTRY_BYTES = 16_384

_ENTRY = re.compile(r"^sha256:([0-9a-f]{64})(?:\s+models=([^\s]+))?\s*$")


@dataclass(frozen=True, slots=True)
class Key:
    """One caller: its tenant, and the models it may use (None: all)."""

    id: str
    models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        """Whether the key may use the model of this name."""
        return self.models is None or model in self.models

    def check(self, model: str) -> None:
        """Raise Forbidden unless the key may use the model."""
        if not self.may_use(model):
            allowed = ", ".join(sorted(self.models or ())) or "none"
            raise Forbidden(f"this key may not use model {model!r}; it may use: {allowed}")


ANYBODY = Key(id="anonymous")
"""Who calls when no keys are asked for."""


def digest(key: str) -> str:
    """Return the hexadecimal SHA-256 under which a key is kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """Return a new random key of 192 bits."""
    return KEY_PREFIX + secrets.token_hex(24)


def entry_line(key: str, models: tuple[str, ...] = ()) -> str:
    """Return the line that a key's file holds."""
    line = f"sha256:{digest(key)}"
    return f"{line} models={','.join(models)}" if models else line


def parsed_entry(key_id: str, text: str) -> tuple[str, Key]:
    """Return a file's digest and key; raises ValueError when the content is something else."""
    match = _ENTRY.match(text)
    if match is None:
        raise ValueError("must be sha256:<64 hexadecimal digits>[ models=a,b]")
    models = frozenset(m for m in match.group(2).split(",") if m) if match.group(2) else None
    return match.group(1), Key(id=key_id, models=models)


class KeyRing:
    """The keys of a folder, read again when the folder changes.

    Changes are looked for at most every `interval` seconds, when a request comes. A file that
    cannot be read as a key lets nobody in and is named in the log.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        interval: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._interval = interval
        self._clock = clock
        self._checked: float | None = None
        self._fingerprint: object = None
        self._keys: dict[str, Key] = {}

    def authenticate(self, authorization: str | None) -> Key:
        """Return whose key an Authorization header carries; raises Unauthorized."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("no API key given; send the header Authorization: Bearer <key>")
        self._refresh()
        key = self._keys.get(digest(token))
        if key is None:
            raise Unauthorized("the API key given is not known here")
        return key

    def _refresh(self) -> None:
        now = self._clock()
        if self._checked is not None and now - self._checked < self._interval:
            return
        self._checked = now
        files = self._files()
        fingerprint = tuple((f.name, s.st_mtime_ns, s.st_size, s.st_ino) for f, s in _stats(files))
        if fingerprint == self._fingerprint:
            return
        self._fingerprint = fingerprint
        self._keys = dict(entry for f in files if (entry := _read(f)) is not None)
        log.info("API keys read", keys=len(self._keys))

    def _files(self) -> list[pathlib.Path]:
        try:
            # Kubernetes keeps the real files in hidden folders and links to them.
            return sorted(f for f in self._folder.iterdir() if not f.name.startswith("."))
        except OSError as error:
            log.error("the folder of API keys cannot be read", error=str(error))  # noqa: TRY400
            return []


def _stats(files: list[pathlib.Path]) -> list[tuple[pathlib.Path, os.stat_result]]:
    result = []
    for file in files:
        try:
            result.append((file, file.stat()))
        except OSError:
            # It vanished between the listing and now; the next look sees the folder as it is.
            continue
    return result


def _read(file: pathlib.Path) -> tuple[str, Key] | None:
    try:
        with file.open(encoding="utf-8") as opened:
            return parsed_entry(file.name, opened.read(MAX_ENTRY_BYTES))
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, OSError) or "sha256" in str(error) else "not text"
        log.warning("an API key's file is ignored", key=file.name, error=reason)
        return None
