"""The demo: a cluster, Ullage on it, one model, one answer; `python -m e2e.demo up` and `down`.

The cluster is, in this order: the current one of your kubeconfig if you ask with `--current`, the
one that `ULLAGE_E2E_KUBECONFIG` names, one that kind makes if kind is installed, and else a small
one of our own on this machine. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import openai
from rich.console import Console
from rich.markup import escape

from e2e.cluster.binaries import program
from e2e.cluster.errors import ClusterError
from e2e.cluster.images import build_image, load_images
from e2e.demo_place import Kind, Place, chosen_place, forget_place, remembered_place
from e2e.scenarios.team import MDEP, Team

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2e.cluster.cluster import Cluster
    from e2e.cluster.images import BuiltImage

__all__ = ["main"]

SYSTEM = "ullage-system"
NAMESPACE = "ullage-demo"
RELEASE = "ullage"
OPERATOR = "ullage-operator"
MODEL = "guide"
POOL = "ullage-default"
DEMO_LABEL = "ullage.dev/demo"
MANIFEST = "examples/quickstart.yaml"
QUESTION = "What is Ullage?"

INSTALL_SECONDS = 300.0
MOST_RESTARTS = 2
READY_SECONDS = 300.0
DELETE_SECONDS = 180.0
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.3

console = Console(highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("up", help="from nothing to an answer")
    start.add_argument(
        "--current", action="store_true", help="use the kubeconfig's current cluster"
    )
    commands.add_parser("down", help="remove what `up` made")
    options = parser.parse_args(argv)
    try:
        if options.command == "down":
            demo_down()
        else:
            demo_up(current=options.current)
    except ClusterError as error:
        console.print(f"[red]✗[/] {escape(str(error))}")
        return 1
    except openai.OpenAIError as error:
        console.print(f"[red]✗[/] the model did not answer: {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; `make demo` goes on from here, `make demo-down` cleans up")
        return 130
    return 0


def demo_up(*, current: bool) -> None:
    """Go from whatever there is to an answer, and say how to go on."""
    started = time.monotonic()
    with step("a Kubernetes cluster") as done:
        place = chosen_place(current=current)
        done.append(place.description)
    cluster = place.cluster
    with step("the images of operator and runtime") as done:
        images = {name: build_image(name) for name in ("operator", "runtime")}
        load_images(cluster, images.values())
        done.append(", ".join(pod_image(place, image) for image in images.values()))
    with step("Ullage, by its Helm chart"):
        install(place, images)
    team = Team(cluster, NAMESPACE)
    with step(f"kubectl apply -f {MANIFEST}"):
        make_namespace(cluster, NAMESPACE)
        team.kubectl("apply", "-f", MANIFEST)
    follow_until_ready(team, pod_image(place, images["runtime"]))
    ask(team)
    console.print(f"\n[bold]$ kubectl --namespace {NAMESPACE} get mdep -o wide[/]")
    console.print(team.kubectl("get", MDEP, "-o", "wide").stdout.rstrip(), soft_wrap=True)
    say_how_to_go_on(place, time.monotonic() - started)


def demo_down() -> None:
    """Remove what the demo made, and nothing else."""
    place = remembered_place()
    if place is None:
        console.print("there is no demo to remove")
        return
    if place.kind is Kind.GIVEN:
        with step("the demo's namespace and release"):
            remove_from(place.cluster)
        console.print(f"The CRD {MDEP} stays: with it would go every model of the cluster.")
    else:
        with step(f"removing {place.description}"):
            place.remove()
    forget_place()


def remove_from(cluster: Cluster) -> None:
    """Remove the demo from a cluster that stays; a namespace it did not make is left alone."""
    for name in (NAMESPACE, SYSTEM):
        selector = f"{DEMO_LABEL}=true,kubernetes.io/metadata.name={name}"
        if not cluster.get_json("namespaces", "-l", selector)["items"]:
            continue
        if name == SYSTEM:
            cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", name, timeout=DELETE_SECONDS)


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Show that something is under way, then how long it took; the list takes a last remark."""
    started = time.monotonic()
    remarks: list[str] = []
    try:
        with console.status(f"{what} …"):
            yield remarks
    except BaseException:
        console.print(f"[red]✗[/] {what}")
        raise
    remark = f" [dim]{escape(remarks[0])}[/]" if remarks else ""
    seconds = time.monotonic() - started
    console.print(f"[green]✓[/] {what} [dim]{seconds:.1f} s[/]{remark}", soft_wrap=True)


