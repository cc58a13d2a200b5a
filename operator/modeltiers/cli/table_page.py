"""The reference page of the routing table, from the types that read it: every field, its bounds and what it means.

A section for each type, in the order in which a reader meets them. It adds no words of its own to the fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from modeltiers.api.crd import HEADER
from modeltiers.domain.routing.table import Table

_REF: Final = "#/$defs/"
_INTRO: Final = """
A routing table is one YAML or JSON file. Names are in camelCase; a field that is not listed here is a fault, and so is
a value out of bounds: `modeltiers lint` and the router say the path and the way out. Shares and probabilities are
permille, 0 to 1000. What the fields do together is told in [routing](../routing.md).
"""

Schema = Mapping[str, Any]


def table_page() -> str:
    """Return the page."""
    _, parts = msgspec.json.schema_components((Table,), ref_template=_REF + "{name}")
    lines = [f"<!-- {HEADER} -->", "", "# The routing table", *_INTRO.splitlines(), ""]
    for name in _order("Table", parts, {}):
        lines += [*_section(parts, name), ""]
    return "\n".join(lines).rstrip() + "\n"


def _order(name: str, parts: Mapping[str, Schema], met: dict[str, None]) -> dict[str, None]:
    """Return the types below one, each before those that it names."""
    if name in met:
        return met
    met[name] = None
    for field in parts[name]["properties"].values():
        for below in _refs(field):
            _order(below, parts, met)
    return met


def _refs(field: Any) -> Iterator[str]:
    if isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].removeprefix(_REF)
        for value in field.values():
            yield from _refs(value)
    elif isinstance(field, list):
        for value in field:
            yield from _refs(value)


def _section(parts: Mapping[str, Schema], name: str) -> Iterator[str]:
    part = parts[name]
    yield from (f"## {name}", "", part["description"], "")
    yield "| field | type | bounds | default | meaning |"
    yield "|---|---|---|---|---|"
    required = part.get("required", ())
    for field, said in part["properties"].items():
        node = {**said, **_present(said)}
        default = "required" if field in required else _default(said)
        meaning = node.get("description") or "; ".join(parts[below]["description"] for below in _refs(node))
        yield _row(f"`{field}`", _type(node), "; ".join(_bounds(node)), default, meaning)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _present(node: Schema) -> Schema:
    """Return what a field is where it is given: of a choice between something and null, the something."""
    kinds = [one for one in node.get("anyOf", ()) if one.get("type") != "null"]
    return kinds[0] if kinds else {}


def _default(node: Schema) -> str:
    default = node.get("default")
    return "" if default is None or default in ([], {}, ()) else f"`{json.dumps(default)}`"


def _type(node: Schema) -> str:
    if "$ref" in node:
        name = node["$ref"].removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if "enum" in node:
        return " or ".join(f"`{choice}`" for choice in node["enum"] if choice is not None)
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    return str(node["type"])


def _bounds(node: Schema) -> Iterator[str]:
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and most is not None:
        yield f"{least:,} to {most:,}"
    yield from _sizes(node.get("minItems"), node.get("maxItems"), "items")
    yield from _sizes(node.get("minLength"), node.get("maxLength"), "characters")
    if "pattern" in node:
        yield f"`{node['pattern']}`"
    if node.get("type") == "array" and (inner := list(_bounds(node["items"]))):
        yield "each " + ", ".join(inner)


def _sizes(least: int | None, most: int | None, what: str) -> Iterator[str]:
    if least and most:
        yield f"{least:,} to {most:,} {what}"
    elif most or least:
        yield f"at most {most:,} {what}" if most else f"at least {least:,} {what}"
