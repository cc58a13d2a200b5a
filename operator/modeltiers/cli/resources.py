"""Reads resources from files for commands, with the rules that a schema has and no API server has looked at yet."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from modeltiers import names
from modeltiers.api.modeltier import ModelTier, ModelTierSpec
from modeltiers.cli.documents import Document
from modeltiers.domain import asks

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # the CRD's rule, for files that no API server has seen


def read_tier(document: Document, faults: list[str]) -> tuple[str, ModelTierSpec] | None:
    """Name and spec of a ModelTier in a file; what is wrong with it goes to `faults`."""
    # Status is the operator's business, and one from a newer operator must not stop a plan.
    body = {key: value for key, value in document.content.items() if key != "status"}
    try:
        tier = ModelTier.model_validate(body)
    except ValidationError as error:
        faults += [f"{document.where}: {line}" for line in problems(error)]
        return None
    except RecursionError:
        faults.append(f"{document.where}: is nested too deeply")
        return None
    name = tier.metadata.get("name")
    spec = tier.spec
    if not isinstance(name, str) or len(name) > names.MAX_TIER_NAME or not _NAME.fullmatch(name):
        faults.append(
            f"{document.where}: metadata.name: must be at most {names.MAX_TIER_NAME} lower-case letters, digits "
            f"and '-', beginning with a letter"
        )
        return None
    if (spec.model is None) == (spec.external is None):
        faults.append(f"{document.where}: spec: give exactly one of model and external")
        return None
    if spec.model and (wrong := asks.contradiction(spec)):
        faults.append(f"{document.where}: {wrong}")
        return None
    return name, spec


def problems(error: ValidationError) -> list[str]:
    """Each fault of a resource as `path: message`, the path as it is written in YAML."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = ""
        for part in fault["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        message = "is not a known field: remove it" if fault["type"] == "extra_forbidden" else fault["msg"]
        lines.append(f"{path or 'document'}: {message[:1].lower()}{message[1:]}")
    return lines
