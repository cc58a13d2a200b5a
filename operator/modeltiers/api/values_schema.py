"""Writes the Helm chart's schema and its file of defaults from the model of its values.

Helm's validators know JSON Schema as far as draft 7 and Go's regular expressions. References are put in place, so that
an error names the very path that a person wrote.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modeltiers.api.base import Model
from modeltiers.api.schema import Schema, resolved, structural, unwrap

KEPT: Final = (
    *("description", "type", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "pattern"),
    *("minItems", "maxItems", "maxProperties", "required"),
)
WIDTH: Final = 120


def values_schema(model: type[Model]) -> str:
    """The text of `values.schema.json`: unknown keys are refused, but for what Helm itself puts in."""
    found = model.model_json_schema(by_alias=True)
    schema = with_defaults(_node(found, found.get("$defs", {}), model.__name__), defaults(model))
    # Those of an older chart lack what is new: `helm upgrade --reuse-values` passes them on without our defaults.
    schema["required"] = list(schema["properties"])
    # A parent chart's global values reach every child.
    schema["properties"]["global"] = {"type": "object", "description": "Values of a parent chart; not used."}
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **schema}, indent=1) + "\n"


def _node(schema: Schema, known: Mapping[str, Schema], path: str) -> Schema:
    whole = resolved(schema, known, path)
    node: Schema = {key: whole[key] for key in KEPT if key in whole}
    if "description" in node:
        node["description"] = unwrap(node["description"])
    if node.get("default") in ([], {}) or "properties" in whole:
        node.pop("default", None)
    if "items" in whole:
        node["items"] = _node(whole["items"], known, f"{path}[]")
    if properties := whole.get("properties"):
        node["additionalProperties"] = False
        node["properties"] = {name: _node(inner, known, f"{path}.{name}") for name, inner in properties.items()}
    elif node.get("type") == "object":
        node |= _map(whole, known, path)
    return node


def _map(whole: Schema, known: Mapping[str, Schema], path: str) -> Schema:
    """A map with keys of a pattern, or with any."""
    if patterns := whole.get("patternProperties"):
        inside = {pattern: _node(inner, known, f"{path}.*") for pattern, inner in patterns.items()}
        return {"additionalProperties": False, "patternProperties": inside}
    values = whole.get("additionalProperties")
    return {"additionalProperties": _node(values, known, f"{path}.*")} if isinstance(values, dict) else {}


def defaults(model: type[Model]) -> dict[str, Any]:
    """Every default of a model, by the names of the file."""
    return model.model_construct().model_dump(mode="json", by_alias=True)


def with_defaults(node: Schema, value: Any) -> Schema:
    """Say at each field the default that it has at its place: the same part has others elsewhere."""
    if "properties" not in node:
        return {**node, "default": value} if "default" in node else node
    if value is None:
        return node  # a part that is left out
    inside = {name: with_defaults(inner, value.get(name)) for name, inner in node["properties"].items()}
    return {**node, "properties": inside}


# --- the file of defaults ---------------------------------------------------------------------------------------------


def values_file(model: type[Model], *whole: str) -> str:
    """The text of `values.yaml`: each value with its default, below a comment that says what it is.

    The fields named in `whole` are shown as one empty map: all their fields have defaults that the program knows.
    """
    return "".join(_lines(structural(model), {**defaults(model), **{name: {} for name in whole}}, ""))


def _lines(node: Schema, value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, inner in node["properties"].items():
        found = value[name]
        for line in textwrap.wrap(inner["description"], WIDTH - len(indent) - 2):
            yield f"{indent}# {line}\n"
        if inner.get("properties") and found:
            yield f"{indent}{name}:\n"
            yield from _lines(inner, found, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(found)}\n"
