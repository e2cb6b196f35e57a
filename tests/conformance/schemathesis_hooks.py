"""Loaded by schemathesis: makes generated requests reach the models.

A schema cannot say that two fields exclude each other, that a text must be a grammar, or which
models there are. Valid requests are brought into line with that; invalid ones stay what they are,
but for the model and for how much they ask for.
"""

from collections.abc import Callable
from typing import Any

import schemathesis

RANKINGS = ("/v1/rerank", "/v2/rerank", "/rerank", "/score")
FLAT = ("/search", "/hybrid_search", "/upsert", "/v1/sessions")
MODELS = {
    "/v1/completions": "prose",
    "/v1/embeddings": "vectors",
    **dict.fromkeys(RANKINGS, "vectors"),
}
DIMENSIONS = 256
LONGEST = 4
SEVERAL = 2
VOCABULARY = 2048
FORMATS = (
    "response_format",
    "grammar",
    "guided_grammar",
    "json_schema",
    "guided_json",
    "guided_choice",
    "structured_outputs",
)
JSON_SCHEMA = {"enum": ["yes", "no"]}
PEOPLE = ("system", "developer", "user")
GRAMMAR = 'root ::= "yes" | "no"'


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and 1 <= len(body["model"]) <= 256:
        body["model"] = MODELS.get(case.path, "guide")
    for name, value in body.items():
        if type(value) is float and value.is_integer():
            body[name] = int(value)  # to JSON Schema 8.0 is an integer; here it would be none
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if is_between(body.get(name), LONGEST + 1, (1 << 31) - 1):
            body[name] = LONGEST
    if is_between(body.get("n"), SEVERAL + 1, 128):
        body["n"] = SEVERAL
    if case.meta is None or case.meta.generation.mode.is_positive:
        for tidy in TIDYING.get(case.path, ()):
            tidy(body)


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Let no long poll wait until the client gives up."""
    if query and isinstance(query.get("timeoutSeconds"), int | float):
        query["timeoutSeconds"] = min(query["timeoutSeconds"], 0.05)
    return query


def is_between(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def one_format(body: dict[str, Any]) -> None:
    asked = [name for name in FORMATS if body.get(name) is not None]
    for name in asked[1:]:
        del body[name]
    for name in ("grammar", "guided_grammar"):
        if body.get(name):
            body[name] = GRAMMAR
    for name in ("json_schema", "guided_json"):
        if body.get(name) is not None:
            body[name] = JSON_SCHEMA
    if body.get("response_format") is not None:
        body["response_format"] = {"type": "json_object"}
    if body.get("structured_outputs") is not None:
        body["structured_outputs"] = {"json_object": True}


def no_option_alone(body: dict[str, Any]) -> None:
    if not body.get("stream"):
        body.pop("stream_options", None)
    if not body.get("logprobs"):
        body.pop("top_logprobs", None)
    if body.get("repetition_penalty") is not None:
        body.pop("repeat_penalty", None)
    if body.get("best_of") is not None:
        body["best_of"] = body.get("n") or 1
    # The model is not trained to fill gaps, and the least would have to be below the most.
    for name in ("suffix", "min_tokens"):
        body.pop(name, None)


def for_this_pod(body: dict[str, Any]) -> None:
    body["namespace"] = body["pool"] = "default"
    body.get("settings", {}).pop("levels", None)  # which must rise


def short_lists(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if isinstance(value, list):
            body[name] = value[:SEVERAL]


def known_tokens(body: dict[str, Any]) -> None:
    for name in ("prompt", "stop_token_ids"):
        if isinstance(body.get(name), list):
            body[name] = within_vocabulary(body[name])
    if body.get("logit_bias"):
        body["logit_bias"] = {str(int(t) % VOCABULARY): b for t, b in body["logit_bias"].items()}


def within_vocabulary(prompt: Any) -> Any:
    if isinstance(prompt, list):
        return [within_vocabulary(part) for part in prompt[:SEVERAL]]
    # To JSON, 8.0 is an integer; here it would be one that is no token.
    return int(prompt) % VOCABULARY if isinstance(prompt, int | float) else prompt


def consistent_turns(body: dict[str, Any]) -> None:
    """Keep turns of people, and options that the model's template reads; the rest must fit both."""
    turns = [turn for turn in body["messages"] if turn.get("role") in PEOPLE and "content" in turn]
    body["messages"] = [
        {"role": turn["role"], "content": turn["content"] or "Hello"} for turn in turns
    ] or [{"role": "user", "content": "Hello"}]
    for name in ("tools", "tool_choice", "chat_template_kwargs", "reasoning_effort"):
        body.pop(name, None)


