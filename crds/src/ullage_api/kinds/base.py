"""What all kinds share: spelling, validation posture and CEL rules as data."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from ullage_api.kinds.columns import Column
from ullage_api.names import MAX_NAME_LENGTH, NAME_PATTERN


class KubeModel(BaseModel):
    """A model written in camelCase, read tolerantly and never changed in place.

    Unknown fields are ignored on reading, so that an older component tolerates a newer document;
    `unknown_fields` finds them where a person wrote the document.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the plain JSON mapping, in camelCase, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(KubeModel):
    """The part of Kubernetes metadata that we read."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []


class Resource(KubeModel):
    """A custom resource kind: its fields, and what the CRD says besides them."""

    PLURAL: ClassVar[str]
    SHORT_NAMES: ClassVar[tuple[str, ...]]
    COLUMNS: ClassVar[tuple[Column, ...]]
    RULES: ClassVar[tuple[dict[str, str], ...]] = ()
    SCALE: ClassVar[dict[str, str] | None] = None

    metadata: ObjectMeta


def rule(expression: str, message: str) -> dict[str, str]:
    """Return one CEL validation rule: the message names the field and the fix."""
    return {"rule": expression, "message": message}


NAME_RULE: Final = rule(
    f"self.metadata.name.matches('{NAME_PATTERN}')"
    f" && size(self.metadata.name) <= {MAX_NAME_LENGTH}",
    f"metadata.name must be at most {MAX_NAME_LENGTH} lower-case letters, digits and '-', "
    "beginning with a letter",
)
"""What a member's name has to be, so that the names that follow from it fit."""
POOL_RULE: Final = rule(
    f"self.matches('{NAME_PATTERN}')",
    "pool must be lower-case letters, digits and '-', beginning with a letter",
)


def validations(*rules: Mapping[str, str], **extra: object) -> dict[str, Any]:
    """Return the JSON schema extension that carries CEL rules, and other `x-kubernetes` keys."""
    return {"x-kubernetes-validations": [dict(r) for r in rules], **extra}


def unknown_fields(model: type[BaseModel], data: object, path: str = "") -> list[str]:
    """Return the dotted paths in `data` that `model` does not know."""
    if not isinstance(data, Mapping):
        return []
    known = {field.alias or name: field for name, field in model.model_fields.items()}
    found: list[str] = []
    for key, value in data.items():
        here = f"{path}.{key}" if path else str(key)
        if key not in known:
            found.append(here)
            continue
        for nested in _models_within(known[key].annotation):
            items = value if isinstance(value, list) else [value]
            for index, item in enumerate(items):
                suffix = f"[{index}]" if isinstance(value, list) else ""
                found.extend(unknown_fields(nested, item, here + suffix))
    return found


def _models_within(annotation: object) -> list[type[BaseModel]]:
    """Return the pydantic models that an annotation mentions, free-form metadata excepted."""
    if isinstance(annotation, type):
        if issubclass(annotation, ObjectMeta) or not issubclass(annotation, BaseModel):
            return []
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_within(part)]
