"""A page that says which test proves something names one that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(?:Test\w+::)?(test_\w+))?`")
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if NAMED.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    for path, name in NAMED.findall(page.read_text()):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"
        assert f"def {name}(" in (ROOT / path).read_text() or not name, f"{page.name} names {path}::{name}"


def test_pages_do_name_tests() -> None:
    assert "distillation.md" in [page.name for page in PAGES]
