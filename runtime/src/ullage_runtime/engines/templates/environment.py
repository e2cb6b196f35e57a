"""Chat templates: a model's own Jinja text, where what it can reach is bounded.

The sandbox bounds access, not work: a short text can ask for hours and gigabytes. So nothing but
the child that `child.py` runs uses this module; it imports no more of us, to stay small.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT: Final = 16 << 20
"""Characters that a template may write."""


class TemplateFailed(Exception):  # noqa: N818 - what happened, not what is wrong with us
    """A template that did not become text."""

    def __init__(self, reason: str, *, blames_messages: bool) -> None:
        super().__init__(reason)
        self.blames_messages = blames_messages
        """Whether other messages may well be rendered."""


class Template:
    """A compiled chat template.

    The names it may use are those of Hugging Face's `apply_chat_template`.
    """

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        self._specials = dict(specials)
        try:
            self._template = environment.from_string(source)
        except MemoryError:
            raise
        except Exception as error:
            raise TemplateFailed(f"is broken: {_words(error)}", blames_messages=False) from error

    def rendered(self, variables: Mapping[str, Any]) -> str:
        """Return the text for some variables; raises TemplateFailed."""
        try:
            return "".join(_bounded(self._template.generate({**variables, **self._specials})))
        except (MemoryError, TemplateFailed):
            raise
        except (SecurityError, OverflowError, RecursionError) as error:
            # The sandbox calls a range that is too long an overflow.
            raise TemplateFailed(
                f"does what it may not: {_words(error)}", blames_messages=False
            ) from error
        except Exception as error:
            raise TemplateFailed(
                f"does not take these messages: {_words(error)}", blames_messages=True
            ) from error


def _bounded(parts: Iterable[str]) -> Iterator[str]:
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_TEXT:
            raise TemplateFailed(f"writes more than {MAX_TEXT} characters", blames_messages=False)
        yield part


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:500]


def _raise(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(format_: str) -> str:
    return datetime.now(tz=UTC).strftime(format_)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as templates call it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002 - likewise
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
