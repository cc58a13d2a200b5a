"""Ready, Reconciling and Stalled over a tier's life, over every replayed pod, and over any sequence of facts."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain import kstatus
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.conditions import REASONS
from modeltiers.domain.facts import ApplyError, ExternalFacts, TierFacts
from modeltiers.domain.verdict import Verdict, judge
from modeltiers.domain.views import DeploymentView, PodView

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
FACTS = TierFacts(
    namespace="demo", name="small", generation=1, sized="1 x H100, tensor parallel 1", startup_seconds=900
)
WHOLE = DeploymentView("small", generation=1, observed_generation=1, wanted=1, replicas=1, updated=1, ready_replicas=1)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(template: str = "a", *, name: str = "p", created: int = 0, **status: Any) -> PodView:
    metadata = {
        "name": name,
        "labels": {"pod-template-hash": template},
        "creationTimestamp": stamp(NOW + timedelta(seconds=created)),
    }
    return PodView.of({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status})


def ready_pod(template: str = "a", name: str = "p", created: int = 0) -> PodView:
    return pod(template, name=name, created=created, conditions=[{"type": "Ready", "status": "True"}])


def crashing_pod(template: str = "b", name: str = "q", created: int = 10) -> PodView:
    end = {"exitCode": 1, "message": "ValueError: No available memory for the cache blocks."}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "engine", "restartCount": 2, "state": waiting, "lastState": {"terminated": end}}
    return pod(template, name=name, created=created, containerStatuses=[container])


def unscheduled_pod(since: datetime) -> PodView:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available.",
    }
    body = {"metadata": {"name": "p"}, "status": {"conditions": [{**condition, "lastTransitionTime": stamp(since)}]}}
    return PodView.of(body)


def with_(**changes: Any) -> TierFacts:
    return dataclasses.replace(FACTS, **changes)


def summary(verdict: Verdict) -> dict[str, str]:
    return {item["type"]: f"{item['status']}/{item['reason']}" for item in verdict.conditions}


def message(verdict: Verdict, kind: str = "Ready") -> str:
    return next(str(item["message"]) for item in verdict.conditions if item["type"] == kind)


def told(facts: TierFacts, verdict: Verdict) -> kstatus.Status:
    metadata = {"generation": facts.generation} | ({"deletionTimestamp": "x"} if facts.deleting else {})
    status = {"observedGeneration": facts.generation, "conditions": verdict.conditions}
    return kstatus.compute({"metadata": metadata, "status": status}).status


def test_the_first_word_has_everything() -> None:
    """All conditions of a tier of this cluster, each with the generation it is about."""
    verdict = judge(FACTS, [], NOW)
    assert summary(verdict) == {
        "Accepted": "True/Valid",
        "Sized": "True/Sized",
        "Ready": "Unknown/Creating",
        "Reconciling": "True/Creating",
        "Stalled": "False/NotStalled",
        "UpdateAvailable": "False/UpToDate",
    }
    assert all(item["observedGeneration"] == 1 for item in verdict.conditions)
    assert told(FACTS, verdict) == "InProgress"


def test_a_tier_that_serves_is_at_rest() -> None:
    """Said again, it is the same list, and no clock is needed."""
    facts = with_(deployment=WHOLE, pods=(ready_pod(),))
    first = judge(facts, [], NOW)
    assert summary(first) | {"Ready": "True/Serving", "Reconciling": "False/Settled"} == summary(first)
    assert message(first) == "1 of 1 pod ready"
    assert first.wait is None
    assert told(facts, first) == "Current"
    assert judge(facts, first.conditions, NOW + timedelta(days=1)) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"observed_generation": 0},
        {"wanted": 2},
        {"updated": 0},
        {"replicas": 2},
        {"ready_replicas": 0},
    ],
)
def test_ready_is_for_the_present_spec_whole(changes: dict[str, Any]) -> None:
    """Not before the Deployment has seen it, has rolled it out, and has no pod of another."""
    verdict = judge(with_(deployment=dataclasses.replace(WHOLE, **changes)), [], NOW)
    assert summary(verdict)["Ready"].startswith("Unknown/")
    assert summary(verdict)["Reconciling"].startswith("True/")


def test_a_spec_that_was_not_written_is_not_ready() -> None:
    """However well the spec before serves, and it is said that it does."""
    error = ApplyError("Deployment", "small", 403, "QuotaExceeded", "exceeded quota: gpus")
    verdict = judge(with_(deployment=WHOLE, pods=(ready_pod(),), apply_error=error), [], NOW)
    assert summary(verdict)["Ready"] == "False/QuotaExceeded"
    assert message(verdict).endswith("Meanwhile 1 ready pod of the spec before still serves.")


def test_scaled_to_zero_is_as_wanted() -> None:
    """Once the last pod is gone."""
    none = dataclasses.replace(WHOLE, wanted=0, replicas=0, updated=0, ready_replicas=0)
    verdict = judge(with_(deployment=none, wanted_replicas=0), [], NOW)
    assert summary(verdict)["Ready"] == "True/ScaledToZero"
    going = dataclasses.replace(none, replicas=1, updated=1)
    assert summary(judge(with_(deployment=going, wanted_replicas=0), [], NOW))["Ready"] == "Unknown/Scaling"


def test_a_failed_rollout_says_who_still_serves() -> None:
    """The old pods answer, the present spec does not."""
    rolling = dataclasses.replace(WHOLE, wanted=2, replicas=3, updated=1, ready_replicas=2)
    pods = (ready_pod(name="p1"), ready_pod(name="p2"), crashing_pod())
    facts = with_(deployment=rolling, pods=pods, wanted_replicas=2)
    verdict = judge(facts, [], NOW)
    assert summary(verdict)["Ready"] == "False/KVCacheTooSmall"
    assert summary(verdict)["Stalled"] == "True/KVCacheTooSmall"
    assert "Meanwhile 2 ready pods of the spec before still serve." in message(verdict)
    assert told(facts, verdict) == "Failed"


def test_one_of_two_failing_says_so() -> None:
    """The other is of the same spec, or one of each."""
    half = dataclasses.replace(WHOLE, wanted=2, replicas=2, updated=2, ready_replicas=1)
    verdict = judge(with_(deployment=half, pods=(ready_pod(), crashing_pod("a")), wanted_replicas=2), [], NOW)
    assert "Meanwhile 1 ready pod of 2 wanted serve." in message(verdict)
    mixed = dataclasses.replace(WHOLE, wanted=3, replicas=4, updated=2, ready_replicas=2)
    pods = (ready_pod("b", "p1", 20), ready_pod("a", "p2"), crashing_pod())
    verdict = judge(with_(deployment=mixed, pods=pods, wanted_replicas=3), [], NOW)
    assert "Meanwhile 2 ready pods serve, 1 of them of the spec before." in message(verdict)


def test_a_node_autoscaler_gets_its_time() -> None:
    """Reconciling until the deadline, Stalled after it, and Stalled still when the operator forgot since when."""
    waiting = with_(deployment=dataclasses.replace(WHOLE, ready_replicas=0), pods=(unscheduled_pod(NOW),))
    first = judge(waiting, [], NOW + timedelta(minutes=5))
    assert summary(first)["Reconciling"] == "True/Unschedulable"
    assert first.wait == timedelta(minutes=10)
    assert told(waiting, first) == "InProgress"
    same = judge(waiting, first.conditions, NOW + timedelta(minutes=6))
    assert same.conditions == first.conditions
    late = judge(waiting, same.conditions, NOW + timedelta(minutes=15))
    assert summary(late)["Stalled"] == "True/Unschedulable"
    assert late.wait is None
    forgot = dataclasses.replace(waiting, unschedulable_since=NOW + timedelta(minutes=16))
    assert judge(forgot, late.conditions, NOW + timedelta(minutes=16)).conditions == late.conditions
    own = judge(forgot, [], NOW + timedelta(minutes=17))
    assert own.wait == timedelta(minutes=14)


def test_a_starting_engine_is_looked_at_when_its_time_runs_out() -> None:
    """No event comes when a probe has not succeeded yet."""
    container = {"name": "engine", "state": {"running": {"startedAt": stamp(NOW)}}, "started": False}
    facts = with_(deployment=dataclasses.replace(WHOLE, ready_replicas=0), pods=(pod(containerStatuses=[container]),))
    verdict = judge(facts, [], NOW + timedelta(seconds=60))
    assert summary(verdict)["Ready"] == "Unknown/Starting"
    assert verdict.wait == timedelta(seconds=900 + 30 - 60)
    assert summary(judge(facts, [], NOW + (verdict.wait or timedelta()) + timedelta(seconds=60)))["Stalled"] == (
        "True/StartupTimeout"
    )
    assert summary(judge(dataclasses.replace(facts, startup_seconds=0), [], NOW + timedelta(days=1)))["Ready"] == (
        "Unknown/Starting"
    )


def test_a_write_that_fails_for_a_moment_lifts_nothing() -> None:
    """A stalled tier stays so; the next pass writes."""
    broken = with_(deployment=dataclasses.replace(WHOLE, ready_replicas=0), pods=(crashing_pod("a"),))
    first = judge(broken, [], NOW)
    blip = dataclasses.replace(broken, apply_error=ApplyError("Service", "small", 503, "ApiUnavailable", "etcd"))
    assert judge(blip, first.conditions, NOW + timedelta(seconds=5)).conditions == first.conditions


def test_rollout_words_are_told_while_old_pods_are_there() -> None:
    """Why it goes the way it goes."""
    rolling = dataclasses.replace(WHOLE, replicas=2, updated=1)
    verdict = judge(with_(deployment=rolling, rollout="one pod less first: no room"), [], NOW)
    assert "one pod less first: no room" in message(verdict)


def test_an_update_is_a_remark() -> None:
    """It changes nothing about Ready."""
    verdict = judge(with_(deployment=WHOLE, update_available=("image vllm:2 (running vllm:1)",)), [], NOW)
    assert summary(verdict)["UpdateAvailable"] == "True/NewerAvailable"
    assert summary(verdict)["Ready"] == "True/Serving"
    assert "spec.rolloutToken" in message(verdict, "UpdateAvailable")


def test_sizing_waits_for_an_accepted_spec() -> None:
    """What is not accepted is not sized, whatever was sized before."""
    verdict = judge(with_(refusals=(("spec.serving.image", "not allowed"),)), [], NOW)
    assert summary(verdict)["Accepted"] == "False/NotAllowed"
    assert summary(verdict)["Sized"] == "Unknown/NotSized"
    assert summary(judge(with_(sized=None), [], NOW))["Sized"] == "Unknown/NotSized"


@pytest.mark.parametrize(
    ("seen", "ready", "reconciling", "stalled", "overall"),
    [
        (ExternalFacts(True, "k", True, "a", True, "m"), "True/Serving", "False", "False", "Current"),
        (
            ExternalFacts(None, "grant get", True, "", True, ""),
            "Unknown/CredentialsNotChecked",
            "False",
            "False",
            "InProgress",
        ),
        (ExternalFacts(True, "", None, "", None, ""), "Unknown/NotKnownYet", "True", "False", "InProgress"),
        (ExternalFacts(True, "", False, "down", None, ""), "False/EndpointUnreachable", "True", "False", "InProgress"),
        (
            ExternalFacts(False, "no Secret", True, "", None, ""),
            "False/CredentialsNotUsable",
            "False",
            "True",
            "Failed",
        ),
        (ExternalFacts(True, "", True, "", False, "not listed"), "False/ModelNotListed", "False", "True", "Failed"),
    ],
)
def test_external_tiers(seen: ExternalFacts, ready: str, reconciling: str, stalled: str, overall: str) -> None:
    """Three observations of their own, no sizing, and a look again by the clock."""
    facts = TierFacts("demo", "big", 1, external=seen)
    verdict = judge(facts, [], NOW)
    said = summary(verdict)
    assert list(said) == [
        "Accepted",
        "CredentialsFound",
        "EndpointReachable",
        "ModelListed",
        "Ready",
        "Reconciling",
        "Stalled",
    ]
    assert said["Ready"] == ready
    assert said["Reconciling"].startswith(reconciling)
    assert said["Stalled"].startswith(stalled)
    assert told(facts, verdict) == overall
    assert verdict.wait is not None


def test_an_external_tier_s_spec_comes_first() -> None:
    """Also when the API answers, and when the tier is on its way out."""
    seen = ExternalFacts(True, "", True, "", True, "")
    refused = TierFacts("demo", "big", 1, external=seen, refusals=(("spec.external.baseUrl", "no"),))
    assert summary(judge(refused, [], NOW))["Ready"] == "False/NotAllowed"
    assert summary(judge(dataclasses.replace(refused, deleting=True), [], NOW))["Ready"] == "Unknown/Terminating"


# --- what kubelets say, replayed ------------------------------------------------------------------------------------

REPLAYS = sorted((Path(__file__).parents[2] / "e2e/cluster/replays").glob("*.yaml"))
EXPECTED = {
    "secret-not-mounted": "SecretNotFound",
    "container-create-config-error": "SecretNotFound",
    "crash-loop": "CrashLoop",
    "disk-full": "DiskFull",
    "engine-exit-zero": "EngineExited",
    "err-image-pull-denied": "ImagePullDenied",
    "evicted-ephemeral-storage": "EphemeralStorageEvicted",
    "gated-model": "ModelGated",
    "gpu-memory-busy": "GpuMemoryBusy",
    "gpu-oom": "GpuOutOfMemory",
    "heads-not-divisible": "HeadsNotDivisible",
    "host-oom": "HostOutOfMemory",
    "image-pull-backoff": "ImageNotFound",
    "invalid-image-name": "ImageNameInvalid",
    "kv-too-small": "KVCacheTooSmall",
    "rejected-flag": "FlagRejected",
    "startup-slow": "StartupTimeout",
    "unknown-model": "ModelNotFound",
    "unknown-revision": "RevisionNotFound",
}
UNITS = {"s": 1, "m": 60, "h": 3600}


def replayed(path: Path) -> PodView:
    """The pod as it is when the file's status is on it now."""

    def when(match: re.Match[str]) -> str:
        return stamp(NOW - timedelta(seconds=int(match[1] or 0) * UNITS[match[2] or "s"]))

    text = re.sub(r"@now(?:-(\d+)([smh]))?", when, path.read_text())
    for name, value in {
        "container": "engine",
        "pod": "p",
        "namespace": "demo",
        "uid": "u",
        "image": "reg/vllm:1",
    }.items():
        text = text.replace("${" + name + "}", value)
    recorded = yaml.safe_load(text)
    status = recorded["status"]
    for container in status["containerStatuses"]:
        container["name"] = "engine"
    metadata = {"name": "p", "creationTimestamp": stamp(NOW - timedelta(hours=1))}
    pod = PodView.of({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status})
    return dataclasses.replace(pod, setup_error=recorded.get("event", {}).get("message", ""))


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.stem)
def test_a_replayed_pod_is_understood(path: Path) -> None:
    """At the first look, from the pod's status, and its event where it has one. A new file wants a line in EXPECTED."""
    deployment = dataclasses.replace(WHOLE, ready_replicas=0)
    verdict = judge(with_(deployment=deployment, pods=(replayed(path),)), [], NOW)
    ready = next(item for item in verdict.conditions if item["type"] == "Ready")
    assert ready["reason"] == EXPECTED[path.stem]
    assert ready["message"].startswith("pod demo/p")
    assert summary(verdict)["Stalled" if ready["status"] == "False" else "Reconciling"].startswith("True/")


