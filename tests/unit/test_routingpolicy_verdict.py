"""Conditions and status of a policy, over its life and over any sequence of facts."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.api.routingpolicy import Access, RoutingPolicySpec
from modeltiers.api.routingpolicy_status import RoutingPolicyStatus
from modeltiers.domain import kstatus
from modeltiers.domain.entry import Entry
from modeltiers.domain.export import no_api
from modeltiers.domain.facts import ApplyError
from modeltiers.domain.policy_keys import Keys
from modeltiers.domain.policy_reasons import ORDER, QUESTIONS, REASONS
from modeltiers.domain.policy_table import CompiledTable, Doubt, Fault
from modeltiers.domain.policy_verdict import (
    ASK_AGAIN,
    LOOK_AGAIN,
    PolicyFacts,
    RouterFacts,
    Standing,
    TierFacts,
    Verdict,
    cycle,
    judge,
    oldest,
    status_of,
)

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
TABLE = CompiledTable("support", "abc123", "{}\n", {})
SMALL, LARGE = TierFacts("small", Standing.READY), TierFacts("large", Standing.READY)
KEYS = Keys(known=2, missing=(), signs=True)
THERE = (RouterFacts("small-1", version="abc123", keys=KEYS), RouterFacts("large-1", version="abc123", keys=KEYS))
HERE = Entry("small", "FirstTier", "requests enter at small, the first tier that has routers")
FACTS = PolicyFacts(
    namespace="demo",
    name="support",
    generation=1,
    model="support",
    tiers=(SMALL, LARGE),
    table=TABLE,
    routers=THERE,
    entry=HERE,
)
SPEC = RoutingPolicySpec.model_validate({"model": "support", "tiers": [{"name": "small"}, {"name": "large"}]})


def with_(**changes: Any) -> PolicyFacts:
    return dataclasses.replace(FACTS, **changes)


def tiers(small: Standing, large: Standing = Standing.READY, message: str = "") -> tuple[TierFacts, ...]:
    return TierFacts("small", small, message), TierFacts("large", large)


def summary(verdict: Verdict) -> dict[str, str]:
    return {item["type"]: f"{item['status']}/{item['reason']}" for item in verdict.conditions}


def message(verdict: Verdict, kind: str = "Ready") -> str:
    return next(str(item["message"]) for item in verdict.conditions if item["type"] == kind)


def told(facts: PolicyFacts, verdict: Verdict) -> kstatus.Status:
    metadata = {"generation": facts.generation} | ({"deletionTimestamp": "x"} if facts.deleting else {})
    status = {"observedGeneration": facts.generation, "conditions": verdict.conditions}
    return kstatus.compute({"metadata": metadata, "status": status}).status


def test_a_policy_that_serves() -> None:
    """All conditions; said again, it is the same list, and no clock is needed."""
    first = judge(FACTS, [], NOW)
    assert summary(first) == {
        "Accepted": "True/Valid",
        "Compiled": "True/Compiled",
        "TiersReady": "True/AllReady",
        "Live": "True/LiveEverywhere",
        "KeysFound": "True/AllFound",
        "Entry": "True/FirstTier",
        "Ready": "True/Serving",
        "Reconciling": "False/Settled",
        "Stalled": "False/NotStalled",
        "Doubtful": "False/NothingDoubtful",
    }
    assert first.wait is None
    assert told(FACTS, first) == "Current"
    assert "table abc123 is live in 2 of 2 routers" in message(first)
    assert judge(FACTS, first.conditions, NOW + timedelta(days=1)) == first


@pytest.mark.parametrize(
    ("changes", "condition", "reason", "words"),
    [
        (
            {"fault": (("spec.mode", "should be 'Upfront'"),), "table": None},
            "Accepted",
            "InvalidSpec",
            "spec.mode: should be",
        ),
        ({"fault": (), "table": None}, "Accepted", "InvalidSpec", "apply a valid one"),
        ({"older": "first", "table": None}, "Accepted", "ModelNameTaken", "the older policy first has the model name"),
        (
            {"cycle": ("support", "b", "support"), "table": None},
            "Accepted",
            "LadderInCircle",
            "support > b > support; take",
        ),
        (
            {
                "faults": (Fault("TierNotFound", "spec.tiers[1]", "there is no ModelTier large; create it"),),
                "table": None,
            },
            "Compiled",
            "TierNotFound",
            "spec.tiers[1]: there is no ModelTier large; create it",
        ),
        (
            {"faults": (Fault("TableTooLarge", "spec.classify[3]", "shorten it"),), "table": None},
            "Compiled",
            "TableTooLarge",
            "spec.classify[3]",
        ),
    ],
)
def test_what_cannot_be_served(changes: dict[str, Any], condition: str, reason: str, words: str) -> None:
    """Stalled with the field and the way out, while the last good table goes on serving."""
    verdict = judge(with_(last_good="old999", **changes), [], NOW)
    said = summary(verdict)
    assert said[condition] == f"False/{reason}"
    assert (said["Ready"], said["Stalled"]) == (f"False/{reason}", f"True/{reason}")
    assert words in message(verdict)
    assert "The last good table old999 goes on serving" in message(verdict)
    assert "old999" in message(verdict, "Live")
    assert told(FACTS, verdict) == "Failed"
    without = judge(with_(**changes), [], NOW)
    assert "last good" not in message(without)


class TestTiers:
    """Tiers that do not answer."""

    def test_one_on_the_way(self) -> None:
        """The policy is on the way too, and says who answers meanwhile."""
        verdict = judge(with_(tiers=tiers(Standing.PROGRESSING, message="0 of 1 pod ready")), [], NOW)
        assert summary(verdict)["Ready"] == "Unknown/TierNotReady"
        assert summary(verdict)["Reconciling"] == "True/TierNotReady"
        assert message(verdict) == "ModelTier small is not ready yet: 0 of 1 pod ready. Meanwhile large answers"

    @pytest.mark.parametrize(
        ("standing", "reason"), [(Standing.STALLED, "TierStalled"), (Standing.DELETING, "TierDeleting")]
    )
    def test_one_that_will_not_come(self, standing: Standing, reason: str) -> None:
        """The policy is Stalled: it serves, and not as it is meant to."""
        verdict = judge(with_(tiers=tiers(Standing.READY, standing)), [], NOW)
        assert summary(verdict)["TiersReady"] == f"False/{reason}"
        assert summary(verdict)["Stalled"] == f"True/{reason}"
        assert "Meanwhile small answers" in message(verdict)

    def test_a_deleted_one_is_never_silent(self) -> None:
        """It is on three conditions, and what serves is named."""
        gone = Fault("TierNotFound", "spec.tiers[1]", "there is no ModelTier large in this namespace; create it")
        facts = with_(tiers=tiers(Standing.READY, Standing.MISSING), faults=(gone,), table=None, last_good="abc123")
        verdict = judge(facts, [], NOW)
        said = summary(verdict)
        assert (said["TiersReady"], said["Compiled"], said["Ready"]) == ("False/TierNotFound",) * 3
        assert "The last good table abc123 goes on serving" in message(verdict)

    def test_one_that_may_be_on_its_way(self) -> None:
        """Nothing is wrong yet with a policy that was applied a moment before its tiers; with another fault it is."""
        gone = Fault("TierNotFound", "spec.tiers[1]", "there is no ModelTier large in this namespace; create it")
        wrong = Fault("InvalidPolicy", "spec.accept", "contradicts itself")
        facts = with_(faults=(gone,), table=None, arriving=timedelta(seconds=7))
        verdict = judge(facts, [], NOW)
        said = summary(verdict)
        assert (said["Ready"], said["Reconciling"]) == ("Unknown/TierNotFound", "True/TierNotFound")
        assert (told(facts, verdict), verdict.wait) == ("InProgress", timedelta(seconds=7))
        for worse in ({"faults": (gone, wrong)}, {"arriving": None}, {"older": "first"}):
            assert summary(judge(dataclasses.replace(facts, **worse), [], NOW))["Stalled"].startswith("True/")

    def test_one_asleep_is_as_wanted(self) -> None:
        """Scaled to zero by its spec: the policy is Ready past it."""
        verdict = judge(with_(tiers=tiers(Standing.ASLEEP)), [], NOW)
        assert summary(verdict)["TiersReady"] == "True/SomeAsleep"
        assert summary(verdict)["Ready"] == "True/Serving"
        assert "small is scaled to zero; requests go past it" in message(verdict)

    def test_none_at_all(self) -> None:
        """On the way while one is coming, else Stalled."""
        coming = judge(with_(tiers=tiers(Standing.PROGRESSING, Standing.ASLEEP), routers=()), [], NOW)
        assert summary(coming)["Ready"] == "Unknown/NoTierReady"
        asleep = judge(with_(tiers=tiers(Standing.ASLEEP, Standing.ASLEEP), routers=()), [], NOW)
        assert summary(asleep)["Ready"] == "False/NoTierReady"
        assert summary(asleep)["Stalled"] == "True/NoTierReady"


class TestRouters:
    """How far a table has come."""

    def test_on_its_way(self) -> None:
        """Asked again soon."""
        old = dataclasses.replace(THERE[1], version="old999")
        verdict = judge(with_(routers=(THERE[0], old)), [], NOW)
        assert summary(verdict)["Live"] == "False/Spreading"
        assert summary(verdict)["Reconciling"] == "True/Spreading"
        assert verdict.wait == ASK_AGAIN
        assert "live in 1 of 2 routers" in message(verdict)

    def test_some_cannot_be_asked(self) -> None:
        """The fact is Unknown; the policy is Ready by those that can."""
        deaf = dataclasses.replace(THERE[1], reached=False)  # what it said last counts no more
        verdict = judge(with_(routers=(THERE[0], deaf)), [], NOW)
        assert summary(verdict)["Live"] == "Unknown/RoutersUnreachable"
        assert summary(verdict)["Ready"] == "True/Serving"
        assert (verdict.wait, told(FACTS, verdict)) == (LOOK_AGAIN, "Current")
        assert "live in 1 of 2 routers; 1 cannot be asked" in message(verdict)

    def test_none_can_be_asked(self) -> None:
        """Unknown, and nobody's progress."""
        deaf = tuple(dataclasses.replace(one, reached=False, version=None) for one in THERE)
        verdict = judge(with_(routers=deaf), [], NOW)
        assert summary(verdict)["Ready"] == "Unknown/RoutersUnreachable"
        assert summary(verdict)["Reconciling"] == "False/Settled"
        assert message(verdict, "Reconciling") == "see the condition Ready"

    def test_one_refuses(self) -> None:
        """An older router may not know a field; its words are quoted."""
        refusing = dataclasses.replace(THERE[1], version="old999", refused="$.policies[0]: unknown field `new`")
        verdict = judge(with_(routers=(THERE[0], refusing), last_good="old999"), [], NOW)
        assert summary(verdict)["Stalled"] == "True/TableRefused"
        assert "pod demo/large-1 refuses it: “$.policies[0]: unknown field `new`”" in message(verdict)

    def test_what_a_router_refused_before_is_past(self) -> None:
        """It serves the present table."""
        healed = dataclasses.replace(THERE[1], refused="an earlier one")
        assert summary(judge(with_(routers=(THERE[0], healed)), [], NOW))["Live"] == "True/LiveEverywhere"

    def test_none_is_there(self) -> None:
        """Nothing is known, and the policy is not Ready."""
        verdict = judge(with_(routers=()), [], NOW)
        assert summary(verdict)["Live"] == "Unknown/NoRouters"
        assert summary(verdict)["Ready"] == "Unknown/NoRouters"


