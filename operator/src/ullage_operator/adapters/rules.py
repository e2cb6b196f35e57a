"""The rights the operator needs, as data: the chart's roles are checked against them.

`REQUIRED_RULES` holds in every namespace whose ModelDeployments are looked after, `own_rules` in
the operator's own. Events are created and never read; Secrets of tenants are written and never
read.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One RBAC rule; no resource names means all of them."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


_OWNED: Final = ("get", "list", "create", "patch", "delete")

REQUIRED_RULES: Final[tuple[Rule, ...]] = (
    Rule("ullage.dev", ("modeldeployments",), ("get", "list", "watch")),
    Rule("ullage.dev", ("vectorcollections",), ("get", "list", "watch", "patch")),
    Rule("ullage.dev", ("reindexjobs",), ("get", "list", "watch", "patch", "delete")),
    Rule(
        "ullage.dev",
        ("modeldeployments/status", "vectorcollections/status", "reindexjobs/status"),
        ("patch",),
    ),
    Rule("apps", ("statefulsets",), (*_OWNED, "watch")),
    Rule("apps", ("controllerrevisions",), ("list", "create", "patch", "delete")),
    Rule("batch", ("jobs",), ("get", "create", "delete")),
    Rule("", ("services", "serviceaccounts"), _OWNED),
    Rule("", ("configmaps",), ("get", "create", "patch")),
    Rule("networking.k8s.io", ("networkpolicies",), _OWNED),
    Rule("policy", ("poddisruptionbudgets",), _OWNED),
    Rule("", ("persistentvolumeclaims",), ("get", "create")),
    Rule("", ("secrets",), ("create", "patch")),
    Rule("", ("pods",), ("list", "watch", "patch")),
    Rule("events.k8s.io", ("events",), ("create",)),
)
"""Where models are: children are made, applied and pruned; pods are labelled."""


def own_rules(profiles: str, key: str) -> tuple[Rule, ...]:
    """Return the rights in the operator's own namespace: read the profiles, keep its key."""
    return (
        Rule("", ("configmaps",), ("get",), (profiles,)),
        Rule("", ("secrets",), ("get",), (key,)),
        # A name cannot limit creation: it is not known when the request is judged.
        Rule("", ("secrets",), ("create",)),
    )
