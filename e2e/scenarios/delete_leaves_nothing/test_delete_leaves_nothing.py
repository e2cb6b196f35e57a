"""Whoever deletes the last model of a pool finds nothing of the pool left."""

from e2e.scenarios.team import MDEP, Team, model

KINDS = (
    "statefulsets,services,configmaps,secrets,serviceaccounts,pods,"
    "networkpolicies,poddisruptionbudgets,endpointslices"
)


def remains(team: Team) -> list[str]:
    listed = team.cluster.get_json(KINDS, "--namespace", team.namespace)["items"]
    return [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in listed
        # Kubernetes itself puts these two into every namespace.
        if item["metadata"]["name"] not in {"kube-root-ca.crt", "default"}
    ]


def test_the_pool_stays_until_its_last_model_is_deleted(ready: Team) -> None:
    ready.apply(model("second"))
    ready.wait_condition("second", "Ready", "True")

    ready.kubectl("delete", MDEP, "guide", "--timeout=60s")
    ready.wait(
        "the first model's Service is gone",
        lambda: not any("guide" in name for name in remains(ready)),
        show=lambda: remains(ready),
    )
    assert ready.condition("second", "Ready")["status"] == "True"
    assert [p["status"]["phase"] for p in ready.pods()] == ["Running"]

    ready.kubectl("delete", MDEP, "second", "--timeout=60s")
    ready.wait("nothing is left", lambda: not remains(ready), show=lambda: remains(ready))
