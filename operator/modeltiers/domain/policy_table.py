"""Compiles a RoutingPolicy and its tiers into the one routing table that every router on its ladder reads.

The same policy and tiers give the same bytes, whose hash is the table's version. Readiness is no input: a pod that
comes or goes changes no table. Each self-hosted tier is named by the headless Service of its pods and each external one
by its egress router's, so that one document serves them all: a router is told which tier is its own (`--local`). What
cannot become a table that the router reads is a list of faults, in the words and paths of the spec.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from modeltiers import names
from modeltiers.api.modeltier import ModelTierSpec
from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.domain.revisions import revisions_of
from modeltiers.domain.routing.accept import compile_accept
from modeltiers.domain.routing.lint import lint
from modeltiers.domain.routing.rules import compile_policy
from modeltiers.domain.routing.table import FORMAT_VERSION, InvalidTable, Table, read_table

MOST_BYTES: Final = 200_000
"""Largest table of one policy."""
SHELF_BYTES: Final = 1_000_000
"""What all tables of one tier may take together: a ConfigMap holds 1 MiB, keys included."""
DEEPEST_SCHEMA: Final = 64
"""Levels of a JSON schema for answers."""
TOOL_FLAG: Final = "--enable-auto-tool-choice"
"""Without this flag vLLM refuses requests whose model shall choose a tool."""
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


# --- names ------------------------------------------------------------------------------------------------------------


def address_of(tier: str, namespace: str, port: int = names.SERVING_PORT, revision: str = names.FIRST_REVISION) -> str:
    """Where routers reach the routers of a tier's revision: a name that stands for all its pods."""
    return f"{names.pods_service(tier, revision)}.{namespace}.svc:{port}"


def policy_behind(base_url: str, namespace: str) -> str | None:
    """Name of the policy of this namespace whose Service a base URL leads to; None when it leads elsewhere."""
    found = re.fullmatch(r"(.+)-policy\.([^.]+)\.svc(\.cluster\.local)?\.?", urlsplit(base_url).hostname or "")
    return found[1] if found and found[2] == namespace else None


# --- what is known of tiers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TierView:
    """What a table says of a tier."""

    name: str
    model: str
    external: bool = False
    outside: bool = False
    """What is sent to it leaves the cluster."""
    context_tokens: int | None = None
    can: Mapping[str, bool] = field(default_factory=dict)
    """Capabilities by their names in the table, where they are known; the table's defaults else."""
    price: tuple[int, int] | None = None
    """Millionths of the currency for a million tokens of prompts and of answers; None where tokens have no price."""
    currency: str | None = None
    candidate: tuple[str, int] | None = None
    """The second revision, and its share of conversations in permille."""

    @classmethod
    def of(
        cls,
        name: str,
        spec: ModelTierSpec,
        status: Mapping[str, Any] | None = None,
        profile_args: Sequence[str] = (),
    ) -> TierView:
        """Read a ModelTier. `profile_args` are the flags of its engine profile."""
        known = spec.capabilities.model_dump(by_alias=True, exclude_none=True) if spec.capabilities else {}
        if spec.external is not None:
            price = spec.external.price
            return cls(
                name,
                spec.external.model,
                external=True,
                outside=not _in_cluster(spec.external.base_url),
                context_tokens=spec.external.context_tokens,
                can=known,
                price=(price.input_per_million_micros, price.output_per_million_micros) if price else None,
                currency=price.currency if price else None,
            )
        assert spec.model is not None, "a tier has a model or is external"
        args = [*profile_args, *(spec.serving.args if spec.serving else ())]
        known.setdefault("tools", any(one in (TOOL_FLAG, f"{TOOL_FLAG}=true") for one in args))
        served = (status or {}).get("sizing") or {}
        length = served.get("maxModelLen") or spec.model.max_model_len
        second = revisions_of(spec)[1:]
        if second:  # what is sent to the tier must fit both
            said = [one.get("maxModelLen") for one in (status or {}).get("revisions") or ()]
            length = min((one for one in (length, *said) if one), default=None)
        return cls(
            name,
            spec.model.served_name or name,
            context_tokens=length,
            can=known,
            candidate=(second[0].name, second[0].weight_permille) if second else None,
        )


def _in_cluster(base_url: str) -> bool:
    host = (urlsplit(base_url).hostname or "").removesuffix(".")
    return host.endswith((".svc", ".svc.cluster.local"))


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no table: a word for it, the field at fault, and what to do."""

    reason: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Doubt:
    """What in a policy that compiles is hardly meant, and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class CompiledTable:
    """A table that the router reads, and the bytes that are written."""

    policy: str
    version: str
    content: str
    document: Mapping[str, Any]
    doubts: tuple[Doubt, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content.encode())


