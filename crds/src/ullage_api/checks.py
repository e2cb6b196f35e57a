"""The CRDs' own rules, in Python: for resources that no API server has looked at.

The API server evaluates CEL; `ullage up` and the operator (whose cluster may carry an older CRD)
have only Python. Each check here answers with the very message of the CEL rule it stands for, and
a test holds the two lists against each other.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ullage_api.kinds.base import NAME_RULE, POOL_RULE
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.index_overrides import (
    OVERSAMPLING_MESSAGE,
    OVERSAMPLING_PATTERN,
    QUANTILE_MESSAGE,
    QUANTILE_PATTERN,
    QUANTIZATION_MESSAGE,
    IndexOverrides,
)
from ullage_api.kinds.model_deployment import ModelDeployment, Task
from ullage_api.kinds.model_source import (
    ADAPTER_NAME_PATTERN,
    MAX_ADAPTER_SCALE,
    SCHEME_NAMES,
    SCHEMES,
    URI_FORMS,
    AdapterSource,
)
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.rollout import ValidationPrompt
from ullage_api.kinds.sampling import MAX_TEMPERATURE, NUMBER_PATTERN, SamplingDefaults
from ullage_api.kinds.vector_collection import (
    ALIAS_MESSAGE,
    OWN_ALIAS_MESSAGE,
    RERANK_MESSAGE,
    URL_MESSAGE,
    URL_NEEDED_MESSAGE,
    URL_UNUSED_MESSAGE,
    StoreType,
    VectorCollection,
    VectorCollectionSpec,
)
from ullage_api.kinds.vector_collection import ALIAS_PATTERN as COLLECTION_ALIAS_PATTERN
from ullage_api.names import NAME_PATTERN, is_valid_name

ALIAS_PATTERN: Final = r"^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$"
SHA256_PATTERN: Final = r"^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: whether a resource satisfies it, and what to say when it does not."""

    message: str
    holds: Callable[[ModelDeployment], bool]


def _matches(pattern: str, text: str) -> bool:
    # `\Z`, not `$`: Python's `$` also matches before a final newline, CEL's does not.
    return re.match(pattern.removesuffix("$") + r"\Z", text) is not None


def _aliases(resource: ModelDeployment) -> list[str]:
    return resource.spec.aliases or []


def _sha256_holds(sha256: str | None) -> bool:
    return sha256 is None or _matches(SHA256_PATTERN, sha256)


def _form_holds(scheme: str, uri: str) -> bool:
    return not uri.startswith(scheme) or _matches(URI_FORMS[scheme][0], uri)


def _uri_checks(
    field: str, of_each: Callable[[Callable[[str], bool]], Callable[[ModelDeployment], bool]]
) -> tuple[Check, ...]:
    """Return the rules of an address, as `kinds.model_source` has them for the API server."""
    return (
        Check(
            f"{field} must begin with {SCHEME_NAMES}", of_each(lambda uri: uri.startswith(SCHEMES))
        ),
        *(
            Check(f"{field} with {scheme} must be {form}", of_each(partial(_form_holds, scheme)))
            for scheme, (_, form) in URI_FORMS.items()
        ),
        Check(
            f"{field} must not contain spaces; write them as %20",
            of_each(lambda uri: " " not in uri),
        ),
    )


def _of_model(holds: Callable[[str], bool]) -> Callable[[ModelDeployment], bool]:
    return lambda resource: holds(resource.spec.model.uri)


def _adapters(resource: ModelDeployment) -> list[AdapterSource]:
    return resource.spec.model.adapters or []


def _of_each_adapter(holds: Callable[[AdapterSource], bool]) -> Callable[[ModelDeployment], bool]:
    return lambda resource: all(holds(adapter) for adapter in _adapters(resource))


def _of_each_adapter_uri(holds: Callable[[str], bool]) -> Callable[[ModelDeployment], bool]:
    return _of_each_adapter(lambda adapter: holds(adapter.uri))


def _scale_holds(adapter: AdapterSource) -> bool:
    scale = adapter.scale
    return scale is None or (_matches(NUMBER_PATTERN, scale) and float(scale) <= MAX_ADAPTER_SCALE)


def _adapters_differ(resource: ModelDeployment) -> bool:
    names = [adapter.name for adapter in _adapters(resource)]
    return len(set(names)) == len(names)


def _defaults(resource: ModelDeployment) -> SamplingDefaults:
    serving = resource.spec.serving
    return (serving.defaults if serving else None) or SamplingDefaults()


def _temperature_holds(resource: ModelDeployment) -> bool:
    given = _defaults(resource).temperature
    return given is None or (_matches(NUMBER_PATTERN, given) and float(given) <= MAX_TEMPERATURE)


def _top_p_holds(resource: ModelDeployment) -> bool:
    given = _defaults(resource).top_p
    return given is None or (_matches(NUMBER_PATTERN, given) and 0 < float(given) <= 1)


