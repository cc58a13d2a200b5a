"""docs/reference/*reasons.md: every reason of every kind is there, with the command that `why` gives for trouble."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modeltiers.cli.reasons_page import reasons_pages
from modeltiers.domain.why.commands import NEXT
from modeltiers.domain.why.meanings import TABLES

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES = dict(zip(TABLES, reasons_pages().items(), strict=True))


@pytest.mark.parametrize("kind", TABLES)
def test_the_page_is_what_the_code_says(kind: str) -> None:
    """Run `modeltiers generate` when this fails."""
    name, page = PAGES[kind]
    assert (FOLDER / name).read_text(encoding="utf-8") == page
    assert all(f"| `{one.name}` |" in page for one in TABLES[kind])


@pytest.mark.parametrize("kind", TABLES)
def test_a_way_out_comes_with_its_command(kind: str) -> None:
    _, page = PAGES[kind]
    for one in TABLES[kind]:
        (row, *_) = re.findall(rf"^\| `{one.name}` \|.*$", page, re.MULTILINE)
        assert ("<br>`kubectl " in row) == bool(one.way_out and one.name in NEXT), row
