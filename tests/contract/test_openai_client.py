"""OpenAI's own Python client against a real process with real (if senseless) weights."""

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.support.gguf_models import FIRST_BYTE, Shape, write_model
from tests.support.processes import (
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
    wait_until_answers,
)
from ullage_runtime.http.auth import entry_line

KEY = "ullage-test-key"


@dataclass(frozen=True)
class Server:
    url: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("up")
    write_model(folder / "tiny.gguf")
    write_model(folder / "plain.gguf", Shape(template=None))
    (folder / "models.yaml").write_text(
        manifest("tiny", "file:tiny.gguf", aliases=["org/tiny:1"])
        + "---\n"
        + manifest("plain", "file:plain.gguf", task="Completion")
    )
    keys = folder / "keys"
    keys.mkdir()
    (keys / "tests").write_text(entry_line(KEY))
    port = free_port()
    env = environment(folder, api_keys_dir=keys)
    command = ("up", "models.yaml", "--port", str(port))
    with running_process(ULLAGE, env, *command, cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        yield Server(f"http://127.0.0.1:{port}/v1")


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert {m.id for m in client.models.list()} == {"tiny", "plain"}
    assert client.models.retrieve("org/tiny:1").id == "tiny"


def test_a_chat_is_completed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=8, temperature=0
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in {"length", "stop"}
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint


def test_a_request_that_may_wait_is_told_that_it_was_served_so(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=4,
        service_tier="flex",
    )
    assert chat.service_tier == "flex"
    with client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=4,
        service_tier="priority",
        stream=True,
    ) as stream:
        assert {chunk.service_tier for chunk in stream} == {"default"}
    response = client.responses.create(
        model="tiny", input="hello", max_output_tokens=4, service_tier="flex"
    )
    assert response.service_tier == "flex"


def test_a_chat_streams_the_same_as_it_is_completed(client: openai.OpenAI) -> None:
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 12,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    first, *middle, last = chunks
    assert first.choices[0].delta.role == "assistant"
    assert last.choices == []
    assert last.usage == whole.usage
    text = "".join(c.choices[0].delta.content or "" for c in middle)
    assert text == whole.choices[0].message.content
    assert middle[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(c.choices[0].finish_reason is None for c in middle[:-1])


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        done = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=16,
            temperature=1.5,
            seed=seed,
        )
        return done.choices[0].message.content

    assert answer(-5) == answer(-5)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_a_prompt_is_continued_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="plain", prompt="abc", max_tokens=6, temperature=0)
    parts = client.completions.create(
        model="plain", prompt="abc", max_tokens=6, temperature=0, stream=True
    )
    assert whole.object == "text_completion"
    assert "".join(p.choices[0].text for p in parts) == whole.choices[0].text


