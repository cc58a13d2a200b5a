"""One world for every reason: what the cluster looks like, and what the tier says of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modeltiers.domain import causes
from modeltiers.domain.capacity import FreeGpus
from modeltiers.domain.conditions import REASONS, SCALING_ACTIVE, Observation
from modeltiers.domain.engine_messages import KNOWN
from modeltiers.domain.facts import ApplyError, ExternalFacts, TierFacts
from modeltiers.domain.scaling import Scaling
from modeltiers.domain.verdict import judge
from modeltiers.domain.views import DeploymentView, PodView

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(**amount: float) -> str:
    return (NOW - timedelta(**amount)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(**changes: Any) -> DeploymentView:
    """A Deployment that is taken up, with one new pod that is not ready."""
    whole = DeploymentView("small", generation=2, observed_generation=2, wanted=1, replicas=1, updated=1)
    return dataclasses.replace(whole, **changes)


def failing(message: str) -> DeploymentView:
    body = {
        "metadata": {"name": "small"},
        "status": {
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]
        },
    }
    return dataclasses.replace(DeploymentView.of(body), wanted=1)


def pod(
    status: dict[str, Any] | None = None, *, node: str = "gpu-1", name: str = "small-x-1", **metadata: Any
) -> PodView:
    labels = {"pod-template-hash": "new"}
    body = {
        "metadata": {"name": name, "creationTimestamp": ago(hours=2), "labels": labels, **metadata},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Running", **(status or {})},
    }
    return PodView.of(body)


def engine(state: dict[str, Any], last: dict[str, Any] | None = None, restarts: int = 0, **more: Any) -> dict[str, Any]:
    last_state = {"terminated": last} if last else {}
    status = {"name": "engine", "state": state, "lastState": last_state, "restartCount": restarts, **more}
    return {"containerStatuses": [status]}


def waiting(reason: str, message: str = "") -> PodView:
    return pod(engine({"waiting": {"reason": reason, "message": message}}, image="reg.example.com/vllm:1"))


def not_set_up(message: str) -> PodView:
    """A pod whose kubelet says so of it in an event."""
    waits = {"type": "PodReadyToStartContainers", "status": "False"}
    return dataclasses.replace(pod({"phase": "Pending", "conditions": [waits]}), setup_error=message)


def crashed(message: str = "", code: int = 1, reason: str = "Error", restarts: int = 4, ran: float = 40) -> PodView:
    end = {"exitCode": code, "reason": reason, "message": message}
    end |= {"startedAt": ago(seconds=ran + 5), "finishedAt": ago(seconds=5)}
    return pod(engine({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, end, restarts))


def refused(message: str) -> PodView:
    """A pod whose check of a student's package ended, again and again."""
    end = {"exitCode": 78, "reason": "Error", "message": message, "finishedAt": ago(seconds=5)}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    status = {"name": "verify", "state": state, "lastState": {"terminated": end}, "restartCount": 4}
    return pod({"phase": "Pending", "initContainerStatuses": [status]})


def running(since: str, last: dict[str, Any] | None = None, restarts: int = 0) -> PodView:
    return pod(engine({"running": {"startedAt": since}}, last, restarts, started=False))


def unscheduled(message: str, since: str = "", reason: str = "Unschedulable") -> PodView:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return pod(
        {"phase": "Pending", "conditions": [{**condition, "lastTransitionTime": since or ago(minutes=1)}]}, node=""
    )


def gone(reason: str, message: str, name: str = "small-x-1") -> PodView:
    condition = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": ago(minutes=5)}
    return pod({"phase": "Failed", "reason": reason, "message": message, "conditions": [condition]}, name=name)


def facts(*pods: PodView, **changes: Any) -> TierFacts:
    whole = TierFacts(
        namespace="demo",
        name="small",
        generation=3,
        sized="1 x H100",
        deployment=deployment(),
        pods=pods,
        gpus_per_replica=8,
        resource="nvidia.com/gpu",
        product="H100",
        free=FreeGpus((4, 2)),
        startup_seconds=900,
    )
    return dataclasses.replace(whole, **changes)


