"""What the API server was asked, as its audit log tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AuditEvent", "parse_event", "read_audit"]

WRITING_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One answered request."""

    received: datetime
    verb: str
    user: str
    user_agent: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uri: str
    status: int

    @property
    def writes(self) -> bool:
        """Whether the request changes something, or would."""
        return self.verb in WRITING_VERBS


def parse_event(line: str) -> AuditEvent:
    """Return the event that one line of an audit log holds."""
    raw: dict[str, Any] = json.loads(line)
    target: dict[str, Any] = raw.get("objectRef", {})
    return AuditEvent(
        received=datetime.fromisoformat(raw["requestReceivedTimestamp"]),
        verb=raw["verb"],
        user=raw.get("user", {}).get("username", ""),
        user_agent=raw.get("userAgent", ""),
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        uri=raw.get("requestURI", ""),
        status=raw.get("responseStatus", {}).get("code", 0),
    )


def read_audit(path: Path) -> list[AuditEvent]:
    """Return the events of an audit log; a last line still being written is left for next time."""
    if not path.exists():
        return []
    complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [parse_event(line) for line in complete.splitlines() if line]
