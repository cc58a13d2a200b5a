"""Real tiers."""

from e2e.engine.pytest_plugin import random_tiers, real_tiers

__all__ = ["random_tiers", "real_tiers"]
