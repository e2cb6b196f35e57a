from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.cluster.audit import parse_event, read_audit

EVENT: dict[str, Any] = {
    "verb": "patch",
    "requestURI": "/apis/ullage.dev/v1alpha1/namespaces/a/modeldeployments/chat/status",
    "user": {"username": "system:serviceaccount:ullage:operator"},
    "userAgent": "kopf/1.45",
    "objectRef": {
        "apiGroup": "ullage.dev",
        "resource": "modeldeployments",
        "subresource": "status",
        "namespace": "a",
        "name": "chat",
    },
    "responseStatus": {"code": 200},
    "requestReceivedTimestamp": "2026-01-02T03:04:05.678901Z",
}


def test_an_event_says_who_did_what_to_which_object() -> None:
    event = parse_event(json.dumps(EVENT))
    assert (event.verb, event.resource, event.subresource) == (
        "patch",
        "modeldeployments",
        "status",
    )
    assert event.user == "system:serviceaccount:ullage:operator"
    assert (event.namespace, event.name, event.status) == ("a", "chat", 200)
    assert event.received.tzinfo is not None
    assert event.writes


def test_a_request_for_no_object_is_an_event_too() -> None:
    bare = {key: value for key, value in EVENT.items() if key != "objectRef"} | {"verb": "get"}
    event = parse_event(json.dumps(bare))
    assert event.resource == ""
    assert not event.writes


def test_a_line_still_being_written_is_left_for_the_next_reading(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    line = json.dumps(EVENT)
    log.write_text(f"{line}\n{line[:40]}")
    assert len(read_audit(log)) == 1
    log.write_text(f"{line}\n{line}\n")
    assert len(read_audit(log)) == 2


def test_a_log_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    assert read_audit(tmp_path / "none") == []
