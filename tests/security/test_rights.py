"""What the operator may do, from the manifests that are applied; and where a reference in a spec can lead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeltiers.api.crd import RESOURCES, crd
from modeltiers.names import HOP_SECRET

ROOT = Path(__file__).parents[2]
READS = {"get", "list", "watch"}


def rules() -> Iterator[dict[str, Any]]:
    for body in yaml.safe_load_all((ROOT / "manifests/rbac.yaml").read_text()):
        if body["kind"] in ("Role", "ClusterRole"):
            yield from body["rules"]


def test_no_right_reads_secrets_enters_pods_or_is_a_wildcard() -> None:
    found = list(rules())
    assert len(found) > 5
    for rule in found:
        words = [*rule.get("apiGroups", ()), *rule.get("resources", ()), *rule["verbs"]]
        assert not [word for word in words if "*" in word]
        assert not set(rule["verbs"]) & {"escalate", "bind", "impersonate"}
        resources = set(rule.get("resources", ()))
        assert not resources & {"pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers", "pods/log"}
        if "secrets" in resources:
            assert not READS & set(rule["verbs"])
            assert "create" in rule["verbs"] or rule["resourceNames"] == [HOP_SECRET]
        if "pods" in resources:
            assert not {"create", "delete", "update"} & set(rule["verbs"])


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_no_reference_leads_to_another_namespace(resource: Any) -> None:
    def properties(schema: Any, path: str) -> Iterator[str]:
        if isinstance(schema, dict):
            for name, below in (schema.get("properties") or {}).items():
                yield f"{path}.{name}"
                yield from properties(below, f"{path}.{name}")
            yield from properties(schema.get("items"), f"{path}[]")
            yield from properties(schema.get("additionalProperties"), f"{path}.*")

    (version,) = crd(resource)["spec"]["versions"]
    found = list(properties(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec"))
    assert len(found) > 10
    assert [path for path in found if path.lower().endswith("namespace")] == []
