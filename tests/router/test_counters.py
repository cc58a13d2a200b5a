"""What a router says it counted: once where it was decided, and the same as its decision records add up to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from modeltiers.domain.routing.record import decode
from modeltiers.domain.routing.tally import Tally
from tests.router.kit.client import chat
from tests.router.kit.router import Router, spooled, table
from tests.router.kit.setup import NEVER_OPENS, ladder
from tests.router.kit.upstream import Upstream, answer, fails

SURE, UNSURE = -0.05, -5.0
CASCADE = {
    "mode": "Cascade",
    "accept": {"confidence": {}},
    "escalation": {"maxSharePermille": 1000},
    "fallback": {"on": ["Connect", "Timeout", "500"]},
}


def counters(router: Router) -> list[dict[str, Any]]:
    """What the router says it counted, once nothing is in flight."""
    return list(router.until(lambda status: not status["inFlight"])["counters"])


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """The sums of an entry alone."""
    return {key: value for key, value in entry.items() if key not in ("policy", "start", "seconds")}


def recounted(spools: Iterable[Path]) -> dict[str, Any]:
    """The sums over all records of some spools."""
    tally = Tally()
    for spool in spools:
        for line in spooled(spool):
            tally.count(decode(line))
    return dict(msgspec.to_builtins(tally))


def test_every_outcome_is_counted_and_the_records_add_up_to_the_same(tmp_path: Path) -> None:
    flags = ("--spool", str(tmp_path / "spool"))
    with ladder(answer("low"), answer("high"), flags=flags, policy=CASCADE, tier=NEVER_OPENS) as (router, (low, high)):
        low.script = answer("low", logprobs=SURE)
        for _ in range(3):
            chat(router.port)
        low.script = answer("low", logprobs=UNSURE)
        chat(router.port)
        chat(router.port, stream=True)  # given up on the way, once the window is judged
        high.script = fails(500)
        assert chat(router.port).header("x-modeltiers-decision") == "Kept"
        low.script, high.script = fails(500), answer("high")
        assert chat(router.port).header("x-modeltiers-decision") == "Fallback"
        high.script = answer("high", usage=False)
        chat(router.port)
        high.script = fails(500)
        assert chat(router.port).status == 500
        (entry,) = counters(router)
        assert entry["policy"] == "support"
        assert len(entry["start"]) == 16
        assert 0 < entry["seconds"] < 60
        said = told(entry)
        assert said["answered"] == {"t0": 4, "t1": 4}
        assert (said["judged"], said["escalated"]) == (6, {"BelowThreshold": 3})
        assert said["fallbacks"] == 3  # the one that was kept, since the tier above it failed, is among them
        assert said["unmetered"] == 1
        assert said["tokens"]["t0"]["answerPrompt"] == 4 * 5
        assert said["tokens"]["t0"]["prompt"] > said["tokens"]["t0"]["answerPrompt"]
        assert said["tokens"]["t1"]["prompt"] == said["tokens"]["t1"]["answerPrompt"] == 3 * 5
        router.terminate()
        router.ended()
        assert recounted([tmp_path / "spool"]) == said


def test_a_forwarded_request_is_counted_where_it_was_decided_alone(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 40)
    with ExitStack() as stack:
        near, far = stack.enter_context(Upstream()), stack.enter_context(Upstream())
        near.script, far.script = answer("near", logprobs=UNSURE), answer("far", logprobs=SURE)
        there = table(near.port, far.port, policy=CASCADE, tiers={1: {"local": True}})
        back = stack.enter_context(Router(there, "--hop-key", str(key)))
        here = table(near.port, back.port, policy=CASCADE, tiers={0: {"local": True}, 1: {"hop": True}})
        front = stack.enter_context(Router(here, "--hop-key", str(key)))
        assert chat(front.port).header("x-modeltiers-tier") == "t1"
        (decided,), (served,) = counters(front), counters(back)
        assert decided["answered"] == {"t1": 1}
        assert decided["tokens"]["t1"]["prompt"] == 5
        assert told(served) == recounted([])


def test_a_new_table_goes_on_counting_and_a_new_policy_begins_anew() -> None:
    with ladder(answer("low"), answer("high")) as (router, tiers):
        chat(router.port)
        (first,) = counters(router)
        ports = [tier.port for tier in tiers]
        router.reload(table(*ports, policy={"access": {"mode": "Open"}, "session": {"ttlSeconds": 60}}))
        router.until(lambda status: status["tables"]["table.json"]["version"] != "")
        chat(router.port)
        (second,) = counters(router)
        assert second["start"] == first["start"]
        assert second["answered"] == {"t0": 2}
        router.reload(table(*ports, policy={"name": "other"}))
        router.until(lambda status: status["counters"][0]["policy"] == "other")
        (third,) = counters(router)
        assert third["start"] != first["start"]
        assert third["answered"] == {}


def test_processes_are_told_apart_and_one_that_died_begins_at_zero() -> None:
    with ladder(answer("low"), answer("high"), flags=("--processes", "2")) as (router, _):
        for _ in range(40):
            chat(router.port)
        before = counters(router)
        assert len({entry["start"] for entry in before}) == 2
        assert sum(entry["answered"].get("t0", 0) for entry in before) == 40
        status = router.status()
        assert list(status["tables"]) == ["table.json"]
        assert status["refusedTables"] == {}
        children = [int(pid) for pid in Path(f"/proc/{router.pid}/task/{router.pid}/children").read_text().split()]
        os.kill(children[0], signal.SIGKILL)
        known = {entry["start"] for entry in before}
        router.until(lambda status: len(known & {entry["start"] for entry in status["counters"]}) == 1)
        after = router.until(lambda status: len(status["counters"]) == 2)["counters"]
        (fresh,) = [entry for entry in after if entry["start"] not in known]
        assert fresh["answered"] == {}