# --- compiling --------------------------------------------------------------------------------------------------------


def compile_table(
    name: str, spec: RoutingPolicySpec, tiers: Mapping[str, TierView | None], namespace: str
) -> CompiledTable | list[Fault]:
    """Return the table of one policy, or every reason why there is none.

    `tiers` are those of the namespace that exist; None for one whose own spec is not accepted.
    """
    ladder = [view for one in spec.tiers if (view := tiers.get(one.name)) is not None]
    if found := [*_missing_tiers(spec, tiers), *_ladder_faults(spec, ladder), *_schema_faults(spec)]:
        return found
    keeps = any(tier.outside for tier in ladder)
    order = _reading_order(spec, keeps=keeps)
    document = {
        "formatVersion": FORMAT_VERSION,
        "tiers": [_tier(spec, index, tier, namespace) for index, tier in enumerate(ladder)],
        "policies": [_policy(name, spec, order, keeps=keeps)],
    }
    try:
        table = _read(document)
    except InvalidTable as error:
        return [_fault(one.path, one.problem, order) for one in error.faults]
    made = written(name, table)
    if made.size > MOST_BYTES:
        return [_too_large(made.size, made.document["policies"][0], order)]
    return replace(made, doubts=_doubts(table, ladder, order))


def written(name: str, table: Table) -> CompiledTable:
    """Return a table with the bytes that stand for it and their hash."""
    plain = _written(table)
    content = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True) + "\n"
    return CompiledTable(name, hashlib.sha256(content.encode()).hexdigest()[:12], content, plain)


def _read(document: Mapping[str, Any]) -> Table:
    """Return the table as the router will have it; raises InvalidTable, also for patterns and schemas."""
    table = read_table(document)
    policy = table.policies[0]
    compile_policy(table, policy)
    compile_accept(policy)
    return table


def _written(value: Any) -> Any:
    """Return a part of a table as plain values, without what equals the router's defaults: one meaning, one text."""
    if isinstance(value, Struct):
        given = ((one, getattr(value, one.name)) for one in _fields(type(value)))
        return {one.encode_name: _written(said) for one, said in given if said != one.default}
    return [_written(one) for one in value] if isinstance(value, tuple) else value


@cache
def _fields(part: type[Struct]) -> tuple[structs.FieldInfo, ...]:
    return structs.fields(part)  # which reads the annotations anew each time


def _reading_order(spec: RoutingPolicySpec, *, keeps: bool) -> list[int]:
    """Return the places of the rules in the order of the table: no rule may end the reading before a data class.

    Where no tier is outside, a rule that gives a data class and nothing else is left out.
    """
    rules = spec.classify
    idle = {index for index, rule in enumerate(rules) if rule.data_class and not (keeps or rule.floor or rule.risk)}
    return sorted(set(range(len(rules))) - idle, key=lambda index: (rules[index].data_class is None, index))


def _missing_tiers(spec: RoutingPolicySpec, tiers: Mapping[str, TierView | None]) -> Iterator[Fault]:
    known = ", ".join(sorted(tiers)) or "none"
    for index, one in enumerate(spec.tiers):
        path = f"spec.tiers[{index}]"
        if one.name not in tiers:
            way_out = f"create it, or take it off the ladder (tiers here: {known})"
            yield Fault("TierNotFound", path, f"there is no ModelTier {one.name} in this namespace; {way_out}")
        elif tiers[one.name] is None:
            problem = f"the spec of ModelTier {one.name} is not accepted, so that nothing is known of its model"
            yield Fault("TierNotAccepted", path, f"{problem}; see its conditions and correct it")


def _ladder_faults(spec: RoutingPolicySpec, ladder: Sequence[TierView]) -> Iterator[Fault]:
    outside = [tier.name for tier in ladder if tier.outside]
    if outside and spec.data_class == "NeverLeavesCluster":
        problem = f"{' and '.join(outside)} would take data out of the cluster, and dataClass is NeverLeavesCluster"
        yield Fault("DataWouldLeave", "spec.dataClass", f"{problem}; take it off spec.tiers, or set dataClass: Any")
    entry = next((tier for tier in ladder if tier.name == spec.tiers[0].name), None)
    if entry is not None and entry.external and spec.placement == "Sidecar":
        problem = f"the ladder begins at {entry.name}, which is external: no pod beside an engine can take requests"
        yield Fault("NeedsGateway", "spec.placement", f"{problem}; set placement: Gateway, or begin elsewhere")


