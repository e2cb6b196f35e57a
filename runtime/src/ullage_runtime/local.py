"""The same YAML without Kubernetes: manifests read strictly, and the document made of them.

What the API server does on a cluster is done here: unknown fields are refused, values are checked
by the schema and by the CRD's own rules. The document then comes from the very function that the
operator calls.
"""

import difflib
import ipaddress
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from ullage_api.checks import collection_problems, name_conflicts, problems, reindex_problems
from ullage_api.desired import History, desired_document
from ullage_api.kinds.base import Resource, unknown_fields
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_source import ModelSource
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import API_VERSION, GROUP, SAMPLE_MODELS_DIR
from ullage_api.profile import PoolProfile, RuntimeSettings
from ullage_api.wire.pool_desired import PoolDesired

KINDS: Final = {kind.__name__: kind for kind in (ModelDeployment, VectorCollection, ReindexJob)}
"""Kinds that can be run."""
LOCAL_IMAGE: Final = "local"
"""A profile must name an image; without pods nothing pulls it."""


class ManifestError(Exception):
    """Manifests that cannot be used; one line for each thing that is wrong."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Manifests:
    """What some files ask for."""

    resources: tuple[ModelDeployment, ...]
    folders: tuple[pathlib.Path, ...]
    collections: tuple[VectorCollection, ...] = ()
    reindexes: tuple[ReindexJob, ...] = ()
    skipped: tuple[str, ...] = ()
    """What is not served, each with the reason: first of all objects of other kinds."""

    @property
    def pools(self) -> tuple[str, ...]:
        """Pools that the resources name, in order of appearance."""
        pools = [*(r.spec.pool for r in self.resources), *(c.spec.pool for c in self.collections)]
        return tuple(dict.fromkeys(pools))


@dataclass(slots=True)
class _Document:
    """One YAML document with the lines its fields are on."""

    path: pathlib.Path
    data: Any
    lines: Mapping[str, int]
    wrong: list[str] = field(default_factory=list)

    def at(self, where: str) -> str:
        """Return `file:line` of a field, or of the nearest one around it."""
        probe = where
        while probe and probe not in self.lines:
            probe = probe[: max(probe.rfind("."), probe.rfind("["), 0)]
        return f"{self.path}:{self.lines.get(probe, 1)}"

    def blame(self, where: str, message: str) -> None:
        """Note what is wrong at a field."""
        self.wrong.append(f"{self.at(where)}: {message}")


def read_manifests(paths: Sequence[pathlib.Path]) -> Manifests:
    """Return the resources of YAML or JSON files; raises ManifestError with all problems."""
    found: list[Resource] = []
    wrong: list[str] = []
    skipped: list[str] = []
    for path in paths:
        for document in _documents(path, wrong):
            if _is_foreign(document.data):
                kind = f"{document.data['kind']} ({document.at('kind')})"
                skipped.append(f"{kind}: only kinds of Ullage run here")
                continue
            resource = _resource(document)
            wrong.extend(document.wrong)
            if resource is not None:
                found.append(resource)
    resources = [each for each in found if isinstance(each, ModelDeployment)]
    collections = [each for each in found if isinstance(each, VectorCollection)]
    jobs = [each for each in found if isinstance(each, ReindexJob)]
    wrong.extend(f"{r.metadata.name}: {message}" for r, message in name_conflicts(resources))
    wrong.extend(_repeated(found))
    wrong.extend(collection_problems(collections, resources))
    wrong.extend(reindex_problems(jobs, collections))
    if not resources and not wrong:
        wrong.append(f"no ModelDeployment in {', '.join(map(str, paths))}")
    if wrong:
        raise ManifestError(wrong)
    folders = tuple(dict.fromkeys(path.absolute().parent for path in paths))
    return Manifests(
        tuple(resources),
        folders,
        tuple(collections),
        tuple(identified(jobs, collections)),
        tuple(skipped),
    )


def identified(
    jobs: Iterable[ReindexJob], collections: Iterable[VectorCollection]
) -> list[ReindexJob]:
    """Return reindex jobs with uids: the same files mean the same jobs, which run once."""
    wanted = {each.metadata.name: each.spec.to_wire() for each in collections}
    found = []
    for job in jobs:
        uid = job.identity(wanted.get(job.spec.collection))
        metadata = job.metadata.model_copy(update={"uid": uid})
        found.append(job.model_copy(update={"metadata": metadata}))
    return found


def _repeated(resources: Iterable[Resource]) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for resource in resources:
        kind, name = type(resource).__name__, resource.metadata.name
        if (kind, name) in seen:
            yield f"{name}: there are two {kind}s of this name; rename one"
        seen.add((kind, name))


def _is_foreign(data: object) -> bool:
    """Whether a document is an object of Kubernetes, but none of ours."""
    if not isinstance(data, Mapping):
        return False
    version = data.get("apiVersion")
    return isinstance(version, str) and "kind" in data and version.split("/")[0] != GROUP


def _documents(path: pathlib.Path, wrong: list[str]) -> Iterator[_Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        wrong.append(f"{path}: {(error.strerror or str(error)).lower()}")
        return
    except UnicodeDecodeError:
        wrong.append(f"{path}: not a text file; give a YAML or JSON manifest")
        return
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            loader = yaml.SafeLoader("")
            data = loader.construct_document(node) if node is not None else None
            if data is not None:
                lines: dict[str, int] = {}
                repeated = list(_noted_lines(node, "", lines))
                document = _Document(path, data, lines)
                for where in repeated:
                    document.blame(where, f"{where} is there twice")
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        wrong.append(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error}")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        wrong.append(f"{path}: {error}")


def _noted_lines(node: yaml.Node, path: str, lines: dict[str, int]) -> Iterator[str]:
    """Note the line of each field beneath a node; yield the paths that are there twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            if here in seen:
                yield here
            seen.add(here)
            lines[here] = key.start_mark.line + 1
            yield from _noted_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _noted_lines(value, f"{path}[{index}]", lines)


