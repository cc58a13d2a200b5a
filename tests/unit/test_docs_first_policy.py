"""docs/first-policy.md: its policy is accepted and compiles to a table, and the files it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from modeltiers.api.parse import Fault, parse_policy
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/first-policy.md").read_text(encoding="utf-8")


def test_the_policy_compiles() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    policy = parse_policy(yaml.safe_load(text))
    assert not isinstance(policy, Fault)
    tiers = {name: TierView(name, name, context_tokens=1024) for name in ("small", "large")}
    table = compile_table("support", policy.spec, tiers, "team")
    assert isinstance(table, CompiledTable), table
    assert table.doubts == ()


def test_the_files_are_there() -> None:
    named = set(re.findall(r"(?:-f |-k )((?:images|manifests|crds|examples)/[\w./-]*)", PAGE))
    assert len(named) >= 5
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_images_are_named_where_the_page_says() -> None:
    assert (ROOT / "manifests/operator.yaml").read_text().count("localhost/modeltiers/") == 2
