"""Two real tiers, and one router over them for each folder of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.engine.pytest_plugin import Pair, real_tiers
from tests.router.kit.router import Router

__all__ = ["real_tiers", "upfront"]

UPFRONT = """\
formatVersion: 1
tiers:
- {{name: small, address: "{small}", model: small}}
- {{name: large, address: "{large}", model: large}}
policies:
- name: support
  model: support
  tiers: [small, large]
  mode: Upfront
  rules:
  - {{name: legal, tier: large, when: {{keywords: [lawsuit, contract]}}}}
  - {{name: refund, tier: large, when: {{patterns: ['refund of \\d{{3,}}']}}}}
  - {{name: premium, tier: large, when: {{headers: [{{name: x-plan, values: [premium]}}]}}}}
  - {{name: audited, tier: large, when: {{metadata: [{{key: audit, values: ["yes"]}}]}}}}
  - {{name: long, tier: large, when: {{promptCharsAtLeast: 2000}}}}
  - {{name: tooled, tier: large, when: {{tools: true}}}}
  - {{name: structured, tier: large, when: {{jsonMode: true}}}}
  - {{name: forbidden, action: Refuse, when: {{keywords: [explosives]}}}}
- {{name: small-only, model: small-only, tiers: [small]}}
- {{name: large-only, model: large-only, tiers: [large]}}
"""


def upfront_table(small: str, large: str) -> str:
    """Return a table with a rule of each kind; each tier alone is a model too."""
    return UPFRONT.format(small=small, large=large)


@pytest.fixture(scope="session")
def upfront(real_tiers: Pair) -> Iterator[Router]:
    """A router with rules over both tiers; a test leaves it as it was."""
    small, large = real_tiers
    with Router(upfront_table(small.address, large.address)) as router:
        yield router
