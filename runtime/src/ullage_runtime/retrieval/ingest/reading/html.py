"""The text of an HTML page, without what is not said to readers; runs in the reading child."""

import re
from typing import Final

from selectolax.lexbor import LexborHTMLParser

LEFT_OUT: Final = "script,style,noscript,template,svg,canvas,iframe,object,form,[hidden]"
_BLOCKS: Final = (
    "address,article,aside,blockquote,dd,details,div,dl,dt,figcaption,figure,footer,h1,h2,h3,h4,"
    "h5,h6,header,hr,li,main,nav,ol,p,section,summary,table,tr,ul,br,body"
)
_BREAK: Final = "\x1e"
_KEPT: Final = "\x1f"
"""Before blocks whose lines are kept."""
_CELL: Final = "\x1d"


def text_of(page: str) -> tuple[str, str | None]:
    """Return a page's text, headings as in Markdown, and its title."""
    tree = LexborHTMLParser(re.sub(r"[\x1d-\x1f]", " ", page))
    found = tree.css_first("title")
    title = " ".join(found.text().split()) if found is not None else None
    for node in tree.css(LEFT_OUT):
        node.decompose()
    body = tree.body
    if body is None:
        return "", title or None
    for node in body.css("pre"):
        node.insert_before(_BREAK + _KEPT)
        node.insert_after(_BREAK)
    for node in body.css("td,th"):
        node.insert_after(_CELL)
    for node in body.css(_BLOCKS):
        level = re.fullmatch(r"h([1-6])", node.tag or "")
        node.insert_before(_BREAK)
        node.insert_after(_BREAK)
        if level:
            node.insert_before("#" * int(level[1]) + " ")
    blocks = (_block(each) for each in body.text(separator="").split(_BREAK))
    return "\n\n".join(each for each in blocks if each), title or None


def _block(raw: str) -> str:
    if raw.startswith(_KEPT):
        return raw[1:].strip("\n").rstrip()
    return " ".join(raw.replace(_CELL, " | ").split()).removesuffix(" |").strip()
