"""The first cause of what does not serve, from objects as they are recorded: one case a failure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltiers.domain.why.commands import NEXT, Target, next_command
from modeltiers.domain.why.explain import explain, findings, near
from modeltiers.domain.why.findings import Finding, Level, first_sentence, headline, lines
from modeltiers.domain.why.meanings import TABLES
from modeltiers.domain.why.silence import OPERATOR, OPERATOR_POD
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER, Snapshot
from tests.unit.why.world import (
    NOW,
    claim,
    condition,
    deployment,
    event,
    homeless,
    job,
    node,
    pod,
    policy,
    served,
    tier,
    waiting,
    world,
)

NO_NODE = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available"
UNSCHEDULABLE = tier("large", "Unschedulable", "pod shop/large-1: no node for it: “0/2 nodes”. Free accelerators")


def first(snapshot: Snapshot, kind: str = TIER, name: str = "large") -> Finding:
    found = explain(snapshot, kind, name)
    assert found is not None
    told = list(lines(found, "shop"))
    assert told[0].startswith(f"{kind} shop/{name}: ")
    assert told[1].startswith("next: ")
    return found


# --- no place ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "selector", "says"),
    [
        ((), {}, "the cluster has no node"),
        ((node("a", 0), node("b", 0)), {}, "no node has nvidia.com/gpu: is there such a node, and does its device"),
        ((node("a", 2),), {}, "needs 4 nvidia.com/gpu on one node, and the largest node has 2"),
        ((node("a", zone="earth"),), {"zone": "moon"}, "has the label zone=moon; there are earth (1)"),
        ((node("a", ready="False"),), {}, "node a is cordoned or not ready"),
        (
            (node("a", taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}]),),
            {},
            "node a: a taint that the pod does not tolerate: team=x:NoSchedule",
        ),
        ((node("a"), node("b")), {}, "it fits nodes a, b, where too little is free of the 4 nvidia.com/gpu it needs"),
    ],
)
def test_why_a_pod_has_no_node(nodes: tuple[dict[str, Any], ...], selector: dict[str, str], says: str) -> None:
    found = first(world(UNSCHEDULABLE, deployment("large"), homeless("large-1", "large", NO_NODE, 4, selector), *nodes))
    assert says in found.says
    assert found.reason == "Unschedulable"
    assert found.next.startswith(("kubectl get nodes -L", "kubectl describe node a b"))
    assert [link.kind for link in found.links] == ["ModelTier", "Deployment", "Pod", "Nodes"]


def test_nodes_that_may_not_be_seen_leave_the_operators_words() -> None:
    unseen = {"Node": 'User "guest" cannot list resource "nodes"'}
    found = first(
        world(UNSCHEDULABLE, deployment("large"), homeless("large-1", "large", NO_NODE), unseen=unseen),
    )
    assert found.says.startswith("pod shop/large-1: no node for it")
    assert found.links[-1].says.startswith("not known: ")


def test_a_taint_that_is_tolerated_keeps_nobody() -> None:
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    body = homeless("large-1", "large", NO_NODE, tolerations=tolerated)
    assert (
        "too little is free" in first(world(UNSCHEDULABLE, deployment("large"), body, node("a", taints=[taint]))).says
    )


def test_a_policy_leads_to_the_node_of_its_tier() -> None:
    said = "ModelTier large is stalled: pod shop/large-1: no node for it"
    over = policy(
        condition("Accepted", "True"),
        condition("Compiled", "True"),
        condition("TiersReady", "False", "TierStalled", said),
        condition("Ready", "False", "TierStalled", said),
    )
    body = homeless("large-1", "large", NO_NODE, 4, {"zone": "moon"})
    snapshot = world(over, served("small"), UNSCHEDULABLE, deployment("large"), body, node("a"))
    found = first(snapshot, POLICY, "support")
    assert [link.kind for link in found.links] == ["RoutingPolicy", "ModelTier", "Deployment", "Pod", "Nodes"]
    assert found.says == "pod large-1 has no node: no node with nvidia.com/gpu has the label zone=moon"
    roots = findings(snapshot)
    assert [(one.about.kind, one.about.name) for one in roots] == [(TIER, "large"), (POLICY, "support")]
    assert headline(roots[1]) == "RoutingPolicy support: because of ModelTier large"


# --- volumes ----------------------------------------------------------------------------------------------------------


def mounting(said: str) -> dict[str, Any]:
    volumes = [{"name": "cache", "persistentVolumeClaim": {"claimName": "weights"}}]
    return homeless("large-1", "large", said, volumes=volumes)


@pytest.mark.parametrize(
    ("said", "claims", "says", "then"),
    [
        (
            'persistentvolumeclaim "weights" not found',
            (),
            "waits for PersistentVolumeClaim weights, which does not",
            "pvc",
        ),
        (
            "pod has unbound immediate PersistentVolumeClaims",
            (
                claim("weights"),
                event("PersistentVolumeClaim", "weights", "ProvisioningFailed", 'class "fast" not found'),
            ),
            'which is Pending: class "fast" not found',
            "describe pvc weights",
        ),
        (
            "pod has unbound immediate PersistentVolumeClaims",
            (claim("weights"),),
            "its storage class fast has not made a volume",
            "describe pvc weights",
        ),
        (
            "pod has unbound immediate PersistentVolumeClaims",
            (claim("weights", storage=None),),
            "it names no storage class: has the cluster a default one?",
            "describe pvc weights",
        ),
    ],
)
def test_why_a_claim_has_no_volume(said: str, claims: tuple[dict[str, Any], ...], says: str, then: str) -> None:
    body = tier("large", "VolumeClaimNotBound", f"pod shop/large-1: a claim has no volume: “{said}”. Look")
    found = first(world(body, deployment("large"), mounting(said), *claims))
    assert says in found.says
    assert then in found.next
    assert found.links[-1].named == "PersistentVolumeClaim weights"


# --- what runs in pods ------------------------------------------------------------------------------------------------

CRASHED = {
    "name": "engine",
    "ready": False,
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {
        "terminated": {"exitCode": 1, "reason": "Error", "message": "torch.OutOfMemoryError: CUDA out of memory"}
    },
}


@pytest.mark.parametrize(
    ("container", "reason", "then"),
    [
        (CRASHED, "GpuOutOfMemory", "kubectl edit mt/large"),
        (
            {**CRASHED, "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "who knows"}}},
            "CrashLoop",
            "kubectl modeltiers logs mt/large -n shop --pod large-1 --previous",
        ),
        (waiting("ImagePullBackOff", "manifest unknown"), "ImageNotFound", "kubectl describe pod large-1"),
        (waiting("CreateContainerConfigError", 'secret "hf" not found'), "SecretNotFound", "kubectl get secrets"),
        (
            waiting("CreateContainerConfigError", 'configmap "x" not found'),
            "ConfigMapNotFound",
            "kubectl get configmaps",
        ),
    ],
)
def test_what_ran_in_a_pod_is_told_also_where_the_operator_says_nothing(
    container: dict[str, Any], reason: str, then: str
) -> None:
    """The operator is away, and its last word is that the tier serves: the pods are judged by its own checks."""
    body = pod("large-1", "large", container, phase="Running")
    found = first(world(served("large"), deployment("large"), body, alive=False))
    assert found.reason == reason
    assert found.next.startswith(then)
    assert "older than what its pods say" in found.notes[0]


def test_events_say_what_a_pod_waits_for_while_it_is_prepared() -> None:
    body = tier("large", "Preparing", "0 of 1 pod ready; pod shop/large-1 is being prepared", status="Unknown")
    failed = event("Pod", "large-1", "FailedMount", "MountVolume.SetUp failed: no such file")
    old = event("Pod", "large-1", "FailedMount", "an older one", "2026-11-27T10:00:00Z")
    found = first(world(body, deployment("large"), pod("large-1", "large", waiting("ContainerCreating")), old, failed))
    assert "FailedMount (5 min ago): MountVolume.SetUp failed" in found.says
    assert found.level is Level.WAITING
    assert found.next == "kubectl describe pod large-1 -n shop"


def test_pods_that_cannot_be_made() -> None:
    said = 'pods "large-x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    body = tier("large", "QuotaExceeded", f"pods of Deployment shop/large: a ResourceQuota: “{said}”. Raise the quota")
    found = first(world(body, deployment("large", 0, 1, failure)))
    assert (found.reason, found.next) == ("QuotaExceeded", "kubectl describe resourcequota -n shop")


def test_pods_that_are_refused_before_the_deployment_says_so() -> None:
    body = tier("large", "Scaling", "0 of 1 pod ready", status="Unknown")
    owner = {"kind": "ReplicaSet", "metadata": {"name": "large-abc", "ownerReferences": [{"name": "large"}]}}
    owner |= {"spec": {"replicas": 1}, "status": {"replicas": 0}}
    refused = event("ReplicaSet", "large-abc", "FailedCreate", 'admission webhook "x" denied the request')
    found = first(world(body, deployment("large"), owner, refused))
    assert 'a policy of the cluster refuses it: “admission webhook "x" denied the request”' in found.says
    assert found.reason == "AdmissionDenied"
    few = event("ReplicaSet", "large-abc", "FailedCreate", 'pods "x" is forbidden: exceeded quota: few')
    assert first(world(body, deployment("large"), owner, few)).next == "kubectl describe resourcequota -n shop"
    whole = {**owner, "status": {"replicas": 1}}  # it was refused once, and has its pods since
    assert "quota" not in first(world(body, deployment("large"), whole, few)).says


def test_a_rollout_that_somebody_paused() -> None:
    said = "Deployment shop/large is paused: no pod of the present spec is made. kubectl rollout resume x"
    body = tier("large", "RolloutPaused", said, status="Unknown")
    paused = deployment("large")
    paused["spec"]["paused"] = True
    found = first(world(body, paused))
    assert (found.reason, found.next) == ("RolloutPaused", "kubectl rollout resume deployment/large -n shop")


def test_a_controller_manager_that_is_away() -> None:
    body = tier("large", "Applying", "the change is being taken up", status="Unknown")
    stuck = deployment("large")
    stuck["status"] = {}
    assert "is the cluster's controller manager running?" in first(world(body, stuck)).says


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "reason", "message", "then"),
    [
        ("Accepted", "InvalidSpec", "spec.replicas: Input should be at least 0", "kubectl edit mt/large"),
        ("Accepted", "NotAllowed", "spec.serving.image: not allowed here", "kubectl edit mt/large"),
        ("Sized", "FitsNoAccelerator", "spec.accelerators: no layout fits. closest is 8 x l4", "kubectl get mt/large"),
        ("Sized", "UnknownModel", "spec.model.source: nobody knows it", "kubectl edit mt/large"),
        ("CredentialsFound", "KeyRejected", "the API does not accept the key", "kubectl get secrets"),
        ("EndpointReachable", "HostNotAllowed", "not in externalHosts", "kubectl get configmap modeltiers-settings"),
        ("ModelListed", "ModelNotListed", "the API lists frontier-1", "kubectl edit mt/large"),
    ],
)
def test_a_spec_or_an_api_at_fault_comes_before_any_pod(gate: str, reason: str, message: str, then: str) -> None:
    body = tier("large", reason, message)
    body["status"]["conditions"] = [one for one in body["status"]["conditions"] if one["type"] != gate] + [
        condition(gate, "False", reason, message)
    ]
    found = first(world(body, deployment("large"), pod("large-1", "large", CRASHED)))
    assert (found.reason, found.says) == (reason, message)
    assert found.next.startswith(then)
    assert found.remedy


def test_a_spec_that_git_writes_is_not_to_be_edited_here() -> None:
    notes = {"argocd.argoproj.io/tracking-id": "ladder:modeltiers.dev/ModelTier:shop/large"}
    body = tier("large", "InvalidSpec", "spec.replicas: no", annotations=notes)
    body["status"]["conditions"][0] = condition("Accepted", "False", "InvalidSpec", "spec.replicas: no")
    assert "Argo CD application ladder writes this spec from Git" in first(world(body)).notes[0]


# --- policies ---------------------------------------------------------------------------------------------------------

COMPILED = (condition("Accepted", "True"), condition("Compiled", "True"), condition("TiersReady", "True"))


@pytest.mark.parametrize(
    ("conditions", "says", "then"),
    [
        (
            (condition("Accepted", "False", "ModelNameTaken", "spec.model: the older policy a has it"),),
            "the older policy a has it",
            "kubectl edit rp/support",
        ),
        (
            (condition("Accepted", "True"), condition("Compiled", "False", "TierNotFound", "ModelTier large: none")),
            "there is no ModelTier large in namespace shop; there are: small",
            "kubectl get mt",
        ),
        (
            (*COMPILED, condition("Ready", "False", "RoutersUnreachable", "live in 0 of 2 routers; 2 cannot be asked")),
            "live in 0 of 2 routers",
            "kubectl get pods",
        ),
        (
            (
                *COMPILED,
                condition("Ready", "False", "TableRefused", "pod shop/small-1 refuses it: “too new”. Restart it"),
            ),
            "refuses it",
            "kubectl modeltiers logs rp/support",
        ),
        (
            (
                *COMPILED,
                condition("Ready", "True", "Serving"),
                condition("KeysFound", "False", "KeyMissing", "no key a"),
            ),
            "no key a",
            "kubectl get secrets",
        ),
        (
            (*COMPILED, condition("Ready", "True", "Serving"), condition("Doubtful", "True", "DoubtsFound", "rule x")),
            "rule x",
            "kubectl get rp/support",
        ),
    ],
)
def test_policies(conditions: tuple[dict[str, Any], ...], says: str, then: str) -> None:
    found = first(world(policy(*conditions), served("small")), POLICY, "support")
    assert says in found.says
    assert found.next.startswith(then)


def test_the_routers_of_a_gateway() -> None:
    said = "Deployment shop/support-gateway: pod shop/support-gateway-1: there is no such image"
    body = policy(*COMPILED, condition("Ready", "False", "GatewayFailed", said))
    routers = deployment("support-gateway", label="policy")
    lame = pod("support-gateway-1", "support", waiting("ImagePullBackOff", "not found", "router"), label="policy")
    found = first(world(body, served("small"), routers, lame), POLICY, "support")
    assert (found.reason, found.next) == ("ImageNotFound", "kubectl describe pod support-gateway-1 -n shop")


# --- distillations ----------------------------------------------------------------------------------------------------

UNDER_WAY = condition("Complete", "False", "InProgress")
STOPPED = condition("Complete", "False", "Stopped")


def stalled(reason: str, message: str) -> dict[str, Any]:
    return condition("Stalled", "True", reason, message)


def test_a_store_whose_claim_is_pending() -> None:
    said = "pod has unbound immediate PersistentVolumeClaims"
    volumes = [{"name": "store", "persistentVolumeClaim": {"claimName": "artifacts"}}]
    body = homeless("arithmetic-generate-1", "arithmetic", said, 0, volumes=volumes)
    body["metadata"]["labels"] = {"modeltiers.dev/distilljob": "arithmetic", "modeltiers.dev/stage": "Generate"}
    at = job(UNDER_WAY, condition("Reconciling", "True", "StageStarting", "the pod waits"))
    found = first(world(at, body, claim("artifacts")), JOB, "arithmetic")
    assert found.reason == "VolumeClaimNotBound"
    assert "waits for PersistentVolumeClaim artifacts, which is Pending" in found.says
    assert found.next == "kubectl describe pvc artifacts -n shop"


def test_a_claim_that_is_not_there() -> None:
    at = job(STOPPED, stalled("VolumeClaimNotFound", "there is no PersistentVolumeClaim artifacts. Create it"))
    found = first(world(at), JOB, "arithmetic")
    assert found.links[-1].named == "PersistentVolumeClaim artifacts"
    assert found.next == "kubectl get pvc -n shop"


def test_a_teacher_that_does_not_serve_leads_to_its_node() -> None:
    at = job(UNDER_WAY, condition("Reconciling", "True", "TierNotReady", "ModelTier large does not serve: no node"))
    snapshot = world(at, UNSCHEDULABLE, deployment("large"), homeless("large-1", "large", NO_NODE), node("a", 0))
    found = first(snapshot, JOB, "arithmetic")
    assert [link.kind for link in found.links] == ["DistillJob", "ModelTier", "Deployment", "Pod", "Nodes"]
    assert "no node has nvidia.com/gpu" in found.says


def test_a_teacher_that_is_not_there() -> None:
    at = job(STOPPED, stalled("TierNotFound", "ModelTier large does not exist"))
    found = first(world(at), JOB, "arithmetic")
    assert (found.reason, found.links[-1].says) == ("TierNotFound", "does not exist")


def test_a_stage_that_failed() -> None:
    stages = [{"name": "Generate", "state": "Failed", "digest": "ab"}]
    at = job(STOPPED, stalled("BadData", "Generate: line 3 is not JSON"), stages=stages)
    found = first(world(at), JOB, "arithmetic")
    assert found.next == "kubectl modeltiers report dj/arithmetic -n shop"
    assert "kubectl modeltiers retry dj/arithmetic -n shop" in found.remedy


def test_a_person_is_waited_for() -> None:
    wanted = condition("AwaitingApproval", "True", "ApprovalWanted", "the student waits for a person")
    at = job(UNDER_WAY, wanted, artifact={"digest": "ab" * 8}, promotion={"state": "AwaitingApproval"})
    found = first(world(at), JOB, "arithmetic")
    assert found.level is Level.ASKED
    assert f"kubectl modeltiers approve dj/arithmetic -n shop --digest {'ab' * 8}" in found.remedy


@pytest.mark.parametrize("reason", ["Rejected", "Inconclusive", "RolledBack", "BudgetExhausted"])
def test_an_end_without_a_student(reason: str) -> None:
    at = job(condition("Complete", "True", reason, "the gate says so"))
    found = first(world(at), JOB, "arithmetic")
    assert (found.level, found.reason) == (Level.DOUBTFUL, reason)
    assert found.next.startswith(("kubectl modeltiers report dj/arithmetic", "kubectl edit dj/arithmetic"))


def test_a_job_at_work_and_one_that_is_done_are_well() -> None:
    assert explain(world(job(UNDER_WAY, condition("Reconciling", "True", "StageRunning"))), JOB, "arithmetic") is None
    assert explain(world(job(condition("Complete", "True", "Promoted"))), JOB, "arithmetic") is None


# --- the operator -----------------------------------------------------------------------------------------------------


def unseen_by_operator(name: str = "large") -> dict[str, Any]:
    body = served(name)
    body["status"] = {}
    return body


def test_an_operator_that_is_dead() -> None:
    found = first(world(unseen_by_operator(), alive=False))
    assert found.says == "the operator does not run: it has not renewed its lease for 20 min"
    assert found.next == "kubectl get deployment,pods -n modeltiers-system"
    assert "the operator does not run" in headline(findings(world(served("small"), alive=False))[0])


def test_an_operator_that_is_scaled_to_zero_or_crashes() -> None:
    body = deployment("modeltiers-operator", 0, 0)
    body["kind"] = OPERATOR
    assert "scaled to zero" in first(world(unseen_by_operator(), body, alive=False)).says
    body = deployment("modeltiers-operator", 0, 1)
    body["kind"] = OPERATOR
    lame = pod("modeltiers-operator-1", "x", waiting("ImagePullBackOff", "not found", "operator"))
    lame["kind"] = OPERATOR_POD
    found = first(world(unseen_by_operator(), body, lame, alive=False))
    assert found.says.startswith("the operator does not run: pod shop/modeltiers-operator-1")
    assert found.next == "kubectl describe pod modeltiers-operator-1 -n modeltiers-system"


def test_an_operator_that_is_not_installed() -> None:
    snapshot = world(unseen_by_operator(), alive=None)
    installed = Snapshot("shop", NOW, {**snapshot.objects, OPERATOR: ()})
    assert "the operator is not installed" in first(installed).says


def test_an_operator_that_runs_and_does_not_look() -> None:
    assert "does it watch this namespace?" in first(world(unseen_by_operator())).says
    stale = served("large")
    stale["metadata"]["generation"] = 2
    assert "has not seen its last change" in first(world(stale)).says


def test_a_new_object_is_given_a_moment() -> None:
    body = unseen_by_operator()
    body["metadata"]["creationTimestamp"] = "2026-11-27T11:59:57Z"
    assert first(world(body)).level is Level.WAITING


def test_an_object_that_waits_for_a_finalizer() -> None:
    body = served("large")
    body["metadata"] |= {"deletionTimestamp": "2026-11-27T11:00:00Z", "finalizers": ["example.com/hold"]}
    assert first(world(body)).says == "is being deleted for 60 min; it waits for example.com/hold"


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
def test_every_reason_that_is_trouble_has_a_next_command(kind: str) -> None:
    at = Target(kind, "shop", "x", pod="x-1", claim="c")
    for one in TABLES[kind]:
        if one.way_out:
            assert one.name in NEXT, one.name
            assert next_command(one.name, at).startswith("kubectl ")


def test_every_command_is_of_a_reason_that_there_is() -> None:
    known = {one.name for table in TABLES.values() for one in table}
    assert set(NEXT) <= known


@pytest.mark.parametrize(
    ("message", "what", "rest"),
    [
        (
            "pod a/b: it ended: “one. Two.”. Read its log. Meanwhile 2 serve.",
            "pod a/b: it ended: “one. Two.”",
            "read its log",
        ),
        ("there is none. Create it", "there is none", "create it"),
        ("1 of 2 ready", "1 of 2 ready", ""),
        ("spec.x: 3.5 is not 3", "spec.x: 3.5 is not 3", ""),
    ],
)
def test_a_message_falls_into_cause_and_way_out(message: str, what: str, rest: str) -> None:
    assert first_sentence(message) == (what, rest)


def test_names_that_were_meant() -> None:
    snapshot = world(served("small"), served("large"), served("frontier"))
    assert near(snapshot, TIER, "larg") == ["large"]
    assert near(snapshot, TIER, "zzz") == ["frontier", "large", "small"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = ("metadata", "spec", "status")


@given(
    st.sampled_from(["ModelTier", "RoutingPolicy", "DistillJob", "Deployment", "Pod", "Node", "Event", "Lease"]),
    st.data(),
)
def test_odd_objects_stop_nothing(kind: str, data: st.DataObject) -> None:
    """An object that a newer Kubernetes or nobody in his right mind wrote; it is one of many."""
    odd: dict[str, Any] = {"kind": kind, **{part: data.draw(JSON) for part in PARTS}}
    snapshot = world(UNSCHEDULABLE, deployment("large"), homeless("large-1", "large", NO_NODE), node("a"), odd)
    for one in findings(snapshot):
        assert list(lines(one, "shop"))