def _resource(document: _Document) -> Resource | None:
    data = document.data
    if not isinstance(data, Mapping):
        document.blame("", "a manifest must be a mapping with apiVersion, kind and spec")
        return None
    kind = KINDS.get(str(data.get("kind")))
    if kind is None or data.get("apiVersion") != API_VERSION:
        given, version = data.get("kind", "no kind"), data.get("apiVersion", "no apiVersion")
        document.blame(
            "kind",
            f"{given} of {version} cannot be run; expected {' or '.join(KINDS)} of {API_VERSION}",
        )
        return None
    for path in unknown_fields(kind, data):
        document.blame(path, f"unknown field {path}{_suggestion(kind, path)}")
    try:
        # JSON, because its strict mode takes what the API server takes: no "3" for 3.
        resource = kind.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        for problem in error.errors():
            path = _dotted(problem["loc"])
            document.blame(path, f"{path}: {problem['msg']}")
        return None
    if isinstance(resource, ModelDeployment):
        for message in problems(resource):
            document.blame(_field_of(message), message)
    return resource


def _dotted(location: Sequence[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _field_of(message: str) -> str:
    """Return the field that a rule's message begins with, as far as it names one."""
    word = message.split(" ", 1)[0]
    return word if word.startswith(("spec.", "metadata.")) else f"spec.{word}"


def _suggestion(kind: type[Resource], path: str) -> str:
    *parents, last = path.split(".")
    model: type[BaseModel] | None = kind
    for parent in parents:
        model = _model_of(model, parent.partition("[")[0]) if model is not None else None
    known = sorted(_aliases(model)) if model is not None else []
    close = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _aliases(model: type[BaseModel]) -> dict[str, Any]:
    return {f.alias or name: f.annotation for name, f in model.model_fields.items()}


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model that a field of another one holds."""
    pending: list[Any] = [_aliases(model).get(name)]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        pending.extend(get_args(annotation))
    return None


def read_profile(path: pathlib.Path) -> PoolProfile:
    """Return the pool profile of a YAML file; raises ManifestError."""
    wrong: list[str] = []
    documents = list(_documents(path, wrong))
    if wrong or len(documents) != 1 or not isinstance(documents[0].data, Mapping):
        raise ManifestError(wrong or [f"{path}: must hold one pool profile, a mapping"])
    document = documents[0]
    data = {"image": LOCAL_IMAGE, **document.data}
    for unknown in unknown_fields(PoolProfile, data):
        document.blame(unknown, f"unknown field {unknown}")
    try:
        profile = PoolProfile.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        for problem in error.errors():
            where = _dotted(problem["loc"])
            document.blame(where, f"{where}: {problem['msg']}")
    if document.wrong:
        raise ManifestError(document.wrong)
    return profile


def local_profile(
    manifests: Manifests,
    base: PoolProfile | None = None,
    *,
    allow_http: bool = False,
    allow_private_addresses: bool = False,
) -> PoolProfile:
    """Return the profile under which manifests run on this machine.

    Files may lie beside the manifests, in their `models` folders, and where the image keeps its
    samples. Plain http and private addresses are allowed when asked for, or when a manifest's own
    address is one of this machine: then there is no network in between that could change bytes.
    """
    base = base or PoolProfile.model_validate({"image": LOCAL_IMAGE})
    roots = [
        *base.runtime.file_roots,
        *(str(root) for folder in manifests.folders for root in (folder, folder / "models")),
        SAMPLE_MODELS_DIR,
    ]
    uris = [uri for r in manifests.resources for uri in _uris(r.spec.model)]
    hosts = [_host(uri) for uri in uris]
    is_own = any(host and _is_loopback(host) for host in hosts)
    remote_http = any(
        uri.startswith("http://") and not (host and _is_loopback(host))
        for uri, host in zip(uris, hosts, strict=True)
    )
    runtime = RuntimeSettings.model_validate(
        {
            **base.runtime.model_dump(),
            "file_roots": tuple(dict.fromkeys(roots))[:16],
            "allow_http": base.runtime.allow_http or allow_http or (is_own and not remote_http),
            "allow_private_addresses": base.runtime.allow_private_addresses
            or allow_private_addresses
            or is_own,
        }
    )
    return base.model_copy(update={"runtime": runtime})


def _uris(model: ModelSource) -> list[str]:
    """Return the addresses of a model's files."""
    return [model.uri, *(adapter.uri for adapter in model.adapters or ())]


def _host(uri: str) -> str | None:
    return urlsplit(uri).hostname if uri.startswith(("http://", "https://")) else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def local_document(
    manifests: Manifests, profile: PoolProfile, histories: Mapping[str, History] | None = None
) -> PoolDesired:
    """Return the desired document of manifests, every model on this one process.

    `histories` has what is served instead of what the manifests say.
    """
    pools = manifests.pools
    return desired_document(
        manifests.resources,
        profile,
        namespace="default",
        pool=pools[0] if len(pools) == 1 else "local",
        placement={r.metadata.name: (0,) for r in manifests.resources if r.spec.replicas > 0},
        histories=histories,
        collections=manifests.collections,
        reindexes=manifests.reindexes,
    )