def _embedding_settings_hold(resource: ModelDeployment) -> bool:
    engine = resource.spec.engine or EngineSettings()
    given = engine.pooling is not None or engine.instructions is not None
    return not given or resource.spec.task is Task.EMBEDDING


def _validation(resource: ModelDeployment) -> list[ValidationPrompt]:
    rollout = resource.spec.rollout
    return (rollout.validation if rollout else None) or []


def _expectations_hold(resource: ModelDeployment) -> bool:
    given = (v.expect for v in _validation(resource) if v.expect is not None)
    return all((e.contains is None) != (e.equals is None) for e in given)


def _expectations_fit(resource: ModelDeployment) -> bool:
    if resource.spec.task in {Task.CHAT, Task.COMPLETION}:
        return True
    return all(prompt.expect is None for prompt in _validation(resource))


CHECKS: Final[tuple[Check, ...]] = (
    Check(
        NAME_RULE["message"],
        lambda r: is_valid_name(r.metadata.name) and _matches(NAME_PATTERN, r.metadata.name),
    ),
    Check(
        POOL_RULE["message"],
        lambda r: _matches(NAME_PATTERN, r.spec.pool),
    ),
    Check(
        "spec.aliases must not repeat metadata.name; remove it, the name always works",
        lambda r: r.metadata.name not in _aliases(r),
    ),
    Check(
        "an alias must be letters, digits and any of . _ : / - in between",
        lambda r: all(_matches(ALIAS_PATTERN, alias) for alias in _aliases(r)),
    ),
    Check(
        "spec.aliases must not name one alias twice",
        lambda r: len(set(_aliases(r))) == len(_aliases(r)),
    ),
    *_uri_checks("model.uri", _of_model),
    Check(
        "model.sha256 must be 64 lower-case hexadecimal digits",
        lambda r: _sha256_holds(r.spec.model.sha256),
    ),
    Check(
        "model.adapters.name must be letters, digits and any of . _ - in between",
        _of_each_adapter(lambda a: _matches(ADAPTER_NAME_PATTERN, a.name)),
    ),
    Check("model.adapters must not name one adapter twice", _adapters_differ),
    *_uri_checks("model.adapters.uri", _of_each_adapter_uri),
    Check(
        "model.adapters.sha256 must be 64 lower-case hexadecimal digits",
        _of_each_adapter(lambda a: _sha256_holds(a.sha256)),
    ),
    Check(
        f"model.adapters.scale must be a number from '0' to '{MAX_ADAPTER_SCALE}' with at most 4 "
        "decimals, such as '1.0'",
        _of_each_adapter(_scale_holds),
    ),
    Check(
        "engine.pooling and engine.instructions are for task Embedding; remove them, or change "
        "task",
        _embedding_settings_hold,
    ),
    Check(
        "model.adapters are for tasks Chat and Completion; remove them, or change task",
        lambda r: not r.spec.model.adapters or r.spec.task in {Task.CHAT, Task.COMPLETION},
    ),
    Check(
        "serving.responseCache is for task Chat; remove it, or change task",
        lambda r: (
            r.spec.task is Task.CHAT or not (r.spec.serving and r.spec.serving.response_cache)
        ),
    ),
    Check(
        "rollout.validation.expect must have one of contains and equals",
        _expectations_hold,
    ),
    Check(
        "rollout.validation.expect is for tasks Chat and Completion; remove it, or change task",
        _expectations_fit,
    ),
    Check(
        "serving.defaults.temperature must be a number from '0' to '2' with at most 4 decimals, "
        "such as '0.7'",
        _temperature_holds,
    ),
    Check(
        "serving.defaults.topP must be a number above '0' and up to '1' with at most 4 decimals, "
        "such as '0.95'",
        _top_p_holds,
    ),
)
"""Every rule a resource must satisfy by itself; transitions (`oldSelf`) are the API server's."""


def problems(resource: ModelDeployment) -> list[str]:
    """Return what is wrong with a resource, one message per broken rule; empty when it is fine."""
    return [check.message for check in CHECKS if not check.holds(resource)]


def name_conflicts(resources: list[ModelDeployment]) -> Iterator[tuple[ModelDeployment, str]]:
    """Yield the resources of one pool whose name or alias an earlier one has, with the message."""
    taken: dict[str, str] = {}
    for resource in resources:
        mine = resource.metadata.name
        for name in (*resource.names, *resource.adapter_names):
            owner = taken.setdefault(name, mine)
            if owner != mine:
                yield resource, f"{name!r} is already a name of model {owner!r} in this pool"
                break


