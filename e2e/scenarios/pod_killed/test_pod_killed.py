"""A killed pod finds what to serve in its mounted document, operator or no operator."""

import httpx

from e2e.scenarios.platform import Platform
from e2e.scenarios.team import Team


def ask(url: str) -> bool:
    body = {"model": "guide", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    try:
        return httpx.post(f"{url}/chat/completions", json=body, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_pod_serves_again_without_the_operator(platform: Platform, ready: Team) -> None:
    platform.scale_operator(0)
    try:
        (old,) = ready.pods()
        name = old["metadata"]["name"]
        ready.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        ready.wait(
            "a new pod is there",
            lambda: any(p["metadata"]["uid"] != old["metadata"]["uid"] for p in ready.pods()),
        )
        with ready.reach("guide-model") as url:
            ready.wait("the model answers again", lambda: ask(url), timeout=90)
    finally:
        platform.scale_operator(1)
    ready.wait_condition("guide", "Ready", "True", "Serving")


def test_a_killed_engine_is_restarted_within_its_pod(ready: Team) -> None:
    (pod,) = ready.pods()
    name = pod["metadata"]["name"]
    with ready.reach("guide-model") as url:
        assert ask(url)
        find = (
            "import os,signal\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    line = open(f'/proc/{p}/cmdline').read()\n"
            "    if 'ullage_runtime.engines.worker' in line and int(p) != os.getpid():\n"
            "        os.kill(int(p), signal.SIGKILL); print('killed', p)\n"
        )
        killed = ready.kubectl("exec", name, "--", "python3", "-c", find).stdout
        assert "killed" in killed
        ready.wait("the model answers again", lambda: ask(url), timeout=60)
    (same,) = ready.pods()
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert same["status"]["containerStatuses"][0]["restartCount"] == 0
