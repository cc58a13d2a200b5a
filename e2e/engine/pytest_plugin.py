"""Fixtures of real tiers, for a conftest to import: `from e2e.engine.pytest_plugin import real_tiers`.

Each pair starts once a run, however many folders ask for it, takes about 20 s and 3 GB, and wants a test that is marked
slow. A test that kills or freezes one of them brings it back before it ends.
"""

from __future__ import annotations

from functools import partial

import pytest

from e2e.engine import ladder
from e2e.engine.server import Engine, started

Pair = tuple[Engine, Engine]
PAIRS = pytest.StashKey[dict[str, Pair]]()


@pytest.fixture(scope="session")
def real_tiers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Small and large, scripted: what they say is in `ladder`."""
    return _pair(request.config, tmp_path_factory, "scripted")


@pytest.fixture(scope="session")
def random_tiers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Small and large, random: the small one unsure, the large one sure."""
    return _pair(request.config, tmp_path_factory, "random")


def _pair(config: pytest.Config, folders: pytest.TempPathFactory, kind: str) -> Pair:
    # Two conftests that import one fixture have two fixtures; the run has one pair all the same.
    pairs = config.stash.setdefault(PAIRS, {})
    if kind not in pairs:
        pair = ladder.tiers(folders.mktemp(kind), nonsense=kind == "random")
        started(pair)
        for engine in pair:
            config.add_cleanup(partial(_stop, engine))
        pairs[kind] = pair
    return pairs[kind]


def _stop(engine: Engine) -> None:
    engine.stop()
