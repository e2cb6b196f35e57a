"""The corpus: questions and answers as people write them, in YAML."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

REVISIONS = ("v1", "v2")
CORPUS_FOLDER = Path(__file__).resolve().parent.parent / "corpus"

_COUNT = re.compile(r"\{count:(\d+)\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer and every question that it answers.

    `weight` says how often the answer is practised compared with others; `held_out` questions are
    never trained on, they measure how far paraphrases reach.
    """

    name: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    answers: Mapping[str, str]
    weight: float

    def answer(self, revision: str) -> str:
        """Return the answer that the given revision of the guide gives."""
        return self.answers[revision]


class _RawEntry(BaseModel):
    """An entry as it stands in the file."""

    model_config = ConfigDict(extra="forbid")

    id: str
    ask: list[str] = Field(min_length=1)
    held_out: list[str] = []
    answer: str | dict[str, str]
    weight: float = 1.0
    fill: dict[str, list[str]] = {}


def read_corpus(folder: Path = CORPUS_FOLDER) -> tuple[Entry, ...]:
    """Return the entries of all files in `folder`, in the order of file names.

    Raises ValueError when two entries share an id or two entries claim the same question.
    """
    entries = tuple(
        _entry(_RawEntry.model_validate(raw))
        for path in sorted(folder.glob("*.yaml"))
        for raw in yaml.safe_load(path.read_text(encoding="utf-8"))
    )
    _refuse_ambiguity(entries)
    return entries


def normalised(question: str) -> str:
    """Return the question without case and punctuation, to tell whether two are the same."""
    return " ".join(re.sub(r"[^\w+=/*-]+", " ", question.lower()).split())


def _entry(raw: _RawEntry) -> Entry:
    answers = raw.answer if isinstance(raw.answer, dict) else dict.fromkeys(REVISIONS, raw.answer)
    return Entry(
        name=raw.id,
        questions=tuple(q for ask in raw.ask for q in _filled(ask, raw.fill)),
        held_out=tuple(raw.held_out),
        answers={revision: _COUNT.sub(_count, text.strip()) for revision, text in answers.items()},
        weight=raw.weight,
    )


def _filled(template: str, fill: Mapping[str, list[str]]) -> list[str]:
    names = [name for name in fill if "{" + name + "}" in template]
    combinations = itertools.product(*(fill[name] for name in names))
    return [template.format(**dict(zip(names, values, strict=True))) for values in combinations]


def _count(match: re.Match[str]) -> str:
    return ", ".join(str(number) for number in range(1, int(match[1]) + 1))


def _refuse_ambiguity(entries: tuple[Entry, ...]) -> None:
    owner: dict[str, str] = {}
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            message = f"two entries are called {entry.name!r}"
            raise ValueError(message)
        names.add(entry.name)
        for question in (*entry.questions, *entry.held_out):
            other = owner.setdefault(normalised(question), entry.name)
            if other != entry.name:
                message = f"{question!r} belongs to both {other!r} and {entry.name!r}"
                raise ValueError(message)
    for entry in entries:
        trained = {normalised(question) for question in entry.questions}
        for question in entry.held_out:
            if normalised(question) in trained:
                message = f"{question!r} of {entry.name!r} is both trained and held out"
                raise ValueError(message)