def collection_conflicts(
    collections: Sequence[VectorCollection],
) -> dict[str, dict[str, str]]:
    """Return the aliases of each collection of a pool that others have, with their owners.

    A name goes before an alias, and an alias to the first that wants it.
    """
    taken = {each.metadata.name: each.metadata.name for each in collections}
    found: dict[str, dict[str, str]] = {}
    for collection in collections:
        mine = collection.metadata.name
        for alias in collection.spec.aliases or ():
            owner = taken.setdefault(alias, mine)
            if owner != mine:
                found.setdefault(mine, {})[alias] = owner
    return found


def conflict_message(alias: str, owner: str) -> str:
    """Return what is said of an alias that another collection has."""
    return f"{alias!r} is already a name of collection {owner!r} in this pool"


def collection_problems(
    collections: list[VectorCollection], models: list[ModelDeployment]
) -> Iterator[str]:
    """Yield what is wrong with collections, by themselves or with the pool's models beside them."""
    for collection in collections:
        name = collection.metadata.name
        if not is_valid_name(name):
            yield f"{name}: {NAME_RULE['message']}"
        problem = model_problem(collection.spec, models)
        if problem is not None:
            yield f"{name}: {problem}"
        yield from (f"{name}: {problem}" for problem in _own_problems(collection))
    for pool in {each.spec.pool for each in collections}:
        here = [each for each in collections if each.spec.pool == pool]
        for name, taken in collection_conflicts(here).items():
            yield from (f"{name}: {conflict_message(*each)}" for each in taken.items())


def reindex_problems(
    jobs: Sequence[ReindexJob], collections: Sequence[VectorCollection]
) -> Iterator[str]:
    """Yield what is wrong with reindex jobs, by themselves or with the collections beside them."""
    known = [collection.metadata.name for collection in collections]
    for job in jobs:
        name, wanted = job.metadata.name, job.spec.collection
        if not is_valid_name(name):
            yield f"{name}: {NAME_RULE['message']}"
        if wanted not in known:
            there = ", ".join(known) or "none"
            yield f"{name}: there is no VectorCollection {wanted!r}; collections here: {there}"


def model_problem(spec: VectorCollectionSpec, models: Sequence[ModelDeployment]) -> str | None:
    """Return which of a collection's models is none of the pool's, or does something else."""
    here = {model.metadata.name: model for model in models if model.spec.pool == spec.pool}
    named = [("embedding", spec.embedding.model_deployment, Task.EMBEDDING, "embed")]
    if spec.rerank is not None:
        named.append(("rerank", spec.rerank.model_deployment, Task.RERANK, "rerank"))
    for field, wanted, task, verb in named:
        model = here.get(wanted)
        if model is None:
            known = ", ".join(name for name, each in here.items() if each.spec.task is task)
            return (
                f"{field}.modelDeployment {wanted!r} is no model of pool {spec.pool!r}; "
                f"models that {verb}: {known or 'none'}"
            )
        if model.spec.task is not task:
            return (
                f"{field}.modelDeployment {wanted!r} is for {model.spec.task.value}; its task "
                f"must be {task.value}"
            )
    return None


def _own_problems(collection: VectorCollection) -> Iterator[str]:
    rerank = collection.spec.rerank
    if rerank is not None and rerank.min and rerank.max and rerank.min > rerank.max:
        yield RERANK_MESSAGE
    yield from _store_problems(collection)
    yield from _alias_problems(collection)
    if collection.spec.overrides is not None:
        yield from _override_problems(collection.spec.overrides)


def _alias_problems(collection: VectorCollection) -> Iterator[str]:
    aliases = collection.spec.aliases or []
    if collection.metadata.name in aliases:
        yield OWN_ALIAS_MESSAGE
    if not all(_matches(COLLECTION_ALIAS_PATTERN, alias) for alias in aliases):
        yield ALIAS_MESSAGE
    if len(set(aliases)) < len(aliases):
        yield "spec.aliases must not name one alias twice"


def _override_problems(overrides: IndexOverrides) -> Iterator[str]:
    given = overrides.quantization_config
    if given is not None and (given.scalar is None) == (given.binary is None):
        yield QUANTIZATION_MESSAGE
    quantile = given.scalar.quantile if given is not None and given.scalar is not None else None
    if quantile is not None and not _matches(QUANTILE_PATTERN, quantile):
        yield QUANTILE_MESSAGE
    use = overrides.params.quantization if overrides.params is not None else None
    oversampling = use.oversampling if use is not None else None
    if oversampling is not None and not _matches(OVERSAMPLING_PATTERN, oversampling):
        yield OVERSAMPLING_MESSAGE


def _store_problems(collection: VectorCollection) -> Iterator[str]:
    store = collection.spec.store
    if store is None:
        return
    if store.type is StoreType.EMBEDDED and store.url is not None:
        yield URL_UNUSED_MESSAGE
    if store.type is StoreType.QDRANT and store.url is None:
        yield URL_NEEDED_MESSAGE
    if store.url is not None and not store.url.startswith(("http://", "https://")):
        yield URL_MESSAGE
