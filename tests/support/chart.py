"""Helm as the chart's tests use it: rendered as it would be installed, never from a parsed copy."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.binaries import program

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ullage"
EXAMPLES = ROOT / "examples"
RELEASE = "ullage"
NAMESPACE = "ullage-system"

# Helm renders for the cluster it talks to; without one it would assume a release long gone.
KUBE_VERSION = "1.34.0"
HELM_SECONDS = 60.0


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster; the caller looks at the exit status."""
    return subprocess.run(
        [str(program("helm")), *arguments],
        capture_output=True,
        text=True,
        timeout=HELM_SECONDS,
        check=False,
    )


def template(*arguments: str, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[str]:
    """Run `helm template` on the chart with further arguments."""
    release = (RELEASE, str(CHART), f"--namespace={namespace}", f"--kube-version={KUBE_VERSION}")
    return helm("template", *release, *arguments)


def rendered_text(*arguments: str, namespace: str = NAMESPACE) -> str:
    """Return the manifests the chart renders, or fail with what Helm says."""
    done = template(*arguments, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(*arguments: str, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """Return the objects the chart renders."""
    documents = yaml.safe_load_all(rendered_text(*arguments, namespace=namespace))
    return [document for document in documents if document]


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the one object of a kind, and of a name where there are several."""
    found = [
        each
        for each in objects
        if each["kind"] == kind and name in {None, each["metadata"]["name"]}
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]
