"""Compiling any policy that the CRD admits: a table that the router reads, or faults that name a field of the spec."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeltiers.api import crd as crds
from modeltiers.api.parse import parse_policy
from modeltiers.api.routingpolicy import RoutingPolicy
from modeltiers.api.schema import Schema, nodes
from modeltiers.domain.policy_table import MOST_BYTES, CompiledTable, TierView, compile_table
from modeltiers.domain.routing.accept import compile_accept
from modeltiers.domain.routing.choose import compile_policy
from modeltiers.domain.routing.table import read_table

ROOT = crds.crd(crds.ROUTING_POLICY)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FIELDS = {path for path, _ in nodes(ROOT)}
NAMES = ("small", "medium", "large", "frontier")
TIERS = {
    "small": TierView("small", "small", context_tokens=4096, can={"tools": False}),
    "medium": TierView("medium", "org/medium", can={"images": True, "embeddings": True}),
    "large": TierView("large", "large", context_tokens=131_072),
    "frontier": TierView("frontier", "gpt-5", external=True, price=(1, 10**12), currency="USD"),
}
PATTERNS = st.sampled_from(["a+", r"\d{4}", "(?i)court", "x|y", "[^ ]é"])
SCHEMAS = st.sampled_from(["{}", '{"type": "object"}', '{"required": ["a"], "minimum": 0.5}'])
TIER_FIELDS = ("tier", "floor")


def values(schema: Schema, name: str, ladder: list[str]) -> st.SearchStrategy[Any]:
    """Any value of a node of the CRD; names of tiers are those on the ladder."""
    if name in TIER_FIELDS:
        return st.sampled_from(ladder)
    if name == "jsonSchema":
        return SCHEMAS
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if kind == "string":
        return texts(schema)
    return lists(schema, name, ladder) if kind == "array" else objects(schema, ladder)


def texts(schema: Schema) -> st.SearchStrategy[str]:
    """Text within its bounds; a duration is kept small enough for every rule."""
    pattern, longest = schema.get("pattern"), schema["maxLength"]
    if pattern and "(ms|s" in pattern:
        return st.from_regex(r"[1-9][0-9]{0,2}ms", fullmatch=True)
    if pattern and "(s|m" in pattern:
        return st.from_regex(r"[1-9][0-9]{0,2}s", fullmatch=True)
    if pattern:
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= longest)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(longest, 12))


def lists(schema: Schema, name: str, ladder: list[str]) -> st.SearchStrategy[list[Any]]:
    """A short list; what server-side apply merges by has no twins."""
    items: st.SearchStrategy[Any]
    if name == "patterns":
        items = PATTERNS
    elif name == "tiers":  # of the override
        items = st.sampled_from(ladder)
    else:
        items = values(schema["items"], "", ladder)
    keys = schema.get("x-kubernetes-list-map-keys")
    least, most = schema.get("minItems", 0), min(schema["maxItems"], 3)
    by = (lambda one: one[keys[0]]) if keys else (lambda one: one)
    return st.lists(items, min_size=least, max_size=most, unique_by=by)


def objects(schema: Schema, ladder: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with what it requires and any of the rest."""
    required = set(schema.get("required", ()))
    given = {name: values(inner, name, ladder) for name, inner in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: one for name, one in given.items() if name in required},
        optional={name: one for name, one in given.items() if name not in required},
    )


def mended(spec: dict[str, Any]) -> dict[str, Any]:
    """Make a random spec keep the CRD's rules about two fields, by dropping what is too much."""
    spec["classify"] = [rule for one in spec.get("classify", ()) if (rule := mended_rule(one))]
    for check in spec.get("accept", {}).get("validators", ()):
        mend_check(check)
    if spec.get("access", {}).get("keys"):
        spec["access"]["mode"] = "Keys"
    return spec


def mended_rule(rule: dict[str, Any]) -> dict[str, Any] | None:
    """A rule that looks for something and does something, or None."""
    when = rule["when"]
    for low, high in (("promptCharsAtLeast", "promptCharsAtMost"), ("scoreAtLeastPermille", "scoreAtMostPermille")):
        if low in when and high in when and when[low] > when[high]:
            del when[low]
    if rule.get("action") == "Refuse":
        rule = {key: value for key, value in rule.items() if key not in ("tier", "floor", "dataClass")}
    if "dataClass" in rule:
        rule.pop("tier", None)
    does = rule.get("action") == "Refuse" or rule.keys() & {"tier", "floor", "risk", "dataClass"}
    looks = any(value not in ([], None) for value in when.values())
    return rule if does and looks else None