def plain_conversation(body: dict[str, Any]) -> None:
    if isinstance(body.get("input"), list):
        messages = [i for i in body["input"] if i.get("type") in {None, "message"}]
        body["input"] = messages[:SEVERAL] or "Hello"
    # What was answered before is another test's matter, and so is what tools may be called.
    for name in ("previous_response_id", "tools", "tool_choice", "text", "reasoning"):
        body.pop(name, None)


def one_meaning(body: dict[str, Any]) -> None:
    """Embed known tokens and no empty text, with one role, and ask for dense vectors."""
    body["input"] = within_vocabulary(body["input"])
    for name in ("task", "embedding_type", "return_sparse", "return_colbert_vecs"):
        body.pop(name, None)
    if is_between(body.get("dimensions"), DIMENSIONS + 1, 1 << 31):
        body["dimensions"] = DIMENSIONS


def ranked_by_embeddings(body: dict[str, Any]) -> None:
    """Say which model ranks, as none has that task, and pair the texts that are scored."""
    body["model"] = "vectors"
    body.pop("max_tokens_per_doc", None)
    if isinstance(body.get("text_1"), list):
        body["text_1"] = body["text_1"][0]
    for name in ("documents", "texts", "text_1", "text_2"):
        if name in body:
            body[name] = not_empty(body[name])


def not_empty(text: Any) -> Any:
    """Return texts that have tokens: an embedding of none means nothing."""
    if isinstance(text, list):
        return [not_empty(part) for part in text[:SEVERAL]]
    if isinstance(text, dict):
        return {**text, "text": not_empty(text["text"])}
    return text or "Hello"


def one_text(body: dict[str, Any]) -> None:
    for name in ("prompt", "content", "messages"):
        body.pop(name, None)
    body["prompt"] = "Hello"


def of_some_collection(body: dict[str, Any]) -> None:
    """Name a collection, of which there is none here, and one kind of search."""
    body["collection"] = "notes"
    body.pop("search_type", None)


def known_ids(body: dict[str, Any]) -> None:
    body["tokens"] = within_vocabulary(body["tokens"])


TIDYING: dict[str, tuple[Callable[[dict[str, Any]], None], ...]] = {
    "/v1/chat/completions": (
        one_format,
        no_option_alone,
        consistent_turns,
        short_lists,
        known_tokens,
    ),
    "/v1/completions": (one_format, no_option_alone, known_tokens),
    "/v1/responses": (plain_conversation,),
    "/v1/embeddings": (one_meaning,),
    **dict.fromkeys(RANKINGS, (ranked_by_embeddings,)),
    "/tokenize": (one_text,),
    "/detokenize": (known_ids,),
    **dict.fromkeys(FLAT, (of_some_collection,)),
    "/internal/v1/desired": (for_this_pod,),
}


@schemathesis.serializer(
    "application/jsonl",
    "application/x-ndjson",
    "application/pdf",
    "application/xhtml+xml",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
def as_it_is(context: Any, value: Any) -> bytes:
    """Send what is generated as the file that it stands for."""
    return value if isinstance(value, bytes) else str(value).encode()
