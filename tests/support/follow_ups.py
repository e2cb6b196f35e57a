"""Conversations whose questions make sense only after those that came before."""

from dataclasses import dataclass
from typing import Final

THINGS: Final = {
    "kettle": "It boils a litre and a half.",
    "bicycle": "It has seven gears and a bell.",
    "lantern": "It shines for nine hours.",
    "printer": "It prints in colour on both sides.",
    "tent": "It sleeps four and stands without pegs.",
    "scale": "It weighs up to thirty kilograms.",
    "drill": "It turns in both directions.",
    "radio": "It receives short waves too.",
}
"""Each thing with what only its description says."""

ASPECTS: Final = {
    "about": ("What can you tell me about the {}?", "The {} at a glance. {}"),
    "clean": (
        "And how do I keep it clean?",
        "To clean the {}, wipe it with a damp cloth; never use soap on it.",
    ),
    "repair": (
        "What if it breaks?",
        "When the {} breaks, the workshop repairs it within a week and sends it back.",
    ),
    "price": ("How much is it?", "The price of the {} is printed on the label beneath it."),
    "store": (
        "Where should I store it in winter?",
        "In winter store the {} in a dry place, away from frost.",
    ),
    "weight": ("Is it heavy to carry?", "Two people carry the {}, as it is heavy."),
}
"""Each with its question, of which only the first names the thing, and with its text."""

CONVERSATIONS: Final = (
    ("about", "clean", "repair", "price"),
    ("about", "store", "weight", "clean"),
    ("about", "price", "repair", "store"),
    ("about", "weight", "price", "repair"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the number of the text that answers it."""

    question: str
    answer: int


def texts() -> dict[int, str]:
    """Return every text by its number."""
    return {
        _number(thing, aspect): text.format(thing, only)
        for thing, only in THINGS.items()
        for aspect, (_, text) in ASPECTS.items()
    }


def conversations() -> list[list[Asked]]:
    """Return what is asked, conversation by conversation."""
    return [
        [Asked(ASPECTS[aspect][0].format(thing), _number(thing, aspect)) for aspect in aspects]
        for thing in THINGS
        for aspects in CONVERSATIONS
    ]


def _number(thing: str, aspect: str) -> int:
    return list(THINGS).index(thing) * len(ASPECTS) + list(ASPECTS).index(aspect)