# --- any sequence ---------------------------------------------------------------------------------------------------

small = st.integers(0, 3)
texts = st.sampled_from(
    ["", "exceeded quota: x", "CUDA out of memory", "not found", 'persistentvolumeclaim "x" not found', "odd"]
)
times = st.sampled_from(["", "odd", *(stamp(NOW + timedelta(minutes=n)) for n in (-60, -5, 0, 5))])
ends = st.fixed_dictionaries(
    {
        "exitCode": st.sampled_from([0, 1, 137, 139, None]),
        "reason": st.sampled_from(["Error", "OOMKilled", "StartError"]),
        "message": texts,
        "startedAt": times,
        "finishedAt": times,
    }
)
waits = st.sampled_from(
    [
        "ContainerCreating",
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "CreateContainerConfigError",
        "InvalidImageName",
    ]
)
states = st.one_of(
    st.builds(lambda reason, text: {"waiting": {"reason": reason, "message": text}}, waits, texts),
    st.builds(lambda since: {"running": {"startedAt": since}}, times),
    st.builds(lambda end: {"terminated": end}, ends),
    st.just({}),
)
containers = st.fixed_dictionaries(
    {
        "name": st.just("engine"),
        "ready": st.booleans(),
        "started": st.booleans(),
        "restartCount": small,
        "state": states,
        "lastState": st.one_of(st.just({}), st.builds(lambda end: {"terminated": end}, ends)),
    }
)
pod_conditions = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["PodScheduled", "Ready", "DisruptionTarget"]),
            "status": st.sampled_from(["True", "False"]),
            "reason": st.sampled_from(["Unschedulable", "SchedulingGated", ""]),
            "message": texts,
            "lastTransitionTime": times,
        }
    ),
    max_size=3,
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["p", "q"]),
                "creationTimestamp": times,
                "deletionTimestamp": st.sampled_from(["", "x"]),
                "labels": st.fixed_dictionaries({"pod-template-hash": st.sampled_from(["a", "b"])}),
            }
        ),
        "spec": st.fixed_dictionaries({"nodeName": st.sampled_from(["", "n"])}),
        "status": st.fixed_dictionaries(
            {
                "phase": st.sampled_from(["Pending", "Running", "Failed", "Unknown"]),
                "reason": st.sampled_from(["", "Evicted", "NodeLost"]),
                "message": texts,
                "conditions": pod_conditions,
                "containerStatuses": st.lists(containers, max_size=2),
            }
        ),
    }
).map(PodView.of)
deployments = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({"name": st.just("small"), "generation": small}),
        "spec": st.fixed_dictionaries({"replicas": small}),
        "status": st.fixed_dictionaries(
            {
                "observedGeneration": small,
                "replicas": small,
                "updatedReplicas": small,
                "readyReplicas": small,
                "conditions": st.sampled_from(
                    [
                        [],
                        [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
                        [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: x"}],
                    ]
                ),
            }
        ),
    }
).map(DeploymentView.of)
tri = st.sampled_from([True, False, None])
worlds = st.builds(
    TierFacts,
    namespace=st.just("demo"),
    name=st.just("small"),
    generation=small,
    deleting=st.sampled_from([False, False, False, True]),
    fault=st.sampled_from([None, None, None, (("spec.x", "bad"),)]),
    refusals=st.sampled_from([(), (), (("spec.y", "no"),)]),
    job_missing=st.sampled_from([(), (), (("spec.model.source", "there is no DistillJob j"),)]),
    arriving=st.sampled_from([None, timedelta(seconds=3)]),
    no_fit=st.sampled_from([None, None, ("FitsNoAccelerator", "too big"), ("Odd", "")]),
    sized=st.sampled_from([None, "1 x H100"]),
    apply_error=st.sampled_from(
        [None, None, None, ApplyError("Service", "small", 503), ApplyError("Service", "small", 403)]
    ),
    deployment=st.none() | deployments | st.just(WHOLE),
    pods=st.lists(pods, max_size=3).map(tuple),
    wanted_replicas=small,
    gpus_per_replica=small,
    resource=st.just("nvidia.com/gpu"),
    free=st.sampled_from([None, FreeGpus(()), FreeGpus((1, 8))]),
    update_available=st.sampled_from([(), ("image",)]),
    unschedulable_since=st.sampled_from([None, NOW - timedelta(hours=1), NOW]),
    startup_seconds=st.sampled_from([0, 60, 900]),
    external=st.none() | st.none() | st.builds(ExternalFacts, credentials=tri, reachable=tri, listed=tri),
)
steps = st.lists(st.tuples(worlds, st.integers(-60, 1200)), min_size=1, max_size=5)
DOCUMENTED = {item.name for item in REASONS}