class TestWrites:
    """Children that could not be written."""

    def test_for_a_moment(self) -> None:
        """It is tried again."""
        verdict = judge(with_(apply_error=ApplyError("ConfigMap", "small-table", 503, "", "try again later")), [], NOW)
        assert summary(verdict)["Reconciling"] == "True/ApiUnavailable"
        assert summary(verdict)["Ready"] == "Unknown/ApiUnavailable"
        assert message(verdict).endswith("“try again later”. It is tried again")

    @pytest.mark.parametrize("error", [(403, "Forbidden"), (0, "NameConflict"), (422, "")])
    def test_for_good(self, error: tuple[int, str]) -> None:
        """A person must do something."""
        code, reason = error
        verdict = judge(with_(apply_error=ApplyError("Service", "support-policy", code, reason, "no")), [], NOW)
        assert summary(verdict)["Stalled"] == "True/NotWritten"
        assert message(verdict).startswith("Service demo/support-policy could not be written: “no”.")


def test_doubts_change_nothing_about_ready() -> None:
    """They are a condition of their own, and listed in status."""
    doubt = Doubt("spec.classify[1]", "is never reached; move it before that one")
    facts = with_(table=dataclasses.replace(TABLE, doubts=(doubt,) * 30))
    verdict = judge(facts, [], NOW)
    assert summary(verdict)["Doubtful"] == "True/DoubtsFound"
    assert summary(verdict)["Ready"] == "True/Serving"
    assert message(verdict, "Doubtful").endswith("; and 27 more")
    status = status_of(facts, SPEC, verdict.conditions)
    assert status["doubts"] == ["spec.classify[1]: is never reached; move it before that one"] * 20