def test_a_stream_that_is_closed_early_leaves_the_model_free(client: openai.OpenAI) -> None:
    for _ in range(3):
        with client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], stream=True
        ) as stream:
            next(iter(stream))
    answer = client.with_options(timeout=20).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=2
    )
    assert answer.usage is not None


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI, server: Server) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=messages)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=messages, n=1000)  # type: ignore[arg-type]
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x" * 5000}]
        )
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="v1/completions"):
        client.chat.completions.create(model="plain", messages=messages)  # type: ignore[arg-type]
    with (
        openai.OpenAI(base_url=server.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"


def test_the_answer_ends_before_a_stop_sequence(client: openai.OpenAI) -> None:
    asked = {"model": "plain", "prompt": "abc", "max_tokens": 24, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text  # type: ignore[call-overload]
    stop = text[len(text) // 2 :][:3]
    cut = client.completions.create(**asked, stop=[stop])  # type: ignore[call-overload]
    assert cut.choices[0].text == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_one_seed_gives_choices_that_differ_and_does_so_again(client: openai.OpenAI) -> None:
    def asked(**more: Any) -> Any:
        return client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=12,
            temperature=1.5,
            seed=11,
            **more,
        )

    alone = asked()
    whole = asked(n=3)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts[0] == alone.choices[0].message.content
    assert whole.usage.prompt_tokens == alone.usage.prompt_tokens, "a prompt counts once"
    assert whole.usage.completion_tokens > alone.usage.completion_tokens

    *chunks, last = asked(n=3, stream=True, stream_options={"include_usage": True})
    streamed = ["", "", ""]
    ended = []
    for chunk in chunks:
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        ended += [choice.index] if choice.finish_reason else []
    assert streamed == texts
    assert sorted(ended) == [0, 1, 2]
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_choices_of_several_prompts_stand_prompt_by_prompt(client: openai.OpenAI) -> None:
    asked = {"model": "plain", "max_tokens": 6, "temperature": 0}
    done = client.completions.create(**asked, prompt=["abc", "xyz"], n=2)  # type: ignore[call-overload]
    texts = [choice.text for choice in done.choices]
    alone = [
        client.completions.create(**asked, prompt=prompt).choices[0].text  # type: ignore[call-overload]
        for prompt in ("abc", "xyz")
    ]
    assert texts == [alone[0], alone[0], alone[1], alone[1]]


def test_a_chats_log_probabilities_are_told_whole_and_streamed(client: openai.OpenAI) -> None:
    def asked(**more: Any) -> Any:
        return client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            temperature=0,
            logprobs=True,
            top_logprobs=3,
            **more,
        )

    whole = asked()
    (choice,) = whole.choices
    told = choice.logprobs.content
    assert len(told) in {whole.usage.completion_tokens, whole.usage.completion_tokens - 1}
    for each in told:
        assert bytes(each.bytes).decode(errors="replace") == each.token
        assert len(each.top_logprobs) == 3
        assert each.logprob == each.top_logprobs[0].logprob <= 0, "greedy takes the likeliest"
    made = b"".join(bytes(each.bytes) for each in told).decode(errors="replace")
    assert made == choice.message.content
    streamed = [
        each
        for chunk in asked(stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for each in choice.logprobs.content
    ]
    assert streamed == told


def test_a_completions_log_probabilities_say_where_each_token_is(client: openai.OpenAI) -> None:
    def asked(**more: Any) -> Any:
        return client.completions.create(
            model="plain", prompt="abc", max_tokens=8, temperature=0, logprobs=2, **more
        )

    (choice,) = asked().choices
    told = choice.logprobs
    for token, logprob, top, offset in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset, strict=True
    ):
        assert top[token] == logprob
        assert len(top) in {1, 2, 3}
        assert choice.text[offset : offset + len(token)] == token or "\ufffd" in token
    parts = [part.choices[0].logprobs for part in asked(stream=True)]
    assert [at for part in parts if part for at in part.text_offset] == told.text_offset
    assert [token for part in parts if part for token in part.tokens] == told.tokens


def test_an_echo_tells_how_likely_the_prompt_was(client: openai.OpenAI) -> None:
    asked = {"model": "plain", "prompt": "abcabc", "max_tokens": 2, "temperature": 0}
    done = client.completions.create(**asked, echo=True, logprobs=1)  # type: ignore[call-overload]
    (choice,) = done.choices
    told = choice.logprobs
    assert told.tokens[:6] == list("abcabc")
    assert told.text_offset[:6] == list(range(6))
    assert all(value < 0 for value in told.token_logprobs)
    parts = list(client.completions.create(**asked, echo=True, logprobs=1, stream=True))  # type: ignore[call-overload]
    streamed = [p.choices[0].logprobs for p in parts if p.choices[0].logprobs]
    assert [token for each in streamed for token in each.tokens] == told.tokens
    ids = [FIRST_BYTE + ord(character) for character in "ab"]
    by_ids = {**asked, "prompt": ids, "max_tokens": 0}
    (first,) = client.completions.create(**by_ids, echo=True, logprobs=0).choices  # type: ignore[call-overload]
    assert first.text == "ab"
    assert first.logprobs.tokens == ["a", "b"]
    assert first.logprobs.token_logprobs[0] is None
    assert first.logprobs.top_logprobs[0] is None
    assert first.logprobs.token_logprobs[1] < 0


def test_an_echo_begins_with_the_prompt_whichever_way_it_was_sent(client: openai.OpenAI) -> None:
    asked = {"model": "plain", "max_tokens": 4, "temperature": 0}
    plain = client.completions.create(**asked, prompt="abc")  # type: ignore[call-overload]
    echoed = client.completions.create(**asked, prompt="abc", echo=True)  # type: ignore[call-overload]
    assert echoed.choices[0].text == "abc" + plain.choices[0].text
    parts = client.completions.create(**asked, prompt="abc", echo=True, stream=True)  # type: ignore[call-overload]
    assert "".join(part.choices[0].text for part in parts) == echoed.choices[0].text
    ids = [FIRST_BYTE + ord(character) for character in "abc"]
    by_ids = client.completions.create(**{**asked, "max_tokens": 0}, prompt=ids, echo=True)  # type: ignore[call-overload]
    assert by_ids.choices[0].text == "abc"
    assert by_ids.choices[0].finish_reason == "length"


def test_a_suffix_is_refused_by_a_model_that_fills_no_gaps(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="filling in the middle") as refused:
        client.completions.create(model="plain", prompt="a", suffix="b")
    assert refused.value.param == "suffix"


def test_the_openapi_document_names_every_path(server: Server) -> None:
    import httpx

    headers = {"Authorization": f"Bearer {KEY}"}
    paths = httpx.get(
        server.url.removesuffix("/v1") + "/openapi.json", headers=headers, trust_env=False
    ).json()["paths"]
    assert {"/v1/models", "/v1/chat/completions", "/v1/completions", "/livez"} <= set(paths)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
