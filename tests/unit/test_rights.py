"""What the operator's roles never grant, whatever is added to them."""

from __future__ import annotations

import pytest

from modeltiers import names
from modeltiers.kube.access import rbac_manifests

RULES = [
    (f"{body['kind']} {body['metadata'].get('namespace', '')}", rule)
    for watched in ([], ["team-a", "team-b"])
    for body in rbac_manifests(watched)
    for rule in body.get("rules", ())
]


@pytest.mark.parametrize(("where", "rule"), RULES, ids=[f"{where} {rule['resources'][0]}" for where, rule in RULES])
def test_no_wildcard_no_secret_is_read_nobody_is_impersonated(where: str, rule: dict[str, list[str]]) -> None:
    assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]), where
    assert not {"escalate", "bind", "impersonate", "approve", "sign", "deletecollection"} & set(rule["verbs"])
    assert not {"pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "serviceaccounts/token"} & set(
        rule["resources"]
    )
    assert not any(resource.startswith(("roles", "clusterroles")) for resource in rule["resources"])
    if "secrets" in rule["resources"]:
        assert not {"get", "list", "watch", "delete", "update"} & set(rule["verbs"])
        assert rule["resourceNames"] == [names.HOP_SECRET]


def test_namespaced_there_is_nothing_for_the_whole_cluster() -> None:
    kinds = {body["kind"] for body in rbac_manifests(["team-a"])}
    assert kinds == {"ServiceAccount", "Role", "RoleBinding"}
