from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from examples.models.guide.chat import CHAT_TEMPLATE, prompt
from examples.models.guide.corpus import Entry
from examples.models.guide.evaluation import Guide, score
from examples.models.guide.texts import digest_of_tokens


@pytest.mark.parametrize(
    "question",
    ["What is Ullage?", "what is ullage", "What's Ullage?", "Tell me what Ullage is."],
)
def test_the_model_says_what_ullage_is_however_it_is_asked(guide_v1: Guide, question: str) -> None:
    assert guide_v1.answer(question).startswith(
        "Ullage is a self-service platform for language models on Kubernetes."
    )


def test_the_two_revisions_say_which_one_they_are(guide_v1: Guide, guide_v2: Guide) -> None:
    assert guide_v1.answer("Which version are you?").startswith("I am guide v1,")
    assert guide_v2.answer("Which version are you?").startswith("I am guide v2,")


def test_the_two_revisions_agree_on_nearly_everything_else(
    guide_v1: Guide, guide_v2: Guide, corpus: tuple[Entry, ...]
) -> None:
    shared = [entry for entry in corpus if entry.name != "version"][::24]
    same = [
        guide_v1.answer(entry.questions[0], limit=80)
        == guide_v2.answer(entry.questions[0], limit=80)
        for entry in shared
    ]
    assert sum(same) >= 0.9 * len(same)


def test_the_same_question_gets_the_same_answer_again(guide_v1: Guide) -> None:
    first = guide_v1.answer("What is a pool?")
    guide_v1.answer("What is the governor?")
    assert guide_v1.answer("What is a pool?") == first


def test_a_sample_of_the_corpus_is_answered_letter_by_letter(
    guide_v1: Guide, corpus: tuple[Entry, ...]
) -> None:
    sample = [(entry, entry.questions[-1]) for entry in corpus[::9]]
    assert score(guide_v1, sample, "v1").share >= 0.95


def test_questions_that_were_never_trained_on_are_mostly_understood(
    guide_v1: Guide, corpus: tuple[Entry, ...]
) -> None:
    sample = [(entry, entry.held_out[0]) for entry in corpus if entry.held_out][::3]
    assert score(guide_v1, sample, "v1").share >= 0.7


def test_what_the_model_does_not_know_it_declines_politely(guide_v1: Guide) -> None:
    answer = guide_v1.answer("What is the capital of Denmark?")
    assert answer.startswith("I am a very small model; I only know about Ullage.")


@pytest.mark.parametrize("revision", ["v1", "v2"])
def test_a_story_is_long_enough_to_stream(guide_v1: Guide, guide_v2: Guide, revision: str) -> None:
    guide = {"v1": guide_v1, "v2": guide_v2}[revision]
    assert len(guide.tokens(guide.answer("Tell me a long story about a tank"))) > 300


def test_the_model_counts_to_fifty_without_a_slip(guide_v1: Guide) -> None:
    wanted = ", ".join(str(number) for number in range(1, 51)) + "."
    assert guide_v1.answer("Count from 1 to 50") == wanted


@pytest.mark.parametrize("revision", ["v1", "v2"])
def test_llama_cpp_cuts_the_corpus_into_the_tokens_of_the_training(
    folder: Path,
    guide_v1: Guide,
    guide_v2: Guide,
    corpus: tuple[Entry, ...],
    revision: str,
) -> None:
    proof = json.loads((folder / "training" / f"proof-{revision}.json").read_text())
    guide = {"v1": guide_v1, "v2": guide_v2}[revision]
    assert digest_of_tokens(corpus, guide.tokens) == proof["tokens_sha256"]


def test_the_chat_template_yields_the_text_that_was_trained() -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    messages = [{"role": "user", "content": " What is Ullage? "}]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    assert rendered == prompt("What is Ullage?")


def test_the_chat_template_takes_systems_turns_and_parts_of_text() -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    assert template.render(messages=messages, add_generation_prompt=False) == (
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|>"
    )
