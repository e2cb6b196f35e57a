"""Objects of the API server as the pure core sees them."""

from typing import Any

import pytest

from tests.support.facts import NOW
from ullage_operator.controller.reading import pod_view, pool_record


def raw(name: str = "ullage-default-3", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": "u",
            "creationTimestamp": "2026-11-20T11:59:00Z",
            "labels": {"models.ullage.dev/chat": "holds", "models.ullage.dev/x": "no", "a": "b"},
        },
        "spec": {"containers": [{"ports": [{"name": "internal", "containerPort": 9001}]}]},
        "status": status,
    }


def container(state: dict[str, Any], restarts: int = 0, **more: Any) -> dict[str, Any]:
    return {"image": "x:1", "restartCount": restarts, "state": state, **more}


def test_a_pod_is_known_by_its_ordinal_labels_and_port() -> None:
    view = pod_view(raw(podIP="10.0.0.1"), "default", NOW)
    assert view is not None
    assert (view.ordinal, view.ip, view.internal_port) == (3, "10.0.0.1", 9001)
    assert view.holds == {"chat"}
    assert view.age_seconds == 60
    assert not view.ready


@pytest.mark.parametrize(
    "name", ["ullage-default-x", "ullage-default", "other-0", "ullage-default-1-0"]
)
def test_a_pod_that_only_bears_the_label_is_none_of_the_pools(name: str) -> None:
    assert pod_view(raw(name), "default", NOW) is None


@pytest.mark.parametrize(
    ("state", "restarts", "more", "trouble"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, 2, {}, "CrashLoopBackOff"),
        ({"running": {}}, 3, {}, "CrashLoopBackOff"),
        ({"running": {}}, 1, {}, None),
        ({"waiting": {"reason": "ErrImagePull"}}, 0, {}, "ImagePullBackOff"),
        ({"waiting": {"reason": "ImagePullBackOff"}}, 0, {}, "ImagePullBackOff"),
        ({"waiting": {"reason": "ContainerCreating"}}, 0, {}, "ContainerCreating"),
    ],
)
def test_why_a_pod_does_not_run_is_one_word_that_does_not_waver(
    state: dict[str, Any], restarts: int, more: dict[str, Any], trouble: str | None
) -> None:
    view = pod_view(raw(containerStatuses=[container(state, restarts, **more)]), "default", NOW)
    assert view is not None
    assert view.trouble == trouble


def test_a_crash_is_told_with_its_last_words() -> None:
    last = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
    view = pod_view(raw(containerStatuses=[container(waiting, 7, lastState=last)]), "default", NOW)
    assert view is not None
    assert view.trouble_message == "last ended with OOMKilled, exit code 137"


def test_a_pod_that_fits_nowhere_says_so() -> None:
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    view = pod_view(raw(conditions=[unscheduled]), "default", NOW)
    assert view is not None
    assert view.trouble == "Unschedulable"
    assert "nvidia.com/gpu" in view.trouble_message


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "Other"}', None])
def test_a_document_that_somebody_broke_counts_as_not_there(text: str | None) -> None:
    metadata = {"name": "ullage-default", "uid": "u", "resourceVersion": "7"}
    data = {"desired.json": text, "profile.json": text} if text is not None else None
    record = pool_record({"metadata": metadata, "data": data})
    assert record.desired is None
    assert record.profile is None
    assert record.child.resource_version == "7"
