"""Rounds over the routers' counters, on real sockets, and what a policy's status says because of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from modeltiers import names
from modeltiers.api.routingpolicy_status import PolicyCost, TrafficStatus
from modeltiers.api.settings import FactsSettings
from modeltiers.controllers.routers import Routers
from modeltiers.controllers.store import Key, Store
from modeltiers.controllers.traffic import Traffic
from tests.unit.admin_port import Admin, admin_port, host

KEY: Key = ("ns", "support")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = {"gpuHourMicros": 3_600_000, "currency": "USD"}


class World:
    """Two tiers, one pod each, a policy over both, and a clock that the test turns."""

    def __init__(self, small: Admin, large: Admin) -> None:
        self.seconds = 1000.0
        self.admins = {"small": small, "large": large}
        self.store = Store()
        for name in self.admins:
            self.tier(name)
            self.pod(name)
        self.policy("support", "small", "large")
        self.rung: list[Key] = []
        self.leads = True
        self.routers = Routers(lambda: self.seconds)
        self.traffic = Traffic(
            store=self.store,
            routers=self.routers,
            settings=FactsSettings(),
            ring_policy=self.rung.append,
            leading=lambda: self.leads,
            now=lambda: BEGAN + timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
        )
        self.traffic.follow(KEY, "p1")

    def policy(self, name: str, *tiers: str) -> None:
        spec = {"model": name, "tiers": [{"name": tier} for tier in tiers]}
        self.store.put_policy({"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": spec})

    def tier(self, name: str, price: Any = PRICE) -> None:
        self.version = getattr(self, "version", 0) + 1
        spec: dict[str, Any] = {
            "model": {"source": "hf://a/b"},
            "accelerators": [{"name": "h", "product": "H"}],
            **({"price": price} if price else {}),
        }
        metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(self.version)}
        head = {"apiVersion": names.API_VERSION, "kind": "ModelTier", "metadata": metadata}
        self.store.put_tier({**head, "spec": spec, "status": {"sizing": {"gpusPerReplica": 2}}})

    def pod(self, tier: str, *, ready: bool = True, gone: bool = False, gateway: bool = False) -> None:
        labels = {names.LABEL_POLICY: "support"} if gateway else {names.LABEL_TIER: tier}
        uid = f"{tier}-gateway" if gateway else f"{tier}-1"
        metadata = {"namespace": "ns", "name": uid, "uid": uid, "labels": labels}
        body = {
            "metadata": metadata,
            "spec": {"nodeName": "n1"},
            "status": {
                "phase": "Running",
                "podIP": host(1 if tier == "small" else 2),
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "initContainerStatuses": [{"name": names.ROUTER_CONTAINER}],
            },
        }
        if gone:
            self.store.drop_pod(body)
        else:
            self.store.put_pod(body)

    def count(self, tier: str, start: str, age: float, low: int, high: int = 0, policy: str = "support") -> None:
        """Have a router say so many answers of each tier, of 100 tokens of prompt and 100 of answer each."""
        tokens = {
            name: {"prompt": 100 * n, "completion": 100 * n, "answerPrompt": 100 * n, "answerCompletion": 100 * n}
            for name, n in (("small", low), ("large", high))
        }
        entry = {
            "policy": policy,
            "start": start,
            "seconds": age,
            "answered": {"small": low, "large": high},
            "judged": low + high,
            "escalated": {"Empty": high},
            "fallbacks": 0,
            "unmetered": 0,
            "tokens": tokens,
        }
        self.admins[tier].says({"counters": [entry]})

    async def round(self, seconds: float = 30.0) -> None:
        self.seconds += seconds
        await self.traffic.round()

    def facts(self, status: Any = None, *, changed: bool = False) -> Any:
        return self.traffic.facts(KEY, status or {}, changed=changed)


def _run(test: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with admin_port(1) as small, admin_port(2) as large:
            world = World(small, large)
            part = asyncio.create_task(world.routers.run())
            try:
                await test(world)
            finally:
                part.cancel()
                await asyncio.gather(part, return_exceptions=True)

    asyncio.run(whole())


def test_counters_of_all_pods_become_the_facts_of_the_policy() -> None:
    async def test(world: World) -> None:
        await world.round(3)
        assert world.facts() == {}  # nothing was answered, and that is no news
        world.count("small", "a", 20, 300, 100)
        world.count("large", "b", 20, 0, 100)
        await world.round(57)
        assert world.rung == [KEY]
        facts = world.facts()
        TrafficStatus.model_validate(facts["traffic"])
        PolicyCost.model_validate(facts["cost"])
        assert facts["traffic"] | {"since": "", "until": ""} == {
            "since": "",
            "until": "",
            "requests": 500,
            "judged": 500,
            "fallbackPermille": 0,
            "partial": False,
            "shares": [
                {"name": "small", "requests": 300, "permille": 600},
                {"name": "large", "requests": 200, "permille": 400},
            ],
            "escalatedPermille": 400,
            "escalations": [{"reason": "Empty", "requests": 200}],
        }
        assert facts["traffic"]["since"] == "2026-01-01T00:16:40Z"
        assert facts["traffic"]["until"] == "2026-01-01T00:17:40Z"
        # A minute of 2 + 2 accelerators at 3.60 an hour is 0.24, for 500 requests.
        assert facts["cost"]["perThousandMicros"] == 480_000
        # 100,000 tokens at 0.12 / 40,000 tokens each: 0.30 for 500 requests.
        assert facts["cost"]["allLargePerThousandMicros"] == 600_000

    _run(test)


def test_a_status_is_not_written_for_numbers_that_stand_still_nor_too_often() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 5)
        await world.round()
        status = world.facts()
        assert status["traffic"]["requests"] == 5
        world.rung.clear()
        await world.round()
        assert world.facts(status) == status
        world.count("small", "a", 40, 6)
        await world.round(1)
        await world.round(28)
        assert world.rung == []  # 59 seconds after the last
        assert world.facts(status) == status
        assert world.facts(status, changed=True)["traffic"]["requests"] == 6  # written anyway, so it may be right
        world.facts(status)
        await world.round(1)
        assert world.rung == [KEY]
        assert world.facts(status)["traffic"]["requests"] == 6

    _run(test)


def test_a_new_operator_leaves_what_was_said_until_there_is_something_to_say() -> None:
    async def test(world: World) -> None:
        before = {"traffic": {"requests": 9, "until": "2025-12-31T00:00:00Z"}, "cost": {"unknown": "x"}, "live": "1/1"}
        world.count("small", "a", 9999, 1000)
        kept = {"traffic": before["traffic"], "cost": before["cost"]}
        assert world.facts(before) == kept
        await world.round(3)
        assert world.facts(before) == kept
        world.count("small", "a", 9999, 1001)
        await world.round()
        facts = world.facts(before)
        assert facts["traffic"]["requests"] == 1
        assert facts["traffic"]["since"] == "2026-01-01T00:16:43Z"

    _run(test)


def test_pods_that_cannot_be_asked_make_it_partial_until_they_can() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 200)
        world.count("large", "b", 10, 50)
        await world.round()
        world.admins["large"].code = 500
        await world.round()
        assert not world.facts()["traffic"]["partial"]  # once is nothing: the counters are there next time
        await world.round()
        facts = world.facts()
        assert facts["traffic"]["partial"]
        assert "let the operator reach" in facts["cost"]["unknown"]
        world.admins["large"].code = 200
        world.count("large", "b", 100, 70)
        await world.round()
        assert world.facts()["traffic"] | {"until": ""} == facts["traffic"] | {
            "until": "",
            "requests": 270,
            "judged": 270,
            "partial": False,
            "shares": [
                {"name": "small", "requests": 270, "permille": 1000},
                {"name": "large", "requests": 0, "permille": 0},
            ],
        }

    _run(test)


def test_a_router_that_comes_back_under_another_start_has_left_something_out() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 200)
        await world.round()
        world.admins["small"].code = 500
        await world.round()
        await world.round()
        world.admins["small"].code = 200
        world.count("small", "b", 5, 3)
        await world.round()
        assert world.facts()["traffic"]["requests"] == 203
        assert world.facts()["traffic"]["partial"]

    _run(test)


def test_a_pod_that_could_not_be_asked_from_its_begin_is_known_whole_once_it_can() -> None:
    async def test(world: World) -> None:
        world.admins["small"].code = 500
        await world.round()
        await world.round()
        await world.round()
        world.admins["small"].code = 200
        world.count("small", "a", 80, 7)
        await world.round()
        assert world.facts()["traffic"]["requests"] == 7
        assert not world.facts()["traffic"]["partial"]
        world.admins["large"].code = 500
        await world.round()
        await world.round()
        world.admins["large"].code = 200
        world.count("large", "b", 9999, 0, 50)  # older than the watching: how much of it was of late is not known
        await world.round()
        assert world.facts()["traffic"]["requests"] == 7
        assert world.facts()["traffic"]["partial"]

    _run(test)


def test_a_pod_that_goes_unread_is_missed_and_one_that_goes_read_is_not() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 200)
        world.count("large", "b", 10, 50)
        await world.round()
        world.pod("large", gone=True)
        await world.round()
        assert world.facts()["traffic"]["requests"] == 250
        assert not world.facts()["traffic"]["partial"]
        world.admins["small"].code = 500
        await world.round()
        await world.round()
        world.pod("small", gone=True)
        await world.round()
        assert world.facts()["traffic"]["requests"] == 250
        assert world.facts()["traffic"]["partial"]

    _run(test)


def test_a_tier_of_several_policies_is_shared_by_tokens_and_so_are_its_direct_callers() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 100)
        world.count("large", "b", 10, 0, 300, policy=names.direct_policy("large"))
        await world.round(3)
        world.count("large", "b", 40, 0, 400, policy=names.direct_policy("large"))
        world.count("small", "a", 40, 150, 100)
        await world.round(60)
        facts = world.facts()
        said = {item["name"]: item["value"].split()[0] for item in facts["cost"]["inputs"]}
        assert said["large.tokens"] == "20000"
        assert said["large.allTokens"] == "40000"  # what the direct callers had before the first reading is not known
        assert said["large.gpuSeconds"] == "120.000"

    _run(test)


def test_what_a_gateway_decided_is_counted_there() -> None:
    async def test(world: World) -> None:
        world.pod("small", gone=True)
        world.pod("small", gateway=True)
        world.count("small", "a", 10, 80, 20)
        await world.round()
        facts = world.facts()
        assert facts["traffic"]["requests"] == 100
        said = {item["name"]: item["value"].split()[0] for item in facts["cost"]["inputs"]}
        assert said["small.gpuSeconds"] == "0.000"  # a gateway holds no accelerator
        assert said["large.gpuSeconds"] == "60.000"

    _run(test)


def test_a_policy_made_anew_begins_anew_and_one_that_is_gone_is_forgotten() -> None:
    async def test(world: World) -> None:
        world.count("small", "a", 10, 100)
        await world.round()
        world.traffic.follow(KEY, "p1")
        assert world.facts() != {}
        world.traffic.follow(KEY, "p2")
        assert world.facts() == {}
        world.traffic.forget(KEY)
        asked = world.admins["small"].asked
        await world.round()
        assert world.admins["small"].asked == asked

    _run(test)


def test_a_price_that_comes_is_seen() -> None:
    async def test(world: World) -> None:
        world.tier("small", None)
        world.count("small", "a", 10, 100)
        await world.round()
        assert world.facts()["cost"]["unknown"] == "ModelTier small has no price; set spec.price"
        world.tier("small")
        await world.round()
        assert world.facts()["cost"]["perThousandMicros"] > 0

    _run(test)


def test_who_does_not_lead_reads_nothing_and_begins_anew_when_it_does() -> None:
    async def test(world: World) -> None:
        world.traffic.settings = FactsSettings.model_validate({"readSeconds": 1})
        world.traffic.jitter = lambda: 0.0
        world.leads = False
        world.count("small", "a", 10, 100)
        part = asyncio.create_task(world.traffic.run())
        await asyncio.sleep(1.2)
        assert world.admins["small"].asked == 0
        world.leads = True
        world.seconds += 30
        world.count("small", "a", 99, 150)
        for _ in range(100):
            await asyncio.sleep(0.03)
            if world.traffic.round_seconds or world.admins["small"].asked:
                break
        assert world.admins["small"].asked == 1
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)

    _run(test)
