"""Reads a resource from the wire: the model, or a fault that names each field and the way out; never an exception.

The API server has validated the object, by the schema it had then: what an older or a newer schema let through is found
here. It reads the spec only. Metadata belongs to Kubernetes, and a status, ours or anybody's, must never stop one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from modeltiers import names
from modeltiers.api.base import Model
from modeltiers.api.distilljob import DistillJob
from modeltiers.api.modeltier import ModelTier
from modeltiers.api.routingpolicy import RoutingPolicy
from modeltiers.api.schema import nodes, structural

LONGEST_MESSAGE: Final = 1024
LONGEST_ECHO: Final = 64
CUT: Final = "…"
M = TypeVar("M", bound=Model)
# pydantic's words for these are about Python.
_WORDS: Final[Mapping[str, str]] = {"model_type": "should be an object", "dict_type": "should be an object"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an object cannot be read: the first field at fault, and a message about every one."""

    path: str
    message: str


def parse(body: object) -> ModelTier | Fault:
    """Read any JSON value as a ModelTier. Its status is ignored, its metadata is taken as it is."""
    return parse_as(ModelTier, body)


def parse_policy(body: object) -> RoutingPolicy | Fault:
    """Read any JSON value as a RoutingPolicy, as `parse` does a ModelTier."""
    return parse_as(RoutingPolicy, body)


def parse_distill(body: object) -> DistillJob | Fault:
    """Read any JSON value as a DistillJob, as `parse` does a ModelTier."""
    return parse_as(DistillJob, body)


def parse_as(model: type[M], body: object) -> M | Fault:
    """Read any JSON value as one of our kinds, which the model's name is."""
    if not isinstance(body, Mapping):
        return Fault("", f"must be an object of kind {model.__name__}, {names.API_VERSION}")
    metadata = body.get("metadata")
    wanted = {
        "apiVersion": body.get("apiVersion"),
        "kind": body.get("kind"),
        "metadata": dict(metadata) if isinstance(metadata, Mapping) else {},
        "spec": body.get("spec"),
    }
    try:
        # Strict: a "3" that would become 3 here is refused by the API server, and `modeltiers plan` must agree with it.
        return model.model_validate(wanted, strict=True)
    except ValidationError as error:
        return _fault(model, error.errors(include_url=False, include_input=False))


def _fault(model: type[Model], errors: list[ErrorDetails]) -> Fault:
    """One message about every error, cut where it is too long; how many were cut is said."""
    said = list(_sentences(model, errors))
    first = _path(errors[0]["loc"])
    for kept in range(len(said), 0, -1):
        rest = f"; and {len(said) - kept} more" if kept < len(said) else ""
        message = "; ".join(said[:kept]) + rest
        if len(message) <= LONGEST_MESSAGE:
            return Fault(first, message)
    return Fault(first, said[0][: LONGEST_MESSAGE - 1] + CUT)


def _sentences(model: type[Model], errors: list[ErrorDetails]) -> Iterator[str]:
    seen = set()
    for error in errors:
        path = _path(error["loc"])
        if path not in seen:  # a value of the wrong type fails every bound as well; once is enough
            seen.add(path)
            yield f"{path}: {_problem(model, error)}"


def _problem(model: type[Model], error: ErrorDetails) -> str:
    """What is wrong and the way out, without the value: it may be long, and it may be a secret in the wrong place."""
    if error["type"] == "extra_forbidden":
        return (
            f"is not a field that this version of the operator knows ({names.API_VERSION}); correct its name or remove"
            " it, or upgrade the operator"
        )
    if error["type"] == "missing":
        return f"is required; add it, see {_explain(model, error['loc'])}"
    key = "its key " if "[key]" in error["loc"] else ""
    text = _WORDS.get(error["type"]) or re.sub(r"^(Input|String|List|Dictionary) ", "", error["msg"])
    return f"{key}{_cut(text, 256)}; see {_explain(model, error['loc'])}"


def _explain(model: type[Model], where: tuple[int | str, ...]) -> str:
    """The command that shows what the field, or the nearest one that is known, may hold."""
    path: list[str] = []
    for part in where:
        if isinstance(part, str) and ".".join([*path, part]) in _known_fields(model):
            path.append(part)
    return f"kubectl explain {'.'.join([model.__name__.lower(), *path])}"


@cache
def _known_fields(model: type[Model]) -> frozenset[str]:
    return frozenset(re.sub(r"\[\]|\.\*", "", path) for path, _ in nodes(structural(model)))


def _path(where: tuple[int | str, ...]) -> str:
    """`spec.accelerators[0].name`; names that nobody knows are shortened and made printable."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":  # pydantic's mark for a fault in a map's key, which stands before it
            text += ("." if text else "") + _cut(_printable(part), LONGEST_ECHO)
    return _cut(text, 256)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + CUT
