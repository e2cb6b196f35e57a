"""Ullage's serving runtime: engines, governor, models, the OpenAI-compatible API, and the CLI."""

from importlib.metadata import version

__version__ = version("ullage-runtime")
