"""Argo CD's health scripts and actions, Flux's health expressions: over every status that can come, and upstream's way.

The control plane's tests ask the scripts about every status that the operator wrote there (`tests/cluster`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import cel
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lupa import lua51

from modeltiers.domain import policy_reasons, policy_verdict, verdict
from modeltiers.domain.conditions import REASONS
from modeltiers.domain.distill import reasons as distill_reasons
from modeltiers.domain.distill import verdict as distill_verdict
from modeltiers.domain.distill import wishes
from modeltiers.domain.distill.job import JobView, Known
from modeltiers.domain.distill.promotion import Step
from modeltiers.domain.distill.stages import Next, Stage
from modeltiers.domain.distill.verdict import Hindrance, JobFacts
from modeltiers.domain.engine_args import Refusal
from modeltiers.domain.facts import ApplyError, TierFacts
from modeltiers.domain.policy_verdict import PolicyFacts
from tests import argocd, statuses
from tests.cluster.admission import patched
from tests.unit import test_routingpolicy_verdict as policies
from tests.unit import test_verdict as tiers
from tests.unit.test_distill_stages import spec as distill_spec

NOW = tiers.NOW
DIGEST = "ab" * 16


def body(kind: str, facts: Any, conditions: list[dict[str, Any]], lag: int = 0) -> dict[str, Any]:
    """An object with this status, whose spec has changed `lag` times since."""
    metadata = {"name": "x", "generation": facts.generation + lag}
    metadata |= {"deletionTimestamp": "x"} if getattr(facts, "deleting", False) else {}
    status = {"observedGeneration": facts.generation, "conditions": conditions}
    return {"apiVersion": "modeltiers.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": {}, "status": status}


lags = st.sampled_from([0, 0, 0, 1])


@given(steps=tiers.steps, lag=lags)
def test_every_tier(steps: list[tuple[TierFacts, int]], lag: int) -> None:
    """Over any life of a tier."""
    previous: list[dict[str, Any]] = []
    now = NOW
    for facts, seconds in steps:
        now += timedelta(seconds=seconds)
        previous = verdict.judge(facts, previous, now).conditions
        assert argocd.breach(body("ModelTier", facts, previous, lag)) is None


@given(facts=policies.ANY, lag=lags)
def test_every_policy(facts: PolicyFacts, lag: int) -> None:
    """Whatever was gathered."""
    assert argocd.breach(body("RoutingPolicy", facts, policy_verdict.judge(facts, [], NOW).conditions, lag)) is None


states = st.sampled_from(["AwaitingApproval", "Canary", "Settling", "Live", "RolledBack"])
jobs = st.builds(
    JobFacts,
    namespace=st.just("demo"),
    name=st.just("till"),
    generation=st.integers(1, 3),
    fault=st.sampled_from([(), (), (("spec.x", "spec.x: bad"),)]),
    refusals=st.sampled_from([(), (), (Refusal("spec.y", "no"),)]),
    spec=st.none() | st.booleans().map(lambda stop: distill_spec(suspend=stop)),
    known=st.sampled_from([None, "Pass", "Fail", "Inconclusive"]).map(lambda said: Known(decision=said)),
    next=st.none() | st.just(Next(Stage.TRAIN, DIGEST)),
    hindrance=st.none() | st.builds(Hindrance, st.just("TierNotReady"), st.just("wait"), st.booleans()),
    job=st.none()
    | st.builds(
        JobView,
        *[st.just("x")] * 5,
        suspended=st.booleans(),
        failure=st.sampled_from(["", "BackoffLimitExceeded: "]),
    ),
    promotion=st.none()
    | st.builds(
        Step,
        st.builds(lambda state: {"state": state, "why": "x"}, states),
        st.none() | st.just(("TierNotFound", "create it")),
        st.just("read the report"),
    ),
    apply_error=st.none() | st.builds(ApplyError, st.just("Job"), st.just("n"), st.sampled_from([0, 403, 503])),
).map(lambda one: one if one.known.decision == "Pass" and one.next is None else replace(one, promotion=None))


@given(facts=jobs, lag=lags)
def test_every_distilljob(facts: JobFacts, lag: int) -> None:
    """Whatever was gathered."""
    assert argocd.breach(body("DistillJob", facts, distill_verdict.judge(facts, [], NOW), lag)) is None


# --- what the operator wrote on a control plane -----------------------------------------------------------------------


@pytest.mark.parametrize("obj", statuses.recorded(), ids=statuses.shape)
def test_every_status_that_was_recorded(obj: dict[str, Any]) -> None:
    """The file is for every machine; the control plane's tests ask about each status as it comes."""
    assert argocd.breach(obj) is None
    if "deletionTimestamp" not in obj["metadata"]:
        assert flux_says(obj) == FLUX[argocd.health(obj).status]


