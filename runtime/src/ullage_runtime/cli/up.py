"""`ullage up`: the models of a manifest, served on this machine."""

import asyncio
import contextlib
import json
import pathlib
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import PoolProfile
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.cli.console import USAGE, CliError, err
from ullage_runtime.cli.display import ChangeLines, has_failed, is_settled, models_table
from ullage_runtime.cli.folders import Folders
from ullage_runtime.cli.holding import Holds
from ullage_runtime.cli.loading import effective_settings
from ullage_runtime.core.errors import RevisionNotFound
from ullage_runtime.local import (
    ManifestError,
    Manifests,
    local_document,
    local_profile,
    read_manifests,
    read_profile,
)
from ullage_runtime.settings import LoadedSettings

if TYPE_CHECKING:  # importing it takes a second, which `ullage --help` need not wait for
    from ullage_runtime.app import Runtime

WATCH_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.5
"""How often the display is refreshed when nothing has changed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks to be served, and how it is read again."""

    files: tuple[pathlib.Path, ...]
    cache_dir: pathlib.Path
    profile: pathlib.Path | None = None
    models_dirs: tuple[pathlib.Path, ...] = ()
    allow_http: bool = False
    allow_private_addresses: bool = False

    def read(self) -> tuple[Manifests, PoolProfile]:
        """Return the manifests and the profile to run them under; raises ManifestError."""
        given = read_manifests(self.files) if self.files else Manifests((), ())
        base = read_profile(self.profile) if self.profile else None
        folders = tuple(folder.expanduser().absolute() for folder in self.models_dirs)
        manifests = Folders(folders, self.cache_dir).added_to(given)
        if not manifests.resources:
            searched = ", ".join(map(str, folders))
            raise ManifestError(
                [*manifests.skipped, f"no model in {searched}; GGUF and ONNX are served"]
            )
        profile = local_profile(
            manifests,
            base,
            allow_http=self.allow_http,
            allow_private_addresses=self.allow_private_addresses,
        )
        return manifests, profile

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when a file does."""
        return tuple(_stat(path) for path in (*self.files, *filter(None, [self.profile])))


def _stat(path: pathlib.Path) -> object:
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def up(
    files: Annotated[
        list[pathlib.Path] | None,
        typer.Argument(
            metavar="[FILE…]", help="Manifests with models and collections, YAML or JSON."
        ),
    ] = None,
    *,
    profile: Annotated[
        pathlib.Path | None, typer.Option("--profile", help="Pool profile to run them under.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port. Default: 8080.")
    ] = None,
    models_dir: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            "--models-dir",
            help="Folder whose models are served, at any depth, and in which file: models are "
            "looked for; repeatable.",
        ),
    ] = None,
    cache_dir: Annotated[
        pathlib.Path | None, typer.Option("--cache-dir", help="Folder for fetched models.")
    ] = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Let models come over plain http://.")
    ] = False,
    allow_private_addresses: Annotated[
        bool,
        typer.Option("--allow-private-addresses", help="Let models come from private networks."),
    ] = False,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="debug, info, warning or error.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object when everything is settled.")
    ] = False,
) -> None:
    """Serve the models of manifests and folders on this machine, until Ctrl-C.

    The same YAML as on a cluster. A changed file takes effect at once.
    """
    if not files and not models_dir:
        raise CliError(
            "nothing to serve", "give a manifest, or a folder of models with --models-dir", USAGE
        )
    given = {"port": port, "host": host, "model_cache_dir": cache_dir, "log_level": log_level}
    loaded = effective_settings(given, quiet=True)
    if loaded.origins["host"] == "default":
        # A pod listens on all addresses; a laptop should not.
        loaded = effective_settings({**given, "host": "127.0.0.1"}, quiet=True)
    wanted = Wanted(
        tuple(files or ()),
        loaded.values.model_cache_dir,
        profile,
        tuple(models_dir or ()),
        allow_http=allow_http,
        allow_private_addresses=allow_private_addresses,
    )
    import uvloop

    uvloop.run(_Up(loaded, wanted, as_json=as_json).serve())


@dataclass(slots=True)
class _Up:
    """One run of `ullage up`."""

    loaded: LoadedSettings
    wanted: Wanted
    as_json: bool
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    reread: asyncio.Event = field(default_factory=asyncio.Event)
    holds: Holds = field(default_factory=Holds)
    served: "tuple[Runtime, Manifests, PoolProfile] | None" = None
    sequence: int = 0

    async def serve(self) -> None:
        """Serve until told to stop."""
        manifests, profile = await asyncio.to_thread(self.wanted.read)
        for what in manifests.skipped:
            err.print(f"[yellow]skipped:[/] {escape(what)}", soft_wrap=True)
        with err.status("[dim]starting[/]"):
            from ullage_runtime.app import running

            run = running(self.loaded.values, hurry=self.hurry, go_back=self._go_back)
            runtime = await run.__aenter__()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(run)
            self._listen_to_signals(runtime)
            await self._apply(runtime, manifests, profile)
            tasks = [
                asyncio.create_task(self._show(runtime)),
                asyncio.create_task(self._follow_files(runtime)),
            ]
            stopped = asyncio.create_task(self.stop.wait())
            done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            for task in done - {stopped}:
                task.result()

    def _listen_to_signals(self, runtime: "Runtime") -> None:
        from ullage_runtime.app import SAME_SIGNAL_SECONDS

        loop = asyncio.get_running_loop()
        first = 0.0

        def end() -> None:
            nonlocal first
            if not self.stop.is_set():
                first = loop.time()
                self.stop.set()
                _say_ending(runtime)
            elif loop.time() - first > SAME_SIGNAL_SECONDS:
                self.hurry.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, self.reread.set)

    async def _apply(self, runtime: "Runtime", manifests: Manifests, profile: PoolProfile) -> None:
        histories = self.holds.histories(manifests.resources)
        document = local_document(manifests, profile, histories)
        self.sequence += 1
        sealed = document.sealed(self.sequence)
        if await runtime.models.apply(sealed):
            await runtime.services.collections.apply(sealed.collections)
            await runtime.services.reindexes.apply(sealed.reindexes)
        self.served = runtime, manifests, profile

    async def _go_back(self, model: DesiredModel, revision: str | None) -> None:
        """Serve an earlier revision of a model until its manifest changes; a `GoBack`."""
        if self.served is None:
            raise RevisionNotFound("nothing is served yet")
        runtime, manifests, profile = self.served
        back = _earlier(runtime, model, revision)
        (resource,) = (r for r in manifests.resources if r.metadata.name == model.name)
        self.holds.hold(resource, back)
        err.print(f"{escape(model.name)}  [dim]goes back to revision {back.name}[/]")
        await self._apply(runtime, manifests, profile)

    async def _follow_files(self, runtime: "Runtime") -> None:
        """Apply the files again whenever they change, or when SIGHUP says so."""
        seen = await asyncio.to_thread(self.wanted.fingerprint)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self.reread.wait()
            now = await asyncio.to_thread(self.wanted.fingerprint)
            if now == seen and not self.reread.is_set():
                continue
            seen = now
            self.reread.clear()
            try:
                await self._apply(runtime, *await asyncio.to_thread(self.wanted.read))
            except (ManifestError, ValueError) as error:
                for line in str(error).splitlines():
                    err.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)
                err.print("[dim]what was served before goes on[/]")
            else:
                err.print("[dim]manifest read again[/]")

    async def _show(self, runtime: "Runtime") -> None:
        """Show how models come up, then say how to ask, then say what changes."""
        lines = ChangeLines()
        report = await self._show_start(runtime, lines)
        self._say_served(runtime, report)
        lines.of(report)
        while not self.stop.is_set():
            report = await runtime.models.changed(report.sequence, 60)
            for line in lines.of(report):
                err.print(line, soft_wrap=True)

    async def _show_start(self, runtime: "Runtime", lines: ChangeLines) -> PodReport:
        models = runtime.models
        report = models.report()
        if not err.is_terminal:
            while True:
                for line in lines.of(report):
                    err.print(line, soft_wrap=True)
                if all(is_settled(m) for m in report.models):
                    return report
                report = await models.changed(report.sequence, 60)
        note = Text(f"\nlistening at {runtime.url}/v1 · Ctrl-C ends", style="dim")
        with Live(Group(models_table(report), note), console=err, refresh_per_second=8) as live:
            while not all(is_settled(m) for m in report.models):
                report = await models.changed(report.sequence, LOOK_SECONDS)
                live.update(Group(models_table(report), note))
            live.update(models_table(report))
        return report

    def _say_served(self, runtime: "Runtime", report: PodReport) -> None:
        if self.as_json:
            sys.stdout.write(json.dumps(_summary(runtime, report)) + "\n")
            sys.stdout.flush()
        good = [m.name for m in report.models if is_settled(m) and not has_failed(m)]
        err.print(f"\n[bold green]Serving[/] at [bold]{runtime.url}/v1[/]  [dim]Ctrl-C ends[/]")
        if good:
            err.print(f"\n{_how_to_ask(runtime, good[0])}\n", soft_wrap=True)
        if len(good) < len(report.models):
            err.print(
                "[yellow]Some models cannot be served; mend the file and they are tried again.[/]"
            )


def _earlier(runtime: "Runtime", model: DesiredModel, name: str | None) -> DesiredRevision:
    """Return the revision of a name, or what answered last of those that are not wanted now."""
    known = runtime.models.revisions(model.name)
    report = runtime.models.report().model(model.name)
    wanted = report.target.revision if report is not None and report.target is not None else None
    for revision in known:
        if revision.name == name or (name is None and revision.name != wanted):
            return revision
    names = ", ".join(f"{r.name} ({r.uri})" for r in known) or "none"
    what = f"no revision {name!r}" if name else "no earlier revision"
    raise RevisionNotFound(
        f"{what} of {model.name!r} has answered since the server began; those that have: {names}",
        param="revision",
    )


def _how_to_ask(runtime: "Runtime", name: str) -> str:
    task = runtime.models.find(name).task
    question = "What is Ullage?"
    path, body = _question(task, name, question)
    lines = [
        f"  [dim]$[/] curl {runtime.url}{path} -H 'Content-Type: application/json' \\",
        f"      -d '{escape(json.dumps(body))}'",
    ]
    if task in {Task.CHAT, Task.COMPLETION}:
        port = runtime.public.port
        url = "" if port == 8080 else f" --url {runtime.url}"  # noqa: PLR2004 - the default
        lines.append(f'  [dim]$[/] ullage run {name} --prompt "{question}"{url}')
    return "\n".join(lines)


def _question(task: Task, name: str, question: str) -> tuple[str, dict[str, Any]]:
    """Return a path and a body with which a model of a task can be tried."""
    match task:
        case Task.CHAT:
            turn = {"role": "user", "content": question}
            return "/v1/chat/completions", {"model": name, "messages": [turn]}
        case Task.COMPLETION:
            return "/v1/completions", {"model": name, "prompt": "Ullage is", "max_tokens": 64}
        case Task.EMBEDDING:
            return "/v1/embeddings", {"model": name, "input": question}
        case Task.RERANK:
            documents = ["Headroom in a tank.", "A bird."]
            return "/v1/rerank", {"model": name, "query": question, "documents": documents}


def _summary(runtime: "Runtime", report: PodReport) -> dict[str, Any]:
    return {"url": f"{runtime.url}/v1", "models": [m.to_wire() for m in report.models]}


def _say_ending(runtime: "Runtime") -> None:
    waiting = runtime.services.drain.in_flight
    if waiting:
        seconds = runtime.settings.drain_seconds
        err.print(
            f"\n[dim]Ending: up to {seconds:g} s for {waiting} requests; Ctrl-C ends at once[/]"
        )
    else:
        err.print("\n[dim]Ending[/]")
