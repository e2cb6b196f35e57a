"""A retrieval task that every Python brings along: find a docstring's body by its summary line."""

import ast
import inspect
import pathlib
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COUNT: Final = 1998
QUERIES: Final = 400
SEED: Final = 20261125
LEFT_OUT: Final = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"})
SUMMARY_WORDS: Final = range(4, 26)
LEAST_BODY: Final = 80


@dataclass(frozen=True, slots=True)
class Item:
    """A docstring cut in two."""

    name: str
    query: str
    body: str


def items() -> list[Item]:
    """Return the task's items: the same for the same release of Python."""
    chosen = random.Random(SEED).sample(under(pathlib.Path(sysconfig.get_path("stdlib"))), COUNT)  # noqa: S311
    return sorted(chosen, key=lambda item: item.name)


def under(root: pathlib.Path) -> list[Item]:
    """Return all items of a folder's modules; no body and no query is there twice."""
    found: dict[str, Item] = {}
    queries: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT.isdisjoint(path.relative_to(root).parts):
            for item in _of_file(path, root):
                if item.body not in found and item.query not in queries:
                    found[item.body] = item
                    queries.add(item.query)
    return list(found.values())


def questions(among: list[Item]) -> list[int]:
    """Return which items are asked for."""
    return sorted(random.Random(SEED).sample(range(len(among)), QUERIES))  # noqa: S311


def _of_file(path: pathlib.Path, root: pathlib.Path) -> Iterator[Item]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if not text:
            continue
        summary, _, body = inspect.cleandoc(text).partition("\n\n")
        query, body = " ".join(summary.split()), body.strip()
        if len(query.split()) in SUMMARY_WORDS and len(body) >= LEAST_BODY:
            name = getattr(node, "name", "module")
            yield Item(f"{path.relative_to(root)}:{name}", query, body)
