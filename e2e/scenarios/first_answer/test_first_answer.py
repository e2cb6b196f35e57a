"""The first thing anybody does: apply a model, wait, ask."""

import json

import openai
from openai.types.chat import ChatCompletionUserMessageParam

from e2e.scenarios.team import MDEP, Team, model

QUESTION: ChatCompletionUserMessageParam = {"role": "user", "content": "What is Ullage?"}


def test_an_applied_model_answers_through_its_service(team: Team) -> None:
    team.apply(model("guide"))
    team.kubectl("wait", "--for=condition=Ready", f"{MDEP}/guide", "--timeout=120s", timeout=130)
    with (
        team.reach("guide-model") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        whole = client.chat.completions.create(model="guide", messages=[QUESTION], temperature=0)
        answer = whole.choices[0].message.content
        assert answer is not None
        assert "Ullage" in answer
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 5
        stream = client.chat.completions.create(
            model="guide",
            messages=[QUESTION],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert streamed == answer
        assert chunks[-1].usage == whole.usage
        assert [m.id for m in client.models.list()] == ["guide"]


def test_the_table_tells_where_the_model_is_and_what_it_takes(ready: Team) -> None:
    status = ready.status("guide")
    assert status["memory"]["residency"] == "Resident"
    assert status["memory"]["residentBytes"] > 1_000_000
    assert status["url"] == f"http://guide-model.{ready.namespace}.svc/v1"
    table = ready.kubectl("get", MDEP, "guide", "-o", "wide").stdout
    assert "<none>" not in table
    assert "True" in table
    assert "guide-v1.gguf" in table


def test_the_short_name_and_the_category_list_the_model(ready: Team) -> None:
    for name in ("mdep", "ullage"):
        assert "guide" in ready.kubectl("get", name).stdout


def test_the_deployment_is_accepted_with_every_condition_true(ready: Team) -> None:
    conditions = {c["type"]: c["status"] for c in ready.status("guide")["conditions"]}
    assert conditions["Accepted"] == "True"
    assert conditions["WeightsReady"] == "True"
    assert conditions["Ready"] == "True"


def test_a_second_model_joins_the_same_pods(ready: Team) -> None:
    before = {p["metadata"]["uid"] for p in ready.pods()}
    ready.apply(model("second", "file:guide-v2.gguf", aliases=["other"]))
    ready.wait_condition("second", "Ready", "True")
    assert {p["metadata"]["uid"] for p in ready.pods()} == before
    with (
        ready.reach("second-model") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        answers = {
            name: client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": "Which version are you?"}],
                temperature=0,
            )
            .choices[0]
            .message.content
            for name in ("guide", "second", "other")
        }
    assert answers["second"] == answers["other"] != answers["guide"]


def test_scaling_to_zero_and_back_is_kubectl_scale(ready: Team) -> None:
    ready.kubectl("scale", MDEP, "guide", "--replicas=0")
    ready.wait_condition("guide", "Progressing", "False", "Suspended")
    ready.kubectl("scale", MDEP, "guide", "--replicas=1")
    ready.wait_condition("guide", "Ready", "True", "Serving")


def test_explain_documents_the_fields(team: Team) -> None:
    text = team.kubectl("explain", "mdep.spec").stdout
    assert "Pool of runtime pods that serves the model" in text


def test_a_bad_spec_is_refused_before_it_is_stored(team: Team) -> None:
    bad = json.dumps(model("guide", "ftp://example.com/a.gguf"))
    answer = team.kubectl("apply", "--dry-run=server", "-f", "-", input=bad, check=False)
    assert answer.returncode != 0
    assert "model.uri must begin with file:" in answer.stderr
