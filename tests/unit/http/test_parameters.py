"""What a parameter means: honoured, ignored, or refused; never misunderstood."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ullage_api.kinds.sampling import SamplingDefaults
from ullage_runtime.core.domain import GenerateRequest, Sampling
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.errors import from_validation
from ullage_runtime.http.openai.parameters import (
    NEUTRAL,
    chat_sampling,
    choices_of,
    completion_sampling,
    refuse_unsupported,
)
from ullage_runtime.http.openai.schema import ChatRequest, CompletionRequest

HELLO = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({**HELLO, **fields})


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": "x", **fields})


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NEUTRAL.items() for value in values]
)
def test_a_neutral_value_of_an_unsupported_parameter_changes_nothing(
    name: str, value: object
) -> None:
    ask = chat if name not in ChatRequest.model_fields else completion
    refuse_unsupported(ask(**{name: value}))


@pytest.mark.parametrize("name", NEUTRAL)
def test_any_other_value_of_an_unsupported_parameter_is_refused(name: str) -> None:
    ask = chat if name not in ChatRequest.model_fields else completion
    with pytest.raises(InvalidRequest) as refused:
        refuse_unsupported(ask(**{name: ["something", {"else": 1}]}))
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("echo", 1),
        ("best_of", True),
        ("use_beam_search", 0),
    ],
)
def test_zero_is_not_false_and_one_is_not_true(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest):
        refuse_unsupported(chat(**{name: value}))


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_a_number_is_neutral_however_it_is_written(value: float) -> None:
    refuse_unsupported(completion(top_logprobs=value))


def test_parameters_nobody_knows_are_ignored() -> None:
    refuse_unsupported(chat(store=True, metadata={"a": "b"}, whatever=1))


@pytest.mark.parametrize(
    ("asked", "served", "is_lesser"),
    [
        ({}, "default", False),
        ({"service_tier": None}, "default", False),
        ({"service_tier": "auto"}, "default", False),
        ({"service_tier": "default"}, "default", False),
        ({"service_tier": "flex"}, "flex", True),
        ({"service_tier": "scale"}, "default", False),
        ({"service_tier": "priority"}, "default", False),
    ],
)
def test_a_tier_puts_a_request_behind_others_or_leaves_it_where_it_is(
    asked: dict[str, Any], served: str, *, is_lesser: bool
) -> None:
    for request in (chat(**asked), completion(**asked)):
        assert request.served_tier == served
        assert (request.priority < 0) is is_lesser
        assert request.priority <= 0, "nobody goes before the others for the asking"


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_seed_becomes_one_that_llama_cpp_does_not_take_for_random(seed: int) -> None:
    sampling = chat_sampling(chat(seed=seed), None)
    assert sampling.seed is not None
    assert 0 <= sampling.seed < 0xFFFFFFFF


def test_a_model_says_how_tokens_are_chosen_where_the_request_does_not() -> None:
    defaults = SamplingDefaults(temperature="0.25", top_p="0.5", max_tokens=9)
    silent = chat_sampling(chat(), defaults)
    assert (silent.temperature, silent.top_p, silent.max_tokens) == (0.25, 0.5, 9)
    said = chat_sampling(chat(temperature=0, top_p=1, max_tokens=3), defaults)
    assert (said.temperature, said.top_p, said.max_tokens) == (0, 1, 3)


def test_a_model_that_says_one_thing_leaves_the_others_to_us() -> None:
    assert chat_sampling(chat(), SamplingDefaults(temperature="0")) == Sampling(temperature=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SAMPLING: tuple[tuple[Any, Any], ...] = (
    (ChatRequest, chat_sampling),
    (CompletionRequest, completion_sampling),
)
known = st.sampled_from([*ChatRequest.model_fields, *CompletionRequest.model_fields])


@given(st.dictionaries(known, json_values))
def test_whatever_json_says_a_request_is_valid_or_is_refused(fields: dict[str, Any]) -> None:
    for kind, sampling_of in SAMPLING:
        try:
            request = kind.model_validate({**HELLO, "prompt": "x", **fields})
            sampling = sampling_of(request, None)
        except (ValidationError, InvalidRequest):
            continue
        assert 0 <= sampling.temperature <= 2
        assert 0 < sampling.top_p <= 1
        assert all(isinstance(stop, str) and stop for stop in sampling.stop)
        assert None in (sampling.grammar, sampling.json_schema)
        assert all(abs(bias) <= 100 for _, bias in sampling.logit_bias)


RANGES = [
    ("temperature", 2.01, "from 0 to 2"),
    ("temperature", "1", "from 0 to 2"),
    ("temperature", float("nan"), "from 0 to 2"),
    ("top_p", 0, "above 0 and up to 1"),
    ("top_k", -2, "from 0 to 2147483647"),
    ("min_p", 1.5, "from 0 to 1"),
    ("typical_p", 0.0, "above 0 and up to 1"),
    ("repetition_penalty", 0, "from 0.01 to 10"),
    ("repeat_penalty", -1, "from 0.01 to 10"),
    ("presence_penalty", 2.5, "from -2 to 2"),
    ("frequency_penalty", -3, "from -2 to 2"),
    ("logit_bias", {"5": 101}, "from -100 to 100"),
    ("logit_bias", {"5": True}, "from -100 to 100"),
    ("logit_bias", {"five": 1}, "token ids"),
    ("logit_bias", {"-5": 1}, "token ids"),
    ("logit_bias", {"99999999999": 1}, "token ids"),
    ("logit_bias", dict.fromkeys(map(str, range(1025)), 1), "at most 1024"),
    ("logit_bias", [], "an object"),
    ("seed", 1 << 63, "from -2**63"),
    ("max_tokens", -1, "from"),
    ("max_completion_tokens", 0, "from 1"),
    ("n", 0, "from 1 to 128"),
    ("n", 10**9, "from 1 to 128"),
    ("stop", ["x"] * 17, "at most 16"),
    ("stop", [""], "1 to 256"),
    ("stop", 3, "list of strings"),
    ("stop_token_ids", [-1], "from 0 to 2147483647"),
    ("stop_token_ids", [True], "from 0 to 2147483647"),
    ("stop_token_ids", [1] * 129, "at most 128"),
    ("stop_token_ids", 7, "list of token ids"),
    ("min_tokens", -1, "from 0"),
    ("stream_options", {"include_usage": True}, "stream: true"),
]


@pytest.mark.parametrize(("name", "value", "said"), RANGES, ids=str)
def test_a_value_out_of_range_is_refused_with_the_range(
    name: str, value: object, said: str
) -> None:
    for kind in (ChatRequest, CompletionRequest):
        with pytest.raises(ValidationError) as refused:
            kind.model_validate({**HELLO, "prompt": "x", name: value})
        error = from_validation([{**e, "loc": ("body", *e["loc"])} for e in refused.value.errors()])
        assert error.param == name
        assert name in error.message
        assert said in error.message


@pytest.mark.parametrize("value", [-1, 21, True, 2.5])
def test_so_many_likely_tokens_are_told_and_no_more(value: object) -> None:
    with pytest.raises(ValidationError, match="from 0 to 20"):
        chat(logprobs=True, top_logprobs=value)
    with pytest.raises(ValidationError, match="from 0 to 20"):
        completion(logprobs=value)


def test_likely_tokens_of_a_chat_need_its_log_probabilities() -> None:
    with pytest.raises(ValidationError, match="logprobs: true"):
        chat(top_logprobs=3)
    assert chat_sampling(chat(logprobs=False, top_logprobs=0), None).logprobs is None
    assert chat_sampling(chat(logprobs=True), None).logprobs == 0
    assert chat_sampling(chat(logprobs=True, top_logprobs=3), None).logprobs == 3
    assert completion_sampling(completion(logprobs=0), None).logprobs == 0
    assert completion_sampling(completion(), None).logprobs is None


def test_everything_that_was_said_reaches_the_engine() -> None:
    said = {
        "min_p": 0.1,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.5,
        "frequency_penalty": 2,
        "min_tokens": 3,
    }
    sampling = chat_sampling(chat(**said, logit_bias={"7": -100, "8": 0.5}, top_k=-1), None)
    assert {name: getattr(sampling, name) for name in said} == said
    assert sampling.logit_bias == ((7, -100.0), (8, 0.5))
    assert sampling.top_k == 0
    ended = chat_sampling(chat(stop_token_ids=[1, 2], ignore_eos=True), None)
    assert (ended.stop_tokens, ended.ignores_end) == ((1, 2), True)
    with pytest.raises(ValidationError, match="4 tokens"):
        chat(max_tokens=4, min_tokens=5)
    assert chat_sampling(chat(repeat_penalty=1.2), None).repetition_penalty == 1.2
    with pytest.raises(ValidationError, match="send one"):
        chat(repeat_penalty=1.2, repetition_penalty=1.3)


def test_the_newer_name_of_the_limit_wins() -> None:
    sampling = chat_sampling(chat(max_tokens=5, max_completion_tokens=7), None)
    assert sampling.max_tokens == 7
    assert completion_sampling(completion(max_tokens=0), None).max_tokens == 0


def test_choices_of_one_seed_differ_and_the_first_is_that_of_a_lone_request() -> None:
    asked = GenerateRequest(request_id="r", prompt="x", sampling=Sampling(seed=0xFFFFFFFE))
    choices = choices_of(asked, 3)
    assert [choice.sampling.seed for choice in choices] == [0xFFFFFFFE, 0, 1]
    assert len({choice.request_id for choice in choices}) == 3
    unseeded = choices_of(GenerateRequest(request_id="r", prompt="x"), 2)
    assert [choice.sampling.seed for choice in unseeded] == [None, None]


def test_prompts_times_choices_are_bounded() -> None:
    completion_sampling(completion(prompt=["x"] * 16, n=8), None)
    with pytest.raises(InvalidRequest, match="136 choices") as refused:
        completion_sampling(completion(prompt=["x"] * 17, n=8), None)
    assert refused.value.param == "n"


@pytest.mark.parametrize(("n", "best_of"), [(None, 1), (3, 3), (3, None)])
def test_the_best_of_as_many_is_all_of_them(n: int | None, best_of: int | None) -> None:
    completion_sampling(completion(n=n, best_of=best_of), None)


@pytest.mark.parametrize(("n", "best_of"), [(None, 2), (3, 1), (3, 5)])
def test_the_best_of_more_is_refused(n: int | None, best_of: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion_sampling(completion(n=n, best_of=best_of), None)
    assert refused.value.param == "best_of"
