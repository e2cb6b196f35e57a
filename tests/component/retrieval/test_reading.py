"""Files become texts; what cannot be read says why, and harms nobody."""

import pytest

from tests.support.pdf_files import bomb, locked, pdf
from ullage_runtime.retrieval.ingest.reading.formats import Format, Unreadable
from ullage_runtime.retrieval.ingest.reading.reader import Reader

PAGE = """<!doctype html><html><head><title> The  tank </title><style>p {color: red}</style>
<script>document.write("<p>injected</p>")</script></head><body onload="alert(1)">
<h1>Tank &amp; level</h1><p>one <b>bold</b> word,
on two lines</p><script>alert("x")</script><p hidden>hidden</p>
<pre>for x in y:
    print(x)</pre>
<table><tr><th>a</th><td>1</td></tr></table><ul><li>first<li>second</ul></body></html>"""


@pytest.fixture
def reader() -> Reader:
    return Reader()


async def test_a_page_is_read_without_what_no_reader_sees(reader: Reader) -> None:
    read = await reader.read(PAGE.encode(), Format.HTML)
    assert read.title == "The tank"
    assert read.text.split("\n\n") == [
        "# Tank & level",
        "one bold word, on two lines",
        "for x in y:\n    print(x)",
        "a | 1",
        "first",
        "second",
    ]


async def test_a_pdf_is_read_with_its_title(reader: Reader) -> None:
    read = await reader.read(pdf("The red fox jumped"), Format.PDF)
    assert (read.text, read.title) == ("The red fox jumped", "A title")


async def test_encodings_are_taken_as_they_are_said_or_marked(reader: Reader) -> None:
    text = "Füllstand \u2013 90 %"
    for data, form, charset in (
        (text.encode(), Format.TEXT, None),
        (text.encode("utf-8-sig"), Format.MARKDOWN, None),
        (text.encode("utf-16"), Format.TEXT, None),
        (text.encode("windows-1252"), Format.TEXT, "windows-1252"),
        (f"<meta charset=windows-1252><p>{text}".encode("windows-1252"), Format.HTML, None),
    ):
        assert (await reader.read(data, form, charset)).text == text


UNREADABLE = {
    "a password": (locked(pdf("secret"), "key"), Format.PDF, None, "protected by a password"),
    "no PDF": (b"%PDF-1.4 nonsense", Format.PDF, None, "no sound PDF"),
    "half a PDF": (pdf("half")[:300], Format.PDF, None, "no sound PDF|have no text|cannot be read"),
    "a scan": (pdf(""), Format.PDF, None, "its 1 pages have no text; scanned pages need"),
    "another encoding": (b"caf\xe9", Format.TEXT, None, r"no text in utf-8 \(byte 3\); say"),
    "a wrong encoding": ("é€".encode(), Format.TEXT, "ascii", "no text in ascii"),
    "an unknown encoding": (b"x", Format.TEXT, "klingon", "'klingon' is not known"),
    "no encoding of texts": (b"x", Format.TEXT, "base64", "'base64' is not known"),
    "a picture": (bytes(range(128)), Format.TEXT, None, "null characters"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_cannot_be_read_says_why(reader: Reader, name: str) -> None:
    data, form, charset, says = UNREADABLE[name]
    with pytest.raises(Unreadable, match=says):
        await reader.read(data, form, charset)


async def test_a_bomb_is_refused_and_takes_no_more_than_its_child(reader: Reader) -> None:
    data = bomb(1 << 28)
    assert len(data) < 100_000
    with pytest.raises(Unreadable, match=r"memory|cannot be read|no sound PDF|ended the process"):
        await reader.read(data, Format.PDF)
    assert (await reader.read(pdf("Still here"), Format.PDF)).text == "Still here"


async def test_a_page_of_a_million_tags_within_each_other_ends_its_child_alone() -> None:
    data = b"<div>" * 1_000_000 + b"deep"
    with pytest.raises(Unreadable, match=r"takes more than 2 s|ended the process"):
        await Reader(seconds=2).read(data, Format.HTML)


async def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(Unreadable, match=r"takes more than 0\.01 s to read"):
        await Reader(seconds=0.01).read(pdf("slow"), Format.PDF)