def error(message: str, reason: str = "", code: int = 403) -> TierFacts:
    return facts(deployment=None, apply_error=ApplyError("Deployment", "small", code, reason, message))


RBAC = (
    'deployments.apps "small" is forbidden: User "system:serviceaccount:modeltiers-system:modeltiers-operator" cannot'
    ' patch resource "deployments" in API group "apps" in the namespace "demo"'
)
QUOTA = 'pods "small-x-1" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: 8, limited: 8'
NO_GPU = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."
PULL = 'failed to pull and unpack image "x": failed to resolve reference "x": '
DEADLINE = {
    "type": "Progressing",
    "status": "False",
    "reason": "ProgressDeadlineExceeded",
    "message": "timed out progressing.",
}


def stuck() -> DeploymentView:
    return dataclasses.replace(
        DeploymentView.of({"status": {"conditions": [DEADLINE]}}), name="small", replicas=1, updated=1
    )


# Reason, the world, whether the tier is stalled by it, and words its message must hold: object, field, numbers.
Case = tuple[str, TierFacts, bool, tuple[str, ...]]
CASES: list[Case] = [
    ("InvalidSpec", facts(fault=(("spec.replicas", "must be a whole number"),)), True, ("spec.replicas: must be",)),
    ("InvalidSpec", facts(fault=()), True, ("not valid",)),
    (
        "NotAllowed",
        facts(refusals=(("spec.serving.args[0]", "--x may not be set: remove it"),)),
        True,
        ("args[0]", "remove"),
    ),
    (
        "DistillJobNotFound",
        facts(job_missing=(("spec.model.source", "there is no DistillJob orders: create it"),)),
        True,
        ("spec.model.source: there is no DistillJob orders: create it",),
    ),
    (
        "DistillJobNotFound",
        facts(job_missing=(("spec.model.source", "there is no DistillJob orders"),), arriving=timedelta(seconds=3)),
        False,
        ("spec.model.source: there is no DistillJob orders",),
    ),
    (
        "UnknownModel",
        facts(no_fit=("UnknownModel", "spec.model.source: no such model"), sized=None),
        True,
        ("spec.model",),
    ),
    ("FitsNoAccelerator", facts(no_fit=("FitsNoAccelerator", "h100: weights 140 GiB"), sized=None), True, ("140 GiB",)),
    ("FitsNoAccelerator", facts(no_fit=("SomethingNew", "words"), sized=None), True, ("words",)),
    (
        "NameConflict",
        error("Deployment demo/small exists", "NameConflict", 409),
        True,
        ("Deployment demo/small", "name is taken", "exists"),
    ),
    ("Forbidden", error(RBAC, "Forbidden"), True, ("Deployment demo/small", "may not patch deployments.apps", "grant")),
    ("Forbidden", error("no", "Forbidden"), True, ("RBAC",)),
    ("QuotaExceeded", error(QUOTA), True, ("requested: requests.nvidia.com/gpu=8", "spec.replicas")),
    ("QuotaExceeded", facts(deployment=failing(QUOTA)), True, ("pods of Deployment demo/small", "limited: 8")),
    ("QuotaExceeded", error("odd words", "QuotaExceeded"), True, ("odd words",)),
    (
        "PodSecurityViolation",
        facts(deployment=failing('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot')),
        True,
        ("restricted:latest",),
    ),
    (
        "AdmissionDenied",
        error('admission webhook "p.example.com" denied the request: no team label'),
        True,
        ("no team label",),
    ),
    (
        "AdmissionDenied",
        error("x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too big", code=422),
        True,
        ("too big",),
    ),
    *(
        ("LimitRangeViolated", facts(deployment=failing(f'pods "x" is forbidden: {said}')), True, (said, "LimitRange"))
        for said in (
            "maximum memory usage per Container is 1Gi, but limit is 3Gi",
            "minimum cpu usage per Pod is 2, but request is 300m",
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        )
    ),
    ("AdmissionDenied", facts(deployment=failing('pods "x" is forbidden: odd words')), True, ("odd words",)),
    (
        "RolloutPaused",
        facts(deployment=DeploymentView("small", wanted=2, replicas=2, ready_replicas=2, paused=True)),
        False,
        ("Deployment demo/small is paused", "kubectl rollout resume deployment/small -n demo"),
    ),
    ("WebhookUnavailable", error('failed calling webhook "p": connection refused', code=500), False, ("webhook",)),
    (
        "NamespaceTerminating",
        error("unable to create new content in namespace demo because it is being terminated"),
        True,
        ("being deleted",),
    ),
    (
        "PriorityClassNotFound",
        facts(deployment=failing('pods "x" is forbidden: no PriorityClass with name fast was found')),
        True,
        ("fast", "spec.scheduling.priorityClassName"),
    ),
    (
        "RuntimeClassNotFound",
        facts(deployment=failing('pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found')),
        True,
        ("nvidia", "spec.scheduling.runtimeClassName"),
    ),
    (
        "ServiceAccountNotFound",
        facts(deployment=failing('pods "x" is forbidden: error looking up service account demo/small: not found')),
        False,
        ("ServiceAccount",),
    ),
    (
        "Rejected",
        error("Deployment.apps is invalid: spec.x: field is immutable", "Rejected", 422),
        True,
        ("immutable",),
    ),
    ("Rejected", error("what", code=400), True, ("what",)),
    ("Unauthorized", error("Unauthorized", "Unauthorized", 401), False, ("credentials",)),
    ("ApiUnavailable", error("connection refused", "ApiUnavailable", 0), False, ("tried again",)),
    ("ApiUnavailable", error("changed meanwhile", "Conflict", 409), False, ("tried again",)),
    (
        "Unschedulable",
        facts(unscheduled(NO_GPU)),
        False,
        (
            "pod demo/small-x-1",
            "needs 8 nvidia.com/gpu of H100",
            "largest free 4",
            "6 in all",
            "15 min",
            "5 Insufficient",
        ),
    ),
    ("Unschedulable", facts(unscheduled(NO_GPU, ago(minutes=16))), True, ("largest free 4", "spec.accelerators")),
    ("Unschedulable", facts(unscheduled(NO_GPU), free=None), False, ("not known",)),
    ("Unschedulable", facts(unscheduled("untolerated taint"), free=FreeGpus((8,))), False, ("something else",)),
    (
        "SchedulingGated",
        facts(unscheduled("Scheduling is blocked due to non-empty scheduling gates", reason="SchedulingGated")),
        False,
        ("queue",),
    ),
    (
        "VolumeClaimNotFound",
        facts(unscheduled('0/1 nodes are available: persistentvolumeclaim "weights" not found.')),
        True,
        ("PersistentVolumeClaim weights", "spec.serving.cache.claimName"),
    ),
    (
        "VolumeClaimNotBound",
        facts(unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")),
        False,
        ("storage class",),
    ),
    (
        "VolumeClaimNotBound",
        facts(unscheduled("pod has unbound immediate PersistentVolumeClaims.", ago(hours=1))),
        True,
        ("storage class",),
    ),
    (
        "ArtifactRefused",
        facts(refused("2026 ERROR ArtifactChanged: the files of /model/x are not those that were signed")),
        True,
        ("container verify", "ArtifactChanged", "trust its key"),
    ),
    (
        "SecretNotFound",
        facts(waiting("CreateContainerConfigError", 'secret "hf-token" not found')),
        True,
        ("pod demo/small-x-1, container engine", "Secret hf-token", "spec.model.tokenSecretRef"),
    ),
    (
        "SecretKeyNotFound",
        facts(waiting("CreateContainerConfigError", "couldn't find key token in Secret demo/hf-token")),
        True,
        ("Secret hf-token has no key token",),
    ),
    *(  # as a real kubelet 1.37 says it
        (reason, facts(not_set_up(f'MountVolume.SetUp failed for volume "a" : {said}')), True, ("small-x-1", *words))
        for reason, said, *words in (
            ("SecretNotFound", 'secret "nope" not found', "there is no Secret nope", "create it in this namespace"),
            ("SecretKeyNotFound", "references non-existent secret key: key", "has no key key"),
            ("ConfigMapNotFound", 'configmap "nope" not found', "there is no ConfigMap nope"),
            ("ConfigMapKeyNotFound", "configmap references non-existent config key: rows.jsonl", "no key rows.jsonl"),
        )
    ),
    (
        "PodNotSetUp",
        facts(not_set_up('MountVolume.SetUp failed for volume "w" : mount.nfs: Connection timed out')),
        False,
        ("pod demo/small-x-1 on node gpu-1", "Connection timed out", "storage"),
    ),
    (
        "ConfigMapNotFound",
        facts(waiting("CreateContainerConfigError", 'configmap "ca" not found')),
        True,
        ("ConfigMap ca",),
    ),
    (
        "ConfigMapKeyNotFound",
        facts(waiting("CreateContainerConfigError", "couldn't find key x in ConfigMap demo/ca")),
        True,
        ("ConfigMap ca has no key x",),
    ),
    ("ContainerConfigInvalid", facts(waiting("CreateContainerConfigError", "image will run as root")), True, ("root",)),
    (
        "ImageNameInvalid",
        facts(waiting("InvalidImageName", "invalid reference format")),
        True,
        ("reg.example.com/vllm:1",),
    ),
    ("ImageNotFound", facts(waiting("ErrImagePull", f"{PULL}x: not found")), True, ("spec.serving.image",)),
    ("ImageNotFound", facts(waiting("ErrImageNeverPull", "image is not present")), True, ("pull policy",)),
    ("ImagePullDenied", facts(waiting("ErrImagePull", f"{PULL}401 Unauthorized")), True, ("pull Secret",)),
    (
        "ImagePullDenied",
        facts(waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {PULL}denied')),
        True,
        (),
    ),
    ("ImagePullFailed", facts(waiting("ErrImagePull", f"{PULL}i/o timeout")), False, ("i/o timeout",)),
    ("ImagePullFailed", facts(waiting("ImagePullBackOff", 'Back-off pulling image "x"')), False, ("tried again",)),
    ("ImagePullFailed", facts(waiting("ErrImagePull", "i/o timeout"), deployment=stuck()), True, ("i/o timeout",)),
    (
        "ContainerStartFailed",
        facts(waiting("RunContainerError", 'exec: "vllm": executable file not found')),
        True,
        ("exec",),
    ),
    ("ContainerStartFailed", facts(crashed("exec format error", 128, "StartError")), True, ("exec format",)),
    ("HostOutOfMemory", facts(crashed("", 137, "OOMKilled")), True, ("spec.serving.resources.memory",)),
    ("HostOutOfMemory", facts(crashed("", 137, "OOMKilled", restarts=1)), False, ("OOMKilled",)),
    (
        "CrashLoop",
        facts(crashed("RuntimeError: never seen")),
        True,
        ("never seen", "kubectl logs -n demo small-x-1 -c engine"),
    ),
    ("CrashLoop", facts(crashed("RuntimeError: never seen", restarts=1)), False, ("code 1",)),
    ("CrashLoop", facts(crashed("token=abcdef123456")), True, ("[redacted]",)),
    ("EngineExited", facts(crashed("", 0, "Completed")), True, ("no success",)),
    ("ContainerKilled", facts(crashed("", 137)), True, ("137",)),
    ("NativeCrash", facts(crashed("", 139)), True, ("139",)),
    ("StartupTimeout", facts(running(ago(minutes=20))), True, ("15 min", "spec.serving.startupSeconds")),
    ("StartupTimeout", facts(crashed("", 137, restarts=1, ran=905)), True, ("15 min",)),
    ("StartupTimeout", facts(crashed("KeyboardInterrupt: terminated", 0, restarts=1, ran=905)), True, ("15 min",)),
    ("NodeLost", facts(pod({"phase": "Unknown"})), False, ("node gpu-1",)),
    (
        "EphemeralStorageEvicted",
        facts(gone("Evicted", "The node was low on resource: ephemeral-storage.")),
        False,
        ("disk",),
    ),
    (
        "EphemeralStorageEvicted",
        facts(*(gone("Evicted", "low on resource: ephemeral-storage", f"small-x-{n}") for n in range(3))),
        True,
        ("spec.serving.cache",),
    ),
    ("Evicted", facts(gone("Evicted", "The node was low on resource: memory.")), False, ("memory",)),
    ("PodRejectedByNode", facts(gone("UnexpectedAdmissionError", "Allocate failed")), False, ("Allocate failed",)),
    (
        "ProgressDeadlineExceeded",
        facts(pod(), deployment=stuck()),
        True,
        ("Deployment demo/small", "kubectl describe pods"),
    ),
    ("Creating", facts(deployment=None), False, ()),
    ("Applying", facts(deployment=deployment(observed_generation=1)), False, ("demo/small",)),
    ("Applying", facts(deployment=deployment(wanted=2)), False, ()),
    ("RollingOut", facts(deployment=deployment(replicas=2, ready_replicas=2)), False, ("1 pod of the spec before",)),
    ("Bridging", facts(deployment=deployment(ready_replicas=1), held_for=("a", "b")), False, ("policies a and b",)),
    (
        "RollingOut",
        facts(deployment=deployment(replicas=2), bridges=(("support", "large"),)),
        False,
        ("requests of policy support enter at large meanwhile",),
    ),
    ("Scaling", facts(deployment=deployment(wanted=2, updated=1), wanted_replicas=2), False, ("0 of 2 pods ready",)),
    ("Scheduling", facts(pod({"phase": "Pending"}, node="")), False, ("waits for the scheduler",)),
    ("Preparing", facts(waiting("ContainerCreating")), False, ("node gpu-1",)),
    ("Starting", facts(running(ago(minutes=1))), False, ("container engine loads",)),
    ("NotReady", facts(pod(engine({"running": {"startedAt": ago(minutes=1)}}, started=True))), False, ()),
    ("NotReady", facts(), False, ()),
    ("Terminating", facts(deleting=True), False, ()),
    (
        "EndpointUnreachable",
        facts(external=ExternalFacts(True, "there", False, "https://x: refused")),
        False,
        ("refused",),
    ),
    ("HostNotAllowed", facts(external=ExternalFacts(reachable=False, reachable_reason="HostNotAllowed")), True, ()),
    ("CredentialsNotUsable", facts(external=ExternalFacts(False, "odd")), True, ("odd",)),
    ("SecretNotFound", facts(external=ExternalFacts(False, "no", credentials_reason="SecretNotFound")), True, ()),
    ("KeyRejected", facts(external=ExternalFacts(False, "no", credentials_reason="KeyRejected")), True, ()),
    (
        "ModelNotListed",
        facts(external=ExternalFacts(True, "", True, "", False, "m is not listed")),
        True,
        ("m is not",),
    ),
    ("NotKnownYet", facts(external=ExternalFacts(True, "")), False, ()),
]
# Every message in the engine's table, by a sentence that it must know.
ENGINE = {
    "ModelGated": "GatedRepoError: 401 Client Error.",
    "RevisionNotFound": "RevisionNotFoundError: 404",
    "ModelNotFound": "x is not a valid model identifier",
    "TokenRejected": "Invalid user token.",
    "HubUnreachable": "We couldn't connect to 'https://hub.example.com'",
    "DiskFull": "[Errno 28] No space left on device",
    "VolumeNotWritable": "PermissionError: [Errno 13] Permission denied: '/cache'",
    "KVCacheTooSmall": "No available memory for the cache blocks.",
    "ContextTooLong": "max_model_len (9) is greater than the derived max_model_len (8)",
    "GpuMemoryBusy": "Free memory on device (6/79 GiB) on startup is less than desired GPU memory utilization",
    "HeadsNotDivisible": "attention heads (40) must be divisible by tensor parallel size (3).",
    "GpuOutOfMemory": "torch.OutOfMemoryError: CUDA out of memory.",
    "FlagRejected": "unrecognized arguments: --foo",
    "RemoteCodeNeeded": "contains custom code which must be executed",
    "ModelNotSupported": "Model architectures ['X'] are not supported for now.",
    "WeightsDamaged": "SafetensorError: Error while deserializing header",
    "DriverMismatch": "CUDA driver version is insufficient",
    "NotSupportedByGpu": "only supported on GPUs with compute capability of at least 8.0",
    "GpuNotVisible": "No CUDA GPUs are available",
    "GpuCommunicationFailed": "NCCL error in: x",
    "SharedMemoryTooSmall": "killed by signal: Bus error.",
    "StartupTimeout": "Timed out waiting for engine core processes to start.",
    "EngineDied": "EngineDeadError: EngineCore encountered an issue.",
}
CASES += [(reason, facts(crashed(text, code=0)), True, (text[:18],)) for reason, text in ENGINE.items()]
CASES += [
    (known.reason, facts(crashed(ENGINE[known.reason], restarts=1)), not known.retryable, (known.way_out[1:40],))
    for known in KNOWN
]

# Reasons that say that all is well need no way out.
FINE = {"Autoscaling", "Valid", "Sized", "CredentialsFound", "EndpointAnswers", "ModelListed", "Serving", "UpToDate"}
FINE |= {"Settled", "Stalled", "NotStalled"}


def said(case: TierFacts) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in judge(case, [], NOW).conditions}


def identify(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("reason", "world", "stalled", "words"), CASES, ids=identify)
def test_the_reason_is_told(reason: str, world: TierFacts, stalled: bool, words: tuple[str, ...]) -> None:
    """On Ready at once, on Stalled or Reconciling beside it, with object, field, numbers and way out."""
    conditions = said(world)
    ready = conditions["Ready"]
    assert ready["reason"] == reason
    assert conditions["Stalled"]["status"] == ("True" if stalled else "False")
    assert ready["status"] == ("False" if stalled or reason == "EndpointUnreachable" else "Unknown")
    if stalled:
        assert conditions["Stalled"]["reason"] == reason
        assert conditions["Reconciling"]["status"] == "False"
    else:
        assert conditions["Reconciling"]["status"] == "True"
        assert conditions["Reconciling"]["reason"] == reason
    for word in words:
        assert word.lower() in ready["message"].lower()
    assert "\n" not in ready["message"]


def test_sizing_s_reasons_are_passed_on() -> None:
    """Every one that is documented for Sized, with its own message on three conditions."""
    for item in REASONS:
        if item.condition == "Sized" and item.name not in ("Sized", "NotSized"):
            conditions = said(facts(no_fit=(item.name, "words of sizing"), sized=None))
            assert [conditions[kind]["reason"] for kind in ("Sized", "Ready", "Stalled")] == [item.name] * 3


SCALED = ("Autoscaling", "MetricsUnknown", "AnotherAutoscaler")
"""What `domain.scaling` says, as its own tests show."""


def test_every_reason_is_documented_and_every_documented_reason_is_reached() -> None:
    """The table and the code cannot drift apart."""
    worlds = [world for _, world, _, _ in CASES]
    worlds += [facts(no_fit=(item.name, "x"), sized=None) for item in REASONS if item.condition == "Sized"]
    whole = deployment(ready_replicas=1)
    worlds += [
        facts(deployment=whole),
        facts(deployment=whole, update_available=("image x",)),
        facts(deployment=deployment(wanted=0, replicas=0, updated=0), wanted_replicas=0),
        *(facts(scaling=Scaling(1, Observation(SCALING_ACTIVE, "True", reason, ""))) for reason in SCALED),
        facts(external=ExternalFacts(True, "", True, "", True, "")),
        facts(external=ExternalFacts(None, "", True, "", True, "")),
    ]
    reached = {item["reason"] for world in worlds for item in judge(world, [], NOW).conditions}
    assert reached == {item.name for item in REASONS}


def test_reasons_are_words_of_their_own() -> None:
    """Each is there once, in the form that the API wants, with a meaning and, for a cause, a way out."""
    names = [item.name for item in REASONS]
    assert len(set(names)) == len(names)
    for item in REASONS:
        assert item.name[0].isupper()
        assert item.name.isalnum()
        assert len(item.name) <= 64
        assert item.meaning.endswith(".")
        assert item.way_out or item.name in FINE


def test_the_first_check_wins() -> None:
    """A spec that is not valid is said before the pods that it left behind."""
    world = facts(crashed("CUDA out of memory"), fault=(("spec.x", "bad"),), refusals=(("spec.y", "no"),))
    assert said(world)["Ready"]["reason"] == "InvalidSpec"


def test_many_faults_are_told_in_part() -> None:
    """Three, and how many more."""
    world = facts(refusals=tuple((f"spec.serving.args[{n}]", "no") for n in range(5)))
    message = said(world)["Ready"]["message"]
    assert "args[2]" in message
    assert "args[3]" not in message
    assert "2 more" in message


def test_pods_of_the_spec_before_explain_nothing() -> None:
    """A crash of an old pod is no failure of the new spec; a pod on its way out neither."""
    old = dataclasses.replace(crashed("CUDA out of memory"), template="old", created_at=ago(hours=3))
    leaving = dataclasses.replace(crashed("CUDA out of memory"), name="z", deleting=True)
    world = facts(old, leaving, running(ago(seconds=5)), deployment=deployment(replicas=2))
    assert said(world)["Ready"]["reason"] == "Starting"
    world = facts(old, deployment=deployment(replicas=1, updated=0))
    assert said(world)["Ready"]["reason"] == "RollingOut"


def test_a_run_that_outlives_the_crash_is_a_new_start() -> None:
    """Until then a loop stays one, though the container runs in between; the clock says when to look again."""
    end = {
        "exitCode": 1,
        "reason": "Error",
        "message": "boom",
        "startedAt": ago(seconds=100),
        "finishedAt": ago(seconds=60),
    }
    verdict = judge(facts(running(ago(seconds=30), end, 5)), [], NOW)
    assert {item["type"]: item["reason"] for item in verdict.conditions}["Stalled"] == "CrashLoop"
    assert verdict.wait == timedelta(seconds=60 + 2 * 40 - 30)
    assert said(facts(running(ago(seconds=200), end, 5)))["Ready"]["reason"] == "Starting"


def test_an_init_container_that_succeeded_did_not_crash() -> None:
    """Code 0 is success for those alone."""
    status = {
        "initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]
    }
    assert said(facts(pod(status)))["Ready"]["reason"] == "Preparing"


def test_old_evictions_are_forgotten() -> None:
    """Failed pods stay listed for days."""
    pods = [
        dataclasses.replace(gone("Evicted", "ephemeral-storage", f"p{n}"), created_at=ago(days=2)) for n in range(5)
    ]
    pods = [
        dataclasses.replace(p, conditions=tuple(dataclasses.replace(c, since=ago(days=1)) for c in p.conditions))
        for p in pods
    ]
    assert said(facts(*pods, running(ago(seconds=5))))["Ready"]["reason"] == "Starting"


def test_an_older_kubelet_s_back_off_keeps_the_reason() -> None:
    """It says the cause in ErrImagePull only; the tier must not flip with every back-off."""
    first = judge(facts(waiting("ErrImagePull", f"{PULL}x: not found")), [], NOW)
    bare = facts(waiting("ImagePullBackOff", 'Back-off pulling image "x"'))
    second = judge(bare, first.conditions, NOW)
    assert [item["reason"] for item in second.conditions if item["type"] == "Stalled"] == ["ImageNotFound"]
    again = judge(dataclasses.replace(bare, generation=4), first.conditions, NOW)
    assert [item["status"] for item in again.conditions if item["type"] == "Stalled"] == ["False"]


def test_check_names_read_like_findings() -> None:
    """The order is the explanation: each check is named for what it finds and documented."""
    for check in (*causes.BEFORE, *causes.PODS):
        assert check.__doc__
