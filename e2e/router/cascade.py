"""Cascades over two real tiers: the table that tests share, and what each tier did in one of them."""

from __future__ import annotations

from typing import Any, Final

from e2e.engine.pytest_plugin import Pair
from e2e.router.figures import Figures, figures
from e2e.router.tap import Tap
from tests.router.kit.client import Reply, chat
from tests.router.kit.router import Metrics, Router

MORE: Final[dict[str, dict[str, Any]]] = {
    "window": {"stream": {"hold": "Window", "windowTokens": 4}},
    "whole": {"stream": {"hold": "Whole"}},
    "flag": {"stream": {"hold": "Flag"}},
    "capped": {"escalation": {"maxSharePermille": 0}},
    "form": {"accept": {"validators": [{"name": "is-json", "kind": "Form", "form": "JSON", "required": True}]}},
    "tools": {"accept": {"validators": [{"name": "call", "kind": "ToolArguments", "required": True}]}},
}
"""Policies by the name of their model; each is the cascade of ten lines with these fields."""


def table(small: str, large: str) -> dict[str, Any]:
    """Return a table with the plain cascade, and one of each kind."""
    tiers = [{"name": name, "address": at, "model": name} for name, at in (("small", small), ("large", large))]
    plain: dict[str, Any] = {
        "tiers": ["small", "large"],
        "mode": "Cascade",
        "accept": {"thresholdPermille": 600, "confidence": {}},
        "escalation": {"maxSharePermille": 1000},  # these tests escalate far more often than a service does
    }
    policies = [plain | fields | {"name": name, "model": name} for name, fields in {"support": {}, **MORE}.items()]
    return {"formatVersion": 1, "tiers": tiers, "policies": policies}


class Cascade:
    """A router over both tiers, a tap before each, and what each did in a test."""

    def __init__(self, router: Router, small: Tap, large: Tap, engines: Pair) -> None:
        self.router, self.small, self.large, self._engines = router, small, large, engines
        self._before = [figures(engine) for engine in engines]
        self._counted = Metrics("")

    def begin(self) -> None:
        """Count from here."""
        self._before = [figures(engine) for engine in self._engines]
        self._counted = self.router.metrics()

    def did(self) -> tuple[Figures, Figures]:
        """Return what the small and the large engine did."""
        small, large = (
            figures(engine).since(before) for engine, before in zip(self._engines, self._before, strict=True)
        )
        return small, large

    def count(self, name: str, **labels: str) -> float:
        """Return how much a figure of the router has grown."""
        return self.router.metrics().value(name, **labels) - self._counted.value(name, **labels)

    def chat(self, text: str, model: str = "support", **fields: Any) -> Reply:
        """Ask; the reply must be good."""
        reply = chat(self.router.port, text, model=model, **fields)
        assert reply.status == 200, reply.body
        assert not fields.get("stream") or reply.events[-1] == b"[DONE]"
        return reply
