"""Every YAML snippet of README and docs/ is what it looks like: a resource, a table, settings, or a part of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from modeltiers.api.distilljob import DistillJobSpec
from modeltiers.api.modeltier import External, ModelTierSpec
from modeltiers.api.parse import Fault, parse, parse_distill, parse_policy
from modeltiers.api.routingpolicy import RoutingPolicySpec
from modeltiers.api.routingpolicy_status import RoutingPolicyStatus
from modeltiers.api.settings import Settings
from modeltiers.api.values import Values
from modeltiers.domain.routing.table import read_table
from tests.unit.golden import examples

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^```yaml(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SNIPPETS = [
    pytest.param(label, text, id=f"{page.stem}-{place}")
    for page in PAGES
    for place, (label, text) in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8")))
]

TIER = {"model": {"source": "hf://a/b"}, "accelerators": [{"name": "a", "product": "A"}]}
POLICY = {"model": "m", "tiers": [{"name": "small"}, {"name": "large"}]}
JOB = next(job["spec"] for _, job in examples() if job["kind"] == "DistillJob" and job["metadata"]["name"] == "orders")
ARCHITECTURE = JOB["student"]["base"]["architecture"]
PARTS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "ModelTier.spec": lambda part: ModelTierSpec.model_validate({**TIER, **part}),
    "ModelTier.external": lambda part: External.model_validate(
        {"baseUrl": "https://api.example.com/v1", "model": "m", **part}
    ),
    "RoutingPolicy.spec": lambda part: RoutingPolicySpec.model_validate({**POLICY, **part}),
    "RoutingPolicy.status": RoutingPolicyStatus.model_validate,
    "DistillJob.spec": lambda part: DistillJobSpec.model_validate({**JOB, **part}),
    "settings": Settings.model_validate,
    "values": Values.model_validate,
}
"""What a snippet without a kind may be a part of; its label says of which, where it could be of several."""
WHOLE: Mapping[str, Callable[[object], object]] = {
    "ModelTier": parse,
    "RoutingPolicy": parse_policy,
    "DistillJob": parse_distill,
}


def check(label: str, given: dict[str, Any]) -> None:
    """Refused where nothing takes it; objects of other projects' kinds are looked at in tests/cluster."""
    if "kind" in given:
        fault = WHOLE[given["kind"]](given) if given["kind"] in WHOLE else None
        assert not isinstance(fault, Fault), fault
        assert {"apiVersion", "metadata"} <= given.keys()
    elif "formatVersion" in given:
        read_table(given)
    elif label in PARTS:
        PARTS[label](given)
    else:
        assert any(accepts(part, given.get("spec", given)) for part in PARTS.values()), given


def accepts(part: Callable[[dict[str, Any]], object], given: dict[str, Any]) -> bool:
    try:
        part(given)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("label", "text"), SNIPPETS)
def test_a_snippet_is_what_it_looks_like(label: str, text: str) -> None:
    # What a page leaves out of a model's shape is put in.
    text = text.replace("architecture: {...}", f"architecture: {ARCHITECTURE}")
    for given in yaml.safe_load_all(text):
        check(label, given)


def test_what_is_no_part_of_anything_is_refused() -> None:
    with pytest.raises(AssertionError):
        check("", {"thresholdPermile": 600})
    with pytest.raises(ValidationError):
        check("RoutingPolicy.spec", {"mode": "Kaskade"})
