"""Says when a request may go: the limits of its policy and of its key, and a fair, bounded queue before them.

A request that would wait longer than its policy allows is refused at once, with the time after which to ask again.
What a request costs is charged before by an estimate and corrected by what was used. Knows nothing of HTTP, of tiers'
addresses or of time: the loop's clock is passed in.

Limits hold for one process. With N processes on a port each has a share of 1/N, at least one of everything, so that
together they keep a limit that is a multiple of N; connections spread unevenly reach less than the whole.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from math import ceil
from typing import Final

from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.budget import FOREVER, Cause, FairQueue, Meter
from modeltiers.domain.routing.table import Limits, Policy
from modeltiers.router.replies import Refusal

COMPLETION: Final = 256
"""Tokens that a request is taken to generate when it does not say how many."""
FORGET: Final = 60.0
"""How often, in seconds, keys that used nothing of late are forgotten."""
LONGEST: Final = 3_600.0
Ready = Callable[["Ticket | Refusal"], bool | None]
_WORDS: Final[dict[Cause, str]] = {
    "Requests": "takes no more requests for now",
    "Tokens": "has used its tokens for now",
    "Concurrency": "has as many requests in flight as it may",
    "QueueFull": "has as many requests waiting as it may",
    "QueueTimeout": "had no room in time",
}


def estimate(ask: Ask) -> int:
    """Return how many tokens a request is taken to use: its prompt, and what its answers may have."""
    return ask.prompt_tokens + ask.n * (ask.max_tokens or COMPLETION)


class Ticket:
    """Leave to go; given back when the request has ended."""

    __slots__ = ("_charged", "_gate", "_key_charged", "_lane", "_since", "key", "key_meter", "tokens")

    def __init__(self, gate: Gate, lane: Lane | None, key_meter: Meter | None, key: str, tokens: int) -> None:
        self._gate, self._lane, self.key_meter = gate, lane, key_meter
        self.key, self.tokens = key, tokens
        self._charged = self._key_charged = self._since = 0.0

    def take(self, now: float) -> None:
        """Charge what the request is taken to use."""
        self._since = now
        if self._lane is not None:
            self._charged = self._lane.meter.take(self.tokens)
        if self.key_meter is not None:
            self._key_charged = self.key_meter.take(self.tokens)

    def leave(self, used_tokens: int | None, now: float) -> None:
        """Give it back, once; None tokens means that nobody counted them, and the estimate stands."""
        lane, self._lane = self._lane, None
        if lane is None:
            return
        seconds = max(0.0, now - self._since)
        lane.meter.leave(seconds, 0.0 if used_tokens is None else used_tokens - self._charged)
        if self.key_meter is not None:
            self.key_meter.leave(seconds, 0.0 if used_tokens is None else used_tokens - self._key_charged)
        self._gate.left(lane, self.key, now)


class Waiting:
    """A place in a queue."""

    __slots__ = ("deadline", "flow", "lane", "place", "ready", "ticket")

    def __init__(self, place: Place, lane: Lane, flow: str, ticket: Ticket, deadline: float, ready: Ready) -> None:
        self.place, self.lane, self.flow, self.ticket, self.deadline = place, lane, flow, ticket, deadline
        self.ready: Ready | None = ready

    def cancel(self) -> None:
        """Leave the queue: nobody waits any more. Whoever stands behind is looked at by the next sweep."""
        self.ready = None
        self.place.drop(self)
        self.place.wake_at = 0.0

    def tell(self, outcome: Ticket | Refusal) -> None:
        """Hand over the outcome, once."""
        ready, self.ready = self.ready, None
        if ready is not None:
            ready(outcome)


class Place:
    """Where requests wait: by flow for their turns, and by age for the end of their patience."""

    __slots__ = ("by_age", "pumping", "queue", "wake_at", "wakes")

    def __init__(self) -> None:
        self.queue: FairQueue[Waiting] = FairQueue()
        self.by_age: OrderedDict[Waiting, None] = OrderedDict()
        self.pumping = False
        self.wake_at = FOREVER
        """When time alone lets the next one go."""
        self.wakes: dict[str, float] = {}
        """The same for flows whose key is at its limit while others may go."""

    def add(self, waiting: Waiting) -> None:
        """Put one at the end of its flow's line."""
        self.queue.push(waiting.flow, waiting)
        self.by_age[waiting] = None

    def drop(self, waiting: Waiting) -> None:
        """Take one out, if they are still there."""
        if not self.queue.discard(waiting.flow, waiting):
            return
        del self.by_age[waiting]
        if not self.queue.depth(waiting.flow):
            self.wakes.pop(waiting.flow, None)

    def expired(self, now: float) -> list[Waiting]:
        """Take out all who have waited long enough."""
        found = []
        while self.by_age and (oldest := next(iter(self.by_age))).deadline <= now:
            self.drop(oldest)
            found.append(oldest)
        return found

    def victim(self, depth: int) -> Waiting | None:
        """Take the newest of the longest line out for a flow with so many in line, unless that is as long."""
        if self.queue.deepest <= depth + 1:
            return None
        _, last = self.queue.last_of_longest()
        self.drop(last)
        return last


