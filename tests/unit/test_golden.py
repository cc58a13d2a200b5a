"""Every example becomes exactly these manifests. A review reads YAML; `make golden` rewrites it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modeltiers.domain.diff import difference, digest
from tests.unit.golden import ROOT, children_of, examples

EXAMPLES = list(examples())


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


@pytest.mark.parametrize(("path", "document"), EXAMPLES, ids=[doc["metadata"]["name"] for _, doc in EXAMPLES])
def test_a_second_pass_finds_nothing_to_write(path: Path, document: dict[str, Any]) -> None:
    """What was applied is what is wanted again."""
    for first, second in zip(children_of(document), children_of(document), strict=True):
        assert difference(second, first) is None


def test_no_golden_file_is_left_over() -> None:
    """A golden file without its example is a lie."""
    wanted = {golden_path(path, document) for path, document in EXAMPLES}
    assert set((ROOT / "tests/golden").rglob("*.yaml")) == wanted


def test_the_pod_templates_of_this_release() -> None:
    """Each example has one: of its engine, of the routers before its API, of its gateway."""
    templates = {
        document["metadata"]["name"]: digest(child["spec"]["template"])
        for _, document in EXAMPLES
        for child in children_of(document)
        if child["kind"] == "Deployment"
    }
    assert templates.keys() == {
        "small",
        "large",
        "llama",
        "reasoner",
        "house-model",
        "elastic",
        "trial",
        "frontier",
        "shared-large",
        "drafts",
        "orders-large",
        "orders-small",
    }
