"""The gate: who goes, who waits and in what order, who is refused at once, and what it all costs."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.table import Policy
from modeltiers.router import limits
from modeltiers.router.limits import Gate, Ticket, Waiting, estimate
from modeltiers.router.replies import Refusal


def policy(model: str = "support", **fields: Any) -> Policy:
    return msgspec.convert({"name": model, "model": model, "tiers": ["t0"], **fields}, Policy)


def gate(share: float = 1.0, key_limits: dict[str, Any] | None = None, **bounds: Any) -> Gate:
    made = Gate(share)
    made.update([policy(limits=bounds, keyLimits=key_limits or {})], 0.0)
    return made


class Client:
    """One request as the router has it."""

    def __init__(self, found: Gate, who: str = "a", *, now: float = 0.0, tokens: int = 10, key: bool = True) -> None:
        self.gate, self.who = found, who
        self.told: list[Ticket | Refusal] = []
        self.first = found.enter("support", who if key else "", who, tokens, now, self.told.append)

    @property
    def ticket(self) -> Ticket:
        outcome = self.told[0] if self.told else self.first
        assert isinstance(outcome, Ticket)
        return outcome

    @property
    def refusal(self) -> Refusal:
        outcome = self.told[0] if self.told else self.first
        assert isinstance(outcome, Refusal), outcome
        return outcome

    @property
    def waits(self) -> bool:
        return isinstance(self.first, Waiting) and not self.told

    @property
    def went(self) -> bool:
        return isinstance(self.told[0] if self.told else self.first, Ticket)

    def leave(self, now: float, used: int | None = None) -> None:
        self.ticket.leave(used, now)

    def cancel(self) -> None:
        assert isinstance(self.first, Waiting)
        self.first.cancel()


def retry_after(refusal: Refusal) -> int:
    return int(dict(line.split(b": ") for line in refusal.lines().splitlines())[b"retry-after"])


# -- no limits --------------------------------------------------------------------------------------------------------


def test_without_limits_everybody_goes_and_nothing_is_kept() -> None:
    found = gate()
    clients = [Client(found, str(number)) for number in range(1000)]
    assert all(one.went for one in clients)
    assert len({id(one.ticket) for one in clients}) == 1
    for one in clients:
        one.leave(1.0, 5)
    assert found.waiting() == {"support": 0}


def test_a_policy_that_nobody_told_of_has_no_limits() -> None:
    assert isinstance(Gate().enter("other", "", "a", 1, 0.0, lambda _: None), Ticket)


def test_no_limit_costs_almost_nothing() -> None:
    found = gate()
    ready, best = (lambda _: None), 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            ticket = found.enter("support", "a", "b", 10, 0.0, ready)
            ticket.leave(10, 1.0)  # type: ignore[union-attr]  # it is there in this test
        best = min(best, time.perf_counter() - began)
    assert best / 1000 < 2e-6  # half a microsecond where nothing else runs


# -- requests and tokens a minute --------------------------------------------------------------------------------------


def test_a_request_beyond_the_rate_waits_if_it_is_short_and_is_refused_with_the_time_if_not() -> None:
    found = gate(requestsPerMinute=60, queueMs=1500)
    assert all(Client(found).went for _ in range(60))
    first, second = Client(found), Client(found, "b")
    assert first.waits
    assert second.refusal.status == 429
    assert retry_after(second.refusal) == 2
    assert second.refusal.code == "rate_limit_exceeded"
    assert b"rate_limit_error" in second.refusal.body()
    found.sweep(0.9)
    assert first.waits
    found.sweep(1.0)
    assert first.went
    assert found.refused == {("support", "Requests"): 1}


def test_the_time_that_a_refusal_names_is_honest() -> None:
    found = gate(requestsPerMinute=3, queueMs=1)
    for _ in range(3):
        assert Client(found).went
    refusal = Client(found).refusal
    again = float(retry_after(refusal))
    assert 20 <= again <= 21
    assert not Client(found, now=again - 2).went
    assert Client(found, now=again).went


def test_tokens_are_charged_by_estimate_and_corrected_by_what_was_used() -> None:
    found = gate(tokensPerMinute=600, queueMs=1)
    first = Client(found, tokens=500)
    assert not Client(found, tokens=200).went
    first.leave(0.0, used=100)
    assert Client(found, tokens=500).went
    assert Client(found, tokens=1).refusal.code == "rate_limit_exceeded"


def test_what_was_used_beyond_the_estimate_is_owed() -> None:
    found = gate(tokensPerMinute=600, queueMs=1)
    Client(found, tokens=10).leave(0.0, used=1200)
    assert retry_after(Client(found, tokens=1).refusal) >= 60
    assert not Client(found, now=59, tokens=10).went
    assert Client(found, now=61.1, tokens=10).went


def test_a_request_larger_than_a_minutes_tokens_goes_when_nothing_else_was_used() -> None:
    found = gate(tokensPerMinute=100, queueMs=1)
    big = Client(found, tokens=5000)
    assert big.went
    big.leave(0.0, used=None)  # nobody counted: the estimate stands, as far as it was charged
    assert not Client(found, now=59, tokens=5000).went
    assert Client(found, now=60, tokens=5000).went


def test_a_refused_request_used_nothing_when_it_says_so() -> None:
    found = gate(tokensPerMinute=100, queueMs=1)
    Client(found, tokens=100).leave(0.0, used=0)
    assert Client(found, tokens=100).went


def test_an_estimate_counts_every_answer() -> None:
    assert estimate(Ask(endpoint="chat", prompt_tokens=10, max_tokens=50, n=3)) == 160
    assert estimate(Ask(endpoint="chat", prompt_tokens=10)) == 10 + limits.COMPLETION


# -- concurrency and the queue ----------------------------------------------------------------------------------------


def test_one_leaves_and_the_next_goes_at_once() -> None:
    found = gate(concurrency=2)
    running = [Client(found), Client(found)]
    waiting = Client(found)
    assert waiting.waits
    running[0].leave(1.0)
    assert waiting.went
    running[0].leave(1.0)  # twice is once
    assert Client(found, now=1.0).waits


def test_turns_are_taken_by_key_and_by_client_where_there_are_no_keys() -> None:
    for keyed in (True, False):
        found = gate(concurrency=1)
        running, order = Client(found, "x", key=keyed), list[str]()
        waiting = [Client(found, who, key=keyed) for who in ("greedy",) * 5 + ("b", "c")]
        for _ in waiting:
            running.leave(0.0)
            (running,) = [one for one in waiting if one.went and one.who + str(id(one)) not in order]
            order.append(running.who + str(id(running)))
        assert [name.rstrip("0123456789") for name in order] == ["greedy", "b", "c"] + ["greedy"] * 4


def test_who_waited_too_long_is_refused_and_who_left_is_not_called() -> None:
    found = gate(concurrency=1, queueMs=1000)
    running = Client(found)
    patient, gone = Client(found, "b", now=0.5), Client(found, "c", now=0.5)
    gone.cancel()
    gone.cancel()
    found.sweep(1.4)
    assert patient.waits
    found.sweep(1.6)
    assert patient.refusal.status == 429
    assert patient.refusal.code == "overloaded"
    assert gone.told == []
    running.leave(2.0)
    assert Client(found, now=2.0).went
    assert found.refused == {("support", "QueueTimeout"): 1}


def test_a_wait_that_is_known_to_be_too_long_is_refused_at_once() -> None:
    found = gate(concurrency=2, queueMs=3000)
    for _ in range(20):
        Client(found).leave(4.0)  # each takes four seconds
    running = [Client(found, now=4.0) for _ in range(2)]
    assert Client(found, "b", now=4.0).waits  # 4 s * 1 / 2
    refusal = Client(found, "c", now=4.0).refusal  # 4 s * 2 / 2
    assert (refusal.status, retry_after(refusal)) == (429, 4)
    assert found.refused == {("support", "Concurrency"): 1}
    assert all(one.went for one in running)


def test_no_queue_means_refused_at_once() -> None:
    found = gate(concurrency=1, queue=0)
    assert Client(found).went
    assert Client(found).refusal.status == 429


def test_a_full_queue_is_not_one_clients_alone() -> None:
    found = gate(concurrency=1, queue=4)
    running = Client(found, "x")
    greedy = [Client(found, "greedy") for _ in range(10)]
    assert sum(one.waits for one in greedy) == 4
    newcomer = Client(found, "b")
    assert newcomer.waits
    assert [one.waits for one in greedy[:4]] == [True, True, True, False]
    assert greedy[3].refusal.status == 429
    third = Client(found, "c")
    assert third.waits
    assert Client(found, "d").waits
    assert Client(found, "e").refusal.status == 429  # each has one by now
    assert found.waiting() == {"support": 4}
    running.leave(0.0)
    assert greedy[0].went


def test_who_comes_does_not_overtake_who_waits() -> None:
    found = gate(concurrency=1)
    running = Client(found, "a")
    first = Client(found, "b")
    running.leave(0.0)
    assert first.went
    second = Client(found, "c")
    assert second.waits
    third = Client(found, "d")
    first.leave(0.0)
    assert second.went
    assert third.waits


def test_a_small_one_does_not_overtake_a_large_one_that_waits_for_tokens() -> None:
    rate = {"tokensPerMinute": 600}
    for bounds, key_limits, other in ((rate, {}, "a"), (rate, {}, "b"), ({}, rate, "a")):
        found = gate(key_limits=key_limits, **bounds)
        Client(found, tokens=500)
        large, small = Client(found, tokens=150), Client(found, other, tokens=10)
        assert large.waits
        assert small.waits
        found.sweep(5.0)
        assert large.went


def test_when_the_first_in_line_leaves_the_next_need_not_wait_for_its_time() -> None:
    found = gate(tokensPerMinute=600)
    Client(found, tokens=500)
    large, small = Client(found, "b", tokens=190), Client(found, "c", tokens=100)
    large.cancel()
    found.sweep(0.05)
    assert small.went


def test_the_estimate_knows_that_turns_are_taken() -> None:
    """Behind one client's long line, another's first request waits for two turns, not for the whole line."""
    found = gate(concurrency=1, queueMs=5000)
    Client(found).leave(1.0)
    assert Client(found, now=1.0).went
    greedy = [Client(found, "greedy", now=1.0) for _ in range(10)]
    assert sum(one.waits for one in greedy) == 5
    assert Client(found, "b", now=1.0).waits
    assert retry_after(Client(found, "greedy", now=1.0).refusal) >= 6


# -- limits for each key ----------------------------------------------------------------------------------------------


def test_one_keys_limit_holds_up_nobody_else() -> None:
    found = gate(key_limits={"concurrency": 1})
    running = Client(found, "a")
    held = [Client(found, "a"), Client(found, "a")]
    assert Client(found, "b").went
    assert [one.waits for one in held] == [True, True]
    running.leave(1.0)
    assert [one.went for one in held] == [True, False]


def test_a_keys_rate_holds_up_its_own_until_it_is_time() -> None:
    found = gate(key_limits={"requestsPerMinute": 60}, concurrency=100)
    assert all(Client(found, "a").went for _ in range(60))
    held = [Client(found, "a") for _ in range(2)]
    assert Client(found, "b").went
    found.sweep(0.5)
    assert [one.went for one in held] == [False, False]
    found.sweep(1.0)
    assert [one.went for one in held] == [True, False]
    found.sweep(2.05)
    assert [one.went for one in held] == [True, True]


def test_without_keys_the_limits_for_each_key_hold_for_all_together() -> None:
    found = gate(key_limits={"concurrency": 1})
    running = Client(found, "1.2.3.4", key=False)
    other = Client(found, "5.6.7.8", key=False)
    assert other.waits
    running.leave(0.0)
    assert other.went


def test_both_limits_must_leave_room() -> None:
    found = gate(key_limits={"concurrency": 1}, concurrency=2)
    a, b = Client(found, "a"), Client(found, "b")
    more = [Client(found, "a"), Client(found, "c"), Client(found, "b")]
    a.leave(0.0)
    assert [one.went for one in more] == [True, False, False]
    b.leave(0.0)
    assert [one.went for one in more] == [True, True, False]
    more[1].leave(0.0)
    assert more[2].went


def test_keys_that_use_nothing_are_forgotten() -> None:
    found = gate(key_limits={"requestsPerMinute": 60})
    for number in range(500):
        Client(found, f"key-{number}").leave(0.0)
    lane = found._lanes["support"]
    assert len(lane.keys) == 500
    found.sweep(1.0)
    found.sweep(100.0)
    assert len(lane.keys) == 0


# -- a share of the whole ---------------------------------------------------------------------------------------------


def test_a_share_divides_every_limit() -> None:
    found = gate(0.25, requestsPerMinute=40, queueMs=1)
    assert sum(Client(found).went for _ in range(40)) == 10
    found = gate(0.25, concurrency=8)
    assert sum(Client(found).went for _ in range(8)) == 2
    found = gate(0.25, concurrency=1)
    assert sum(Client(found).went for _ in range(4)) == 1


# -- a new table ------------------------------------------------------------------------------------------------------


def test_a_new_table_keeps_what_was_used_and_lets_go_who_may() -> None:
    found = gate(concurrency=1, requestsPerMinute=100)
    running = [Client(found)]
    waiting = [Client(found, str(number)) for number in range(3)]
    found.update([policy(limits={"concurrency": 3, "requestsPerMinute": 100})], 0.0)
    assert [one.went for one in waiting] == [True, True, False]
    found.update([policy()], 0.0)
    assert waiting[2].went
    for one in (*running, *waiting):
        one.leave(1.0)
    found.update([policy(limits={"concurrency": 1})], 1.0)
    assert Client(found, now=1.0).went
    assert Client(found, now=1.0).waits


def test_a_new_table_that_lifts_a_keys_limit_lets_its_requests_go() -> None:
    found = gate(key_limits={"concurrency": 1})
    assert Client(found, "a").went
    held = Client(found, "a")
    found.update([policy(keyLimits={"concurrency": 2})], 0.0)
    assert held.went


def test_who_waits_for_a_policy_that_is_gone_is_told_so() -> None:
    found = gate(concurrency=1)
    running, waiting = Client(found), Client(found)
    found.update([], 0.0)
    assert waiting.refusal.status == 503
    running.leave(1.0)
    assert Client(found).went


# -- room at a tier ---------------------------------------------------------------------------------------------------


class Tier:
    """A tier with so much room, and who got it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.took: list[str] = []
        self.refused: list[str] = []

    def ready(self, who: str) -> Any:
        def again(outcome: Ticket | Refusal) -> bool:
            if isinstance(outcome, Refusal):
                self.refused.append(who)
                return True
            if not self.room:
                return False
            self.room -= 1
            self.took.append(who)
            return True

        return again


