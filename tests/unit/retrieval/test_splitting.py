"""Documents are cut into chunks that the model can embed whole."""

from collections.abc import Sequence

import pytest

from ullage_api.kinds.vector_collection import ChunkingSettings, Splitter
from ullage_runtime.retrieval.ingest.splitting import CannotSplit, Chunker, Lengths


async def by_letters(texts: Sequence[str]) -> list[int]:
    """A vocabulary of letters: four times what the splitter expects."""
    return [len(text) for text in texts]


async def by_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


TEXT = "\n\n".join(f"Paragraph {n} has words. And a second sentence, too." for n in range(40))


@pytest.mark.parametrize("lengths", [by_letters, by_words])
async def test_no_chunk_is_longer_than_it_may_be_and_none_of_the_text_is_lost(
    lengths: Lengths,
) -> None:
    chunker = Chunker(Splitter.TEXT, 32, 0)
    chunks = await chunker.chunks(TEXT, lengths)
    assert max(await lengths(chunks)) <= 32
    assert "".join("".join(chunks).split()) == "".join(TEXT.split())


async def test_a_chunk_repeats_the_end_of_the_one_before() -> None:
    apart = await Chunker(Splitter.TEXT, 32, 0).chunks(TEXT, by_words)
    over = await Chunker(Splitter.TEXT, 32, 16).chunks(TEXT, by_words)
    assert sum(map(len, over)) > sum(map(len, apart))


async def test_markdown_is_cut_at_headings() -> None:
    text = "# One\n\n" + "first " * 12 + "\n\n# Two\n\n" + "second " * 12
    chunks = await Chunker(Splitter.MARKDOWN, 24, 0).chunks(text, by_words)
    assert [chunk.split("\n")[0] for chunk in chunks] == ["# One", "# Two"]


async def test_what_cannot_be_cut_short_enough_is_said() -> None:
    async def never(texts: Sequence[str]) -> list[int]:
        return [10_000 for _ in texts]

    with pytest.raises(CannotSplit, match="more than 32 tokens and cannot be cut further"):
        await Chunker(Splitter.TEXT, 32, 0).chunks("word " * 100, never)


def test_chunks_of_other_settings_have_other_ids() -> None:
    keys = {
        Chunker.of(None).key,
        Chunker.of(ChunkingSettings(max_tokens=64)).key,
        Chunker.of(ChunkingSettings(splitter=Splitter.MARKDOWN)).key,
        Chunker.of(ChunkingSettings(overlap_tokens=0)).key,
    }
    assert len(keys) == 4
    assert Chunker.of(ChunkingSettings()).key == Chunker.of(None).key


async def by_fours(texts: Sequence[str]) -> list[int]:
    """Four letters a token, as the splitter expects."""
    return [len(text) // 4 for text in texts]


BRACES = "{0} first() {{\n  return 1;\n}}\n\n{0} second() {{\n  return 2;\n}}\n"
CODE = {
    "a.py": "def first(a):\n    return a + 1\n\n\ndef second(b):\n    return b * 2\n",
    "a.go": "package a\n\n" + BRACES.format("func").replace("()", "() int").replace(";", ""),
    "a.rs": BRACES.format("fn").replace("()", "() -> i32"),
    "A.JAVA": BRACES.format("class").replace("()", "").replace("return", "int x ="),
    "a.c": BRACES.format("int").replace("()", "(void)"),
    "a.cpp": BRACES.format("int"),
    "a.js": BRACES.format("function"),
    "a.tsx": BRACES.format("function").replace("()", "(): number"),
    "a.sh": BRACES.format("function").replace(";", ""),
}


@pytest.mark.parametrize("name", CODE)
async def test_code_is_cut_between_functions_and_classes(name: str) -> None:
    code = CODE[name]
    chunker = Chunker(Splitter.CODE, len(code) // 6, 0)
    chunks = await chunker.chunks(code, by_fours, name)
    assert "".join("".join(chunks).split()) == "".join(code.split())
    assert len(chunks) > 1
    (second,) = [chunk for chunk in chunks if "second" in chunk]
    assert "first" not in second
    assert "2" in second


async def test_code_of_an_unknown_language_is_cut_as_text() -> None:
    text = "one two three four five. " * 20
    for name in ("a.unknown", "Makefile", ""):
        code = await Chunker(Splitter.CODE, 32, 0).chunks(text, by_fours, name)
        assert code == await Chunker(Splitter.TEXT, 32, 0).chunks(text, by_fours, name)
