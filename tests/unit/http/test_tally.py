"""What a request took: prompts once, answers each."""

from ullage_runtime.core.domain import Chunk, FinishReason, Usage
from ullage_runtime.http.openai.tally import Tally


def ended(prompt: int, completion: int, cached: int) -> Chunk:
    return Chunk(usage=Usage(prompt, completion, cached), finish=FinishReason.STOP)


def test_the_choices_of_a_prompt_share_it() -> None:
    tally = Tally(choices=2)
    for index, (prompt, cached) in enumerate(((10, 4), (10, 9), (7, 6), (7, 0))):
        tally.note(index, ended(prompt, 3, cached))
    assert tally.usage == Usage(prompt_tokens=17, completion_tokens=12, cached_tokens=4)
    assert tally.spent == 29


def test_a_generation_that_was_broken_off_took_what_it_showed() -> None:
    tally = Tally()
    tally.note(0, Chunk(usage=Usage(prompt_tokens=5)))
    for _ in range(3):
        tally.note(0, Chunk("word"))
    assert tally.usage == Usage(prompt_tokens=5)
    assert tally.spent == 8


def test_nothing_took_nothing() -> None:
    assert Tally().usage == Usage()
    assert Tally().spent == 0
