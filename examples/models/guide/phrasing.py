"""Other ways to ask the same: paraphrases by rule, and the small accidents of typing."""

from __future__ import annotations

import re

import numpy as np

# A question form, and forms that mean the same. Answers do not depend on the form.
_FORMS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(r"^What is (?P<x>[^,]+)\?$"),
        (
            "What's {x}?",
            "Tell me what {x} is.",
            "Can you tell me what {x} is?",
            "What exactly is {x}?",
            "Do you know what {x} is?",
            "I want to know what {x} is.",
            "Explain what {x} is.",
        ),
    ),
    (
        re.compile(r"^What are (?P<x>(?!you\b)[^,]+)\?$"),
        ("Tell me what {x} are.", "Can you tell me what {x} are?", "Explain what {x} are."),
    ),
    (
        re.compile(r"^What does (?P<x>.+) mean\?$"),
        ("What is the meaning of {x}?", "Tell me what {x} means.", "What means {x}?"),
    ),
    (
        re.compile(r"^What does (?P<x>.+) do\?$"),
        ("Tell me what {x} does.", "Can you explain what {x} does?"),
    ),
    (
        re.compile(r"^How do I (?P<x>.+)\?$"),
        (
            "How can I {x}?",
            "How to {x}?",
            "Tell me how to {x}.",
            "Show me how to {x}.",
            "How should I {x}?",
            "I want to {x}.",
            "Explain how to {x}.",
        ),
    ),
    (
        re.compile(r"^How can I (?P<x>.+)\?$"),
        ("How do I {x}?", "How to {x}?", "Tell me how I can {x}."),
    ),
    (
        re.compile(r"^Explain (?P<x>.+)\.$"),
        ("Could you explain {x}?", "Can you explain {x}?", "Please explain {x}."),
    ),
    (
        re.compile(r"^Which (?P<x>.+) are there\?$"),
        ("What {x} are there?", "List the {x}.", "Tell me which {x} there are."),
    ),
    (
        re.compile(r"^(?P<x>(?:Tell|Show|Give) me .+?)[.]?$"),
        ("Please {x}.", "Could you {x}?", "Can you {x}?"),
    ),
)
_FRAMES = (
    "Please: {q}",
    "Hello, {q}",
    "Hi! {q}",
    "Quick question: {q}",
    "{q} Thanks.",
    "Tell me, {q}",
    "So {q}",
    "And {q}",
    "{q} Please answer.",
    "I have a question: {q}",
)


def paraphrases(question: str) -> tuple[str, ...]:
    """Return the question and the forms that the rules make of it, without repetition."""
    found = [question]
    for pattern, forms in _FORMS:
        if match := pattern.match(question):
            part = match["x"]
            inner = (
                part[0].lower() + part[1:] if part.startswith(("Tell", "Show", "Give")) else part
            )
            found.extend(form.format(x=inner) for form in forms)
    return tuple(dict.fromkeys(found))


def spoken(question: str, rng: np.random.Generator) -> str:
    """Return the question as a hurried person might type it: framed, lower-cased, with a slip."""
    if rng.random() < 0.12:  # noqa: PLR2004  # rates are plain numbers here, each used once
        frame = str(rng.choice(_FRAMES))
        keeps_case = frame.startswith("{q}") or frame.endswith(("! {q}", ": {q}"))
        question = frame.format(q=question if keeps_case else question[0].lower() + question[1:])
    chance = rng.random()
    if chance < 0.25:  # noqa: PLR2004
        question = question.lower()
    elif chance < 0.27:  # noqa: PLR2004
        question = question.upper()
    chance = rng.random()
    if chance < 0.25:  # noqa: PLR2004
        question = question.rstrip(".?!")
    elif chance < 0.30:  # noqa: PLR2004
        question = question.rstrip(".?!") + str(rng.choice(["?", ".", "!", " ?", "??"]))
    return _slipped(question, rng) if rng.random() < 0.05 else question  # noqa: PLR2004


def _slipped(text: str, rng: np.random.Generator) -> str:
    """Return the text with one letter lost, doubled or swapped with its neighbour."""
    if len(text) < 8:  # noqa: PLR2004  # in a short text a slip can change the meaning
        return text
    at = int(rng.integers(1, len(text) - 1))
    slips = (
        text[:at] + text[at + 1 :],
        text[:at] + text[at] + text[at:],
        text[:at] + text[at + 1] + text[at] + text[at + 2 :],
    )
    return slips[int(rng.integers(len(slips)))]