def test_deleting() -> None:
    """Whatever else is wrong."""
    facts = with_(deleting=True, fault=(("spec", "x"),))
    verdict = judge(facts, [], NOW)
    assert summary(verdict)["Ready"] == "Unknown/Terminating"
    assert told(facts, verdict) == "Terminating"


def test_not_compiled_yet() -> None:
    """On the way."""
    assert summary(judge(with_(table=None), [], NOW))["Ready"] == "Unknown/NotCompiled"
    assert summary(judge(with_(tiers=()), [], NOW))["Ready"] == "Unknown/TiersNotKnown"


class TestBetweenPolicies:
    """What one policy is to another."""

    def test_the_oldest_keeps_the_name(self) -> None:
        """By creation, then by name."""
        assert oldest([("2026-01-02", "a"), ("2026-01-01", "b"), ("2026-01-01", "c")]) == "b"
        assert oldest([]) is None

    @pytest.mark.parametrize(
        ("leads_to", "expected"),
        [
            ({}, ()),
            ({"x": "a"}, ("a", "a")),
            ({"x": "b", "y": "a"}, ("a", "b", "a")),
            ({"x": "b", "y": "c", "z": "a"}, ("a", "b", "c", "a")),
            ({"x": "b", "y": "b"}, ()),
            ({"x": "b", "y": "c", "z": "b"}, ()),
            ({"x": "gone"}, ()),
        ],
    )
    def test_circles(self, leads_to: dict[str, str], expected: tuple[str, ...]) -> None:
        """A way back to the policy is told; a circle of others is theirs."""
        ladders = {"a": ["small", "x"], "b": ["small", "y"], "c": ["z"]}
        assert cycle("a", ladders, leads_to) == expected