def pod_image(place: Place, image: BuiltImage) -> str:
    """Return the name by which pods ask for an image; it changes when the image does.

    Only where a person gave the image to the nodes does it bear the name that they know.
    """
    pulled = place.kind is Kind.GIVEN and os.environ.get("ULLAGE_E2E_IMAGES") == "pulled"
    return image.reference if pulled else image.keyed


def install(place: Place, images: dict[str, BuiltImage]) -> None:
    """Install the chart, or upgrade it to what this checkout has; wait until the operator is up."""
    settings = {
        "operator.image.repository": "ullage-operator",
        "operator.image.tag": pod_image(place, images["operator"]).rpartition(":")[2],
        "runtime.image.repository": "ullage-runtime",
        "runtime.image.tag": pod_image(place, images["runtime"]).rpartition(":")[2],
        # A laptop has fewer cores to promise than a node.
        "pools.default.resources.requests.cpu": "250m",
        "pools.default.resources.requests.memory": "512Mi",
    }
    refuse_a_foreign_installation(place.cluster)
    make_namespace(place.cluster, SYSTEM)
    values = [f"--set-string={key}={value}" for key, value in settings.items()]
    place.cluster.helm(
        "upgrade",
        "--install",
        RELEASE,
        "charts/ullage",
        f"--namespace={SYSTEM}",
        *values,
    )
    await_operator(place.cluster)


def await_operator(cluster: Cluster) -> None:
    """Wait until the operator is up; one that keeps dying is not waited for."""
    deadline = time.monotonic() + INSTALL_SECONDS
    before = restarts(cluster)
    while True:
        deployment = cluster.get_json("deployment", OPERATOR, "--namespace", SYSTEM)
        status = deployment.get("status", {})
        seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        if seen and status.get("updatedReplicas") == status.get("readyReplicas") == 1:
            return
        # The pod of an earlier install may have died many times, and is on its way out.
        dying = any(n - before.get(pod, 0) >= MOST_RESTARTS for pod, n in restarts(cluster).items())
        if dying or time.monotonic() > deadline:
            trouble = "keeps dying" if dying else f"is not up after {INSTALL_SECONDS:.0f} s"
            command = ("logs", f"deployment/{OPERATOR}", "--tail=20", "--namespace", SYSTEM)
            logs = cluster.kubectl(*command, check=False).stdout
            raise ClusterError(f"the operator {trouble}\n{state(cluster, SYSTEM)}{logs}")
        time.sleep(POLL_SECONDS)


def restarts(cluster: Cluster) -> dict[str, int]:
    """Return how often the containers of each of the operator's pods were restarted."""
    selector = "app.kubernetes.io/component=operator"
    pods = cluster.get_json("pods", "-l", selector, "--namespace", SYSTEM)["items"]
    return {
        pod["metadata"]["uid"]: sum(
            each["restartCount"] for each in pod["status"].get("containerStatuses", ())
        )
        for pod in pods
    }


