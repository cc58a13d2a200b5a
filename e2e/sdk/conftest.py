"""Both SDKs, and where they ask: the router over real engines, or over scripted tiers that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from e2e.router.conftest import real_tiers, upfront
from e2e.sdk.node import NodeSdk
from e2e.sdk.python import PythonSdk
from e2e.sdk.sdk import Sdk

__all__ = ["real_tiers", "sdk", "upfront"]


@pytest.fixture(scope="session", params=["python", "node"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    """Each SDK in turn."""
    with ExitStack() as stack:
        yield PythonSdk() if request.param == "python" else stack.enter_context(NodeSdk())