def test_who_waits_for_room_at_a_tier_gets_it_in_turn() -> None:
    found, tier = gate(), Tier(0)
    assert found.waiting() == {"support": 0}
    for who in ("a", "a", "b"):
        assert isinstance(found.park(Client(found).ticket, "support", who, "t0", 0.0, tier.ready(who)), Waiting)
    assert found.waiting() == {"support": 3}
    found.freed("t0")
    assert tier.took == []
    tier.room = 2
    found.freed("t0")
    assert tier.took == ["a", "b"]
    tier.room = 1
    found.sweep(0.05)  # room that nobody spoke of
    assert tier.took == ["a", "b", "a"]
    assert found.waiting() == {"support": 0}


def test_who_waits_too_long_for_room_is_refused_and_who_left_is_not_tried() -> None:
    found, tier = gate(queueMs=1000), Tier(0)
    for who in ("a", "b"):
        place = found.park(Client(found).ticket, "support", who, "t0", 0.0, tier.ready(who))
        assert isinstance(place, Waiting)
        if who == "b":
            place.cancel()
    found.sweep(1.0)
    tier.room = 5
    found.sweep(1.1)
    assert (tier.took, tier.refused) == ([], ["a"])
    assert found._rooms == {}


def test_the_line_for_room_is_as_short_as_the_policy_says() -> None:
    found, tier = gate(queue=2), Tier(0)
    ticket = Client(found).ticket
    places = [found.park(ticket, "support", "greedy", "t0", 0.0, tier.ready(f"g{number}")) for number in range(3)]
    assert [isinstance(one, Refusal) for one in places] == [False, False, True]
    assert isinstance(found.park(ticket, "support", "b", "t0", 0.0, tier.ready("b")), Waiting)
    assert tier.refused == ["g1"]


