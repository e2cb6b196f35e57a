"""A suspended model gives its memory back and says so; resumed, it answers again."""

import httpx

from e2e.scenarios.team import Team


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
