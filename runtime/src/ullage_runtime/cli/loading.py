"""Settings for a command, with what deserves to be said about them."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from ullage_runtime.cli.console import ConsoleStream, err
from ullage_runtime.logs import set_up_logging
from ullage_runtime.settings import LoadedSettings, load_settings


def effective_settings(given: Mapping[str, Any], *, quiet: bool) -> LoadedSettings:
    """Return the settings in effect and set logging up.

    `quiet` logs errors only, unless told otherwise. Says which environment names look like
    settings and are none. Raises SettingsError.
    """
    loaded = load_settings(given)
    for name in loaded.ignored:
        err.print(f"[yellow]ignored:[/] environment variable {escape(name)}")
    if quiet and loaded.origins["log_level"] == "default":
        loaded = load_settings({**given, "log_level": "error"})
    set_up_logging(loaded.values, ConsoleStream())
    return loaded
