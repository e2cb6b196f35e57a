"""More replicas are more pods of the pool, and any pod answers for every model."""

import httpx

from e2e.scenarios.team import MDEP, Team, model


def scale_to_two_pods(team: Team, replicas: int) -> None:
    """Ask for replicas of `guide` and wait until the two pods that the pool allows serve it."""
    team.kubectl("scale", MDEP, "guide", f"--replicas={replicas}")
    team.wait(
        "two pods serve the model",
        lambda: team.status("guide").get("readyReplicas") == 2,
        timeout=120,
        show=lambda: team.status("guide"),
    )


def test_a_scaled_model_is_held_by_two_pods_and_found_by_its_selector(ready: Team) -> None:
    scale_to_two_pods(ready, replicas=2)
    status = ready.status("guide")
    assert [p["residency"] for p in status["placements"]] == ["Resident", "Resident"]
    listed = ready.kubectl("get", "pods", "-l", status["selector"], "-o", "name").stdout
    assert len(listed.split()) == 2


def test_every_pod_answers_for_a_model_that_only_one_of_them_holds(ready: Team) -> None:
    ready.apply(model("other", "file:guide-v2.gguf"))
    scale_to_two_pods(ready, replicas=2)
    ready.wait_condition("other", "Ready", "True")
    assert len(ready.status("other")["placements"]) == 1
    body = {
        "model": "other",
        "messages": [{"role": "user", "content": "Which version are you?"}],
        "temperature": 0,
    }
    texts: set[str] = set()

    def is_forwarded() -> bool:
        # A new connection each time, so that the Service chooses among the pods anew.
        answers = [httpx.post(f"{url}/chat/completions", json=body, timeout=60) for _ in range(4)]
        assert [a.status_code for a in answers] == [200] * 4
        texts.update(a.json()["choices"][0]["message"]["content"] for a in answers)
        return any("forward" in pod_metrics(ready, pod) for pod in ready.pods())

    with ready.reach("other-model") as url:
        # The node learns of a pod that is ready a moment later, and chooses at random then.
        ready.wait("a pod without the model has been asked", is_forwarded)
    assert len(texts) == 1
    assert "guide v2" in texts.pop()


def pod_metrics(team: Team, pod: dict[str, object]) -> str:
    """Return the lines of a pod's metrics that speak of forwarded requests, if it has any."""
    read = (
        "import urllib.request as r;"
        "t = r.urlopen('http://127.0.0.1:8081/metrics', timeout=10).read().decode();"
        "print([l for l in t.splitlines() if 'forward' in l and l[0] != '#' and l[-3:] != '0.0'])"
    )
    name = str(pod["metadata"]["name"])  # type: ignore[index]
    return team.kubectl("exec", name, "--", "python3", "-c", read).stdout


def test_more_replicas_than_the_profile_allows_say_so_and_serve_what_they_can(
    ready: Team,
) -> None:
    scale_to_two_pods(ready, replicas=5)
    progressing = ready.condition("guide", "Progressing")
    assert "5" in progressing["message"]
    assert "2" in progressing["message"]
    assert ready.condition("guide", "Ready")["status"] == "True"
