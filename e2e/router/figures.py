"""What an engine counts, and what a test waits for. Reads /metrics of vLLM; knows no router."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from e2e.engine.server import Engine

ENDLESS: Final = {"ignore_eos": True, "max_tokens": 4000}
"""Fields of a request whose answer takes some five seconds: its sentence again and again."""


@dataclass(frozen=True)
class Figures:
    """One engine's counts at one moment."""

    running: float
    prompt_tokens: float
    answer_tokens: float
    finished: float
    """Requests that ended by themselves; vLLM does not count those that were given up."""

    def since(self, before: Figures) -> Figures:
        """Return how much each has grown; `running` is as it is now."""
        return Figures(
            self.running,
            self.prompt_tokens - before.prompt_tokens,
            self.answer_tokens - before.answer_tokens,
            self.finished - before.finished,
        )


def figures(engine: Engine) -> Figures:
    """Ask an engine for its counts."""
    status, text = engine.ask("/metrics", timeout=5)
    assert status == 200, text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def total(name: str) -> float:
        return sum(one.value for one in samples if one.name == f"vllm:{name}")

    return Figures(
        total("num_requests_running"),
        total("prompt_tokens_total"),
        total("generation_tokens_total"),
        total("request_success_total"),
    )


def eventually(holds: Callable[[], object], seconds: float = 5.0, every: float = 0.02) -> float:
    """Wait until something holds; returns the seconds it took, and fails when it never does."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"never came to hold within {seconds} s"
        time.sleep(every)
    return time.monotonic() - began
