"""The command line: `python -m e2e.cluster COMMAND`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from e2e.cluster.binaries import CLUSTER_PROGRAMS, PROGRAMS, build_all, pause_image, say
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import kubectl_command
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import DEFAULT_NAME, Layout, Spec, clusters
from e2e.cluster.lifecycle import down, prune, status, up
from e2e.cluster.processes import tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(arguments)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Treat a polite request to end as Ctrl-C, so that a half-started cluster is taken down."""
    del number, frame
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    def add_named(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = add(name, run, text)
        command.add_argument("--name", default=DEFAULT_NAME, help="which cluster (%(default)s)")
        return command

    start = add_named("up", _up, "Make a cluster run; does nothing if it already does.")
    start.add_argument("--shape", choices=("control-plane", "node"), default="node")
    start.add_argument("--port", type=int, default=0, help="the API server's port (a free one)")
    start.add_argument("--no-audit", dest="audit", action="store_false", help="keep no audit log")
    start.add_argument(
        "--no-controllers",
        dest="controllers",
        action="store_false",
        help="no controller manager (control-plane only): no garbage collection, no Jobs",
    )
    stop = add_named("down", _down, "End a cluster and remove everything of it.")
    stop.add_argument("--all", action="store_true", help="every cluster of this machine")
    add("status", _status, "Show the clusters and their processes.")
    add_named("kubeconfig", _kubeconfig, "Print the path of the administrator's kubeconfig.")
    add_named("kubectl", _kubectl, "Run kubectl: kubectl [--name NAME] -- ARGUMENTS.").add_argument(
        "arguments", nargs="*"
    )
    logs = add_named("logs", _logs, "Show the last lines of the components' logs.")
    logs.add_argument("component", nargs="*", help="which ones (all)")
    logs.add_argument("--lines", type=int, default=20)
    load = add_named("load-image", _load_image, "Give local images to the node.")
    load.add_argument("image", nargs="+")
    image = add("build-image", _build_image, "Build the images for pods.")
    image.add_argument("image", choices=("operator", "runtime", "all"))
    build = add("build", _build, "Only build and cache the programs; print where they are.")
    build.add_argument(
        "program", nargs="*", help=f"which ones: {', '.join(PROGRAMS)} (a cluster's)"
    )
    return parser


def _up(arguments: argparse.Namespace) -> int:
    prune()
    wanted = Spec(
        name=arguments.name,
        shape=arguments.shape,
        port=arguments.port,
        audit=arguments.audit,
        controllers=arguments.controllers or arguments.shape == "node",
    )
    cluster = up(wanted)
    say(f"cluster {arguments.name!r} runs")
    sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig}\n")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    names = [spec.name for _, spec in clusters()] if arguments.all else [arguments.name]
    for name in names:
        say(f"cluster {name!r} {'is gone' if down(name) else 'did not exist'}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    del arguments
    for _, spec in clusters():
        found = status(spec.name)
        state = "running" if found.running else "broken"
        sys.stdout.write(f"{spec.name}  {spec.shape}  {state}  {spec.server}\n")
        for record in found.processes:
            alive = "runs" if record.alive else "ended"
            sys.stdout.write(f"  {record.name:<24} {alive:<6} pid {record.pid}  {record.log}\n")
    return 0


def _existing(name: str) -> Cluster:
    layout = Layout.of(name)
    if layout.load() is None:
        message = f"there is no cluster {name!r}: python -m e2e.cluster up --name {name}"
        raise ClusterError(message)
    return Cluster.local(layout)


def _kubeconfig(arguments: argparse.Namespace) -> int:
    sys.stdout.write(f"{_existing(arguments.name).kubeconfig}\n")
    return 0


def _kubectl(arguments: argparse.Namespace) -> int:
    kubectl = kubectl_command(_existing(arguments.name).layout)
    # Become kubectl, so that its terminal, its signals and its status are the caller's.
    os.execv(kubectl[0], [*kubectl, *arguments.arguments])  # noqa: S606 - a fixed program


def _logs(arguments: argparse.Namespace) -> int:
    folder = Layout.of(arguments.name).logs
    for path in sorted(folder.glob("*.log")):
        if not arguments.component or path.stem in arguments.component:
            sys.stdout.write(f"--- {path}\n{tail(path, arguments.lines)}\n")
    return 0


def _load_image(arguments: argparse.Namespace) -> int:
    _existing(arguments.name).load_images(*arguments.image)
    return 0


def _build_image(arguments: argparse.Namespace) -> int:
    # Imported here: nothing else on this command line needs the image builder.
    from e2e.cluster.images import IMAGES, build_image

    names = list(IMAGES) if arguments.image == "all" else [arguments.image]
    for name in names:
        sys.stdout.write(f"{build_image(name)}\n")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    for name, path in build_all(arguments.program or CLUSTER_PROGRAMS).items():
        sys.stdout.write(f"{name}  {path}\n")
    pause_image()
    return 0