class TestStatus:
    """The whole status."""

    def test_of_a_policy_that_serves(self) -> None:
        """It is valid by our own schema, and has every column."""
        traffic = {
            "since": "2026-01-01T11:00:00Z",
            "until": "2026-01-01T12:00:00Z",
            "requests": 1000,
            "shares": [{"name": "small", "requests": 800, "permille": 800}],
            "escalatedPermille": 123,
        }
        cost = {"formula": "a = b x c", "unknown": "throughput of large: not measured"}
        verdict = judge(FACTS, [], NOW)
        status = status_of(FACTS, SPEC, verdict.conditions, url="http://x/v1", traffic=traffic, cost=cost)
        RoutingPolicyStatus.model_validate(status)
        assert (status["ladder"], status["live"], status["escalated"]) == ("small > large", "2/2", "12.3%")
        assert status["table"] == {"version": "abc123", "live": 2, "pods": 2, "unreachable": 0, "bytes": 3}
        assert (status["url"], status["traffic"], status["cost"]) == ("http://x/v1", traffic, cost)

    def test_nothing_is_guessed(self) -> None:
        """What was not measured is unknown or absent."""
        status = status_of(FACTS, SPEC, judge(FACTS, [], NOW).conditions)
        assert status["escalated"] == "unknown"
        assert not status.keys() & {"traffic", "cost", "lastGood", "url", "doubts"}

    def test_while_the_last_good_table_serves(self) -> None:
        """It is named, and no table is claimed for the present spec."""
        facts = with_(table=None, faults=(Fault("InvalidPolicy", "spec", "x"),), last_good="old999")
        status = status_of(facts, SPEC, judge(facts, [], NOW).conditions)
        RoutingPolicyStatus.model_validate(status)
        assert (status["live"], status["lastGood"]) == ("last good", {"version": "old999"})
        assert "table" not in status

    def test_of_a_spec_that_cannot_be_read(self) -> None:
        """Conditions alone."""
        facts = with_(fault=(("spec.mode", "x"),), table=None)
        assert status_of(facts, None, judge(facts, [], NOW).conditions).keys() == {"observedGeneration", "conditions"}


