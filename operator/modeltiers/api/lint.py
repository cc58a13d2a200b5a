"""What a CRD of ours must be like, as named checks: each yields what it found, nothing when all is well.

A check decides one thing and does not know where the CRD came from, so it also judges a mutated one (each has a test
that makes it fail). What the API server refuses by itself is checked only where hearing of it then would be late.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from modeltiers.api.schema import TYPE_META, VALIDATIONS, Schema, nodes

Crd = Mapping[str, Any]


class Finding(NamedTuple):
    """One thing that is wrong, and where."""

    path: str
    message: str


Check = Callable[[Crd], Iterator[Finding]]
CHECKS: Final[dict[str, Check]] = {}

LONGEST_CRD: Final = 256 * 1024  # the last-applied annotation of client-side apply ends here
LARGEST_OBJECT: Final = 1024 * 1024  # etcd takes 1.5 MiB; managedFields and metadata need room
MOST_RULE_RUNS: Final = 512
SHORTEST_DESCRIPTION: Final = 12
LONGEST_RULE_MESSAGE: Final = 256
REASONS: Final = frozenset({"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"})
CONDITION_FIELDS: Final = frozenset({"type", "status", "reason", "message", "observedGeneration", "lastTransitionTime"})
# What every CEL implementation has; Kubernetes' own libraries are not everywhere a rule is checked.
CORE_CEL: Final = frozenset(
    {
        *("has", "size", "all", "exists", "exists_one", "map", "filter"),
        *("matches", "startsWith", "endsWith", "contains"),
        *("int", "uint", "double", "string", "bool", "bytes", "type", "duration", "timestamp"),
    }
)


def check(function: Check) -> Check:
    """Register a check under its function's name."""
    CHECKS[function.__name__] = function
    return function


def lint(crd: Crd) -> dict[str, list[Finding]]:
    """Run every check; only those that found something are in the answer."""
    found = {name: list(function(crd)) for name, function in CHECKS.items()}
    return {name: findings for name, findings in found.items() if findings}


# --- reading ----------------------------------------------------------------------------------------------------------


def _roots(crd: Crd) -> Iterator[Schema]:
    for version in crd["spec"]["versions"]:
        yield version["schema"]["openAPIV3Schema"]


def _all(crd: Crd) -> Iterator[tuple[str, Schema]]:
    """Every node but those that Kubernetes defines."""
    for root in _roots(crd):
        yield from (found for found in nodes(root) if found[0] not in TYPE_META)


def _of_type(crd: Crd, wanted: str) -> Iterator[tuple[str, Schema]]:
    return ((path, node) for path, node in _all(crd) if node.get("type") == wanted)


def _fields(crd: Crd) -> Iterator[tuple[str, str, Schema]]:
    """Every named field: its path, its own name, its node."""
    for path, node in _all(crd):
        if path and not path.endswith(("[]", ".*")):
            yield path, path.rpartition(".")[2], node


def _maps(crd: Crd) -> Iterator[tuple[str, Schema]]:
    return (
        (path, node) for path, node in _of_type(crd, "object") if isinstance(node.get("additionalProperties"), dict)
    )


def _rules(crd: Crd) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, node in _all(crd):
        yield from ((path, rule) for rule in node.get(VALIDATIONS, ()))


def _at(root: Schema, path: str) -> Schema | None:
    """The node at a JSON path of a column or a subresource; filters and indexes mean any item."""
    plain = re.sub(r"\[[^\]]*\]", "[]", path.removeprefix("."))
    return dict(nodes(root)).get(plain)


# --- types ------------------------------------------------------------------------------------------------------------


@check
def nodes_are_typed(crd: Crd) -> Iterator[Finding]:
    """A node without a type accepts anything."""
    types = ("object", "array", "string", "integer", "number", "boolean")
    return (Finding(path, "has no type") for path, node in _all(crd) if node.get("type") not in types)


