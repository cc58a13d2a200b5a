"""Writes the reference pages: one table row a field, the CEL rules, the conditions and the columns.

It reads the same schema that becomes the CRD, so a page cannot promise what the API server refuses. It refuses to hold
any prose about a field: that is the field's docstring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from modeltiers import names
from modeltiers.api.base import Model
from modeltiers.api.crd import HEADER, Resource
from modeltiers.api.schema import VALIDATIONS, Schema, nodes, structural

BOUNDS: Final = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " keys"),
)


def resource_page(resource: Resource) -> str:
    """The page of one resource."""
    whole = structural(resource.model)
    scales = ", subresources `status` and `scale`" if resource.scale else ", subresource `status`"
    lines = [
        f"# {resource.kind}",
        "",
        whole["description"],
        "",
        f"`{names.API_VERSION}`, namespaced, short name `{resource.short_name}`, category `{names.CATEGORY}`{scales}.",
        "",
        *_fields("Spec", whole, "spec"),
        *_rules(whole),
        *_fields("Status", whole, "status"),
        *_conditions(whole, resource.reasons),
        *_columns(resource),
    ]
    return _page(lines)


def settings_page(model: type[Model], title: str) -> str:
    """The page of a settings file."""
    return fields_page(structural(model), title)


def fields_page(whole: Schema, title: str) -> str:
    """The page of everything that a schema has."""
    return _page([f"# {title}", "", whole["description"], "", *_fields("Fields", whole, "")])


def _page(lines: Iterable[str]) -> str:
    return f"<!-- {HEADER} -->\n\n" + "\n".join(lines).rstrip() + "\n"


@dataclass(frozen=True, slots=True)
class Documented:
    """A field as the pages say it."""

    path: str
    type: str
    bounds: str
    default: str
    """A value, `required`, or nothing."""
    meaning: str


def fields(whole: Schema) -> Iterator[Documented]:
    """Every field with a name of its own; items and values of lists and maps are said with the list or the map."""
    required = set(_required(whole))
    for path, node in nodes(whole):
        if not path or path.endswith(("[]", ".*")):
            continue
        default = "required" if path in required else _default(node)
        yield Documented(path, _type(node), "; ".join(_bounds(node)), default, node.get("description", ""))


def _fields(title: str, whole: Schema, below: str) -> Iterator[str]:
    """A table of every field below a path; the path itself is the introduction."""
    yield from (f"## {title}", "")
    if below and "description" in whole["properties"][below]:
        yield from (whole["properties"][below]["description"], "")
    yield "| field | type | bounds | default | meaning |"
    yield "|---|---|---|---|---|"
    for one in fields(whole):
        if one.path.startswith(f"{below}." if below else ""):
            yield _row(f"`{one.path}`", one.type, one.bounds, one.default, one.meaning)
    yield ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n\n", " ") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text whose patterns Markdown must not take for links and emphasis."""
    return re.sub(r"([\[\]*_^])", r"\\\1", text)


def _required(schema: Schema) -> Iterator[str]:
    for path, node in nodes(schema):
        yield from (f"{path}.{name}" if path else name for name in node.get("required", ()))


def _default(node: Schema) -> str:
    default = node.get("default")
    return "" if default is None or default in ([], {}) or node.get("properties") else f"`{json.dumps(default)}`"


def _type(node: Schema) -> str:
    if node["type"] == "array":
        inner = _type(node["items"])
        keys = node.get("x-kubernetes-list-map-keys")
        return f"list of {inner}" + (f", merged by `{', '.join(keys)}`" if keys else "")
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    if "enum" in node:
        return " or ".join(f"`{choice}`" for choice in node["enum"])
    return str(node["type"])


def _bounds(node: Schema) -> Iterator[str]:
    yield from (
        _range(node.get(low), node.get(high), unit) for low, high, unit in BOUNDS if low in node or high in node
    )
    if "pattern" in node:
        yield f"`{node['pattern']}`"
    inner: Any = node.get("items") or node.get("additionalProperties")
    if inner and "properties" not in inner and (said := "; ".join(_bounds(inner))):
        yield f"each {said}"


def _range(low: int | None, high: int | None, unit: str) -> str:
    if low is not None and high is not None:
        return f"{low:,}{unit}" if low == high else f"{low:,} to {high:,}{unit}"
    return f"at most {high:,}{unit}" if low is None else f"at least {low:,}{unit}"


def _rules(whole: Schema) -> Iterator[str]:
    found = [(path, rule) for path, node in nodes(whole) for rule in node.get(VALIDATIONS, ())]
    yield from ("## Rules", "", "The API server refuses an object that breaks one of these.", "")
    yield from ("| where | rule (CEL) | answer |", "|---|---|---|")
    for path, rule in found:
        yield _row(f"`{path or 'the object'}`", f"`{rule['rule']}`", _plain(rule["message"]))
    yield ""


def _conditions(whole: Schema, reasons: str) -> Iterator[str]:
    items = whole["properties"]["status"]["properties"]["conditions"]["items"]["properties"]
    yield from ("## Conditions", "", items["type"]["description"], "")
    yield from (f"[Every reason and its way out]({reasons})", "")


def _columns(resource: Resource) -> Iterator[str]:
    yield from ("## Columns of kubectl get", "", "| column | shown | from | meaning |", "|---|---|---|---|")
    for column in resource.columns:
        yield _row(column.name, "with `-o wide`" if column.wide else "always", f"`{column.path}`", column.description)
