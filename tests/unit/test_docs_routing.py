"""docs/routing.md: its files are written, its commands run, and what they print is what the page says they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from modeltiers.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {name: text for _, name, text in BLOCKS if name}
EXAMPLES = [text.removeprefix("$ ").partition("\n") for kind, _, text in BLOCKS if kind == "console"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "said"), [(one, said) for one, _, said in EXAMPLES], ids=lambda text: text[:60])
def test_a_command_prints_what_the_page_says(command: str, said: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "modeltiers"
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).output == said


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 10
    assert {"table.yaml", "body.json", "doubtful.yaml", "spool.jsonl"} <= FILES.keys()