@check
def field_names_are_text_to_yaml(crd: Crd) -> Iterator[Finding]:
    """YAML 1.1, which kubectl reads, takes these for booleans or nothing: a field would come under another name."""
    for path, name, _ in _fields(crd):
        if name.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null"):
            yield Finding(path, "is no text to YAML: choose another name")


@check
def no_floats(crd: Crd) -> Iterator[Finding]:
    """Clients round floats differently, and a GitOps tool sees a difference for ever."""
    for path, node in _all(crd):
        if node.get("type") == "number":
            yield Finding(path, "is a float: use an integer in a smaller unit, or a string")


@check
def no_unions(crd: Crd) -> Iterator[Finding]:
    """Schema unions are hard to explain and not allowed in structural schemas; optional fields and CEL are."""
    for path, node in _all(crd):
        for word in {"anyOf", "oneOf", "allOf", "not", "$ref"} & node.keys():
            yield Finding(path, f"uses {word}: use optional fields and a rule")


@check
def no_int_or_string(crd: Crd) -> Iterator[Finding]:
    """Such a value comes back in another form than it was sent."""
    for path, node in _all(crd):
        if node.get("x-kubernetes-int-or-string"):
            yield Finding(path, "is an integer or a string: decide")


@check
def no_unknown_fields_are_kept(crd: Crd) -> Iterator[Finding]:
    """Unknown fields must be pruned, or a typing error is silent."""
    if crd["spec"].get("preserveUnknownFields"):
        yield Finding("spec.preserveUnknownFields", "is set")
    for path, node in _all(crd):
        if node.get("x-kubernetes-preserve-unknown-fields"):
            yield Finding(path, "keeps unknown fields: declare them")


@check
def objects_are_closed(crd: Crd) -> Iterator[Finding]:
    """An object says its fields or the schema of its values."""
    for path, node in _of_type(crd, "object"):
        values = node.get("additionalProperties", {})
        if ("properties" in node) == ("additionalProperties" in node) or not isinstance(values, dict):
            yield Finding(path, "needs either properties or a schema in additionalProperties")


@check
def nothing_is_nullable(crd: Crd) -> Iterator[Finding]:
    """Absent is the only way to say nothing."""
    return (Finding(path, "is nullable: leave it out instead") for path, node in _all(crd) if node.get("nullable"))


# --- bounds -----------------------------------------------------------------------------------------------------------


@check
def strings_are_bounded(crd: Crd) -> Iterator[Finding]:
    """Without a bound a string may be a megabyte, and a rule over it costs too much."""
    for path, node in _of_type(crd, "string"):
        if "maxLength" not in node and "enum" not in node:
            yield Finding(path, "has neither maxLength nor enum")


@check
def lists_are_bounded(crd: Crd) -> Iterator[Finding]:
    """As for strings."""
    return (Finding(path, "has no maxItems") for path, node in _of_type(crd, "array") if "maxItems" not in node)


@check
def maps_are_bounded(crd: Crd) -> Iterator[Finding]:
    """As for strings."""
    return (Finding(path, "has no maxProperties") for path, node in _maps(crd) if "maxProperties" not in node)


@check
def map_keys_are_checked(crd: Crd) -> Iterator[Finding]:
    """OpenAPI as the API server reads it does not look at keys; a rule must."""
    for path, node in _maps(crd):
        if not any(rule["rule"].startswith("self.all(key,") for rule in node.get(VALIDATIONS, ())):
            yield Finding(path, "has no rule on its keys: self.all(key, ...)")


@check
def integers_are_bounded(crd: Crd) -> Iterator[Finding]:
    """Everybody has to know what the largest value does."""
    for path, node in _of_type(crd, "integer"):
        if "minimum" not in node or "maximum" not in node:
            yield Finding(path, "needs minimum and maximum")


@check
def integers_are_int64(crd: Crd) -> Iterator[Finding]:
    """Without the format a generated client picks 32 bits."""
    for path, node in _of_type(crd, "integer"):
        if node.get("format") != "int64":
            yield Finding(path, "needs format int64")


