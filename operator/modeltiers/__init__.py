"""modeltiers: a Kubernetes operator for model tiers. Start with `docs/architecture.md`."""

__version__ = "0.2.0"
"""Of the package, the charts and the images: they are released together."""