def make_namespace(cluster: Cluster, name: str) -> None:
    """Make a namespace of the demo, under the strictest pod security standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", DEMO_LABEL: "true"}
    metadata = {"name": name, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def refuse_a_foreign_installation(cluster: Cluster) -> None:
    """Raise ClusterError where Ullage was installed by somebody else: it is not ours to change."""
    selector = "app.kubernetes.io/part-of=ullage,app.kubernetes.io/component=operator"
    found = cluster.get_json("deployments", "--all-namespaces", "-l", selector)["items"]
    ours = cluster.get_json("namespaces", "-l", f"{DEMO_LABEL}=true")["items"]
    names = {each["metadata"]["name"] for each in ours}
    foreign = [f"{d['metadata']['namespace']}/{d['metadata']['name']}" for d in found
               if d["metadata"]["namespace"] not in names]  # fmt: skip
    if foreign:
        raise ClusterError(
            f"Ullage is on this cluster already ({', '.join(foreign)}), and the demo would change "
            f"it; try `kubectl apply -f {MANIFEST}` instead"
        )


def follow_until_ready(team: Team, image: str) -> None:
    """Print every condition of the model as it changes, until pods of this image serve it."""
    started = time.monotonic()
    shown: dict[str, tuple[str, str, str]] = {}
    with console.status(f"waiting for {MODEL} to be ready …"):
        while True:
            conditions = team.status(MODEL).get("conditions", [])
            for each in conditions:
                show_change(each, shown, time.monotonic() - started)
            ready = shown.get("Ready", ("", "", ""))
            if ready[0] == "True" and pool_runs(team, image):
                return
            if ready[0] == "False":
                raise ClusterError(f"{MODEL} cannot be served: {ready[1]}: {ready[2]}")
            if time.monotonic() - started > READY_SECONDS:
                trouble = f"{MODEL} is not ready after {READY_SECONDS:.0f} s"
                raise ClusterError(f"{trouble}{state(team.cluster, NAMESPACE)}")
            time.sleep(POLL_SECONDS)


def pool_runs(team: Team, image: str) -> bool:
    """Return whether the pool's pods are all up and of this image, and not about to be replaced."""
    pool = team.cluster.get_json("statefulset", POOL, "--namespace", NAMESPACE)
    containers = pool["spec"]["template"]["spec"]["containers"]
    status, wanted = pool["status"], pool["spec"]["replicas"]
    seen = status.get("observedGeneration") == pool["metadata"]["generation"]
    counts = [status.get(each, 0) for each in ("updatedReplicas", "readyReplicas")]
    return seen and containers[0]["image"] == image and counts == [wanted, wanted]


def show_change(
    condition: dict[str, Any], shown: dict[str, tuple[str, str, str]], seconds: float
) -> None:
    """Print a condition that differs from what was last shown of it."""
    now = (condition["status"], condition["reason"], condition["message"])
    if shown.get(condition["type"]) == now:
        return
    shown[condition["type"]] = now
    colour = {"True": "green", "False": "red"}.get(now[0], "yellow")
    console.print(
        f"  [dim]{seconds:5.1f} s[/]  {condition['type']:<13} [{colour}]{now[0]:<8}[/]"
        f"{now[1]:<18} [dim]{escape(now[2])}[/]",
        soft_wrap=True,
    )


def state(cluster: Cluster, namespace: str) -> str:
    """Return what pods and events say, for a person who wonders why nothing happens."""
    scope = ("--namespace", namespace)
    pods = cluster.kubectl("get", "pods", "-o", "wide", *scope, check=False).stdout
    events = cluster.kubectl(
        "get", "events", "--sort-by=.lastTimestamp", *scope, check=False
    ).stdout
    return f"\n{pods}\n{events}"


def ask(team: Team) -> None:
    """Ask through the Service, as any client would, and print the answer as it comes."""
    console.print(f"\n[bold]{QUESTION}[/] [dim](through Service {MODEL}-model, streamed)[/]")
    started = time.monotonic()
    first: float | None = None
    with (
        team.reach(f"{MODEL}-model") as url,
        openai.OpenAI(base_url=url, api_key="none", timeout=ANSWER_SECONDS) as client,
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
        ) as answer,
    ):
        for chunk in answer:
            text = (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if text and first is None:
                first = time.monotonic() - started
            console.print(f"[cyan]{escape(text)}[/]", end="", soft_wrap=True)
    if first is None:
        raise ClusterError("the answer was empty")
    total = time.monotonic() - started
    console.print(f"\n[dim]first words after {first * 1000:.0f} ms, whole after {total:.1f} s[/]")


def say_how_to_go_on(place: Place, seconds: float) -> None:
    """Print the next commands."""
    cluster = place.cluster
    console.print(f"\n[green]Done in {seconds:.0f} s.[/] Go on:", soft_wrap=True)
    lines = [f"export KUBECONFIG={cluster.kubeconfig}"]
    if cluster.spec is not None:
        lines.append(f"export PATH={program('kubectl').parent}:$PATH")
    lines += [
        f"kubectl --namespace {NAMESPACE} describe mdep {MODEL}",
        f"kubectl --namespace {NAMESPACE} apply -f examples/two-models.yaml",
        f"kubectl --namespace {NAMESPACE} scale mdep {MODEL} --replicas=0",
        "make demo-down",
    ]
    for line in lines:
        console.print(f"  {escape(line)}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
