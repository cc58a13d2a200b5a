"""What makes an object worth a write."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers import names
from modeltiers.domain.diff import difference, digest, sealed

DESIRED: dict[str, Any] = sealed(
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "small", "ownerReferences": [{"uid": "u1", "name": "small"}]},
        "spec": {
            "replicas": 2,
            "template": {
                "spec": {
                    "nodeSelector": {"a": "b"},
                    "containers": [{"name": "engine", "args": ["--a", "--b"], "env": [{"name": "X", "value": "1"}]}],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                }
            },
        },
    }
)


def live() -> dict[str, Any]:
    """The desired object as a server returns it: with defaults and with fields of others."""
    body = copy.deepcopy(DESIRED)
    body["metadata"] |= {"uid": "x", "resourceVersion": "7"}
    body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    pod = body["spec"]["template"]["spec"]
    pod["restartPolicy"] = "Always"
    pod["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    pod["containers"].append({"name": "injected"})
    return body


def test_a_missing_object_differs() -> None:
    assert difference(DESIRED, None) == "missing"


def test_defaults_and_foreign_fields_are_no_difference() -> None:
    assert difference(DESIRED, live()) is None


def test_an_empty_volume_source_that_the_server_fills_is_no_difference() -> None:
    body = live()
    body["spec"]["template"]["spec"]["volumes"][0] = {"name": "tmp", "emptyDir": {}}
    assert difference(DESIRED, body) is None


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda b: b["spec"].update(replicas=3), ".spec.replicas"),
        (lambda b: b["spec"]["template"]["spec"]["nodeSelector"].clear(), ".spec.template.spec.nodeSelector.a"),
        (
            lambda b: b["spec"]["template"]["spec"]["containers"][0]["args"].append("--c"),
            ".spec.template.spec.containers[engine].args",
        ),
        (
            lambda b: b["spec"]["template"]["spec"]["containers"][0]["env"].clear(),
            ".spec.template.spec.containers[engine].env[X]",
        ),
        (lambda b: b["spec"]["template"]["spec"]["containers"].pop(0), ".spec.template.spec.containers[engine]"),
        (lambda b: b["metadata"]["ownerReferences"].clear(), ".metadata.ownerReferences[u1]"),
        (
            lambda b: b["metadata"]["annotations"].update({names.ANNOTATION_APPLIED: "other"}),
            f".metadata.annotations.{names.ANNOTATION_APPLIED}",
        ),
    ],
)
def test_an_owned_field_that_was_changed_is_named(edit: Any, where: str) -> None:
    body = live()
    edit(body)
    assert difference(DESIRED, body) == where


def test_a_field_no_longer_wanted_changes_the_seal() -> None:
    wanted = {key: value for key, value in DESIRED.items() if key != "spec"} | {"spec": {"replicas": 2}}
    wanted["metadata"] = {"name": "small"}
    assert sealed(wanted)["metadata"]["annotations"] != DESIRED["metadata"]["annotations"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_an_object_never_differs_from_itself(value: Any) -> None:
    body = sealed({"metadata": {"name": "x"}, "spec": value})
    assert difference(body, copy.deepcopy(body)) is None


@given(JSON, JSON)
def test_difference_takes_any_json(wanted: Any, body: Any) -> None:
    difference(sealed({"metadata": {"name": "x"}, "spec": wanted}), {"metadata": {}, "spec": body})


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=1, max_size=5))
def test_the_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest(value) == digest(dict(reversed(list(value.items()))))