# -- callbacks that call back -----------------------------------------------------------------------------------------


def test_a_request_that_ends_while_it_is_let_in_lets_in_the_next() -> None:
    """A thousand that fail at once need no deep stack."""
    found = gate(concurrency=1, queue=5000)
    running, ended = Client(found), list[int]()

    def fails(number: int) -> Any:
        def ready(outcome: Ticket | Refusal) -> None:
            assert isinstance(outcome, Ticket)
            ended.append(number)
            outcome.leave(0, 0.0)

        return ready

    for number in range(3000):
        assert isinstance(found.enter("support", "", str(number), 1, 0.0, fails(number)), Waiting)
    running.leave(0.0)
    assert ended == list(range(3000))


def test_one_that_is_let_in_may_cancel_another() -> None:
    found = gate(concurrency=1)
    running, second = Client(found), list[Any]()
    first = found.enter("support", "", "b", 1, 0.0, lambda _: second[0].cancel())
    second.append(found.enter("support", "", "c", 1, 0.0, lambda _: pytest.fail("it had left")))
    running.leave(0.0)
    assert isinstance(first, Waiting)
    found.sweep(0.05)
    assert found.waiting() == {"support": 0}


# -- everything at once -----------------------------------------------------------------------------------------------


class Day:
    """Arrivals, ends, cancels, reloads and time, by chance, on a gate with every limit there is."""

    bounds: Final = {"concurrency": 4, "requestsPerMinute": 600, "tokensPerMinute": 30_000, "queue": 6, "queueMs": 800}
    key_limits: Final = {"concurrency": 2, "requestsPerMinute": 400}

    def __init__(self, seed: int) -> None:
        self.dice, self.now = random.Random(seed), 0.0  # noqa: S311  a simulation
        self.gate = gate(key_limits=self.key_limits, **self.bounds)
        self.running, self.waiting = list[Client](), list[Client]()

    def step(self) -> None:
        self.now += self.dice.expovariate(40)
        move = self.dice.random()
        if move < 0.5:
            who, tokens = self.dice.choice("abc"), self.dice.randrange(1, 400)
            self.waiting.append(Client(self.gate, who, now=self.now, tokens=tokens))
        elif move < 0.8 and self.running:
            one = self.running.pop(self.dice.randrange(len(self.running)))
            one.leave(self.now, self.dice.choice([None, 0, 50, 900]))
        elif move < 0.85 and self.waiting:
            gone = self.waiting.pop(self.dice.randrange(len(self.waiting)))
            gone.cancel()
        elif move < 0.87:
            self.gate.update([policy(limits=self.bounds, keyLimits=self.key_limits)], self.now)
        self.look()

    def look(self) -> None:
        """See who went and who was refused."""
        self.gate.sweep(self.now)
        for one in [one for one in self.waiting if not one.waits]:
            self.waiting.remove(one)
            assert len(one.told) <= 1
            if one.went:
                self.running.append(one)

    def end(self) -> None:
        """Let everybody go home."""
        while self.running or self.waiting:
            while self.running:
                self.running.pop().leave(self.now)
            self.now += 0.05
            assert self.now < 1_000
            self.look()


