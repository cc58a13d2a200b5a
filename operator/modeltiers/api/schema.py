"""Turns pydantic models into structural schemas: OpenAPI as the API server wants it, inlined, bounded, with CEL rules.

It decides how a Python type is written there. It refuses to know what any field means, and refuses, with an error at
generation, every type that has no safe form there (floats, unions, free-form objects).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from modeltiers.api.base import Model, Rule, cel

Schema = dict[str, Any]

VALIDATIONS: Final = "x-kubernetes-validations"
ANYTHING: Final = "x-kubernetes-preserve-unknown-fields"
TYPE_META: Final = ("apiVersion", "kind", "metadata")
"""What belongs to Kubernetes in every object, and is described there."""

# A reader meets what a field is, then what it may hold, then what is inside.
KEY_ORDER: Final = (
    *("description", "type", "format", "enum", "default"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", VALIDATIONS, ANYTHING),
    *("required", "properties", "items", "additionalProperties"),
)
IGNORED: Final = frozenset({"title", "$ref", "anyOf", "const", "patternProperties", "propertyNames"})


def anything() -> dict[str, Any]:
    """Schema extra: an object whose inside is somebody else's. For files of administrators; resources have none."""
    return {ANYTHING: True}


class _WithRules(GenerateJsonSchema):
    """pydantic's own schema, plus each model's `__cel__`."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        rules: tuple[Rule, ...] = getattr(schema["cls"], "__cel__", ())
        return {**found, **cel(*rules)} if rules else found


def structural(model: type[Model]) -> Schema:
    """Inline a model's schema, with every default that the model has, without the parts that Kubernetes defines."""
    found = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    found["properties"] = {name: inner for name, inner in found["properties"].items() if name not in TYPE_META}
    if "required" in found:
        found["required"] = [name for name in found["required"] if name not in TYPE_META]
    return _node(found, found.get("$defs", {}), model.__name__)


def _node(schema: Schema, known: Mapping[str, Schema], path: str) -> Schema:
    """One node of the structural schema; `path` is for the error only."""
    merged = resolved(schema, known, path)
    if merged.get("type") == "number":
        raise TypeError(
            f"{path}: a float has no exact form in every client; use an integer in a smaller unit, or a string"
        )
    node = {key: value for key, value in merged.items() if key in KEY_ORDER}
    unknown = merged.keys() - set(KEY_ORDER) - IGNORED - {"$defs"}
    if unknown or "type" not in node:
        raise TypeError(f"{path}: no structural form for {sorted(unknown) or merged}; use a simpler type")
    if "description" in node:
        node["description"] = unwrap(node["description"])
    if node["type"] == "integer":
        node["format"] = "int64"
    if "items" in node:
        node["items"] = _node(node["items"], known, f"{path}[]")
    if node["type"] == "object":
        node.pop("additionalProperties", None)  # `false` beside properties is what pruning does anyway
        node |= _object(merged, known, path)
    if VALIDATIONS in node:
        node[VALIDATIONS] = [Rule(**rule)._asdict() for rule in node[VALIDATIONS]]  # pydantic sorts keys
    return {key: node[key] for key in KEY_ORDER if key in node}


def resolved(schema: Schema, known: Mapping[str, Schema], path: str) -> Schema:
    """Replace a reference and an Optional by what they stand for; what is said at the field wins, rules add up."""
    target: Schema = {}
    if "$ref" in schema:
        target = resolved(known[schema["$ref"].rpartition("/")[2]], known, path)
    elif "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise TypeError(f"{path}: a union has no structural form; use optional fields and a CEL rule")
        target = resolved(choices[0], known, path)
    merged = {**target, **schema}
    if "const" in merged:
        merged["enum"] = [merged["const"]]
    if rules := target.get(VALIDATIONS, []) + schema.get(VALIDATIONS, []):
        merged[VALIDATIONS] = rules
    return merged


def _object(merged: Schema, known: Mapping[str, Schema], path: str) -> Schema:
    """The inside of an object: properties, or for a map the schema of its values and a rule for its keys."""
    if properties := merged.get("properties"):
        inside = {name: _node(inner, known, f"{path}.{name}") for name, inner in properties.items()}
        return {"properties": inside}
    if merged.get(ANYTHING):
        return {}
    patterns: dict[str, Schema] = merged.get("patternProperties", {})
    values = next(iter(patterns.values()), merged.get("additionalProperties"))
    if not isinstance(values, dict):
        raise TypeError(f"{path}: a free-form object cannot be validated; declare its fields")
    found = {"additionalProperties": _node(values, known, f"{path}.*")}
    for pattern in patterns:
        found |= cel(_key_rule(pattern, merged.get("propertyNames", {}).get("maxLength"), path))
    return found


def _key_rule(pattern: str, longest: int | None, path: str) -> Rule:
    """OpenAPI as the API server reads it cannot bound a map's keys, so CEL does."""
    if "'" in pattern or longest is None:
        raise TypeError(f"{path}: keys need a max_length and a pattern without quotes")
    return Rule(
        f"self.all(key, size(key) <= {longest} && key.matches(r'{pattern}'))",
        f"each key must have at most {longest} characters and match {pattern}",
    )


def unwrap(text: str) -> str:
    """Join the lines of each paragraph: docstrings break them for an editor, not for a reader."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def without_troubling_defaults(schema: Schema, *, in_list: bool = False) -> Schema:
    """Drop the defaults that make a diff in GitOps tools: those in list items, and empty or composite ones.

    The models fill them in on reading, so nobody misses them.
    """
    kept = dict(schema)
    if in_list or isinstance(kept.get("default"), (list, dict)) or kept.get("default") is None:
        kept.pop("default", None)
    if "properties" in kept:
        kept["properties"] = {
            name: without_troubling_defaults(inner, in_list=in_list) for name, inner in kept["properties"].items()
        }
    for inside in ("items", "additionalProperties"):
        if inside in kept:
            kept[inside] = without_troubling_defaults(kept[inside], in_list=True)
    return kept


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Walk a structural schema: `spec`, `spec.accelerators[]`, `spec.scheduling.nodeSelector.*` and so on."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")
