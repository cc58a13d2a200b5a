"""Fixtures of all tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["e2e.cluster.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", choices=["check", "rewrite"], default="check", help="compare golden files or rewrite them"
    )
