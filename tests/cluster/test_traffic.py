"""Facts in a policy's status, on a real API server, from real routers that stand in for the pods' own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.operator_process import OperatorProcess
from modeltiers import names
from tests.cluster.kit import LARGE, Tiers, until
from tests.cluster.policies import POLICY, apply, table
from tests.router.kit import vllm
from tests.router.kit.client import Wire, chat_body, request
from tests.router.kit.router import Router
from tests.router.kit.upstream import Script, Upstream, response, says
from tests.unit.test_policy_cost import by_hand

SURE, UNSURE = -0.05, -5.0
PROMPT, COMPLETION = 400, 100
PRICE = {"gpuHourMicros": 3_000_000, "currency": "USD"}


def answers(text: str, logprob: float) -> Script:
    """A whole answer of many tokens, as sure as that."""
    said = vllm.chat(text, logprobs=logprob, top=2, usage=vllm.usage(PROMPT, COMPLETION))
    return says(response("200 OK", said))


class Ladder:
    """Two tiers whose pods have addresses of this machine, and a router at each."""

    def __init__(self, tiers: Tiers, stack: ExitStack, folder: Path) -> None:
        self.tiers, self._stack, self._folder = tiers, stack, folder
        self.engines = {name: stack.enter_context(Upstream()) for name in ("small", "large")}
        self.engines["small"].script = answers("the small one says", SURE)
        self.engines["large"].script = answers("the large one says", SURE)
        self.hosts = {
            name: f"127.{number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
            for number, name in ((101, "small"), (102, "large"))
        }
        (folder / "key").write_bytes(b"k" * 40)
        self.routers: dict[str, Router] = {}

    def address(self) -> None:
        """Give the pods their addresses, and have them become ready with these, as a kubelet would."""
        for name, host in self.hosts.items():
            pod = json.loads(self.tiers.kubectl("get", "pods", "-l", f"{names.LABEL_TIER}={name}", "-o", "json"))[
                "items"
            ][0]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            conditions = [{**one, "lastTransitionTime": now} for one in pod["status"]["conditions"]]
            patch = {"status": {"podIP": host, "podIPs": [{"ip": host}], "conditions": conditions}}
            found = ("pod", pod["metadata"]["name"])
            self.tiers.kubectl("patch", *found, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    def start(self, name: str) -> None:
        """Start the router of a tier: with the table that the operator wrote, only that tiers are where they are."""
        said = table(self.tiers, name)
        assert said is not None
        status = (self.tiers.get("routingpolicy", "support") or {})["status"]
        said["version"] = status["table"]["version"]
        for tier in said["tiers"]:
            tier["address"] = f"{self.hosts[tier['name']]}:{names.SERVING_PORT}"
        host, folder = self.hosts[name], self._folder / name
        folder.mkdir(exist_ok=True)
        (folder / names.table_key("support")).write_text(json.dumps(said))
        flags = ("--table", str(folder))
        flags += ("--listen", f"{host}:{names.SERVING_PORT}", "--admin", f"{host}:{names.ADMIN_PORT}")
        flags += ("--local", f"{name}=127.0.0.1:{self.engines[name].port}", "--hop-key", str(self._folder / "key"))
        self.routers[name] = self._stack.enter_context(Router(said, *flags))

    def rested(self, name: str) -> bool:
        """Whether a tier's router finds nothing wrong with any address."""
        with Wire(names.ADMIN_PORT, self.hosts[name]) as wire:
            said = wire.send(request(path="/status", method="GET")).reply().json
        found = [one["state"] for tier in said["tiers"].values() for one in tier["addresses"].values()]
        return len(found) == 2 and set(found) == {"Closed"}

    def ask(self, count: int) -> None:
        """Ask the small tier's router, as the policy's Service would."""
        with Wire(names.SERVING_PORT, self.hosts["small"]) as wire:
            for _ in range(count):
                assert wire.send(request(chat_body(model="support"))).reply().status == 200

    def status(self) -> dict[str, Any]:
        return dict((self.tiers.get("routingpolicy", "support") or {}).get("status") or {})

    def comes(self, requests: int, **more: Any) -> dict[str, Any]:
        """Wait until the status says so many requests; returns it."""

        def there() -> bool:
            traffic = self.status().get("traffic") or {}
            return traffic.get("requests") == requests and more.items() <= traffic.items()

        until(there, lambda: json.dumps(self.status(), indent=1), 30)
        return self.status()


