"""What embedded texts are for, as the field's clients say it."""

from collections.abc import Sequence
from typing import Final

from ullage_runtime.core.pooled import Role

_ROLES: Final[dict[str, Role]] = {
    "query": Role.QUERY,
    "search_query": Role.QUERY,
    "retrieval.query": Role.QUERY,
    "document": Role.DOCUMENT,
    "passage": Role.DOCUMENT,
    "search_document": Role.DOCUMENT,
    "retrieval.passage": Role.DOCUMENT,
}
"""Cohere's and NVIDIA's `input_type`, and Jina's `task`."""


ROLE_NAMES: Final[Sequence[str]] = tuple(_ROLES)
"""Every name of a role."""


def role_of(text: str) -> Role:
    """Return the role of a name; raises ValueError that lists the names there are."""
    role = _ROLES.get(text)
    if role is None:
        raise ValueError(f"must be one of {', '.join(_ROLES)}")
    return role
