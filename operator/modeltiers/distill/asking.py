"""Asks a model many requests at once: what the ledger has is not asked, what comes is in it before it counts.

It ends when every request has its end, or with a fault: then nothing more is sent, replies under way are waited for and
kept, and the fault is raised.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from modeltiers.distill.client import Asked, Client
from modeltiers.distill.faults import BadData, BudgetExhausted, StageFault, TryAgain
from modeltiers.distill.ledger import Ledger, Served
from modeltiers.domain.distill.patience import Patience
from modeltiers.domain.distill.replies import Answer, Call, Failure, Kind
from modeltiers.domain.distill.requests import Request
from modeltiers.domain.distill.spend import Purse, Tokens, Verdict, cost_micros

log = logging.getLogger(__name__)

GRACE: Final = 20.0
"""Seconds that replies under way are waited for when the program is asked to end; without that, until they come."""
QUIET: Final = 10.0
"""Seconds between two lines in the log about failed tries."""
POLL: Final = 0.1
"""Seconds between two looks at whether to stop."""


@dataclass
class Asking:
    """Requests to one server, so many at once."""

    client: Client
    ledger: Ledger
    purse: Purse
    patience: Patience
    stopped: Callable[[], bool]
    told: Callable[[], None] = lambda: None
    """Called a few times a second, to tell progress."""
    grace: float = GRACE
    done: int = 0
    """Requests that have their end, those found in the ledger included."""
    _answered: int = 0
    _under_way: set[str] = field(default_factory=set)
    _served: Served | None = None
    """Who answered first, in this program or before."""
    _held: list[tuple[str, Failure]] = field(default_factory=list)
    """Refusals that are not believed yet: no request was answered so far."""
    _quiet_until: float = 0.0
    _fault: Exception | None = None
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def all(self, requests: Iterable[Request]) -> None:
        """Ask all of them; raises what kept it from that, with all that came kept in the ledger."""
        self._served = self.ledger.served
        async with self.client.opened(), self.ledger.writing():
            waiting = iter(requests)
            workers = [asyncio.create_task(self._work(waiting)) for _ in range(self.client.concurrency)]
            await self._watch(workers)
            if self._fault is None and self._held:
                self._end(self._none_answered())
        self.told()
        if self._fault is not None:
            raise self._fault

    async def _watch(self, workers: list[asyncio.Task[None]]) -> None:
        left, ended = set(workers), 0.0
        while left:
            _, left = await asyncio.wait(left, timeout=POLL)
            self.told()
            if self.stopped():
                self._end(TryAgain("interrupted: every answer that came is kept", reason="Interrupted"))
                ended = ended or time.monotonic()
                if time.monotonic() - ended > self.grace:
                    for worker in left:
                        worker.cancel()

    async def _work(self, waiting: Iterator[Request]) -> None:
        try:
            for request in waiting:  # shared by all workers: each takes the next
                if self._fault is not None:
                    return
                if not self.ledger.known(request.key) and request.key not in self._under_way:
                    self._under_way.add(request.key)
                    await self._one(request)
                    self._under_way.discard(request.key)
                self.done += 1
        except Exception as fault:  # the first is raised at the end, when the others have ended
            self._end(fault)

    def _end(self, fault: Exception) -> None:
        self._fault = self._fault or fault
        self._ending.set()
        self._room.set()

    async def _one(self, request: Request) -> None:
        if not await self._may_send(request):
            return
        most, took = self.purse.reserve(request.prompt_bytes), Tokens()
        try:
            await self.ledger.intent(request.key, most)
            got = await self._tries(request, most)
            if isinstance(got, Answer):
                took = _took(got, most)
                await self._take(request, got, took)
            else:
                await self._leave(request, got)
        finally:
            self.purse.settle(most, took)
            self._free()

    async def _may_send(self, request: Request) -> bool:
        """Wait until the request fits the budget; False when everything ends meanwhile."""
        while self._fault is None:
            match self.purse.verdict(request.prompt_bytes):
                case Verdict.GO:
                    return True
                case Verdict.STOP:
                    raise self._exhausted(request)
                case Verdict.WAIT:
                    await self._room.wait()
        return False

    def _free(self) -> None:
        self._room.set()
        if self._fault is None:
            self._room.clear()

    async def _tries(self, request: Request, most: Tokens) -> Answer | Failure:
        """Ask until there is an answer, or no more sense in asking."""
        waited, before, tries = 0.0, self._answered, 0
        while True:
            tries += 1
            got = await self.client.ask(request.body)
            if isinstance(got, Answer):
                return got
            if got.paid:
                await self.ledger.doubted(request.key, most, got.why)
                self.purse.spent += most
                if not self.purse.cap.holds(self.purse.spent + self.purse.aside):
                    await self.ledger.drop(request.key)
                    raise self._exhausted(request)
            if got.call is not Call.AGAIN:
                return got
            wait = self.patience.wait(got, tries, waited, random.random())  # noqa: S311 - jitter is no secret
            if wait is None:
                blamed = self.patience.blames_row(got, self._answered - before)
                call = Call.DROP if blamed else Call.STOP
                return Failure(call, got.kind, f"{got.said}, {tries} times")
            self._say(got, wait)
            waited += wait
            if not await self._sleep(wait):
                return got

    def _say(self, failure: Failure, wait: float) -> None:
        """Log what keeps us waiting, now and then."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.info("%s: %s; asked again in %.1f s", self.client.asked.who, failure.why, wait)

    async def _sleep(self, seconds: float) -> bool:
        """Wait; False when everything ends meanwhile."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return self._fault is None
        return False

    async def _take(self, request: Request, answer: Answer, took: Tokens) -> None:
        self._served = self._served or Served(answer.model, answer.fingerprint)
        if self._differs(self._served, answer):
            await self.ledger.answered(request.key, answer, took, other=True)
            raise self._changed(self._served, answer)
        await self.ledger.answered(request.key, answer, took)
        self._answered += 1
        if answer.usage is not None:
            self.purse.learn(request.prompt_bytes, took)
        held, self._held = self._held, []
        for key, failure in held:  # the server answers, so what it refused was the rows' own fault
            await self.ledger.refuse(key, failure.why)

    async def _leave(self, request: Request, failure: Failure) -> None:
        if failure.call is Call.DROP and self._served is not None:
            await self.ledger.refuse(request.key, failure.why)
            return
        await self.ledger.drop(request.key)
        if failure.call is Call.STOP:
            raise stopped_by(self.client.asked, failure)
        if failure.call is Call.DROP:
            self._held.append((request.key, failure))
            first = self._held[: self.patience.alike]
            if len(first) == self.patience.alike and len({failure.likeness for _, failure in first}) == 1:
                raise self._none_answered()

    def _none_answered(self) -> StageFault:
        asked, why = self.client.asked, self._held[0][1].why
        return BadData(
            f"{asked.who} answered none of {len(self._held)} requests. It said: {why}. Look at {asked.field} and"
            f" {asked.settings}",
            reason="NothingAnswered",
            field=asked.field,
        )

    def _differs(self, served: Served, answer: Answer) -> bool:
        if answer.model != served.model:
            return True
        return self.client.asked.fingerprinted and answer.fingerprint != served.fingerprint

    def _changed(self, served: Served, answer: Answer) -> StageFault:
        then, now = f"{served.model} {served.fingerprint or ''}".strip(), f"{answer.model} {answer.fingerprint or ''}"
        asked = self.client.asked
        return BadData(
            f"{asked.who} changed: it was {then} and is {now.strip()} now. Answers of two models are not mixed: put the"
            f" first one back, or delete {self.ledger.folder.path} in the store to ask everything anew",
            reason=f"{asked.role}Changed",
            field=asked.field,
        )

    def _exhausted(self, request: Request) -> StageFault:
        purse = self.purse
        cap, most = purse.cap, purse.most(request.prompt_bytes)
        if cap.tokens is not None and cap.other_tokens + (purse.spent + most).total > cap.tokens:
            name, limit, next_one = "teacherTokens", cap.tokens, most.total
            spent = cap.other_tokens + purse.spent.total
        else:
            assert cap.price is not None
            assert cap.cost_micros is not None
            spent, next_one = cap.cost(purse.spent), cost_micros(most, cap.price)
            name, limit = "costMicros", cap.cost_micros
        return BudgetExhausted(
            f"spec.budget.{name} is {limit}: {spent} are spent or in doubt, and the next request may take {next_one}."
            " Raise it, and the job goes on where it stopped",
            field=f"spec.budget.{name}",
        )


def stopped_by(asked: Asked, failure: Failure) -> StageFault:
    """The fault that ends a stage whose server fails in such a way."""
    where, why = asked.field, failure.why
    match failure.kind:
        case Kind.KEY:
            where, way = asked.key_field, f"look at the Secret that {asked.key_field} names"
            return BadData(f"{asked.who}: {why}: {way}", reason="KeyRefused", field=where)
        case Kind.MODEL:
            way = f"has it the model {asked.target.model}, and is {asked.target.base_url} right? Look at {where}"
            return BadData(f"{asked.who}: {why}: {way}", reason="ModelUnknown", field=where)
        case Kind.MOVED:
            way = f"redirects are not followed: write the final address in {where}"
            return BadData(f"{asked.who}: {why}: {way}", reason=f"{asked.role}Moved", field=where)
        case Kind.QUOTA:
            return BadData(f"{asked.who}: {why}: raise the account's limit", reason="AccountExhausted", field=where)
        case Kind.UNTRUSTED:
            return BadData(f"{asked.who}: {why}: look at {where}", reason="CertificateUntrusted", field=where)
        case _:
            return TryAgain(f"{asked.who} at {asked.target.base_url}: {why}", reason=f"{asked.role}Unavailable")


def _took(answer: Answer, most: Tokens) -> Tokens:
    """What a reply took; where the server does not say, the most that it can have."""
    if answer.usage is not None:
        return Tokens(*answer.usage)
    return most
