"""OpenAI's own client: its helpers, its exceptions, its timeouts and retries.

What it gets from single requests, `tests/contract/test_openai_client.py` checks.
"""

from collections.abc import Iterator

import openai
import pytest
from openai.lib.streaming.chat import ChunkEvent, ContentDeltaEvent, ContentDoneEvent
from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam
from pydantic import BaseModel

from tests.conformance.conftest import ALIAS, CHAT, LIMITED, OBLIGING, PROSE
from tests.support.obliging_model import TEXT
from tests.support.pods import KEY, NARROW_KEY, Pod

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]

PICTURE: list[ChatCompletionContentPartParam] = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
]


@pytest.fixture
def client(pod: Pod) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=pod.api, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


class Joke(BaseModel):
    setup: str
    punchline: str


def test_an_answer_makes_sense(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=ALIAS, messages=HELLO, temperature=0)
    assert "Ullage" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer._request_id


def test_an_answer_says_the_tier_it_was_served_with(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=CHAT, messages=HELLO, temperature=0, service_tier="flex"
    ) as stream:
        assert stream.get_final_completion().service_tier == "flex"
    response = client.responses.create(model=CHAT, input="Hello", service_tier="flex")
    assert response.service_tier == "flex"


def test_the_streaming_helper_gathers_the_same_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=HELLO, temperature=0)
    with client.chat.completions.stream(model=CHAT, messages=HELLO, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    deltas = [event.delta for event in events if isinstance(event, ContentDeltaEvent)]
    assert "".join(deltas) == whole.choices[0].message.content
    assert [e.content for e in events if isinstance(e, ContentDoneEvent)] == ["".join(deltas)]
    assert any(isinstance(event, ChunkEvent) for event in events)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own
def test_structured_answers_are_parsed_into_classes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=OBLIGING, messages=HELLO, response_format=Joke)
    assert answer.choices[0].message.parsed == Joke(setup=TEXT, punchline=TEXT)
    response = client.responses.parse(model=OBLIGING, input="Hello", text_format=Joke)
    assert response.output_parsed == Joke(setup=TEXT, punchline=TEXT)


def test_responses_follow_each_other(client: openai.OpenAI) -> None:
    first = client.responses.create(model=CHAT, input="Hello", temperature=0)
    assert "Ullage" in first.output_text
    with client.responses.stream(
        model=CHAT, input="What is Ullage?", previous_response_id=first.id, temperature=0
    ) as stream:
        kinds = [event.type for event in stream]
        second = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert second.output_text
    kept = client.responses.retrieve(second.id)
    assert kept.previous_response_id == first.id
    assert client.responses.input_items.list(second.id).data
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


async def test_the_asynchronous_client_answers_several_at_once(pod: Pod) -> None:
    import asyncio

    async with openai.AsyncOpenAI(base_url=pod.api, api_key=KEY, timeout=60) as client:
        answers = await asyncio.gather(
            *(
                client.completions.create(model=PROSE, prompt="A pool", temperature=0, n=2)
                for _ in range(4)
            )
        )
        assert len({choice.text for answer in answers for choice in answer.choices}) <= 2
        stream = await client.chat.completions.create(model=CHAT, messages=HELLO, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(text)


def test_log_probabilities_come_as_the_client_knows_them(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=HELLO, temperature=0, logprobs=True, top_logprobs=2, max_tokens=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(t.token for t in logprobs.content) == answer.choices[0].message.content
    assert all(len(t.top_logprobs) == 2 for t in logprobs.content)


def test_each_refusal_is_the_exception_that_the_client_has_for_it(
    client: openai.OpenAI, pod: Pod
) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("nobody")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Why? " * 2000}]
        )
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as image:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": PICTURE}])
    assert image.value.param == "messages[0].content"
    with pytest.raises(openai.AuthenticationError) as refused:
        client.with_options(api_key="wrong").models.list()
    assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=pod.api, api_key=NARROW_KEY, max_retries=0) as narrow:
        assert [m.id for m in narrow.models.list()] == [PROSE]
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            narrow.chat.completions.create(model=CHAT, messages=HELLO)
    assert forbidden.value.code == "permission_denied"


def test_a_used_up_budget_is_a_rate_limit_with_its_time(client: openai.OpenAI) -> None:
    client.chat.completions.create(model=LIMITED, messages=HELLO, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model=LIMITED, messages=HELLO, max_tokens=1)
    assert limited.value.code == "rate_limit_exceeded"
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60


def test_a_client_without_patience_has_its_own_timeout(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        # An answer that takes seconds.
        client.with_options(timeout=0.05, max_retries=0).chat.completions.create(
            model=CHAT, messages=HELLO, max_tokens=800, extra_body={"ignore_eos": True}
        )
    # The pod goes on for others.
    assert client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=1).choices


def test_the_client_tries_again_when_a_pod_cannot_be_reached(pod: Pod) -> None:
    import httpx2

    attempts: list[str] = []

    class Flaky(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            attempts.append(request.headers["x-stainless-retry-count"])
            if len(attempts) == 1:
                raise httpx2.ConnectError("nobody there yet", request=request)
            return super().handle_request(request)

    with (
        httpx2.Client(transport=Flaky()) as transport,
        openai.OpenAI(base_url=pod.api, api_key=KEY, http_client=transport) as client,
    ):
        assert client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=1).choices
    assert attempts == ["0", "1"]
