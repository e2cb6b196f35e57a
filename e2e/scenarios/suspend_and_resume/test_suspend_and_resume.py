"""A suspended model gives its memory back and says so; resumed, it answers again."""

import json

import httpx

from e2e.scenarios.team import Team, model


def test_a_suspended_model_answers_503_and_comes_back(ready: Team) -> None:
    with ready.reach("guide-model") as url, httpx.Client(base_url=url, timeout=60) as client:
        body = {"model": "guide", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/chat/completions", json=body).status_code == 200

        ready.patch("guide", {"suspend": True})
        ready.wait(
            "the model's memory is given back",
            lambda: ready.status("guide")["memory"]["residency"] == "Disk",
            show=lambda: ready.status("guide"),
        )
        refused = client.post("/chat/completions", json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_suspended"
        assert ready.condition("guide", "Ready")["status"] != "False"

        ready.patch("guide", {"suspend": False})
        ready.wait_condition("guide", "Ready", "True", "Serving")
        assert client.post("/chat/completions", json=body).status_code == 200


def test_a_model_that_nobody_asks_for_waits_in_host_memory_and_comes_back_from_there(
    team: Team,
) -> None:
    team.apply(model("guide", residency={"policy": "OnDemand", "idleSeconds": 5}))
    team.wait_condition("guide", "Ready", "True")
    team.wait(
        "it leaves for the warm tier",
        lambda: team.status("guide")["memory"]["residency"] == "Warm",
        timeout=90,
        show=lambda: team.status("guide"),
    )
    assert team.condition("guide", "Ready")["status"] == "True"
    with team.reach("guide-model") as url, httpx.Client(base_url=url, timeout=60) as client:
        body = {"model": "guide", "messages": [{"role": "user", "content": "Hello"}]}

        def is_told() -> bool:
            # Asked for again and again, so that it is still there when status may be written.
            assert client.post("/chat/completions", json=body).status_code == 200
            return "promoteSeconds" in team.status("guide")["performance"]

        team.wait(
            "status tells how long the way back took",
            is_told,
            timeout=90,
            show=lambda: team.status("guide"),
        )
    taken = team.status("guide")["performance"]
    print("load and promotion, seconds:", json.dumps(taken))
    assert 0 < float(taken["promoteSeconds"]) < 60
    assert float(taken["loadSeconds"]) > 0
