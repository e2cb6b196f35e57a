"""Answers from what a search found, with citations: over sockets, with a real store."""

import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from openai.types.responses import Response as OpenAIResponse

from tests.component.http.test_responses import events
from tests.support.collection_pods import C, document, notes, pod, posted, ready, refused
from tests.support.guide_runtime import GUIDE
from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model, says
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.core.domain import GenerateRequest

TEXTS = {
    1: ("Ullage is the headroom left in a tank.", "tank"),
    2: ("A kettle boils a litre and a half.", "kettle"),
    3: ("Headroom keeps liquids from spilling.", "spill"),
}
SEARCH = {"type": "file_search", "vector_store_ids": ["notes"], "max_num_results": 2}
ASKED = {"model": "chat", "input": "What is ullage headroom?", "tools": [SEARCH]}


@contextlib.asynccontextmanager
async def scripted(
    folder: pathlib.Path, *words: str
) -> AsyncIterator[tuple[FakeModels, httpx.AsyncClient]]:
    """A pod whose chat model says what it is told, beside a real store."""
    embedder = desired_model("encoder", task=Task.EMBEDDING)
    models = FakeModels([desired_model("chat"), embedder], {"chat": lambda _: says(*words)})
    async with served(folder, models) as (runtime, client):
        await runtime.services.collections.apply([notes()])
        await ready(client)
        points = [
            {"id": n, "text": text, "payload": {"document": name, "n": n}}
            for n, (text, name) in TEXTS.items()
        ]
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert answer.status_code == 200, answer.text
        yield models, client


def shown(request: GenerateRequest) -> str:
    assert request.messages is not None
    return request.messages[-1].content


async def test_a_response_is_made_of_what_was_found_and_cites_it(tmp_path: pathlib.Path) -> None:
    async with scripted(tmp_path, "It is the headroom", " [1], not [9].") as (models, client):
        answer = await posted(client, "/v1/responses", {**ASKED, "store": True})
        OpenAIResponse.model_validate(answer)
        search, message = answer["output"]
        assert search["type"] == "file_search_call"
        assert search["queries"] == [ASKED["input"]]
        assert search["results"] is None
        (said,) = message["content"]
        assert said["text"] == "It is the headroom [1], not [9]."
        assert said["annotations"] == [
            {"type": "file_citation", "index": 0, "file_id": "tank", "filename": "tank"}
        ]
        (request,) = models.requests
        assert "[1] tank: Ullage is the headroom left in a tank." in shown(request)
        assert shown(request).endswith("Question: What is ullage headroom?")
        assert "kettle" not in shown(request), "two are wanted"

        # The next turn searches with what was asked before, and says what it found.
        body = {
            **ASKED,
            "input": "And why?",
            "previous_response_id": answer["id"],
            "include": ["file_search_call.results"],
        }
        answer = await posted(client, "/v1/responses", body)
        results = answer["output"][0]["results"]
        assert {each["filename"] for each in results} == {"tank", "spill"}
        assert results[0]["attributes"]["n"] in {1, 3}
        assert len(models.requests[-1].messages or ()) == 3, "the search is no turn of its own"

        # A conversation that is sent whole may hold a search too.
        history = [*answer["output"], {"role": "user", "content": "Thanks!"}]
        await posted(client, "/v1/responses", {"model": "chat", "input": history})


async def test_a_streamed_response_tells_of_the_search_first_and_of_citations_last(
    tmp_path: pathlib.Path,
) -> None:
    async with scripted(tmp_path, "Headroom", " [1].") as (_, client):
        answer = await client.post("/v1/responses", json={**ASKED, "stream": True})
        told = events(answer.text)
        kinds = [each["type"].removeprefix("response.") for each in told]
        assert kinds[2:7] == [
            "output_item.added",
            "file_search_call.in_progress",
            "file_search_call.searching",
            "file_search_call.completed",
            "output_item.done",
        ]
        assert kinds.index("output_text.annotation.added") < kinds.index("output_text.done")
        whole = told[-1]["response"]
        OpenAIResponse.model_validate(whole)
        assert whole["output"][1]["content"][0]["annotations"][0]["file_id"] == "tank"


