"""RoutingPolicy as an API: what people rely on, what it shares with the router's table, and how it is read."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pydantic import BaseModel

from modeltiers.api import crd as crds
from modeltiers.api import schema
from modeltiers.api.lint import lint
from modeltiers.api.parse import LONGEST_MESSAGE, Fault, parse_policy
from modeltiers.api.routingpolicy import RoutingPolicy, RoutingPolicySpec
from modeltiers.api.routingpolicy_status import PolicyCondition, RoutingPolicyStatus
from modeltiers.cli import generate
from modeltiers.domain.policy_table import millis
from modeltiers.domain.routing import table

EXAMPLES = Path(__file__).parents[2] / "examples"
CRD = crds.crd(crds.ROUTING_POLICY)
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
NODES = dict(schema.nodes(VERSION["schema"]["openAPIV3Schema"]))
POLICY: dict[str, Any] = {
    "apiVersion": "modeltiers.dev/v1alpha1",
    "kind": "RoutingPolicy",
    "metadata": {"name": "support"},
    "spec": {"model": "support", "tiers": [{"name": "small"}, {"name": "large"}]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)
FIELDS = sorted(NODES["spec"]["properties"])


def policy(**spec: Any) -> dict[str, Any]:
    """A sound policy with some of its spec replaced."""
    return {**POLICY, "spec": {**POLICY["spec"], **spec}}


def fault(body: object) -> Fault:
    """The fault of a body that has one."""
    found = parse_policy(body)
    assert isinstance(found, Fault)
    return found


class TestTheCrd:
    """Facts of the API that a change must not slip past a review."""

    def test_names(self) -> None:
        """How people call it."""
        assert CRD["metadata"] == {"name": "routingpolicies.modeltiers.dev"}
        assert CRD["spec"]["names"] == {
            "kind": "RoutingPolicy",
            "listKind": "RoutingPolicyList",
            "plural": "routingpolicies",
            "singular": "routingpolicy",
            "shortNames": ["rp"],
            "categories": ["tiering"],
        }
        assert VERSION["subresources"] == {"status": {}}

    def test_columns(self) -> None:
        """What kubectl get shows, without and with -o wide."""
        columns = [(column["name"], column.get("priority", 0)) for column in VERSION["additionalPrinterColumns"]]
        shown = [name for name, priority in columns if priority == 0]
        assert shown == ["MODEL", "MODE", "TIERS", "LIVE", "ESCALATED", "READY", "AGE"]
        assert [name for name, priority in columns if priority == 1] == ["REASON", "PLACEMENT", "TABLE", "URL"]

    def test_required(self) -> None:
        """Two fields make a policy."""
        assert NODES["spec"]["required"] == ["model", "tiers"]

    def test_merging_lists(self) -> None:
        """Lists that Kustomize and server-side apply merge by a key."""
        keyed = {path: node["x-kubernetes-list-map-keys"] for path, node in NODES.items() if _keyed(node)}
        assert {path: keys for path, keys in keyed.items() if path.startswith("spec")} == {
            "spec.tiers": ["name"],
            "spec.classify": ["name"],
            "spec.classify[].when.headers": ["name"],
            "spec.classify[].when.metadata": ["key"],
            "spec.risks": ["risk"],
            "spec.accept.validators": ["name"],
        }

    def test_lint(self) -> None:
        """It passes every check of our CRDs."""
        assert lint(CRD) == {}

    def test_the_pages_say_all(self) -> None:
        """Every field has a row, and the page links the reasons of this kind."""
        page = generate.reference_pages()[Path("docs/reference/routingpolicy.md")]
        rows = [path for path in NODES if path.startswith(("spec.", "status.")) and not path.endswith(("[]", ".*"))]
        assert [path for path in rows if f"\n| `{path}` | " not in page] == []
        assert "(routingpolicy-reasons.md)" in page

    def test_conditions_are_ours(self) -> None:
        """The description of `type` names each condition that is written."""
        from modeltiers.domain.policy_reasons import ORDER

        said = PolicyCondition.model_fields["type"].description or ""
        assert all(kind in said for kind in ORDER)
        assert "conditions" in RoutingPolicyStatus.model_fields


def _keyed(node: dict[str, Any]) -> bool:
    return "x-kubernetes-list-map-keys" in node


# --- the same as the table --------------------------------------------------------------------------------------------

# What the spec calls by another name. The policy's own name is its metadata.name.
RENAMED = {
    "rules": "classify",
    "ttl_seconds": "ttl",
    "window_ms": "window",
    "queue_ms": "queue_time",
    "deadline_ms": "deadline",
    "schema": "json_schema",
    "on": "failures",
    "n": "choices",
}


def inner(annotation: Any, kind: type) -> Any:
    """The class of a kind that an annotation holds; None when there is none."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, kind) else None
    return next((found for one in typing.get_args(annotation) if (found := inner(one, kind))), None)


def pairs(part: Any, model: Any, path: str) -> Any:
    """Every field of a part of the table beside the field of the spec that says it."""
    hints = typing.get_type_hints(part, include_extras=True)
    for one in structs.fields(part):
        where = f"{path}.{one.name}"
        if where in ("policy.name", "policy.rules.inside"):  # the object's own name; said by `dataClass`
            continue
        name = RENAMED.get(one.name, one.name)
        assert name in model.model_fields, f"the spec cannot say {where}"
        theirs = model.model_fields[name]
        yield where, one, theirs
        below = inner(hints[one.name], msgspec.Struct)
        ours = inner(theirs.annotation, BaseModel)
        assert (below is None) == (ours is None) or where == "policy.tiers", where
        if below is not None:
            yield from pairs(below, ours, where)


