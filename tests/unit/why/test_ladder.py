"""Rows of the ladder: what status says, and `-` for what nobody measured."""

from __future__ import annotations

from modeltiers.domain.why.ladder import COLUMNS, as_data, rows
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER
from tests.unit.why.world import condition, job, policy, served, world


def test_a_tier_with_a_price_and_one_that_nobody_has_seen() -> None:
    known = served("small")
    known["spec"] = {"rank": 20}
    known["status"] |= {
        "ready": "2/2",
        "replicas": 2,
        "model": "hf://a/b",
        "sizing": {"gpusPerReplica": 4, "product": "H100", "maxModelLen": 32768},
        "cost": {"perHourMicros": 23_600_000, "currency": "USD"},
    }
    new = served("large")
    new["status"], new["spec"] = {}, {"rank": 10, "model": {"source": "hf://c/d"}}
    told = as_data(world(known, new), TIER)
    assert [one["tier"] for one in told] == ["large", "small"]
    assert told[0] | {"status": "NotSeenYet", "gpus": None, "costPerh": None, "model": "hf://c/d"} == told[0]
    assert (told[1]["gpus"], told[1]["costPerh"], told[1]["status"]) == ("8", "23.60 USD", "Serving")


def test_a_policy_with_traffic_and_one_without() -> None:
    busy = policy(condition("Ready", "True", "Serving"))
    busy["status"] |= {
        "live": "3/3",
        "escalated": "12.5%",
        "entry": {"tier": "small"},
        "traffic": {"requests": 900, "shares": [{"name": "small", "permille": 875}]},
        "cost": {"savedPermille": 412},
    }
    told = as_data(world(busy, policy(name="idle")), POLICY)
    assert (told[1]["saved"], told[1]["requests"], told[1]["shares"]) == ("41.2%", "900", "small 87.5%")
    assert (told[0]["saved"], told[0]["requests"], told[0]["entry"]) == (None, None, None)


def test_a_job_under_way_stalled_and_over() -> None:
    way = (condition("Complete", "False", "InProgress"), condition("Ready", "Unknown", "InProgress"))
    running = job(*way, condition("Reconciling", "True", "StageRunning"), stage="Train", progress="10/100 steps")
    stuck = job(*way, condition("Stalled", "True", "BadData"))
    over = job(condition("Complete", "True", "Promoted"), gate={"differencePermille": 5, "lowerPermille": -12})
    words = [as_data(world(body), JOB)[0] for body in (running, stuck, over)]
    assert [one["status"] for one in words] == ["StageRunning", "BadData", "Promoted"]
    assert words[0]["progress"] == "10/100 steps"
    assert words[2]["gate"] == "+0.5 points (at least -1.2 points)"


def test_a_row_for_every_column() -> None:
    for kind, body in ((TIER, served("x")), (POLICY, policy()), (JOB, job())):
        assert {len(row) for row in rows(world(body), kind)} == {len(COLUMNS[kind])}
