"""Ullage's images: built when what they are made of has changed, and given to a cluster's node.

What is built is kept as an archive, named by its content. A second run finds the archive and starts
no daemon; a node that already has the image is not given it again.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.base_image import python_image
from e2e.cluster.binaries import say
from e2e.cluster.cache import building, cache_root, content_key, locked
from e2e.cluster.context import IMAGES, Context, ImageSource, pack
from e2e.cluster.docker import Docker, docker
from e2e.cluster.errors import ClusterError
from e2e.cluster.node import ctr
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2e.cluster.cluster import Cluster

__all__ = ["IMAGES", "BuiltImage", "build_image", "load_images"]

BUILD_SECONDS = 3600.0
SAVE_SECONDS = 600.0
LOAD_SECONDS = 600.0
KEPT_ARCHIVES = 2
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in an archive; `reference` may name another content tomorrow, `keyed` never does."""

    reference: str
    keyed: str
    archive: Path

    def __str__(self) -> str:
        """Return the name that manifests use."""
        return self.reference


def build_image(name: str) -> BuiltImage:
    """Build the image `name` of `IMAGES`, unless this very content has been built before."""
    source = IMAGES[name]
    with locked(f"image-{name}", timeout=BUILD_SECONDS):
        context = pack(source)
        key = content_key(context.key, os.environ.get("ULLAGE_PYTHON_IMAGE", ""))
        folder = cache_root() / "images" / f"{name}-{key}"
        repository = f"ullage-{name}"
        image = BuiltImage(f"{repository}:dev", f"{repository}:{key}", folder / "image.tar")
        if folder.exists():
            folder.touch()
        else:
            _build(source, context, image)
            _forget_old(name)
    return image


def load_images(cluster: Cluster, images: Iterable[str | BuiltImage]) -> None:
    """Give these images to the cluster's node.

    A name alone stands for what was last built as that name here, or else for what the machine's
    Docker holds. A cluster that somebody else runs is given them only where it is kind's.
    """
    for each in images:
        image = find_image(each) if isinstance(each, str) else each
        if cluster.spec is None:
            _load_elsewhere(cluster, image)
        else:
            _load(cluster, image)


def find_image(reference: str) -> BuiltImage:
    """Return the archive of an image, saving it from Docker if it is not one of ours."""
    match = re.fullmatch(r"ullage-(\w+):dev", reference)
    if match and match[1] in IMAGES:
        return build_image(match[1])
    with docker() as builder:
        identity = builder.run("image", "inspect", "--format", "{{.Id}}", reference).stdout.strip()
        key = content_key(reference, identity)
        folder = cache_root() / "images" / f"other-{key}"
        keyed = f"ullage-other:{key}"
        if not folder.exists():
            builder.run("tag", reference, keyed)
            with building(folder) as temporary:
                _save(builder, temporary / "image.tar", reference, keyed)
    return BuiltImage(reference, keyed, folder / "image.tar")


def _build(source: ImageSource, context: Context, image: BuiltImage) -> None:
    say(f"building {image.reference}")
    log = cache_root() / "images" / f"{source.name}-build.log"
    with building(image.archive.parent) as folder, docker() as builder:
        packed = folder / "context.tar"
        packed.write_bytes(context.data)
        arguments = ["--file", source.dockerfile, "--network=host", "--pull=false"]
        arguments += ["--build-arg", f"PYTHON_IMAGE={python_image(builder)}"]
        arguments += [*_trust(), *_settings()]
        arguments += ["--tag", image.reference, "--tag", image.keyed]
        builder.build(packed, arguments=arguments, log=log)
        packed.unlink()
        _save(builder, folder / "image.tar", image.reference, image.keyed)
        # The archive is what is kept; untagged, the layers stay as a cache for the next build.
        builder.run("image", "rm", image.keyed)
        builder.tidy()


def _save(builder: Docker, archive: Path, *references: str) -> None:
    builder.run("save", "--output", archive, *references, timeout=SAVE_SECONDS)


def _trust() -> list[str]:
    """Return what lets build steps trust this machine's own certificates, if it has any.

    They are a secret of the build: mounted for single steps, part of no layer.
    """
    explicit = os.environ.get("SSL_CERT_FILE")
    own = OWN_CERTIFICATES.is_dir() and any(OWN_CERTIFICATES.rglob("*.crt"))
    bundle = Path(explicit) if explicit else CA_BUNDLE
    if not (explicit or own) or not bundle.is_file():
        return []
    inside = "/run/secrets/ca-bundle"
    names = ("SSL_CERT_FILE", "PIP_CERT")
    variables = [word for name in names for word in ("--build-arg", f"{name}={inside}")]
    return ["--secret", f"id=ca-bundle,src={bundle}", *variables]


def _settings() -> list[str]:
    """Return this machine's proxies and package indexes as build arguments."""
    names = [*PASSED_ON, *(name.lower() for name in PASSED_ON[:3])]
    return [word for name in names if name in os.environ for word in ("--build-arg", name)]


def _load(cluster: Cluster, image: BuiltImage) -> None:
    client = ctr(cluster.layout)
    prefix = "docker.io/library/"
    present = run([*client, "images", "ls", "--quiet"]).stdout.split()
    if f"{prefix}{image.keyed}" not in present:
        say(f"giving {image.reference} to the node")
        run([*client, "images", "import", image.archive], timeout=LOAD_SECONDS)
    name = image.reference if "/" in image.reference else f"{prefix}{image.reference}"
    run([*client, "images", "tag", "--force", f"{prefix}{image.keyed}", name])


def _load_elsewhere(cluster: Cluster, image: BuiltImage) -> None:
    context = cluster.kubectl("config", "current-context").stdout.strip()
    kind = shutil.which("kind")
    if context.startswith("kind-") and kind:
        name = context.removeprefix("kind-")
        run([kind, "load", "image-archive", image.archive, "--name", name], timeout=LOAD_SECONDS)
        return
    message = (
        f"{context!r} is not kind's: push {image.reference} where its nodes can pull it, "
        "and set ULLAGE_E2E_IMAGES=pulled"
    )
    if os.environ.get("ULLAGE_E2E_IMAGES") != "pulled":
        raise ClusterError(message)


def _forget_old(name: str) -> None:
    """Remove all but the latest few archives of an image."""
    folders = [path for path in (cache_root() / "images").glob(f"{name}-*") if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[KEPT_ARCHIVES:]:
        shutil.rmtree(folder, ignore_errors=True)