class Lane(Place):
    """The queue of one policy, and what its requests and its keys have used."""

    __slots__ = ("free", "key_limits", "keyed", "keys", "limits", "meter", "name")

    def __init__(self, policy: Policy, share: float, now: float) -> None:
        super().__init__()
        self.keys: dict[str, Meter] = {}
        self.meter = Meter(policy.limits, share, now)
        self.set(policy, share, now)

    def set(self, policy: Policy, share: float, now: float) -> None:
        """Take up the policy's limits."""
        self.name, self.limits, self.key_limits = policy.name, policy.limits, policy.key_limits
        self.meter.set(policy.limits, share, now)
        for meter in self.keys.values():
            meter.set(policy.key_limits, share, now)
        self.keyed = _limits(policy.key_limits)
        self.free = not (self.keyed or _limits(policy.limits))

    def key_meter(self, key: str, share: float, now: float) -> Meter | None:
        """Return what a key has used, if the policy limits keys."""
        if not self.keyed:
            return None
        meter = self.keys.get(key)
        if meter is None:
            meter = self.keys[key] = Meter(self.key_limits, share, now)
        return meter

    def bounds(self, key: Meter | None) -> tuple[int, float]:
        """Return how many of one flow may wait, and for how many seconds: the lesser of the policy's and the key's."""
        both = (self.limits,) if key is None else (self.limits, self.key_limits)
        return min(one.queue for one in both), min(one.queue_ms for one in both) / 1000

    def wait(self, ticket: Ticket, depth: int, now: float) -> tuple[Cause, float]:
        """Estimate how long the queue takes to come to a request behind so many of its flow, and for what it waits."""
        # Flows take turns: before the (d+1)th of a flow, each other flow has had d+1 turns at most.
        ahead = min(self.queue.size, (depth + 1) * (self.queue.flows + (not depth)) - 1)
        cause, wait = self.meter.estimate(ahead, float(ahead) * ticket.tokens, ticket.tokens, now)
        if ticket.key_meter is not None:
            same = depth if ticket.key else ahead
            own, longer = ticket.key_meter.estimate(same, float(same) * ticket.tokens, ticket.tokens, now)
            if longer > wait:
                return own, longer
        return cause, wait

    def forget(self, now: float) -> None:
        """Forget keys that have used nothing of late."""
        if not self.queue.size:
            for key in [key for key, meter in self.keys.items() if not meter.active and meter.full(now)]:
                del self.keys[key]