def _schema_faults(spec: RoutingPolicySpec) -> Iterator[Fault]:
    for index, check in enumerate(spec.accept.validators if spec.accept else ()):
        if check.json_schema is None:
            continue
        path = f"spec.accept.validators[{index}].jsonSchema"
        try:
            read = msgspec.json.decode(check.json_schema)
        except (msgspec.DecodeError, RecursionError) as error:
            yield Fault("InvalidPolicy", path, f"is not JSON ({error}); write the schema as a JSON object")
            continue
        if not isinstance(read, dict):
            yield Fault("InvalidPolicy", path, "is not a JSON object; write the schema as one")
        elif _deeper(read, DEEPEST_SCHEMA):
            yield Fault("InvalidPolicy", path, f"is nested more than {DEEPEST_SCHEMA} deep; flatten the schema")


def _deeper(value: Any, most: int) -> bool:
    """Whether a JSON value is nested deeper than so many levels."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def in_table(view: TierView, namespace: str) -> dict[str, Any]:
    """Return a tier as tables have it, whatever the policy."""
    tier: dict[str, Any] = {
        "name": view.name,
        "address": address_of(view.name, namespace),
        "model": view.model,
        "hop": True,
        "can": dict(view.can),
    }
    if view.candidate is not None:
        revision, share = view.candidate
        address = address_of(view.name, namespace, revision=revision)
        tier["candidate"] = {"revision": revision, "address": address, "hop": True, "sharePermille": share}
    if view.context_tokens is not None:
        tier["contextTokens"] = view.context_tokens
    if view.price is not None:
        tier["price"] = {"inputPerMillionMicros": view.price[0], "outputPerMillionMicros": view.price[1]}
    return tier


def _tier(spec: RoutingPolicySpec, index: int, view: TierView, namespace: str) -> dict[str, Any]:
    rung = spec.tiers[index]
    tier = in_table(view, namespace)
    if view.outside and any(rule.data_class for rule in spec.classify):
        tier["outside"] = True
    if rung.concurrency is not None:
        tier["concurrency"] = rung.concurrency
    if rung.timeouts is not None:
        given = _plain(rung.timeouts)
        tier["timeouts"] = {f"{step}Ms": millis(given[step]) for step in ("connect", "firstByte", "idle", "total")}
    return tier


_SAME: Final[tuple[str, ...]] = (
    "access",
    "score",
    "canary",
    "override",
    "accept",
    "stream",
    "escalation",
    "fallback",
    "clamp",
)
_SAME_TOO: Final[tuple[str, ...]] = ("risks", "session", "limits", "keyLimits", "mediaHosts")


def _policy(name: str, spec: RoutingPolicySpec, order: Sequence[int], *, keeps: bool) -> dict[str, Any]:
    """Return the policy; `keeps` says that a tier is outside, so that data classes matter."""
    given = _plain(spec)
    policy = {key: given[key] for key in (*_SAME, *_SAME_TOO) if key in given}
    policy |= {"name": name, "model": spec.model, "tiers": [tier.name for tier in spec.tiers], "mode": spec.mode}
    policy["rules"] = [_rule(given["classify"][index], keeps=keeps) for index in order]
    if "session" in policy:
        policy["session"] = _renamed(policy["session"], "ttl", "ttlSeconds", lambda text: millis(text) // 1000)
    if "stream" in policy:
        policy["stream"] = _renamed(policy["stream"], "window", "windowMs", millis)
    for limits in ("limits", "keyLimits"):
        if limits in policy:
            policy[limits] = _renamed(policy[limits], "queueTime", "queueMs", millis)
    if "fallback" in policy:
        policy["fallback"] = _renamed(policy["fallback"], "failures", "on", _failures)
    if "clamp" in policy:
        policy["clamp"] = _renamed(policy["clamp"], "choices", "n", int)
    if "accept" in policy:
        validators = [_validator(one) for one in policy["accept"].get("validators", ())]
        policy["accept"] = {**policy["accept"], "validators": validators}
        if "confidence" in policy["accept"]:
            seen = policy["accept"]["confidence"].items()
            policy["accept"]["confidence"] = {key: value for key, value in seen if key != "thresholdFrom"}
    return policy


def _failures(given: Sequence[str]) -> list[str]:
    return [one.removeprefix("Status") for one in given]  # a number is no word of an API


def _plain(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def _rule(given: Mapping[str, Any], *, keeps: bool) -> dict[str, Any]:
    rule = {key: value for key, value in given.items() if key != "dataClass"}
    return {**rule, "inside": True} if keeps and "dataClass" in given else rule


def _validator(given: Mapping[str, Any]) -> dict[str, Any]:
    check = _renamed(given, "deadline", "deadlineMs", millis)
    return _renamed(check, "jsonSchema", "schema", msgspec.json.decode)


def _renamed(given: Mapping[str, Any], old: str, new: str, read: Any) -> dict[str, Any]:
    """Return a copy with one field under its name and in its unit of the table, where it is there."""
    kept = {key: value for key, value in given.items() if key != old}
    return {**kept, new: read(given[old])} if old in given else kept


def millis(text: str) -> int:
    """Milliseconds of a duration of the spec: a whole number and one unit."""
    found = re.fullmatch(r"([0-9]+)(ms|s|m|h)", text)
    assert found is not None, "the model checks the form"
    return int(found[1]) * _UNITS[found[2]]


# --- faults and doubts in the words of the spec -----------------------------------------------------------------------

_FIELDS: Final = {
    "windowMs": "window",
    "queueMs": "queueTime",
    "ttlSeconds": "ttl",
    "deadlineMs": "deadline",
    "schema": "jsonSchema",
    "connectMs": "connect",
    "firstByteMs": "firstByte",
    "idleMs": "idle",
    "totalMs": "total",
    "inside": "dataClass",
    "on": "failures",
    "n": "choices",
}


def spec_path(path: str, order: Sequence[int]) -> str:
    """Return the field of the spec that a path of the table is about."""
    text = re.sub(r"^\$", "spec", re.sub(r"^\$\.policies(\[0\])?", "$", path if path[:1] == "$" else f"$.{path}"))
    text = re.sub(r"\.([A-Za-z]+)", lambda part: f".{_FIELDS.get(part[1], part[1])}", text)
    found = re.match(r"^spec\.rules(?:\[([0-9]+)\])?(.*)$", text)
    if found is None:
        return text
    place = "" if found[1] is None else f"[{order[int(found[1])]}]"
    return f"spec.classify{place}{found[2]}"


def _fault(path: str, problem: str, order: Sequence[int]) -> Fault:
    where = spec_path(path, order)
    if found := re.match(r"^(spec\.tiers\[[0-9]+\])\.(model|contextTokens|price|can)", where):
        return Fault("InvalidPolicy", found[1], f"the tier's {found[2]} does not suit a table: {problem}")
    return Fault("InvalidPolicy", where, problem)


def _too_large(size: int, policy: Mapping[str, Any], order: Sequence[int]) -> Fault:
    """Name the field that takes most: a rule, a check of answers, or a part of the policy."""
    parts = {f"$.policies[0].{key}": value for key, value in policy.items() if key not in ("rules", "accept")}
    parts |= {f"$.policies[0].rules[{index}]": rule for index, rule in enumerate(policy.get("rules", ()))}
    checks = policy.get("accept", {}).get("validators", ())
    parts |= {f"$.policies[0].accept.validators[{index}]": check for index, check in enumerate(checks)}
    largest = max(parts, key=lambda path: len(json.dumps(parts[path], ensure_ascii=False).encode()))
    takes = len(json.dumps(parts[largest], ensure_ascii=False).encode())
    problem = f"the table has {size:,} bytes, at most {MOST_BYTES:,} are served; this part takes most, {takes:,}"
    return Fault("TableTooLarge", spec_path(largest, order), f"{problem}: shorten it, or move rules to another policy")


def _doubts(table: Table, ladder: Sequence[TierView], order: Sequence[int]) -> tuple[Doubt, ...]:
    found = [Doubt(spec_path(one.path, order), one.problem) for one in lint(table)]
    if len(currencies := sorted({tier.currency for tier in ladder if tier.currency})) > 1:
        problem = f"tiers charge in {' and '.join(currencies)}, which do not add up: costs are told as unknown"
        found.append(Doubt("spec.tiers", f"{problem}; give all tiers one currency"))
    return tuple(found)


# --- the shelf: a tier's ConfigMap ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shelf:
    """The data of a tier's ConfigMap, and the policies whose table has no room in it."""

    data: Mapping[str, str]
    left: Mapping[str, Fault]


def fill_shelf(tier: str, tables: Iterable[CompiledTable], most: int = SHELF_BYTES) -> Shelf:
    """Put tables into one ConfigMap, in the order given (the oldest policy first), while there is room."""
    data: dict[str, str] = {}
    left: dict[str, Fault] = {}
    used = 0
    for table in tables:
        key = names.table_key(table.policy)
        takes = len(key) + table.size
        if used + takes > most:
            problem = f"the tables of tier {tier} take {used:,} of {most:,} bytes, and this one needs {takes:,}"
            way_out = "shorten spec.classify of the policies that cross it, or use placement: Gateway with fewer tiers"
            left[table.policy] = Fault("ShelfFull", "spec.tiers", f"{problem}: {way_out}")
            continue
        used += takes
        data[key] = table.content
    return Shelf(data, left)