@given(steps=steps)
def test_every_transition_keeps_the_promises(steps: list[tuple[TierFacts, int]]) -> None:
    """What kstatus makes of each status, and that the same facts say the same."""
    previous: list[dict[str, Any]] = []
    now = NOW
    for facts, seconds in steps:
        now += timedelta(seconds=seconds)
        verdict = judge(facts, previous, now)
        check(facts, verdict)
        check_times(previous, verdict.conditions)
        assert judge(facts, verdict.conditions, now).conditions == verdict.conditions
        previous = verdict.conditions


def check(facts: TierFacts, verdict: Verdict) -> None:
    status = {item["type"]: item["status"] for item in verdict.conditions}
    assert not (status["Reconciling"] == "True" and status["Stalled"] == "True")
    assert all(item["observedGeneration"] == facts.generation for item in verdict.conditions)
    assert {item["reason"] for item in verdict.conditions} <= DOCUMENTED
    assert all("\n" not in item["message"] for item in verdict.conditions)
    overall = told(facts, verdict)
    assert overall in set(kstatus.Status)
    assert (overall == "Current") == (status["Ready"] == "True" and not facts.deleting)
    assert (overall == "Failed") == (status["Stalled"] == "True" and not facts.deleting)
    assert status["Stalled"] != "True" or status["Ready"] == "False"
    assert verdict.wait is None or verdict.wait > timedelta()
    if status["Ready"] == "True" and facts.external is None:
        seen = facts.deployment
        assert seen is not None
        assert seen.ready_replicas >= facts.wanted_replicas == seen.updated == seen.replicas
        assert facts.apply_error is None


def check_times(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    was = {item["type"]: item for item in before}
    for item in after:
        old = was.get(item["type"])
        if old and old["status"] == item["status"]:
            assert item["lastTransitionTime"] == old["lastTransitionTime"]
        elif old:
            assert item["lastTransitionTime"] >= old["lastTransitionTime"]
