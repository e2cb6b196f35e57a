"""The command `ullage top`."""

import sys
from typing import Annotated

import typer

from ullage_runtime.cli.console import USAGE, CliError
from ullage_runtime.cli.loading import effective_settings


def top(
    url: Annotated[
        str | None,
        typer.Option("--url", help="Pod to watch. Default: ULLAGE_URL, or http://127.0.0.1:8080."),
    ] = None,
) -> None:
    """Watch a pod: its memory, its models, what is asked of them, and who had to leave."""
    settings = effective_settings({"url": url}, quiet=True).values
    if not sys.stdout.isatty():
        raise CliError(
            "this needs a terminal",
            "for scripts: GET /memory/stats, /memory/models, /memory/evictions, or /ws/status",
            USAGE,
        )
    # Importing it takes a while, which `ullage --help` need not wait for.
    from ullage_runtime.cli.top.app import TopApp

    key = settings.api_key.get_secret_value() if settings.api_key else None
    error = TopApp(settings.url, key).run()
    if error is not None:
        raise error
