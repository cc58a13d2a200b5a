"""JSON schemas under caps: what they may hold, what checking one may cost at most, and a checker kept for each.

A schema may come from a client, so none is trusted: no reference leaves it, its patterns run on an engine in linear
time, and what it costs is known before it is run. Where it is run is not decided here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
import msgspec

BYTES: Final = 65_536
"""The longest schema that is taken."""
DEPTH: Final = 64
"""How deep a schema may be nested."""
NODES: Final = 4_000
"""How many subschemas are counted; beyond them, or with a reference that leads back, a schema has no known cost."""
ENDLESS: Final = 10**9
_CALM: Final = frozenset(
    {"title", "description", "default", "examples", "enum", "const", "required", "$comment", "$defs", "definitions"}
)
_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_RESTLESS: Final = frozenset(
    {"uniqueItems", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "$anchor", "$id"}
)
_CLASS: Final = re.compile(r"\\[wWdDsSbB]")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=262_144, dfa_size_limit=262_144)


class BadSchema(ValueError):
    """A schema that is not run; says why."""


class Checker:
    """A schema made ready. Immutable."""

    __slots__ = ("_validator", "cost")

    def __init__(self, schema: Any) -> None:
        """Make it ready; raises BadSchema."""
        refuse(schema)
        try:
            self._validator = jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise BadSchema(str(error).partition("\n")[0]) from None
        self.cost = cost(schema)

    def takes(self, value: Any) -> bool:
        """Whether a decoded value keeps to the schema."""
        return bool(self._validator.is_valid(value))


@lru_cache(maxsize=128)
def checker(schema: bytes) -> Checker:
    """Return the checker of a schema as it is written; raises BadSchema. The last ones are kept."""
    return Checker(decoded(schema))


@lru_cache(maxsize=128)
def cost_of(schema: bytes) -> int:
    """Return what `cost` says of a schema as it is written; ENDLESS where it cannot be used."""
    try:
        return cost(decoded(schema)) if len(schema) <= BYTES else ENDLESS
    except BadSchema:
        return ENDLESS


def decoded(schema: bytes) -> Any:
    """Return a schema that is written as JSON; raises BadSchema."""
    if len(schema) > BYTES:
        raise BadSchema(f"has {len(schema)} bytes, at most {BYTES} are taken")
    try:
        return msgspec.json.decode(schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSchema(f"is not JSON: {error}") from None


def refuse(schema: Any) -> None:
    """Raise BadSchema for a schema that is too deep, too large, or refers to something outside itself."""
    if len(msgspec.json.encode(schema)) > BYTES:
        raise BadSchema(f"has more than {BYTES} bytes as JSON")
    rows = [schema]
    for _ in range(DEPTH):
        deeper: list[Any] = []
        for one in rows:
            if isinstance(one, dict):
                _refuse_reference(one)
                deeper += one.values()
            elif isinstance(one, list):
                deeper += one
        rows = [one for one in deeper if isinstance(one, (dict, list))]
        if not rows:
            return
    raise BadSchema(f"is nested more than {DEPTH} deep")


def _refuse_reference(node: dict[str, Any]) -> None:
    for key in _REFERENCES:
        target = node.get(key)
        if isinstance(target, str) and not target.startswith("#"):
            raise BadSchema(f"refers to {target!r}, outside itself; put that part under $defs and refer to #/$defs/...")


def cost(schema: Any) -> int:
    """Return how many subschemas may look at one value, references followed; ENDLESS where there is no bound."""
    budget = [NODES]
    try:
        _count(schema, schema, budget, ())
    except (_EndlessError, RecursionError):
        return ENDLESS
    return NODES - budget[0]


class _EndlessError(Exception):
    """There are too many subschemas to count, or infinitely many."""


def _count(node: Any, root: Any, budget: list[int], followed: tuple[str, ...]) -> None:
    """Take a node, and all that it leads to, from the budget; raises when that is spent or a way leads back."""
    if isinstance(node, list):
        for one in node:
            _count(one, root, budget, followed)
    if not isinstance(node, dict):
        return
    listed = node.get("enum")
    budget[0] -= 1 + (len(listed) // 8 if isinstance(listed, list) else 0)
    if budget[0] < 0 or not _RESTLESS.isdisjoint(node):
        raise _EndlessError
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            if value in followed or len(followed) > DEPTH:
                raise _EndlessError
            _count(_target(root, value), root, budget, (*followed, value))
        else:
            _count(_inside(key, value, budget), root, budget, followed)


def _inside(key: str, value: Any, budget: list[int]) -> Any:
    """Return the subschemas under a keyword, and take what its patterns cost from the budget."""
    if key == "pattern" and isinstance(value, str):
        budget[0] -= _steps(value)
    if key in _BY_NAME and isinstance(value, dict):
        if key == "patternProperties":
            budget[0] -= sum(map(_steps, value))
        return list(value.values())
    return None if key in _CALM else value


def _steps(pattern: str) -> int:
    """Return what a pattern counts for: more the longer it is, much where it repeats or names classes of Unicode."""
    if "\\p" in pattern or "\\P" in pattern:
        return NODES
    return 4 + len(pattern) // 4 + 300 * (pattern.count("{") + len(_CLASS.findall(pattern)))


def _target(root: Any, reference: str) -> Any:
    node = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or name not in node:
            raise _EndlessError
        node = node[name]
    if node is root:
        raise _EndlessError
    return node
