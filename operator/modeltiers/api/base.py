"""What every resource model shares: strictness, camelCase on the wire, and the hooks CRD generation reads.

A model here is the one source of its CRD, its reference page and its validation (docs/adr/0002). Rules that a JSON
schema cannot say are CEL, attached with `cel(...)` to a field or with `__cel__` to a model, and checked again on
reading by nothing else: the API server is the judge, and `parse` reports what an older schema let through.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Rule(NamedTuple):
    """One CEL validation: `rule` must hold, else the API server refuses with `message`."""

    rule: str
    message: str
    reason: str = "FieldValueInvalid"


class Model(BaseModel):
    """A frozen piece of a resource. Unknown fields are errors; names are camelCase in YAML and snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        ser_json_bytes="base64",
    )

    __cel__: ClassVar[tuple[Rule, ...]] = ()


def listed_by(*keys: str) -> dict[str, Any]:
    """Schema extra: a list that server-side apply merges by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def atomic() -> dict[str, Any]:
    """Schema extra: a list that is replaced as a whole."""
    return {"x-kubernetes-list-type": "atomic"}


def distinct() -> dict[str, Any]:
    """Schema extra: a list of distinct scalars that server-side apply merges."""
    return {"x-kubernetes-list-type": "set"}


def cel(*rules: Rule) -> dict[str, Any]:
    """Schema extra: CEL rules on one field."""
    return {"x-kubernetes-validations": [rule._asdict() for rule in rules]}