# --- any facts --------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=30)
FAULTS = st.builds(
    Fault,
    st.sampled_from([one.name for one in REASONS if one.condition == "Compiled" and one.way_out]),
    st.just("spec.tiers"),
    TEXT,
)
ROUTERS = st.builds(
    RouterFacts,
    st.just("p"),
    st.booleans(),
    st.sampled_from([None, "abc123", "old999"]),
    st.sampled_from(["", "no"]),
    st.none() | st.builds(Keys, st.integers(0, 2), st.sampled_from([(), ("batch",)]), st.booleans()),
)
ANY = st.builds(
    PolicyFacts,
    namespace=st.just("demo"),
    name=st.just("support"),
    generation=st.integers(1, 3),
    deleting=st.booleans(),
    fault=st.none() | st.tuples(st.tuples(TEXT, TEXT)),
    older=st.none() | st.just("first"),
    cycle=st.sampled_from([(), ("support", "support")]),
    tiers=st.lists(st.builds(TierFacts, st.just("t"), st.sampled_from(Standing), TEXT), max_size=3).map(tuple),
    faults=st.lists(FAULTS, max_size=5).map(tuple),
    arriving=st.sampled_from([None, timedelta(seconds=3)]),
    table=st.sampled_from([None, TABLE, dataclasses.replace(TABLE, doubts=(Doubt("spec", "x"),))]),
    last_good=st.none() | st.just("old999"),
    apply_error=st.none() | st.builds(ApplyError, st.just("ConfigMap"), st.just("n"), st.sampled_from([0, 403, 503])),
    routers=st.lists(ROUTERS, max_size=3).map(tuple),
    access=st.sampled_from([None, Access(), Access(mode="Keys"), Access(mode="Keys", keys=["batch"])]),
    exported=st.none() | st.just(no_api("HTTPRoute")),
)
DOCUMENTED = {one.name for one in REASONS}


@given(st.lists(ANY, min_size=1, max_size=4))
def test_over_any_life(life: list[PolicyFacts]) -> None:
    """kstatus's contract holds in each state, every reason is documented, and the same again is the same."""
    previous: list[dict[str, Any]] = []
    for step, facts in enumerate(life):
        now = NOW + timedelta(minutes=step)
        verdict = judge(facts, previous, now)
        said = {item["type"]: item for item in verdict.conditions}
        assert list(said) == [kind for kind in ORDER if kind != "Exported" or facts.exported]
        assert {item["reason"] for item in said.values()} <= DOCUMENTED
        assert all(item["observedGeneration"] == facts.generation and item["message"] for item in said.values())
        ready, stalled, moving = (said[kind]["status"] for kind in ("Ready", "Stalled", "Reconciling"))
        assert not stalled == moving == "True"
        assert (ready == "False") == (stalled == "True")
        assert not (ready == "True" and moving == "True")
        if not facts.deleting:
            assert (told(facts, verdict) == "Current") == (ready == "True")
            assert (told(facts, verdict) == "Failed") == (stalled == "True")
        assert judge(facts, verdict.conditions, now + timedelta(hours=1)).conditions == verdict.conditions
        RoutingPolicyStatus.model_validate(status_of(facts, SPEC, verdict.conditions))
        previous = verdict.conditions


def routers_with(*keys: Keys) -> tuple[RouterFacts, ...]:
    return tuple(RouterFacts(f"small-{at}", version="abc123", keys=one) for at, one in enumerate(keys))


