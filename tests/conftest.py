"""Fixtures of all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# `make fuzz` looks for longer; the usual run is short and the same every time.
# How long an example takes says more of the machine, which may be busy, than of the example.
settings.register_profile("usual", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))

pytest_plugins = ["e2e.cluster.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", choices=["check", "rewrite"], default="check", help="compare golden files or rewrite them"
    )
    parser.addoption(
        "--statuses", choices=["keep", "rewrite"], default="keep", help="add statuses seen in tests/cluster to the file"
    )
    parser.addoption("--rights", metavar="FOLDER", help="where tests/cluster leaves the rights that operators used")
