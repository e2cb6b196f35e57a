"""Grammars of programming languages, by the ends of files' names.

Each is a package of its own, of the project that makes the parser: packs of hundreds fetch theirs
when they are first used, which a pod must not.
"""

import importlib
from functools import cache
from typing import Any, Final

_GRAMMARS: Final = {
    ".py": ("tree_sitter_python", "language"),
    ".pyi": ("tree_sitter_python", "language"),
    ".js": ("tree_sitter_javascript", "language"),
    ".jsx": ("tree_sitter_javascript", "language"),
    ".mjs": ("tree_sitter_javascript", "language"),
    ".ts": ("tree_sitter_typescript", "language_typescript"),
    ".tsx": ("tree_sitter_typescript", "language_tsx"),
    ".go": ("tree_sitter_go", "language"),
    ".rs": ("tree_sitter_rust", "language"),
    ".java": ("tree_sitter_java", "language"),
    ".c": ("tree_sitter_c", "language"),
    ".h": ("tree_sitter_c", "language"),
    ".cc": ("tree_sitter_cpp", "language"),
    ".cpp": ("tree_sitter_cpp", "language"),
    ".hpp": ("tree_sitter_cpp", "language"),
    ".sh": ("tree_sitter_bash", "language"),
    ".bash": ("tree_sitter_bash", "language"),
}


def grammar_of(name: str) -> Any | None:
    """Return the grammar of a file's language; None where its name does not tell a known one."""
    _, dot, end = name.rpartition(".")
    found = _GRAMMARS.get(f"{dot}{end}".lower()) if dot else None
    return None if found is None else _loaded(*found)


@cache
def _loaded(module: str, function: str) -> Any:
    return getattr(importlib.import_module(module), function)()