def test_the_recorded_statuses_are_of_this_release() -> None:
    """Every word in them is documented, and all that decides is there; record anew what a change made old."""
    known = {
        "ModelTier": {one.name for one in REASONS},
        "RoutingPolicy": {one.name for one in policy_reasons.REASONS},
        "DistillJob": {one.name for one in (*distill_reasons.REASONS, *REASONS)},
    }
    for kind in argocd.KINDS:
        conditions = [one for obj in statuses.recorded() if obj["kind"] == kind for one in obj["status"]["conditions"]]
        assert {one["reason"] for one in conditions} <= known[kind]
        assert {("Ready", status) for status in ("True", "False", "Unknown")} <= {
            (one["type"], one["status"]) for one in conditions
        }


# --- upstream's own tests ---------------------------------------------------------------------------------------------


def cases(file: str, key: str) -> list[Any]:
    """What a test file of upstream's format lists, for every kind."""
    found = []
    for path in sorted(argocd.SCRIPTS.rglob(file)):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")).get(key, ()):
            name = (
                f"{path.relative_to(argocd.SCRIPTS).parts[0]} {case.get('action', '')} {Path(case['inputPath']).stem}"
            )
            found.append(pytest.param(path.parent, case, id=name))
    return found


def read(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(("folder", "case"), cases("health_test.yaml", "tests"))
def test_health_as_upstream_tests_it(folder: Path, case: dict[str, Any]) -> None:
    """The files can go upstream as they are."""
    obj = read(folder / case["inputPath"])
    assert vars(argocd.health(obj)) == case["healthStatus"]
    assert argocd.breach(obj) is None


@pytest.mark.parametrize(("folder", "case"), cases("action_test.yaml", "discoveryTests"))
def test_discovery_as_upstream_tests_it(folder: Path, case: dict[str, Any]) -> None:
    """Names, icons, and which are disabled."""
    found = argocd.run(folder / "discovery.lua", read(folder / case["inputPath"]))
    assert [{"name": name, **about} for name, about in sorted(found.items())] == case["result"]


@pytest.mark.parametrize(("folder", "case"), cases("action_test.yaml", "actionTests"))
def test_actions_as_upstream_tests_them(folder: Path, case: dict[str, Any]) -> None:
    """What comes out is the whole object."""
    obj = read(folder / case["inputPath"])
    if "expectedErrorMessage" in case:
        with pytest.raises(lua51.LuaError, match=f"^{re.escape(case['expectedErrorMessage'])}$"):
            argocd.acted(obj, case["action"])
    else:
        assert argocd.acted(obj, case["action"]) == read(folder / case["expectedOutputPath"])


def test_every_script_has_its_tests() -> None:
    """Each state that a kind can be in has a recorded object; each action a way in and out."""
    for kind in argocd.KINDS:
        tested = {case["healthStatus"]["status"] for case in read(argocd.SCRIPTS / kind / "health_test.yaml")["tests"]}
        assert tested == {"Progressing", "Healthy", "Degraded"} | ({"Suspended"} if kind == "DistillJob" else set())
    for folder in (argocd.SCRIPTS / "ModelTier/actions", argocd.SCRIPTS / "DistillJob/actions"):
        tried = {case["action"] for case in read(folder / "action_test.yaml")["actionTests"]}
        assert tried == {path.parent.name for path in folder.glob("*/action.lua")}


# --- actions are the wishes of the command line -----------------------------------------------------------------------

WISHES = {
    "approve": lambda job: wishes.approve(job, None),
    "rollback": lambda job: wishes.rollback(job, None),
    "retry": lambda job: wishes.retry(job, None),
    "suspend": wishes.suspend,
    "resume": wishes.resume,
}
said = st.sampled_from([None, DIGEST, f"{DIGEST}@2", f"{DIGEST}@41", "cd" * 16, f"{'cd' * 16}@2"])
stages = st.lists(
    st.builds(
        lambda state, digest: {"name": "Train", "state": state, "digest": digest},
        st.sampled_from(["Complete", "Failed"]),
        st.sampled_from([DIGEST, "cd" * 16]),
    ),
    max_size=2,
)


def filled(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part is not None}


resources = st.builds(
    lambda suspend, tier, digest, decision, complete, stages, promotion, retry: {
        "kind": "DistillJob",
        "metadata": {"name": "till", "annotations": filled(**{"modeltiers.dev/retry": retry, "team": "a"})},
        "spec": filled(suspend=suspend, promotion={"tierRef": {"name": tier}} if tier else None),
        "status": filled(
            artifact={"digest": digest} if digest else None,
            gate={"decision": decision},
            conditions=[{"type": "Complete", **complete}] if complete else [],
            stages=stages,
            promotion=promotion,
        ),
    },
    st.sampled_from([None, True, False]),
    st.sampled_from([None, "small"]),
    st.sampled_from([None, DIGEST]),
    st.sampled_from(["Pass", "Fail"]),
    st.sampled_from(
        [None, *({"status": status, "reason": why} for status in ("True", "False") for why in ("BudgetExhausted", "x"))]
    ),
    stages,
    st.none() | st.builds(lambda state, go, back: filled(state=state, approved=go, takenBack=back), states, said, said),
    said,
)


@given(job=resources)
def test_an_action_is_what_the_command_writes(job: dict[str, Any]) -> None:
    """Enabled where the command does not refuse, and the same annotation or field is written."""
    offered = argocd.actions(job)
    assert offered.keys() == WISHES.keys()
    for name, wish in WISHES.items():
        try:
            wanted = wish(job)
        except wishes.Refused:
            assert not offered[name], name
            continue
        assert offered[name], name
        assert argocd.acted(job, name) == patched(job, wanted.patch())


@given(generation=st.integers(1, 10**9), token=st.none() | st.just("restart-1"))
def test_a_restart_is_another_token_each_time(generation: int, token: str | None) -> None:
    """One that the API server takes; an external tier has no engine that could be rolled."""
    spec: dict[str, Any] = {"model": {"source": "hf://a/b"}, **filled(rolloutToken=token)}
    tier = {"kind": "ModelTier", "metadata": {"generation": generation + 1}, "spec": spec}
    assert argocd.actions(tier) == {"restart": True}
    restarted = argocd.acted(tier, "restart")["spec"]["rolloutToken"]
    assert restarted != token
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", restarted)
    assert argocd.actions({**tier, "spec": {"external": {"model": "m"}}}) == {"restart": False}


# --- Flux -------------------------------------------------------------------------------------------------------------

FLUX = {"Progressing": "InProgress", "Degraded": "Failed", "Healthy": "Current", "Suspended": "Current"}


@cache
def flux(kind: str) -> dict[str, Any]:
    """The compiled health expressions of a kind."""
    documents = yaml.safe_load_all((argocd.ROOT / "examples/flux/tiers.yaml").read_text(encoding="utf-8"))
    listed = next(one["spec"]["healthCheckExprs"] for one in documents if one["kind"] == "Kustomization")
    found = next(one for one in listed if one["kind"] == kind)
    assert found["apiVersion"] == "modeltiers.dev/v1alpha1"
    return {name: cel.compile(found[name]) for name in ("inProgress", "failed", "current")}


def flux_says(obj: dict[str, Any]) -> str:
    """What Flux makes of an object that is not being deleted: the generation first, then the expressions in turn."""
    if obj["status"]["observedGeneration"] != obj["metadata"]["generation"]:
        return "InProgress"
    for name, compiled in flux(obj["kind"]).items():
        if compiled.execute({"status": obj["status"], "metadata": obj["metadata"]}):
            return name[:1].upper() + name[1:]
    return "InProgress"


@given(facts=tiers.worlds, lag=lags)
def test_flux_sees_tiers_as_argo_cd_does(facts: TierFacts, lag: int) -> None:
    """The same expressions as kstatus."""
    obj = body("ModelTier", replace(facts, deleting=False), verdict.judge(facts, [], NOW).conditions, lag)
    assert flux_says(obj) == FLUX[argocd.health(obj).status]


@given(facts=policies.ANY, lag=lags)
def test_flux_sees_policies_as_argo_cd_does(facts: PolicyFacts, lag: int) -> None:
    """The same expressions as kstatus."""
    obj = body("RoutingPolicy", replace(facts, deleting=False), policy_verdict.judge(facts, [], NOW).conditions, lag)
    assert flux_says(obj) == FLUX[argocd.health(obj).status]


@given(facts=jobs, lag=lags)
def test_flux_waits_for_no_person(facts: JobFacts, lag: int) -> None:
    """A job that a person has stopped or has to approve is as Git wants it."""
    obj = body("DistillJob", facts, distill_verdict.judge(facts, [], NOW), lag)
    assert flux_says(obj) == FLUX[argocd.health(obj).status]