@pytest.mark.parametrize(
    ("access", "without", "words"),
    [
        (Access(mode="Keys", keys=["batch"]), Keys(1, ("batch",), signs=True), "spec.access.keys: 1 of 2 routers"),
        (Access(mode="Keys"), Keys(0, (), signs=True, problem="keys.json: gone"), "any key (keys.json: gone)"),
    ],
)
def test_a_missing_key_is_told_with_the_way_out(access: Access, without: Keys, words: str) -> None:
    """Whoever shows it is refused, so the policy is not ready; the Secret may come without any event of ours."""
    verdict = judge(with_(access=access, routers=routers_with(KEYS, without)), [], NOW)
    assert summary(verdict)["KeysFound"] == summary(verdict)["Stalled"].replace("True", "False") == "False/KeyMissing"
    assert words in message(verdict)
    assert "Secret modeltiers-keys" in message(verdict)
    assert verdict.wait == LOOK_AGAIN
    old = (RouterFacts("small-0", version="old999", keys=without),)  # it misses what another table asks for
    assert summary(judge(with_(access=access, routers=old), [], NOW))["KeysFound"] == "Unknown/KeysNotKnown"
    assert summary(judge(with_(routers=routers_with(KEYS, without)), [], NOW))["Ready"] == "True/Serving"  # all may ask


def test_routers_that_cannot_sign_are_no_one_elses_fault() -> None:
    """The operator makes the key; a ladder of one tier forwards nothing."""
    mute = Keys(0, (), signs=False)
    verdict = judge(with_(routers=routers_with(KEYS, mute)), [], NOW)
    assert summary(verdict)["Ready"] == "Unknown/HopKeyMissing"
    assert "1 of 2 routers cannot sign" in message(verdict)
    assert summary(judge(with_(routers=routers_with(mute), tiers=(SMALL,)), [], NOW))["KeysFound"] == "True/AllFound"


def test_what_a_router_says_of_its_keys() -> None:
    """An older router says nothing, which is no fault."""
    said = {"keys": 3, "signs": True, "refusedKeys": None, "policies": {"support": {"missingKeys": ["batch"]}}}
    assert Keys.of(said, "support") == Keys(3, ("batch",), signs=True)
    assert Keys.of(said, "other") is None
    assert Keys.of({"policies": {"support": {}}}, "support") is None


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def test_where_requests_enter() -> None:
    """It has a condition of its own, which changes nothing about Ready; what passes by the clock is waited for."""
    nowhere = judge(with_(entry=None), [], NOW)
    assert summary(nowhere)["Entry"] == "Unknown/NoEntry"
    above = judge(with_(entry=Entry("large", "FirstTierNotReady", "small has no ready pod")), [], NOW)
    assert summary(above)["Entry"] == "False/FirstTierNotReady"
    assert (summary(above)["Ready"], above.wait) == ("True/Serving", None)
    unsteady = Entry("large", "FirstTierUnsteady", "wait", timedelta(seconds=18))
    assert judge(with_(entry=unsteady), [], NOW).wait == timedelta(seconds=18)
    asked_again = with_(entry=unsteady, routers=(RouterFacts("p", version="old"),))
    assert judge(asked_again, [], NOW).wait == timedelta(seconds=1)


def test_the_way_in_from_outside_is_told_and_changes_nothing_about_ready() -> None:
    """Only of a policy that asks for it."""
    assert "Exported" not in summary(judge(FACTS, [], NOW))
    missing = judge(with_(exported=no_api("HTTPRoute")), [], NOW)
    assert summary(missing)["Exported"] == "False/GatewayApiMissing"
    assert (summary(missing)["Ready"], missing.wait) == ("True/Serving", timedelta(seconds=30))


def test_reasons_are_sound() -> None:
    """Each once, a word, of a condition that exists, in sentences."""
    names = [one.name for one in REASONS]
    assert len(names) == len(set(names))
    assert {one.condition for one in REASONS} == set(ORDER) == set(QUESTIONS)
    for one in REASONS:
        assert re.fullmatch(r"[A-Z][A-Za-z]{3,63}", one.name)
        assert one.meaning.endswith(".")
        assert not one.way_out or one.way_out.endswith(".")


def test_every_reason_is_said_in_the_code() -> None:
    """A reason that nothing says is a leftover."""
    folder = Path(__file__).parents[2] / "operator/modeltiers/domain"
    files = (
        "policy_verdict.py",
        "facts.py",
        "policy_table.py",
        "policy_keys.py",
        "entry.py",
        "export.py",
        "distill/threshold.py",
    )
    code = "".join((folder / name).read_text(encoding="utf-8") for name in files)
    assert [name for name in DOCUMENTED if f'"{name}"' not in code] == []
