"""The panels about routers and engines, asked of a real Prometheus that scrapes a real router under traffic.

The engine's metrics are those that a real vLLM served (tests/router/captures/metrics), read through the router.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.prometheus import Prometheus, Target
from tests.monitoring.kit import empty, panels
from tests.router.kit import vllm
from tests.router.kit.client import Wire, chat_body, request
from tests.router.kit.router import Router, table
from tests.router.kit.upstream import Call, Script, Upstream, answer, response, says

ENGINE = Path(__file__).parents[1] / "router" / "captures" / "metrics.prom"
PRICE = {"price": {"inputPerMillionMicros": 3_000_000, "outputPerMillionMicros": 15_000_000}}
SURE, UNSURE = -0.05, -5.0


def judged(logprob: float) -> Script:
    return says(response("200 OK", vllm.chat("an answer of some words", logprobs=logprob, top=2)))


def scripted(first: Script) -> Script:
    """An engine that is ready, serves what vLLM's metrics were, and else answers by the script."""

    async def script(call: Call) -> None:
        if call.asked.target == "/metrics":
            await call.send(response("200 OK", ENGINE.read_bytes(), kind="text/plain; version=0.0.4"))
        else:
            await first(call)

    return script


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Everything that a router counts has happened while Prometheus was looking."""
    home = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        small, large = (stack.enter_context(Upstream()) for _ in range(2))
        small.script, large.script = scripted(judged(SURE)), judged(SURE)
        limits = {"requestsPerMinute": 40, "queue": 0, "queueMs": 1}
        policy = {"mode": "Cascade", "accept": {"confidence": {}}, "escalation": {"maxSharePermille": 1000}}
        tiers = {0: {"local": True, "health": {"intervalMs": 100}}, 1: {"health": {"intervalMs": 100}}}
        made = table(small.port, large.port, policy={**policy, "limits": limits}, tier=PRICE, tiers=tiers)
        router = stack.enter_context(Router(made, "--spool", str(home / "spool")))
        where = {"namespace": "shop", "pod": "small-0"}
        address = f"127.0.0.1:{router.admin}"
        targets = [Target(address, "/metrics", where), Target(address, "/engine/metrics", where)]
        running = stack.enter_context(Prometheus(home, targets))
        running.scraped(1)
        traffic(router, small, large)
        running.scraped(2)
        yield running


def traffic(router: Router, small: Upstream, large: Upstream) -> None:
    """One of each thing that is counted."""

    def ask(*statuses: int, **fields: object) -> None:
        with Wire(router.port) as wire:
            assert wire.send(request(chat_body(**fields))).reply().status in statuses

    for _ in range(4):
        ask(200)
    small.script = scripted(judged(UNSURE))
    for _ in range(4):
        ask(200)
    small.script = scripted(answer("streamed to the client in pieces", logprobs=SURE))
    ask(200, stream=True)
    large.script = says(response("500 X", vllm.error(500, "broken")))
    small.script = scripted(judged(UNSURE))
    ask(200)
    ask(404, model="nobody")
    with Wire(router.port) as wire:
        wire.send(b"NONSENSE\r\n\r\n").until_closed()
    large.healthy = False
    router.until(lambda status: "Unhealthy" in str(status["tiers"]["t1"]))
    with Wire(router.port) as wire:
        found = {wire.send(request(chat_body())).reply().status for _ in range(60)}
    assert 429 in found


def test_each_panel_about_routers_has_a_series(scrapes: Prometheus) -> None:
    assert len(list(panels("router"))) > 20
    assert empty(scrapes, "router") == []


def test_each_panel_about_engines_has_a_series(scrapes: Prometheus) -> None:
    assert len(list(panels("engine"))) > 8
    assert empty(scrapes, "engine") == []