@check
def bounds_survive_the_api_server(crd: Crd) -> Iterator[Finding]:
    """A bound is a float64 there; one that comes back as another number makes the CRD differ for ever."""
    for path, node in _all(crd):
        for word in ("minimum", "maximum"):
            if word in node and Decimal(repr(float(node[word]))) != node[word]:
                yield Finding(path, f"{word} {node[word]} does not come back as written: use a power of ten")


@check
def bounds_are_in_order(crd: Crd) -> Iterator[Finding]:
    """A lower bound above the upper one refuses everything."""
    pairs = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))
    for path, node in _all(crd):
        for low, high in pairs:
            if node.get(low, -math.inf) > node.get(high, math.inf):
                yield Finding(path, f"{low} is above {high}")


@check
def objects_fit_in_storage(crd: Crd) -> Iterator[Finding]:
    """The largest legal object, in characters, has room in etcd."""
    for root in _roots(crd):
        if (size := _worst(root)) > LARGEST_OBJECT:
            yield Finding("", f"the largest legal object has {size:,} characters: lower a bound")


def _worst(node: Schema) -> int:
    """Characters of the largest legal value; what has no bound is another check's business."""
    if "items" in node:
        return int(node.get("maxItems", 0)) * (_worst(node["items"]) + 1)
    if isinstance(node.get("additionalProperties"), dict):
        return int(node.get("maxProperties", 0)) * (_worst(node["additionalProperties"]) + 320)
    if "properties" in node:
        return sum(len(name) + 4 + _worst(inner) for name, inner in node["properties"].items())
    longest = max((len(str(choice)) for choice in node.get("enum", ())), default=20)
    return int(node.get("maxLength", longest)) + 2


# --- lists ------------------------------------------------------------------------------------------------------------


@check
def lists_have_a_type(crd: Crd) -> Iterator[Finding]:
    """Server-side apply must know whether a list merges."""
    for path, node in _of_type(crd, "array"):
        if node.get("x-kubernetes-list-type") not in ("map", "set", "atomic"):
            yield Finding(path, "has no x-kubernetes-list-type")


@check
def list_keys_are_required(crd: Crd) -> Iterator[Finding]:
    """An item without its key cannot be merged."""
    for path, node in _of_type(crd, "array"):
        if node.get("x-kubernetes-list-type") == "map":
            missing = set(node.get("x-kubernetes-list-map-keys") or ["a key"]) - set(node["items"].get("required", ()))
            yield from (Finding(path, f"items must require {key}") for key in sorted(missing))


# --- defaults ---------------------------------------------------------------------------------------------------------


@check
def no_defaults_in_lists(crd: Crd) -> Iterator[Finding]:
    """Argo CD compares list items as they were sent: a default in one is a difference for ever."""
    for path, node in _all(crd):
        if "default" in node and ("[]" in path or ".*" in path):
            yield Finding(path, "has a default below a list or a map: fill it in on reading")


@check
def no_composite_defaults(crd: Crd) -> Iterator[Finding]:
    """A default that is a list or an object appears where nobody wrote anything."""
    for path, node in _all(crd):
        if isinstance(node.get("default"), (list, dict)):
            yield Finding(path, "has a list or an object as default: leave it absent")


@check
def defaults_are_legal(crd: Crd) -> Iterator[Finding]:
    """A default is a value of its field."""
    for path, node in _all(crd):
        default = node.get("default")
        if default is None or isinstance(default, (list, dict)):
            continue
        fits_bounds = not isinstance(default, int) or node.get("minimum", default) <= default <= node.get(
            "maximum", default
        )
        if default not in node.get("enum", [default]) or not fits_bounds:
            yield Finding(path, f"default {default!r} is not a legal value")


# --- words ------------------------------------------------------------------------------------------------------------