@given(st.integers(0, 10**6))
def test_whatever_happens_the_bounds_hold_and_everybody_hears_once(seed: int) -> None:
    day = Day(seed)
    for _ in range(300):
        day.step()
        assert len(day.running) <= 4
        assert max(Counter(one.who for one in day.running).values(), default=0) <= 2
        assert len(day.waiting) <= 6
        assert day.gate.waiting() == {"support": len(day.waiting)}
    day.end()
    lane = day.gate._lanes["support"]
    assert (lane.meter.active, lane.queue.size, len(lane.by_age), lane.wakes) == (0, 0, 0, {})
    assert all(meter.active == 0 for meter in lane.keys.values())


def test_a_long_queue_costs_no_more_for_each() -> None:
    """Time for one step must not grow with how many wait."""

    def each(count: int) -> float:
        found = gate(concurrency=1, queue=100_000, queueMs=3_600_000)
        running = Client(found)
        best = 1.0
        for _ in range(3):
            began = time.perf_counter()
            places = [found.enter("support", "", str(number % 997), 1, 0.0, lambda _: None) for number in range(count)]
            for place in places:
                place.cancel()  # type: ignore[union-attr]  # it is there in this test
            found.sweep(0.0)
            best = min(best, (time.perf_counter() - began) / count)
        running.leave(0.0)
        return best

    gc.disable()
    try:
        assert each(16_000) < 6 * each(1_000) + 1e-6
    finally:
        gc.enable()