class TestLikeTheTable:
    """What the router's table can say of a policy, the spec can say, and by leaving it out they mean the same."""

    def test_everything_is_sayable(self) -> None:
        """Each field of the table's policy has one in the spec."""
        found = [where for where, _, _ in pairs(table.Policy, RoutingPolicySpec, "policy")]
        assert len(found) > 80
        assert "policy.accept.validators.schema" in found

    def test_the_defaults_are_the_same(self) -> None:
        """A field left out means what the router takes for it."""
        different = []
        for where, ours, theirs in pairs(table.Policy, RoutingPolicySpec, "policy"):
            expected = None if ours.default is msgspec.NODEFAULT else ours.default
            said = None if theirs.is_required() else theirs.default
            if ours.name.endswith("_ms") and isinstance(said, str):
                said = millis(said)
            if ours.name == "ttl_seconds":
                said = millis(str(said)) // 1000
            same_nothing = said in (None, []) and (expected in (None, ()) or isinstance(expected, msgspec.Struct))
            all_failures = where == "policy.fallback.on" and said is None
            if not (said == expected or same_nothing or all_failures):
                different.append((where, expected, said))
        assert different == []

    def test_words_are_the_same(self) -> None:
        """Enum values are the table's; status codes, which are no words, have one before them."""
        different = []
        for where, ours, theirs in pairs(table.Policy, RoutingPolicySpec, "policy"):
            mine, its = words(ours.type), words(theirs.annotation)
            if mine != {one.removeprefix("Status") for one in its}:
                different.append((where, mine, its))
        assert different == []

    def test_timeouts_of_tiers(self) -> None:
        """What the spec says of a tier's steps has the table's defaults."""
        from modeltiers.api.routingpolicy import Timeouts

        for name, one in Timeouts.model_fields.items():
            assert millis(str(one.default)) == getattr(table.Timeouts(), f"{name}_ms")


def words(annotation: Any) -> set[str]:
    """The literals of an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    if typing.get_origin(annotation) is Annotated:
        return words(typing.get_args(annotation)[0])
    return {word for one in typing.get_args(annotation) for word in words(one)}


# --- reading ----------------------------------------------------------------------------------------------------------


class TestParse:
    """Whatever JSON comes, the answer is a policy or a fault with the way out."""

    @given(st.dictionaries(st.sampled_from(FIELDS) | st.text(st.characters()), JSON, max_size=5), JSON, JSON)
    def test_any_spec(self, spec: dict[str, Any], metadata: Any, status: Any) -> None:
        """Never an exception."""
        found = parse_policy({**POLICY, "metadata": metadata, "status": status, "spec": spec})
        if isinstance(found, Fault):
            assert 0 < len(found.message) <= LONGEST_MESSAGE
            assert found.message.isprintable()

    @given(JSON)
    def test_any_value(self, body: Any) -> None:
        """Also where it is no object."""
        assert isinstance(parse_policy(body), Fault)

    @pytest.mark.parametrize(
        ("spec", "path", "message"),
        [
            ({"rules": []}, "spec.rules", "spec.rules: is not a field that this version of the operator knows"),
            ({"tiers": []}, "spec.tiers", "spec.tiers: should have at least 1 item"),
            ({"mode": "Casacde"}, "spec.mode", "spec.mode: "),
            (
                {"stream": {"window": "1.5s"}},
                "spec.stream.window",
                "spec.stream.window: should match pattern",
            ),
            (
                {"classify": [{"name": "a"}]},
                "spec.classify[0].when",
                "spec.classify[0].when: is required; add it, see kubectl explain routingpolicy.spec.classify.when",
            ),
        ],
    )
    def test_fault(self, spec: dict[str, Any], path: str, message: str) -> None:
        """It names the field and the command that explains it."""
        found = fault(policy(**spec))
        assert (found.path, found.message[: len(message)]) == (path, message)
        assert "kubectl explain routingpolicy" in found.message or "upgrade the operator" in found.message

    def test_another_kind(self) -> None:
        """A tier is no policy."""
        assert "RoutingPolicy" in fault({**POLICY, "kind": "ModelTier"}).message
        assert fault(3).message == "must be an object of kind RoutingPolicy, modeltiers.dev/v1alpha1"

    def test_the_status_is_ignored(self) -> None:
        """An older or newer operator wrote it."""
        found = parse_policy({**POLICY, "status": {"new": True}})
        assert isinstance(found, RoutingPolicy)
        assert found.status is None

    def test_defaults_are_filled_in(self) -> None:
        """Those below lists and those that the API server does not know."""
        found = parse_policy(policy(classify=[{"name": "a", "when": {"tools": True}, "tier": "large"}]))
        assert isinstance(found, RoutingPolicy)
        assert (found.spec.mode, found.spec.placement, found.spec.classify[0].action) == ("Upfront", "Sidecar", "Route")

    @pytest.mark.parametrize("path", sorted((EXAMPLES / "routing").glob("*.yaml")), ids=lambda path: path.stem)
    def test_examples(self, path: Path) -> None:
        """All of ours can be read."""
        found = parse_policy(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert isinstance(found, RoutingPolicy), found
