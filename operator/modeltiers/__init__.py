"""modeltiers: a Kubernetes operator for model tiers. Start with `docs/architecture.md`."""

__version__ = "0.1.0.dev0"