@pytest.fixture
def routed(tiers: Tiers, tmp_path: Path) -> Iterator[Ladder]:
    tiers.apply("small", price=PRICE)
    tiers.apply("large", LARGE, price=PRICE)
    tiers.ready("small")
    tiers.ready("large")
    apply(tiers, escalation={"maxSharePermille": 1000})
    until(lambda: table(tiers, "small") and table(tiers, "large"), "the table on both tiers")
    until(lambda: (tiers.get("routingpolicy", "support") or {}).get("status", {}).get("table"), "the version")
    with ExitStack() as stack:
        ladder = Ladder(tiers, stack, tmp_path)
        ladder.start("large")
        ladder.start("small")
        until(lambda: ladder.rested("small"), "a router that reaches both engines", 30)
        ladder.address()
        until(lambda: ladder.status().get("live") == "2/2", lambda: json.dumps(ladder.status(), indent=1), 30)
        yield ladder


def test_shares_reasons_and_costs_are_those_of_the_requests(routed: Ladder, operator: OperatorProcess) -> None:
    assert POLICY["mode"] == "Cascade"
    routed.ask(90)
    routed.engines["small"].script = answers("the small one is not sure", UNSURE)
    routed.ask(30)
    status = routed.comes(120)
    traffic = status["traffic"]
    assert traffic["shares"] == [
        {"name": "small", "requests": 90, "permille": 750},
        {"name": "large", "requests": 30, "permille": 250},
    ]
    assert (traffic["judged"], traffic["escalatedPermille"]) == (120, 250)
    assert traffic["escalations"] == [{"reason": "BelowThreshold", "requests": 30}]
    assert traffic["fallbackPermille"] == 0
    assert not traffic["partial"]
    row = routed.tiers.kubectl("get", "rp", "support").splitlines()[1]
    assert re.split(r"\s{2,}", row)[4:7] == ["2/2", "25.0%", "True"]
    # All of it from the status alone: what was thrown away costs, and what it would have cost is only the answers.
    cost = status["cost"]
    said = {item["name"]: item["value"].split()[0] for item in cost["inputs"]}
    assert said["requests"] == "120"
    assert said["small.tokens"] == str(120 * (PROMPT + COMPLETION))
    assert said["large.tokens"] == said["large.allTokens"] == str(30 * (PROMPT + COMPLETION))
    assert said["answerPromptTokens"] == str(120 * PROMPT)
    assert float(said["large.gpuSeconds"]) > 0
    assert by_hand(cost, ["small", "large"]) == (cost["perThousandMicros"], cost["allLargePerThousandMicros"])
    assert "unknown" not in cost
    assert operator.metric("modeltiers_router_reads_total", result="answered") > 0


def test_restarts_and_silence_invent_nothing(routed: Ladder, operator: OperatorProcess) -> None:
    routed.ask(20)
    routed.comes(20)
    version = "jsonpath={.metadata.resourceVersion}"
    before = routed.tiers.kubectl("get", "rp", "support", "-o", version)
    read = operator.metric("modeltiers_router_reads_total", result="answered")
    until(lambda: operator.metric("modeltiers_router_reads_total", result="answered") >= read + 8, "four rounds", 30)
    assert routed.tiers.kubectl("get", "rp", "support", "-o", version) == before  # numbers that stand still
    routed.routers["small"].terminate()
    routed.routers["small"].ended()
    status = routed.comes(20, partial=True)
    assert "some routers could not be asked" in status["cost"]["unknown"] or "fewer than" in status["cost"]["unknown"]
    routed.start("small")
    routed.ask(5)
    # What it counted after the last reading and before its end nobody knows, so some may be missing.
    status = routed.comes(25, partial=True)
    assert status["traffic"]["shares"][0]["requests"] == 25


def test_the_pod_of_a_router_with_an_old_table_is_touched(routed: Ladder) -> None:
    """So that its kubelet looks at the ConfigMap now, and not within a minute."""
    apply(routed.tiers, escalation={"maxSharePermille": 900})

    def touched() -> int:
        return routed.tiers.kubectl("get", "pods", "-o", "yaml").count(names.ANNOTATION_TABLES)

    until(touched, lambda: json.dumps(routed.status(), indent=1), 30)
