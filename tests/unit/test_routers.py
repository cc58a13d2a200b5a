"""What routers say is asked for in the background, once for everybody who wants it, on real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from modeltiers import names
from modeltiers.controllers.routers import LARGEST, LONGEST_REST, TRIES, Routers
from modeltiers.domain.policy_verdict import RouterFacts
from modeltiers.domain.views import ConditionView, PodView
from tests.unit.admin_port import Admin, admin_port, host

FILE = names.table_key("support")
SERVES = json.dumps({"inFlight": 3, "tables": {FILE: {"version": "abc123"}}})


@asynccontextmanager
async def _running(clock: Callable[[], float]) -> AsyncIterator[tuple[Routers, Admin, PodView]]:
    """One router that answers, and the program's part that asks it."""
    routers = Routers(clock)
    async with admin_port() as admin:
        admin.body = SERVES
        part = asyncio.create_task(routers.run())
        try:
            yield routers, admin, PodView("small-1", uid="u1", ip=host())
        finally:
            part.cancel()
            await asyncio.gather(part, return_exceptions=True)


def _run(test: Callable[[Routers, Admin, PodView, list[float]], Any]) -> None:
    async def whole() -> None:
        now = [100.0]
        async with _running(lambda: now[0]) as (routers, admin, pod):
            await test(routers, admin, pod, now)

    asyncio.run(whole())


def test_an_answer_serves_everybody_until_it_is_too_old() -> None:
    async def test(routers: Routers, admin: Admin, pod: PodView, now: list[float]) -> None:
        assert routers.facts([pod], "support") is None
        await asyncio.gather(routers.read([pod]), routers.read([pod]))
        said = routers.last(pod)
        assert said is not None
        assert said.status is not None
        assert (said.at, said.status["inFlight"], admin.asked) == (100.0, 3, 1)
        assert routers.facts([pod], "support") == (RouterFacts("small-1", version="abc123"),)
        assert routers.facts([pod], "other") == (RouterFacts("small-1"),)
        now[0] += 10
        await routers.read([pod], age=30)
        assert admin.asked == 1
        await routers.read([pod], age=5)
        assert admin.asked == 2

    _run(test)


def test_asking_returns_at_once_and_tells_each_who_waits_once() -> None:
    async def test(routers: Routers, admin: Admin, pod: PodView, now: list[float]) -> None:
        admin.hold.clear()
        heard: list[str] = []
        first, second = (lambda: heard.append("first")), (lambda: heard.append("second"))
        assert routers.ask([pod], then=first)
        assert routers.ask([pod], then=first)
        assert routers.ask([pod], then=second)
        assert heard == []
        admin.hold.set()
        await routers.read([pod])
        assert sorted(heard) == ["first", "second"]
        assert admin.asked == 1
        assert not routers.ask([pod], then=first)

    _run(test)


def test_what_cannot_be_asked_is_a_fact_and_is_asked_again() -> None:
    async def test(routers: Routers, admin: Admin, pod: PodView, now: list[float]) -> None:
        gone = PodView("small-2", uid="u2", ip=host(2))
        bodies = ("no JSON", "[1]", "x" * (LARGEST + 1), json.dumps({"tables": 7, "refusedTables": [1]}))
        for body in bodies:
            admin.body = body
            await routers.read([pod, gone])
            facts = routers.facts([pod, gone], "support")
            assert facts is not None
            assert [(one.reached, one.version) for one in facts] == [(body == bodies[-1], None), (False, None)]
            now[0] += 60
        admin.body, admin.code = SERVES, 503
        await routers.read([pod])
        assert routers.facts([pod], "support") == (RouterFacts("small-1", reached=False),)
        assert admin.asked == len(bodies) + 1

    _run(test)


def test_who_never_answers_is_asked_less_and_less_until_its_pod_changes() -> None:
    async def test(routers: Routers, admin: Admin, pod: PodView, now: list[float]) -> None:
        admin.code = 503
        for _ in range(600):
            await routers.read([pod])
            now[0] += 1
        # Three at once, then after 10, 20, 40, 80 and 120 s.
        assert admin.asked == TRIES + 4 + (600 - 3 - 10 - 20 - 40 - 80) // int(LONGEST_REST)
        said = routers.last(pod)
        assert said is not None
        assert said.rests(pod, said.at + 1)
        since = ConditionView("Ready", "True", since="2026-01-01T12:00:00Z")
        asked, admin.code = admin.asked, 200
        await routers.read([dataclasses.replace(pod, conditions=(since,))])
        assert admin.asked == asked + 1
        assert not routers.last(pod).rests(pod, now[0])  # type: ignore[union-attr]  # it was asked just now

    _run(test)


def test_pods_without_an_address_or_a_life_are_not_asked() -> None:
    async def test(routers: Routers, admin: Admin, pod: PodView, now: list[float]) -> None:
        over = PodView("small-3", uid="u3", ip=pod.ip, phase="Failed")
        assert not routers.ask([PodView("small-4", uid="u4"), over])
        assert routers.facts([over], "support") == ()

    _run(test)