class Gate:
    """The limits of all policies in one process.

    Callbacks may call back in; they must not raise. Policies are told apart by the model that clients ask for, which is
    unique among all tables.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self._lanes: dict[str, Lane] = {}
        self._rooms: dict[str, Place] = {}
        self.unlimited = Ticket(self, None, None, "", 0)
        self._forget_at = 0.0
        self.refused: Counter[tuple[str, Cause]] = Counter()
        """By the policy's name and what was short."""

    def update(self, policies: Iterable[Policy], now: float) -> None:
        """Take up the policies in force; what one has used stays used, and who waits goes on waiting."""
        found = {policy.model: policy for policy in policies}
        for model in [model for model in self._lanes if model not in found]:
            lane = self._lanes.pop(model)
            for waiting in list(lane.by_age):
                lane.drop(waiting)
                waiting.tell(Refusal(503, "the model is gone; see /v1/models", code="policy_gone", retry_after=1))
        for model, policy in found.items():
            known = self._lanes.get(model)
            if known is None:
                self._lanes[model] = Lane(policy, self._share, now)
            else:
                known.set(policy, self._share, now)
                self._release(known, FOREVER)
                self._pump(known, now)

    def waiting(self) -> dict[str, int]:
        """Return how many wait, for a ticket or for room at a tier, by the policy's name."""
        found: Counter[str] = Counter({lane.name: lane.queue.size for lane in self._lanes.values()})
        for room in self._rooms.values():
            found.update(one.lane.name for one in room.by_age)
        return dict(found)

    def waiting_at(self, tier: str) -> int:
        """Return how many wait for room at a tier, whatever their policy."""
        room = self._rooms.get(tier)
        return room.queue.size if room is not None else 0

    # -- requests -----------------------------------------------------------------------------------------------------

    def enter(
        self, model: str, key: str, client: str, tokens: int, now: float, ready: Ready
    ) -> Ticket | Waiting | Refusal:
        """Return a ticket, a place in the queue, or why there is neither.

        `ready` is called once and only for a place in the queue, never from inside this call. Turns are taken by key,
        or by client where there are no keys. Without keys the limits for each key hold for all clients together.
        """
        lane = self._lanes.get(model)
        if lane is None or lane.free:
            return self.unlimited
        ticket = Ticket(self, lane, lane.key_meter(key, self._share, now), key, tokens)
        flow = key or client
        queue = lane.queue
        if not (queue.size and (queue.moving or queue.depth(flow))) and _short(lane, ticket, now) is None:
            ticket.take(now)
            return ticket
        return self._line_up(lane, ticket, flow, now, ready)

    def _line_up(self, lane: Lane, ticket: Ticket, flow: str, now: float, ready: Ready) -> Waiting | Refusal:
        most, seconds = lane.bounds(ticket.key_meter)
        depth = lane.queue.depth(flow)
        cause, wait = lane.wait(ticket, depth, now)
        if wait > seconds or not most:
            return self._refuse(lane, cause, wait)
        if depth >= most or not self._room_for_one(lane, lane, depth, now):
            return self._refuse(lane, "QueueFull", wait)
        waiting = Waiting(lane, lane, flow, ticket, now + seconds, ready)
        lane.add(waiting)
        if not depth:
            self._blocked(lane, waiting, now)
        return waiting

    def _room_for_one(self, place: Place, lane: Lane, depth: int, now: float) -> bool:
        """Whether one more may wait; a full queue must not be one client's alone, so the longest line gives way."""
        if place.queue.size < lane.limits.queue:
            return True
        victim = place.victim(depth)
        if victim is not None:
            victim.tell(self._refuse(victim.lane, "QueueFull", victim.lane.wait(victim.ticket, 0, now)[1]))
        return victim is not None

    def _refuse(self, lane: Lane, cause: Cause, wait: float) -> Refusal:
        self.refused[lane.name, cause] += 1
        seconds = min(wait, LONGEST)
        return Refusal(
            429,
            f"the policy {lane.name} {_WORDS[cause]}; ask again in {max(1, ceil(seconds))} s",
            code="rate_limit_exceeded" if cause in ("Requests", "Tokens") else "overloaded",
            retry_after=seconds,
        )

    # -- turns --------------------------------------------------------------------------------------------------------

    def _blocked(self, lane: Lane, waiting: Waiting, now: float) -> bool:
        """Whether limits hold back whose turn it is; then sees to it that they are looked at when that may change."""
        short = _short(lane, waiting.ticket, now)
        if short is None:
            return False
        whole, seconds = short
        if whole:
            lane.wake_at = min(lane.wake_at, now + seconds)
        else:
            lane.queue.hold(waiting.flow)
            lane.wakes[waiting.flow] = now + seconds
        return True

    def _pump(self, lane: Lane, now: float) -> None:
        """Admit who may go, in turn."""
        if lane.pumping:
            return  # whoever pumps goes on after this call
        lane.pumping = True
        lane.wake_at = FOREVER
        try:
            while (turn := lane.queue.first()) is not None:
                flow, waiting = turn
                if not self._blocked(lane, waiting, now):
                    lane.queue.turn(flow)
                    lane.drop(waiting)
                    waiting.ticket.take(now)
                    waiting.tell(waiting.ticket)
                elif lane.queue.first() == turn:
                    break  # not its key's but the policy's own limit: nobody can go
        finally:
            lane.pumping = False

    def _release(self, lane: Lane, until: float) -> bool:
        """Let flows take turns again whose time has come."""
        due = [flow for flow, at in lane.wakes.items() if at <= until]
        for flow in due:
            del lane.wakes[flow]
            lane.queue.release(flow)
        return bool(due)

    def left(self, lane: Lane, key: str, now: float) -> None:
        """Let others go in the place of a request that has ended."""
        if not lane.queue.size:
            return
        if lane.wakes.pop(key, None) is not None:
            lane.queue.release(key)
        self._pump(lane, now)

    # -- room at a tier -----------------------------------------------------------------------------------------------

    def park(self, ticket: Ticket, model: str, client: str, tier: str, now: float, ready: Ready) -> Waiting | Refusal:
        """Let a request that has its ticket wait until an address of its tier has room.

        `ready(ticket)` means try again, and returns whether an address took it: False leaves it first in line. It may
        be called many times; a Refusal is the last. The policy's `queue` and `queueMs` hold here too.
        """
        lane = self._lanes.get(model)
        if lane is None:
            return Refusal(503, "no tier takes requests now; try again", code="no_tier_ready", retry_after=1)
        room = self._rooms.get(tier)
        if room is None:
            room = self._rooms[tier] = Place()
        flow = f"{model} {ticket.key or client}"
        depth = room.queue.depth(flow)
        if not lane.limits.queue or not self._room_for_one(room, lane, depth, now):
            return self._refuse(lane, "QueueFull", 1.0)
        waiting = Waiting(room, lane, flow, ticket, now + lane.limits.queue_ms / 1000, ready)
        room.add(waiting)
        return waiting

    def freed(self, tier: str) -> None:
        """Let who waits for a tier try again, in turn, until one finds no room."""
        room = self._rooms.get(tier)
        if room is None or room.pumping:
            return
        room.pumping = True
        try:
            while (turn := room.queue.first()) is not None:
                flow, waiting = turn
                if waiting.ready is not None and not waiting.ready(waiting.ticket):
                    break
                room.queue.turn(flow)
                room.drop(waiting)
        finally:
            room.pumping = False

    # -- time ---------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Refuse who has waited long enough, and admit who may go by now; call it every 50 ms or so."""
        for lane in list(self._lanes.values()):
            if lane.queue.size:
                self._expire(lane, now)
                if self._release(lane, now) or now >= lane.wake_at:
                    self._pump(lane, now)
        for tier, room in list(self._rooms.items()):
            self._expire(room, now)
            self.freed(tier)  # addresses come and get well without anybody's saying so
            if not room.queue.size:
                del self._rooms[tier]
        if now >= self._forget_at:
            self._forget_at = now + FORGET
            for lane in self._lanes.values():
                lane.forget(now)

    def _expire(self, place: Place, now: float) -> None:
        for waiting in place.expired(now):
            lane = waiting.lane
            waiting.tell(self._refuse(lane, "QueueTimeout", lane.wait(waiting.ticket, 0, now)[1]))


def _short(lane: Lane, ticket: Ticket, now: float) -> tuple[bool, float] | None:
    """Return what holds a request back now: whether it holds back all others too, and for how many seconds."""
    short = lane.meter.blocked(ticket.tokens, now)
    if short is not None:
        return True, short[1]
    if ticket.key_meter is None or (short := ticket.key_meter.blocked(ticket.tokens, now)) is None:
        return None
    return not ticket.key, short[1]  # without keys all clients have this one in common


def _limits(limits: Limits) -> bool:
    return not (limits.requests_per_minute is limits.tokens_per_minute is limits.concurrency is None)