@check
def fields_are_described(crd: Crd) -> Iterator[Finding]:
    """`kubectl explain` is the documentation that is always at hand."""
    for path, _, node in _fields(crd):
        if len(node.get("description", "")) < SHORTEST_DESCRIPTION:
            yield Finding(path, f"needs a description of at least {SHORTEST_DESCRIPTION} characters")


@check
def descriptions_are_sentences(crd: Crd) -> Iterator[Finding]:
    """They end with a full stop, and not in the middle."""
    for path, node in _all(crd):
        if "description" in node and not node["description"].endswith("."):
            yield Finding(path, "description must end with a full stop")


@check
def descriptions_say_something(crd: Crd) -> Iterator[Finding]:
    """No notes to oneself, and no words that every description could begin with."""
    for path, node in _all(crd):
        if re.search(r"\b(TODO|FIXME|XXX|TBD)\b|^(This|The) (field|property|value)\b", node.get("description", "")):
            yield Finding(path, "description holds a placeholder or begins with an empty phrase")


@check
def field_names_are_camel_case(crd: Crd) -> Iterator[Finding]:
    """As everywhere in Kubernetes."""
    for path, name, _ in _fields(crd):
        if not re.fullmatch(r"[a-z][A-Za-z0-9]*", name):
            yield Finding(path, "name must be camelCase")


@check
def enum_values_are_camel_case(crd: Crd) -> Iterator[Finding]:
    """As everywhere in Kubernetes."""
    for path, node in _all(crd):
        for choice in node.get("enum", ()):
            if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", str(choice)):
                yield Finding(path, f"enum value {choice!r} must be CamelCase")


@check
def no_phase(crd: Crd) -> Iterator[Finding]:
    """A phase is one word for many facts; conditions are the facts."""
    return (Finding(path, "is a phase: use conditions") for path, name, _ in _fields(crd) if name.lower() == "phase")


@check
def no_other_namespaces(crd: Crd) -> Iterator[Finding]:
    """A reference into another namespace would use the operator's rights for somebody who lacks them."""
    for path, name, _ in _fields(crd):
        if name.lower().endswith(("namespace", "namespaces")):
            yield Finding(path, "names a namespace: references stay in the object's own")


@check
def no_plain_secrets(crd: Crd) -> Iterator[Finding]:
    """Whoever may read the object would read the secret."""
    for path, name, node in _fields(crd):
        if node.get("type") == "string" and re.search(r"(password|secret|apikey|credential)s?$", name.lower()):
            yield Finding(path, "is a secret in plain text: use a SecretKeyRef")


@check
def required_fields_exist(crd: Crd) -> Iterator[Finding]:
    """A required field that does not exist refuses every object."""
    for path, node in _all(crd):
        for name in node.get("required", ()):
            if name not in node.get("properties", {}):
                yield Finding(path, f"requires {name}, which is not a field")


