"""Every example becomes exactly these manifests. A review reads YAML; `make golden` rewrites it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modeltiers.domain.diff import difference
from tests.unit.golden import ROOT, children_of, examples, policies, table_of

EXAMPLES = list(examples())
POLICIES = list(policies())


def golden_path(example: Path, document: dict[str, Any]) -> Path:
    folder = example.relative_to(ROOT / "examples").parent
    return ROOT / "tests/golden" / folder / f"{document['metadata']['name']}.yaml"


@pytest.mark.parametrize(("path", "document"), EXAMPLES, ids=[doc["metadata"]["name"] for _, doc in EXAMPLES])
def test_example(path: Path, document: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The children of an example are the golden ones."""
    rendered = yaml.safe_dump_all(children_of(document), sort_keys=False, width=120)
    golden = golden_path(path, document)
    if request.config.getoption("--golden") == "rewrite":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered)
    assert golden.read_text() == rendered


def table_path(example: Path, document: dict[str, Any]) -> Path:
    folder = example.relative_to(ROOT / "examples").parent
    return ROOT / "tests/golden" / folder / f"{document['metadata']['name']}-table.yaml"


@pytest.mark.parametrize(("path", "document"), POLICIES, ids=[doc["metadata"]["name"] for _, doc in POLICIES])
def test_the_table_of_an_example(path: Path, document: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """What routers read of a policy is the golden table, and nothing in it is doubtful."""
    table = table_of(document)
    assert [str(one) for one in table.doubts] == []
    rendered = yaml.safe_dump(json.loads(table.content), sort_keys=False, width=120)
    golden = table_path(path, document)
    if request.config.getoption("--golden") == "rewrite":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered)
    assert golden.read_text() == rendered


@pytest.mark.parametrize(("path", "document"), EXAMPLES, ids=[doc["metadata"]["name"] for _, doc in EXAMPLES])
def test_a_second_pass_finds_nothing_to_write(path: Path, document: dict[str, Any]) -> None:
    """What was applied is what is wanted again."""
    for first, second in zip(children_of(document), children_of(document), strict=True):
        assert difference(second, first) is None


def test_no_golden_file_is_left_over() -> None:
    """A golden file without its example is a lie."""
    wanted = {golden_path(path, document) for path, document in EXAMPLES}
    wanted |= {table_path(path, document) for path, document in POLICIES}
    assert set((ROOT / "tests/golden").rglob("*.yaml")) == wanted


def test_every_tier_and_gateway_has_a_deployment() -> None:
    """Of its engine, of the routers before its API, of its gateway."""
    found = {
        document["metadata"]["name"]
        for _, document in EXAMPLES
        for child in children_of(document)
        if child["kind"] == "Deployment"
    }
    assert found == {document["metadata"]["name"] for _, document in EXAMPLES if document["kind"] != "DistillJob"}
