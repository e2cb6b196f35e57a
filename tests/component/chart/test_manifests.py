"""What the rendered objects promise: least privilege, restricted pods, nothing that drifts."""

import re
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.chart import CHART, EXAMPLES, NAMESPACE, only, rendered
from ullage_operator.adapters.rules import REQUIRED_RULES, Rule, own_rules

NAMESPACED = f"--values={EXAMPLES / 'values-namespaced.yaml'}"


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return rendered()


def test_every_object_carries_the_common_labels(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "ullage", each["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"]


def test_the_operator_pod_meets_the_restricted_pod_security_standard(
    objects: list[dict[str, Any]],
) -> None:
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "volumes" not in pod


def test_there_is_one_operator_and_never_two(objects: list[dict[str, Any]]) -> None:
    spec = only(objects, "Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_selectors_find_the_operator_pod(objects: list[dict[str, Any]]) -> None:
    deployment = only(objects, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"]["matchLabels"].items() <= labels
    assert only(objects, "Service")["spec"]["selector"].items() <= labels
    assert only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_the_operator_may_not_read_secrets_of_tenants(objects: list[dict[str, Any]]) -> None:
    rules = only(objects, "ClusterRole", "ullage-operator")["rules"]
    verbs = {verb for rule in rules if "secrets" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"create", "patch"}
    own = only(objects, "Role")
    assert own["metadata"]["namespace"] == NAMESPACE
    for rule in own["rules"]:
        if "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == ["ullage-operator-key"]


def granted(role: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    return {
        (verb, group, resource, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }


def required(rules: Iterable[Rule]) -> set[tuple[str, str, str, str]]:
    return {
        (verb, rule.group, resource, name)
        for rule in rules
        for verb in rule.verbs
        for resource in rule.resources
        for name in rule.names or ("",)
    }


def test_the_roles_grant_what_the_operator_says_it_requires_and_nothing_more(
    objects: list[dict[str, Any]],
) -> None:
    assert granted(only(objects, "ClusterRole", "ullage-operator")) == required(REQUIRED_RULES)
    own = own_rules("ullage-pools", "ullage-operator-key")
    assert granted(only(objects, "Role")) == required(own)


def test_no_rule_has_a_wildcard() -> None:
    for each in (*rendered(), *rendered(NAMESPACED)):
        for rule in each.get("rules", ()):
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_with_namespaces_given_nothing_of_the_operator_is_cluster_wide() -> None:
    objects = rendered(NAMESPACED)
    bindings = [each for each in objects if each["kind"] == "ClusterRoleBinding"]
    assert bindings == []
    roles = {
        each["metadata"]["namespace"]: each["rules"]
        for each in objects
        if each["kind"] == "Role" and each["metadata"]["name"] == "ullage-operator"
    }
    assert set(roles) == {"team-a", "team-b"}
    wide = only(rendered(), "ClusterRole", "ullage-operator")["rules"]
    assert roles["team-a"] == roles["team-b"] == wide


def test_people_get_the_kinds_through_the_roles_they_have(objects: list[dict[str, Any]]) -> None:
    for role in ("admin", "edit", "view"):
        found = only(objects, "ClusterRole", f"ullage-{role}")
        label = f"rbac.authorization.k8s.io/aggregate-to-{role}"
        assert found["metadata"]["labels"][label] == "true"
        writes = {verb for rule in found["rules"] for verb in rule["verbs"]} - {
            "get",
            "list",
            "watch",
        }
        assert bool(writes) is (role != "view")


def test_no_template_depends_on_chance_the_clock_or_the_cluster() -> None:
    # Argo CD renders anew each time: any of these would show as drift, or not work at all.
    forbidden = re.compile(r"\b(rand\w+|lookup|now|date\w*|uuidv4|gen\w+)\b|helm\.sh/hook")
    for path in (CHART / "templates").iterdir():
        code = "".join(re.findall(r"{{.*?}}", path.read_text(), re.DOTALL))
        code = re.sub(r"{{-? ?/\*.*?\*/ ?-?}}", "", code, flags=re.DOTALL)
        assert not forbidden.search(code), path.name
        assert "helm.sh/hook" not in path.read_text(), path.name
