"""Kubernetes Events about our resources."""

import socket
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

import structlog

from ullage_api.names import short_hash
from ullage_operator.controller.errors import GoneError, ReconcileError
from ullage_operator.controller.ports import KubeClient
from ullage_operator.reconcile.observed import Owner
from ullage_operator.reconcile.plan import EventNote

log = structlog.get_logger(__name__)

CONTROLLER: Final = "ullage.dev/operator"
REMEMBERED: Final = 4096
"""How many resources' last Events are remembered, to say nothing twice in a row."""
NOTE_LIMIT: Final = 1024
REASON_LIMIT: Final = 128


class KubeEventRecorder:
    """EventRecorder on events.k8s.io."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._instance = socket.gethostname()
        self._last: OrderedDict[str, EventNote] = OrderedDict()

    async def record(self, resource: Owner, note: EventNote) -> None:
        """Record an Event; a failure is logged, for an Event is never worth a retry."""
        uid = resource.metadata.uid
        if self._last.get(uid) == note:
            return
        self._last[uid] = note
        self._last.move_to_end(uid)
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        try:
            await self._client.create(self._manifest(resource, note, datetime.now(UTC)))
        except GoneError:
            # The namespace is ending, and the Event would have ended with it.
            return
        except ReconcileError as error:
            log.warning(
                "event not recorded",
                namespace=resource.metadata.namespace,
                name=resource.metadata.name,
                error=str(error),
            )

    def _manifest(self, resource: Owner, note: EventNote, now: datetime) -> dict[str, object]:
        metadata = resource.metadata
        moment = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        unique = short_hash([metadata.uid, note.reason, note.message, moment], length=16)
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata.name}.{unique}", "namespace": metadata.namespace},
            "eventTime": moment,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": "Warning" if note.warning else "Normal",
            "reason": note.reason[:REASON_LIMIT],
            "note": note.message[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
                "resourceVersion": metadata.resource_version,
            },
        }
