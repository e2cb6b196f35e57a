from __future__ import annotations

from pathlib import Path

import pytest

from examples.models.guide.corpus import Entry, normalised, read_corpus
from examples.models.guide.phrasing import paraphrases

ENTRY = "- {{id: {name}, ask: ['{question}'], answer: yes indeed}}\n"


def _corpus(folder: Path, *entries: tuple[str, str]) -> tuple[Entry, ...]:
    text = "".join(ENTRY.format(name=name, question=question) for name, question in entries)
    (folder / "corpus.yaml").write_text(text)
    return read_corpus(folder)


def test_the_corpus_holds_a_thousand_questions_and_more(corpus: tuple[Entry, ...]) -> None:
    assert sum(len(entry.questions) for entry in corpus) > 1_000
    assert sum(len(entry.held_out) for entry in corpus) > 200


def test_no_paraphrase_asks_for_two_different_answers(corpus: tuple[Entry, ...]) -> None:
    owner: dict[str, str] = {}
    for entry in corpus:
        for question in entry.questions:
            for form in paraphrases(question):
                assert owner.setdefault(normalised(form), entry.name) == entry.name, form


def test_the_revisions_differ_in_nothing_but_the_version(corpus: tuple[Entry, ...]) -> None:
    different = [entry.name for entry in corpus if entry.answer("v1") != entry.answer("v2")]
    assert different == ["version"]


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two entries are called 'a'"):
        _corpus(tmp_path, ("a", "One?"), ("a", "Two?"))


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to both 'a' and 'b'"):
        _corpus(tmp_path, ("a", "What is it?"), ("b", "what is it"))


def test_templates_and_counts_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text(
        "- {id: a, fill: {x: [cat, dog]}, ask: ['A {x}?'], answer: '{count:3}.'}\n"
    )
    (entry,) = read_corpus(tmp_path)
    assert entry.questions == ("A cat?", "A dog?")
    assert entry.answer("v1") == "1, 2, 3."
