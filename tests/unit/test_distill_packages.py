"""Each program of a DistillJob imports what its lock file has, and nothing else: its image has no more."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from modeltiers.distill.run import MODULES
from modeltiers.domain.distill.stages import Stage

SOURCE = Path(__file__).parents[2] / "operator"


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports whenever it is imported or run, types alone left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def file_of(module: str) -> Path | None:
    """The file of one of our own modules."""
    path = SOURCE / module.replace(".", "/")
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


def third_party(start: str) -> set[str]:
    """Packages of others that a module of ours needs, by what it and all that it imports say."""
    seen: set[Path] = set()
    waiting, found = [start], set()
    while waiting:
        module = waiting.pop()
        path = file_of(module)
        if path is None:
            top = module.partition(".")[0]
            if top != "modeltiers" and top not in sys.stdlib_module_names:
                found.add(top)
        elif path not in seen:
            seen.add(path)
            waiting += imported(path)
            if path.name == "__init__.py" and path.parent.name == "train":
                waiting += [f"{module}.{one.stem}" for one in path.parent.glob("*.py") if one.stem != "__init__"]
    return found


def names_of(lock: str) -> set[str]:
    """The distributions that a lock file has."""
    lines = (SOURCE.parent / "requirements" / f"{lock}.txt").read_text().splitlines()
    return {line.split("==")[0].lower() for line in lines if "==" in line and line[0] not in " #"}


def needed(*modules: str) -> set[str]:
    """Distributions that our modules need."""
    known = packages_distributions()
    tops = set().union(*(third_party(one) for one in modules))
    return {known.get(top, [top])[0].lower().replace("_", "-") for top in tops}


@pytest.mark.parametrize("stage", [None, *(stage for stage in Stage if stage is not Stage.TRAIN)])
def test_a_stage_finds_what_it_imports(stage: Stage | None) -> None:
    module = f"modeltiers.distill.{MODULES[stage]}" if stage else "modeltiers.distill.__main__"
    assert needed(module) <= names_of("distill")


def test_the_trainer_finds_what_it_imports() -> None:
    # Signing and checking are not the trainer's business, and are imported when they are asked for.
    assert needed("modeltiers.distill.train", "modeltiers.distill.__main__") - {"model-signing"} <= names_of("train")