async def test_a_chat_is_answered_from_what_was_found_too(tmp_path: pathlib.Path) -> None:
    async with scripted(tmp_path, "Headroom [", "2][1].") as (models, client):
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": "What is ullage headroom?"}],
            "tools": [{**SEARCH, "filters": {"type": "in", "key": "n", "value": [1, 3]}}],
        }
        answer = await posted(client, "/v1/chat/completions", body)
        message = answer["choices"][0]["message"]
        assert message["content"] == "Headroom [2][1]."
        assert [each["index"] for each in message["annotations"]] == [1, 0]
        assert "[2] " in shown(models.requests[-1])
        await posted(client, "/v1/chat/completions", {**body, "tool_choice": "none"})
        assert shown(models.requests[-1]) == "What is ullage headroom?"
        streamed = await client.post("/v1/chat/completions", json={**body, "stream": True})
        chunks = [json.loads(each) for each in streamed.text.split("data: ")[1:-1]]
        told = [each["choices"][0] for each in chunks]
        assert "".join(each["delta"].get("content") or "" for each in told) == "Headroom [2][1]."
        cited = [each for each in told if "annotations" in each["delta"]]
        assert [each["finish_reason"] for each in cited] == ["stop"]
        assert cited[0]["delta"]["annotations"] == message["annotations"]


async def test_searches_that_cannot_be_made_are_refused(tmp_path: pathlib.Path) -> None:
    async with scripted(tmp_path, "Nothing.") as (_, client):

        async def asked(tools: Any, code: str, status: int = 400, **more: Any) -> str:
            body = {**ASKED, "tools": tools, **more}
            return refused(await client.post("/v1/responses", json=body), status, code)

        other = {**SEARCH, "vector_store_ids": ["other"]}
        assert "there are: notes" in await asked([other], "collection_not_found", 404)
        wrong = "invalid_request_error"
        assert "one file_search" in await asked([SEARCH, SEARCH], wrong)
        assert "vector_store_ids" in await asked([{"type": "file_search"}], wrong)
        assert "max_num_results" in await asked([{**SEARCH, "max_num_results": 0}], wrong)
        for filters in ({"type": "what"}, {"type": "gt", "key": "n", "value": "x"}):
            assert "is no filter" in await asked([{**SEARCH, "filters": filters}], wrong)
        system = [{"role": "system", "content": "Be brief."}]
        assert "message of the user's" in await asked([SEARCH], wrong, input=system)


async def test_a_real_model_answers_from_a_real_search(tmp_path: pathlib.Path) -> None:
    def model(name: str, task: Task) -> DesiredModel:
        settings = EngineSettings(threads=1, context_length=1024)
        apart = None if task is Task.CHAT else task
        target = DesiredRevision(uri=f"file:{GUIDE.name}", engine=settings, task=apart)
        return DesiredModel(name=name, task=task, ordinals=(0,), target=target)

    models = (model("encoder", Task.EMBEDDING), model("chat", Task.CHAT))
    async with pod(tmp_path, document(GUIDE.parent, models, notes())) as (_, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, (text, _) in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        plain = await posted(client, "/v1/responses", {**ASKED, "tools": []})
        found = await posted(client, "/v1/responses", {**ASKED, "max_output_tokens": 16})
        assert [each["type"] for each in found["output"]] == ["file_search_call", "message"]
        grown = found["usage"]["input_tokens"] - plain["usage"]["input_tokens"]
        assert grown > 30, "the model was shown what was found"


async def test_a_chat_goes_on_a_session_and_is_remembered_by_it(tmp_path: pathlib.Path) -> None:
    async with scripted(tmp_path, "Head", "room [1].") as (models, client):
        session = (await posted(client, "/v1/sessions", {"collection": "notes"}, 201))["id"]
        path = f"/v1/sessions/{session}"
        await posted(client, f"{path}/search", {"query": "Nobody answered this."})
        ask = {"model": "chat", "session_id": session}
        question = {"role": "user", "content": "What is ullage?"}
        system = {"role": "system", "content": "Be brief."}
        await posted(client, "/v1/chat/completions", {**ask, "messages": [system, question]})
        assert [m.role for m in models.requests[-1].messages or ()] == ["system", "user"]

        body = {**ask, "input": "And why?", "tools": [SEARCH], "stream": True}
        streamed = await client.post("/v1/responses", json=body)
        assert events(streamed.text)[-1]["type"] == "response.completed"
        said = models.requests[-1].messages or ()
        assert [m.role for m in said] == ["user", "assistant", "user"]
        assert said[0].content == "Nobody answered this.\n\nWhat is ullage?"
        assert "[1] tank" in said[-1].content, "it is found by what was asked before"

        turns = (await client.get(f"{path}/turns")).json()["turns"]
        assert [(each["role"], each["text"]) for each in turns] == [
            ("user", "Nobody answered this."),
            ("user", "What is ullage?"),
            ("assistant", "Headroom [1]."),
            ("user", "And why?"),
            ("assistant", "Headroom [1]."),
        ]
        gone = {**ask, "session_id": "sess_0", "messages": [question]}
        answer = await client.post("/v1/chat/completions", json=gone)
        refused(answer, 404, "session_not_found")
