"""The models that sizing knows by name: their shapes, with the date and source of the numbers.

`load` reads the bundled file, once, for a shell; all else is pure. A model that is known but cannot be sized is in it
too, with the reason, so that nobody is told to look for a typing error. It refuses to guess: half a row is no row.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from modeltiers.domain.architecture import Architecture, WeightFormat


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A model that the source lists but that cannot be sized from it."""

    reason: str
    """Incomplete (the spec can give the numbers) or NotUnderstood (nothing helps in this version)."""
    why: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models by id. `version` is the day the source was read."""

    version: str
    models: Mapping[str, Architecture]
    left_out: Mapping[str, LeftOut]


def load() -> Catalogue:
    """Read the catalogue that comes with the package. I/O: call it once, when a program starts."""
    return parse(resources.files(__package__).joinpath("data", "catalogue.json").read_text(encoding="utf-8"))


def parse(text: str) -> Catalogue:
    """A catalogue from its JSON text."""
    body = json.loads(text)
    version = str(body["version"])
    return Catalogue(
        version=version,
        models={model: _architecture(entry, version) for model, entry in body["models"].items()},
        left_out={model: LeftOut(**entry) for model, entry in body["left_out"].items()},
    )


def _architecture(entry: Mapping[str, Any], version: str) -> Architecture:
    numbers = {name: value for name, value in entry.items() if name not in {"source", "quantization"}}
    form = entry.get("quantization")
    return Architecture(
        **numbers,
        quantization=WeightFormat(**form) if form else None,
        facts=f"catalogue {version}, from {entry['source']}",
    )


def find(catalogue: Catalogue, model: str) -> Architecture | None:
    """The model's architecture; None when it is not among those that can be sized."""
    return catalogue.models.get(model)


def nearest(catalogue: Catalogue, model: str, count: int = 3) -> list[str]:
    """Ids most like this one, best first: what was meant, perhaps. Case and organisation weigh little."""
    by_lower = {known.lower(): known for known in catalogue.models}
    close = difflib.get_close_matches(model.lower(), by_lower, n=count, cutoff=0.6)
    wanted = model.rpartition("/")[2].lower()
    same_name = [known for known in catalogue.models if known.rpartition("/")[2].lower() == wanted]
    return list(dict.fromkeys([*same_name, *(by_lower[match] for match in close)]))[:count]
