"""Where the command line writes, and how it says that something went wrong.

Standard output carries answers only; progress, tables of what goes on, hints and errors go to
standard error. rich itself heeds NO_COLOR and leaves out colours where no terminal is.
"""

import io
import sys
from typing import Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from ullage_runtime.addresses import AddressInUse, AddressUnusable
from ullage_runtime.local import ManifestError
from ullage_runtime.settings import SettingsError

FAILURE: Final = 1
USAGE: Final = 2

PIPED_WIDTH: Final = 200
"""Columns where there is no terminal: a script should not get folded tables."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


class CliError(Exception):
    """Something that went wrong, in one line, and what to do about it."""

    def __init__(self, message: str, hint: str | None = None, code: int = FAILURE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Debugging:
    """Whether tracebacks are wanted; `--debug` sets it."""

    wanted = False


class UllageGroup(TyperGroup):
    """The command group: turns errors into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; exit with 1 when it fails and with 2 when it was called wrongly."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            err.print()
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Whoever read our output has had enough.
            sys.stderr.close()
            raise typer.Exit(FAILURE) from None
        except Exception as error:
            if Debugging.wanted:
                raise
            code = show_error(error)
            if code is None:
                raise
            raise typer.Exit(code) from None


def show_error(error: Exception) -> int | None:
    """Say what went wrong and return the exit status; None when it is none of our errors."""
    match error:
        case CliError():
            return _show(str(error), error.hint, error.code)
        case SettingsError():
            return _show(str(error), "`ullage config` shows every setting and its origin", USAGE)
        case ManifestError():
            for line in error.lines:
                _show(line)
            return USAGE
        case AddressInUse():
            return _show(
                str(error),
                f"choose another with --port {error.port + 1}, or see who listens: "
                f"ss -ltnp 'sport = :{error.port}'",
            )
        case AddressUnusable():
            return _show(str(error), "choose another address with --host and --port")
        case _:
            return None


def _show(message: str, hint: str | None = None, code: int = FAILURE) -> int:
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        err.print(f"  [dim]→ {escape(hint)}[/]", soft_wrap=True)
    return code


class ConsoleStream(io.TextIOBase):
    """A stream for log lines that goes through the console, above any live display."""

    def write(self, text: str) -> int:
        """Print the text as it is."""
        err.print(text.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)
        return len(text)

    def isatty(self) -> bool:
        """Whether the console is a terminal."""
        return err.is_terminal
