"""docs/install.md: its values are values, its table of what goes wrong quotes what is really said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from modeltiers import __version__
from modeltiers.cli.charts import KUBE_VERSION
from modeltiers.cli.images import merged
from modeltiers.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
SNIPPETS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_is_taken_as_values(snippet: str) -> None:
    merged(yaml.safe_load(snippet))


def test_there_are_snippets_for_both_modes() -> None:
    modes = [bool(merged(yaml.safe_load(one)).settings.watch_namespaces) for one in SNIPPETS]
    assert sorted(modes) == [False, True]


def test_versions_and_commands_are_those_that_there_are() -> None:
    assert f"kubeVersion: {KUBE_VERSION}" in PAGE
    assert set(re.findall(r"modeltiers-(\d+\.\d+\.\d+)\.tgz", PAGE)) == {__version__}
    assert set(re.findall(r"modeltiers/\$name:(\S+)", PAGE)) == {__version__}
    assert "images" in COMMANDS
    assert "modeltiers images -f values.yaml" in PAGE


@pytest.mark.parametrize(
    ("quoted", "said_in"),
    [
        ("not served: install the CRDs", "operator/modeltiers/controllers/prerequisites.py"),
        ("cannot list what there is: ", "operator/modeltiers/controllers/program.py"),
    ],
)
def test_what_goes_wrong_is_quoted_as_it_is_said(quoted: str, said_in: str) -> None:
    assert quoted in PAGE
    assert quoted in (ROOT / said_in).read_text()


@pytest.mark.parametrize("path", re.findall(r"\]\(([a-z][a-z0-9/_-]*\.md)[#)]", PAGE))
def test_links_lead_somewhere(path: str) -> None:
    assert (ROOT / "docs" / path).is_file()