def mend_check(check: dict[str, Any]) -> None:
    """A check with what its kind needs, and nothing of other kinds."""
    kind = check["kind"]
    check["patterns"] = check.get("patterns") or ["a"] if kind == "Pattern" else []
    if kind == "Form":
        check.setdefault("form", "JSON")
    else:
        check.pop("form", None)
    if kind != "JSONSchema":
        check.pop("jsonSchema", None)
    if kind == "Length":
        check.setdefault("minChars", 1)
    if check.get("minChars", 0) > check.get("maxChars", 10**9):
        del check["maxChars"]


@st.composite
def policies(draw: st.DrawFn) -> RoutingPolicy:
    """Any policy that the API server would store."""
    ladder = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    schema = ROOT["properties"]["spec"]
    skipped = ("tiers", "gateway", "placement")
    rest = {**schema, "properties": {k: v for k, v in schema["properties"].items() if k not in skipped}}
    spec = mended(draw(objects({**rest, "required": ["model"]}, ladder)))
    rung = schema["properties"]["tiers"]["items"]
    spec["tiers"] = [{**draw(objects({**rung, "required": []}, ladder)), "name": name} for name in ladder]
    spec["placement"] = "Gateway"
    body = {
        "apiVersion": "modeltiers.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "support"},
        "spec": spec,
    }
    found = parse_policy(body)
    assert isinstance(found, RoutingPolicy), found
    return found


SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(policies())
def test_any_policy_becomes_a_table(policy: RoutingPolicy) -> None:
    """The router reads the bytes, and gets the policy that was meant."""
    found = compile_table("support", policy.spec, TIERS, "demo")
    assert isinstance(found, CompiledTable), [str(one) for one in found]
    assert found.size <= MOST_BYTES
    table = read_table(json.loads(found.content))
    compile_policy(table, table.policies[0])
    compile_accept(table.policies[0])
    made = table.policies[0]
    assert (made.model, made.mode) == (policy.spec.model, policy.spec.mode)
    assert list(made.tiers) == [one.name for one in policy.spec.tiers]
    assert all(one.hop and not one.local and one.external is None for one in table.tiers)
    kept = [one.name for one in policy.spec.classify if one.data_class is None or one.floor or one.risk]
    assert sorted(rule.name for rule in made.rules) == sorted(kept)


@SLOW
@given(policies())
def test_the_same_policy_is_the_same_bytes(policy: RoutingPolicy) -> None:
    """Also after it went through the API server, which keeps what was written and adds defaults."""
    first = compile_table("support", policy.spec, TIERS, "demo")
    told = policy.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = parse_policy(
        {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "RoutingPolicy", "metadata": {}, "spec": told}
    )
    assert isinstance(again, RoutingPolicy)
    shuffled = {name: TIERS[name] for name in reversed(TIERS)}
    assert compile_table("support", again.spec, shuffled, "demo") == first


@SLOW
@given(policies(), st.text(min_size=1, max_size=20))
def test_a_fault_names_a_field_of_the_spec(policy: RoutingPolicy, pattern: str) -> None:
    """Whatever pattern and schema a policy has, and whichever tier is gone."""
    text = policy.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for rule in text["classify"]:
        rule["when"]["patterns"] = [pattern]
    for check in text.get("accept", {}).get("validators", ()):
        if check["kind"] == "JSONSchema":
            check["jsonSchema"] = f"{{{pattern}}}"
    body = {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "RoutingPolicy", "metadata": {}, "spec": text}
    changed = parse_policy(body)
    assert isinstance(changed, RoutingPolicy)
    found = compile_table("support", changed.spec, {name: TIERS[name] for name in NAMES[1:]}, "demo")
    for one in found if isinstance(found, list) else [*found.doubts]:
        assert "".join("[]" if part.isdigit() else part for part in _parts(one.path)) in FIELDS
        assert one.message
        assert "$." not in str(one)


def _parts(path: str) -> list[str]:
    return path.replace("[", "\0").replace("]", "\0").split("\0")
