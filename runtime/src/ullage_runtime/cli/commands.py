"""The `ullage` command and its subcommands."""

from typing import Annotated

import typer

import ullage_runtime
from ullage_runtime.cli import (
    asking,
    bench,
    caches,
    converting,
    doctor,
    inspecting,
    listing,
    reindex_worker,
    reindexing,
    retrieval,
    rollout,
    up,
)
from ullage_runtime.cli.console import Debugging, UllageGroup, out
from ullage_runtime.cli.top import command as top

app = typer.Typer(
    cls=UllageGroup,
    name="ullage",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve language models on this machine, and talk with them here or on a cluster.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        out.print(f"ullage {ullage_runtime.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that precede a command."""
    Debugging.wanted = debug


app.command("up")(up.up)
app.command("run")(asking.run)
app.command("chat")(asking.chat)
app.command("bench")(bench.bench)
app.command("top")(top.top)
app.command("ab")(rollout.ab)
app.command("rollback")(rollout.rollback)
app.command("models")(listing.models)
app.command("collections")(retrieval.collections)
app.command("search")(retrieval.search)
app.command("ingest")(retrieval.ingest)
app.command("reindex-worker")(reindex_worker.reindex_worker)
app.add_typer(reindexing.reindex, name="reindex")
app.add_typer(caches.cache, name="cache")
app.command("config")(listing.config)
app.command("inspect")(inspecting.inspect)
app.command("convert")(converting.convert)
app.command("doctor")(doctor.doctor)
app.add_typer(listing.keys, name="keys")
app.command("version")(listing.show_version)