@check
def patterns_are_anchored(crd: Crd) -> Iterator[Finding]:
    """An open end lets anything in."""
    for path, node in _all(crd):
        pattern = node.get("pattern", "^$")
        if not (pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$")):
            yield Finding(path, "pattern must begin with ^ and end with $")


@check
def patterns_are_re2(crd: Crd) -> Iterator[Finding]:
    """The API server has RE2: no looking around, no references back, at most 1,000 repetitions."""
    for path, node in _all(crd):
        if "pattern" in node and (problem := _not_re2(node["pattern"])):
            yield Finding(path, f"pattern {problem}")


def _not_re2(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    if re.search(r"\(\?(?:[=!>(#]|<[=!]|P=)|\\[1-9]|[*+?}]\+", pattern):
        return "uses what RE2 does not have"
    if any(int(count) > 1000 for count in re.findall(r"\{\d*,?(\d+)\}", pattern)):
        return "repeats more than 1,000 times"
    return None


# --- rules ------------------------------------------------------------------------------------------------------------


@check
def rules_have_messages(crd: Crd) -> Iterator[Finding]:
    """A refusal without words shows the expression."""
    for path, rule in _rules(crd):
        message = rule.get("message", "")
        if not message.strip() or "\n" in message or len(message) > LONGEST_RULE_MESSAGE:
            yield Finding(path, f"a rule needs a message of one line with at most {LONGEST_RULE_MESSAGE} characters")


@check
def rules_have_known_reasons(crd: Crd) -> Iterator[Finding]:
    """Clients sort refusals by them."""
    for path, rule in _rules(crd):
        if rule.get("reason") not in REASONS:
            yield Finding(path, f"reason {rule.get('reason')!r} must be one of {', '.join(sorted(REASONS))}")


@check
def rules_are_core_cel(crd: Crd) -> Iterator[Finding]:
    """Only functions and macros of the language itself, no optional syntax."""
    for path, rule in _rules(crd):
        code = re.sub(r"""r?'(?:[^'\\]|\\.)*'|r?"(?:[^"\\]|\\.)*\"""", "''", rule["rule"])
        unknown = set(re.findall(r"([A-Za-z_][A-Za-z0-9_]*)\s*\(", code)) - CORE_CEL
        optional = re.search(r"\.\?|\[\?|\{\?", code)
        if unknown or optional:
            yield Finding(path, f"a rule uses {', '.join(sorted(unknown)) or 'optional syntax'}: not core CEL")


@check
def rules_run_seldom(crd: Crd) -> Iterator[Finding]:
    """A rule below lists runs once an item; the product of their bounds is what it may cost."""
    most = {f"{path}[]": node.get("maxItems", 1) for path, node in _of_type(crd, "array")}
    most |= {f"{path}.*": node.get("maxProperties", 1) for path, node in _maps(crd)}
    for path, _ in _rules(crd):
        runs = math.prod(bound for above, bound in most.items() if path == above or path.startswith(f"{above}."))
        if runs > MOST_RULE_RUNS:
            yield Finding(path, f"a rule may run {runs} times: lower maxItems")


@check
def transition_rules_can_run(crd: Crd) -> Iterator[Finding]:
    """Items of a list without keys have no predecessor, so oldSelf is never there."""
    loose = [path for path, node in _of_type(crd, "array") if node.get("x-kubernetes-list-type") in ("atomic", "set")]
    for path, rule in _rules(crd):
        if "oldSelf" in rule["rule"] and any(path.startswith(f"{above}[]") for above in loose):
            yield Finding(path, "oldSelf below a list without keys")


# --- the whole --------------------------------------------------------------------------------------------------------


@check
def names_agree(crd: Crd) -> Iterator[Finding]:
    """The parts of the name follow from the kind."""
    spec, called = crd["spec"], crd["spec"]["names"]
    if crd["metadata"]["name"] != f"{called['plural']}.{spec['group']}":
        yield Finding("metadata.name", "must be PLURAL.GROUP")
    if (called["singular"], called["listKind"]) != (called["kind"].lower(), f"{called['kind']}List"):
        yield Finding("spec.names", "singular and listKind must follow from kind")


@check
def scope_is_namespaced(crd: Crd) -> Iterator[Finding]:
    """Tenants own tiers; a cluster-wide object belongs to nobody."""
    if crd["spec"]["scope"] != "Namespaced":
        yield Finding("spec.scope", "must be Namespaced")


@check
def one_version_is_stored(crd: Crd) -> Iterator[Finding]:
    """Exactly one, and it is served."""
    stored = [version for version in crd["spec"]["versions"] if version["storage"]]
    if len(stored) != 1 or not stored[0]["served"]:
        yield Finding("spec.versions", "exactly one version must be stored, and served")


@check
def has_a_short_name(crd: Crd) -> Iterator[Finding]:
    """Fingers thank."""
    if not any(len(name) <= 4 for name in crd["spec"]["names"].get("shortNames", ())):
        yield Finding("spec.names.shortNames", "needs one of at most four letters")


@check
def has_a_category_of_its_own(crd: Crd) -> Iterator[Finding]:
    """`kubectl get tiering` lists all our kinds; `all` is loud."""
    found = crd["spec"]["names"].get("categories", ())
    if not found or "all" in found:
        yield Finding("spec.names.categories", "needs a category, and not `all`")


@check
def is_small_enough_to_apply(crd: Crd) -> Iterator[Finding]:
    """Client-side apply keeps the whole manifest in an annotation."""
    if (size := len(json.dumps(crd))) >= LONGEST_CRD:
        yield Finding("", f"has {size:,} bytes as JSON; client-side apply ends at {LONGEST_CRD:,}")


@check
def spec_is_required(crd: Crd) -> Iterator[Finding]:
    """An object without a spec means nothing."""
    for root in _roots(crd):
        if "spec" not in root.get("required", ()):
            yield Finding("", "must require spec")


@check
def has_a_status_subresource(crd: Crd) -> Iterator[Finding]:
    """Without it a tenant could write the status, and a status write would bump the generation."""
    for version in crd["spec"]["versions"]:
        if "status" not in version.get("subresources", {}):
            yield Finding(f"versions.{version['name']}.subresources", "needs status")


@check
def status_has_observed_generation(crd: Crd) -> Iterator[Finding]:
    """Otherwise nobody knows which spec a status is about."""
    for root in _roots(crd):
        if "observedGeneration" not in root["properties"]["status"]["properties"]:
            yield Finding("status", "needs observedGeneration")


@check
def conditions_are_standard(crd: Crd) -> Iterator[Finding]:
    """A map by type of the six fields of metav1.Condition, all required."""
    for root in _roots(crd):
        conditions = root["properties"]["status"]["properties"].get("conditions", {"items": {}})
        if conditions.get("x-kubernetes-list-map-keys") != ["type"]:
            yield Finding("status.conditions", "must be a map by type")
        found = conditions["items"]
        if CONDITION_FIELDS - set(found.get("required", ())) or CONDITION_FIELDS ^ found.get("properties", {}).keys():
            yield Finding("status.conditions[]", f"must have and require {', '.join(sorted(CONDITION_FIELDS))}")


@check
def replicas_can_be_scaled(crd: Crd) -> Iterator[Finding]:
    """kubectl scale, HPA and KEDA need the subresource, its selector, and a number when none was written."""
    for version in crd["spec"]["versions"]:
        root = version["schema"]["openAPIV3Schema"]
        replicas = _at(root, "spec.replicas")
        if replicas is None:
            continue
        scale = version.get("subresources", {}).get("scale", {})
        paths = (scale.get("specReplicasPath"), scale.get("statusReplicasPath"), scale.get("labelSelectorPath"))
        if not all(path and _at(root, path) for path in paths):
            yield Finding("subresources.scale", "needs three paths that exist")
        if replicas.get("default") != 1:
            yield Finding("spec.replicas", "needs default 1")


@check
def columns_are_enough(crd: Crd) -> Iterator[Finding]:
    """At least five without `-o wide`, and the age at the end as everywhere."""
    for version in crd["spec"]["versions"]:
        columns = version.get("additionalPrinterColumns", [])
        if len([column for column in columns if not column.get("priority")]) < 5 or columns[-1]["name"] != "AGE":
            yield Finding("additionalPrinterColumns", "needs five columns that always show, AGE the last")


@check
def columns_show_fields(crd: Crd) -> Iterator[Finding]:
    """A path to nowhere is an empty column that nobody misses."""
    for version in crd["spec"]["versions"]:
        root = version["schema"]["openAPIV3Schema"]
        for column in version.get("additionalPrinterColumns", ()):
            node = _at(root, column["jsonPath"])
            if not column["jsonPath"].startswith(".metadata.") and (node or {}).get("type") != column["type"]:
                yield Finding(f"column {column['name']}", f"{column['jsonPath']} is no field of type {column['type']}")
