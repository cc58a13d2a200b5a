"""Grammar and vocabulary of a tier's conditions: which there are, when a transition time moves, what reasons mean.

What a condition says of a tier is decided in `causes` and `verdict`. Here a new set of observations is laid over the
one written last, so that a status that says the same again is the same, byte for byte, and nothing is written. The
table of reasons is what the reference page is made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from modeltiers.domain.engine_messages import known
from modeltiers.domain.views import instant

Status = Literal["True", "False", "Unknown"]

ACCEPTED: Final = "Accepted"
SIZED: Final = "Sized"
CREDENTIALS_FOUND: Final = "CredentialsFound"
ENDPOINT_REACHABLE: Final = "EndpointReachable"
MODEL_LISTED: Final = "ModelListed"
READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
UPDATE_AVAILABLE: Final = "UpdateAvailable"
SCALING_ACTIVE: Final = "ScalingActive"
CANDIDATE_READY: Final = "CandidateReady"

ORDER: Final = (
    ACCEPTED,
    SIZED,
    CREDENTIALS_FOUND,
    ENDPOINT_REACHABLE,
    MODEL_LISTED,
    READY,
    RECONCILING,
    STALLED,
    UPDATE_AVAILABLE,
    SCALING_ACTIVE,
    CANDIDATE_READY,
)
MAX_MESSAGE: Final = 2048


@dataclass(frozen=True, slots=True)
class Observation:
    """What one condition should say now."""

    type: str
    status: Status
    reason: str
    message: str


def tri_state(known: bool | None) -> Status:
    """True, False, or Unknown for None."""
    return "Unknown" if known is None else "True" if known else "False"


def merge(
    previous: Sequence[Mapping[str, Any]],
    observed: Iterable[Observation],
    generation: int,
    now: datetime,
    order: Sequence[str] = ORDER,
) -> list[dict[str, Any]]:
    """The conditions to write. `lastTransitionTime` moves only where the status flips, and never backwards."""
    before = by_type(previous)
    ordered = sorted(observed, key=lambda item: order.index(item.type))
    return [_condition(before.get(item.type), item, generation, now) for item in ordered]


def by_type(conditions: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Conditions as they were read, by type; what is not one is left out."""
    found = (item for item in conditions if isinstance(item, Mapping))
    return {item["type"]: item for item in found if isinstance(item.get("type"), str)}


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it: whole seconds, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(before: Mapping[str, Any] | None, item: Observation, generation: int, now: datetime) -> dict[str, Any]:
    return {
        "type": item.type,
        "status": item.status,
        "reason": item.reason,
        "message": item.message if len(item.message) <= MAX_MESSAGE else item.message[: MAX_MESSAGE - 1] + "…",
        "observedGeneration": generation,
        "lastTransitionTime": _transition(before, item.status, now),
    }


def _transition(before: Mapping[str, Any] | None, status: Status, now: datetime) -> str:
    written = before.get("lastTransitionTime") if before else None
    moment = instant(written) if isinstance(written, str) else None
    if moment is None:
        return stamp(now)
    if before and before.get("status") == status:
        return str(written)
    return stamp(max(now, moment))


# --- the vocabulary -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """A word that conditions use for why, as documented: where it is said, what it means, and the way out."""

    name: str
    condition: str
    meaning: str
    way_out: str = ""


def _engine(name: str, meaning: str) -> Reason:
    return Reason(name, STALLED, meaning, known(name).way_out)


_WAIT: Final = "Nothing to do: it passes."
_ACCEPTED_REASONS: Final = (
    Reason("Valid", ACCEPTED, "The spec is valid and allowed."),
    Reason(
        "InvalidSpec",
        ACCEPTED,
        "The stored object is not one that this version understands.",
        "Correct the field that is named.",
    ),
    Reason(
        "NotAllowed",
        ACCEPTED,
        "The spec asks for something that tiers may not have here.",
        "Change the field that is named.",
    ),
    Reason(
        "DistillJobNotFound",
        ACCEPTED,
        "There is no DistillJob of the name that spec.model.source follows; Reconciling for ten seconds, then Stalled.",
        "Create it, or correct the name.",
    ),
)
_SIZED_REASONS: Final = (
    Reason("Sized", SIZED, "A layout was found; the message has it."),
    Reason("NotSized", SIZED, "Sizing has not run, because the spec is not accepted or for a moment only.", _WAIT),
    Reason(
        "FitsNoAccelerator",
        SIZED,
        "The model fits none of the accelerators; the message has the terms.",
        "Add larger accelerators or more of them, lower spec.model.maxModelLen, or quantise.",
    ),
    Reason(
        "ContextTooLong", SIZED, "The context length is more than the model supports.", "Lower spec.model.maxModelLen."
    ),
    Reason(
        "IllegalLayout",
        SIZED,
        "The pinned layout does not divide the model.",
        "Correct spec.sizing.pinned, or use mode Auto.",
    ),
    Reason(
        "AcceleratorUnknown",
        SIZED,
        "No node and no table says how much memory the accelerator has.",
        "Set spec.accelerators[].memory and gpusPerNode, or correct the product.",
    ),
    Reason(
        "ArchitectureNotSupported",
        SIZED,
        "Sizing does not know this kind of model.",
        "Use mode Pinned, or another model.",
    ),
    Reason("ArchitectureIncomplete", SIZED, "Numbers of the model are missing.", "Complete spec.model.architecture."),
    Reason(
        "ImplausibleWeights",
        SIZED,
        "The given weight bytes and the shapes contradict each other.",
        "Correct spec.model.architecture.",
    ),
    Reason("QuantizationConflict", SIZED, "Two quantisations were asked for.", "Set spec.model.quantization to Auto."),
    Reason(
        "UnknownModel",
        SIZED,
        "The bundled catalogue does not know the model.",
        "Give spec.model.architecture with the numbers of its config.json, or correct spec.model.source.",
    ),
)
_EXTERNAL_REASONS: Final = (
    Reason("CredentialsFound", CREDENTIALS_FOUND, "The key is there, or none is needed."),
    Reason(
        "CredentialsNotUsable", CREDENTIALS_FOUND, "The key is missing or not accepted.", "Do what the message says."
    ),
    Reason(
        "CredentialsNotChecked",
        CREDENTIALS_FOUND,
        "The operator may not read the Secret, so nothing is known of the key.",
        "Grant the operator `get` on this one Secret.",
    ),
    Reason("KeyRejected", CREDENTIALS_FOUND, "The API does not accept the key.", "Put a valid key into the Secret."),
    Reason("EndpointAnswers", ENDPOINT_REACHABLE, "The API answers."),
    Reason(
        "EndpointUnreachable",
        ENDPOINT_REACHABLE,
        "The API does not answer; it is tried again.",
        "Check spec.external.baseUrl and the network.",
    ),
    Reason(
        "HostNotAllowed",
        ENDPOINT_REACHABLE,
        "The administrator's settings do not allow the host.",
        "Have an administrator add it to externalHosts.",
    ),
    Reason("ModelListed", MODEL_LISTED, "The API lists the model."),
    Reason("ModelNotListed", MODEL_LISTED, "The API does not list the model.", "Correct spec.external.model."),
    Reason(
        "NotKnownYet", MODEL_LISTED, "The API was not asked yet, or did not say (also on EndpointReachable).", _WAIT
    ),
)
_READY_REASONS: Final = (
    Reason(
        "Serving",
        READY,
        "All wanted pods of the present spec are ready; for an external tier, its API serves the model and its routers"
        " are ready.",
    ),
    Reason("ScaledToZero", READY, "No pod is wanted and none is there.", "Raise spec.replicas to serve."),
)
_PROGRESS_REASONS: Final = (
    Reason("Creating", RECONCILING, "The Deployment is being created.", _WAIT),
    Reason("Applying", RECONCILING, "The Deployment controller has not taken up the last change.", _WAIT),
    Reason("Bridging", RECONCILING, "Requests of policies are led to another tier before the last pods go.", _WAIT),
    Reason("RollingOut", RECONCILING, "Pods of the spec before are being replaced.", _WAIT),
    Reason(
        "RolloutPaused",
        RECONCILING,
        "Somebody paused the Deployment: no pod of the present spec is made.",
        "`kubectl rollout resume` with the Deployment that the message names.",
    ),
    Reason("Scaling", RECONCILING, "Pods are being added or removed.", _WAIT),
    Reason("Scheduling", RECONCILING, "A pod waits for the scheduler.", _WAIT),
    Reason("Preparing", RECONCILING, "A node pulls the image, mounts volumes, hands out devices.", _WAIT),
    Reason("Starting", RECONCILING, "The engine loads the model.", _WAIT),
    Reason(
        "NotReady", RECONCILING, "A pod runs and does not answer yet, or not any more.", "Read its log if it stays."
    ),
    Reason("Terminating", RECONCILING, "The tier is being deleted.", _WAIT),
    Reason("Settled", RECONCILING, "Nothing is being worked on."),
    Reason("Stalled", RECONCILING, "Nothing is being worked on: see the condition Stalled."),
    Reason("NotStalled", STALLED, "Nothing stands in the way."),
)
_CLUSTER_REASONS: Final = (
    Reason(
        "NameConflict",
        STALLED,
        "A child's name is taken by a foreign object.",
        "Rename or delete that object, or rename the tier.",
    ),
    Reason(
        "Forbidden",
        STALLED,
        "The operator lacks a right; the message has verb and resource.",
        "Grant it: the chart's RBAC has it.",
    ),
    Reason("QuotaExceeded", STALLED, "A ResourceQuota does not allow it.", "Raise the quota or lower spec.replicas."),
    Reason(
        "LimitRangeViolated",
        STALLED,
        "A LimitRange of the namespace does not allow what a container asks for.",
        "Set it within the range, or have the range changed.",
    ),
    Reason(
        "PodSecurityViolation",
        STALLED,
        "The namespace's Pod Security level forbids the pods.",
        "Change the profile or the level.",
    ),
    Reason("AdmissionDenied", STALLED, "A webhook or policy refuses it.", "Do what its message asks for."),
    Reason("WebhookUnavailable", STALLED, "An admission webhook does not answer.", "Repair or remove the webhook."),
    Reason("NamespaceTerminating", STALLED, "The namespace is being deleted.", "Create the tier in another namespace."),
    Reason(
        "PriorityClassNotFound",
        STALLED,
        "The PriorityClass does not exist.",
        "Create it or correct spec.scheduling.priorityClassName.",
    ),
    Reason(
        "RuntimeClassNotFound",
        STALLED,
        "The RuntimeClass does not exist.",
        "Create it or correct spec.scheduling.runtimeClassName.",
    ),
    Reason("ServiceAccountNotFound", STALLED, "The pods' ServiceAccount is not there yet.", _WAIT),
    Reason(
        "Rejected",
        STALLED,
        "The API server does not accept a child.",
        "Correct the field that it names, or report a bug.",
    ),
    Reason(
        "Unauthorized",
        STALLED,
        "The operator's own credentials are not accepted.",
        "Check the operator's ServiceAccount token.",
    ),
    Reason("ApiUnavailable", STALLED, "The API server did not take a write; it is tried again.", _WAIT),
)
_POD_REASONS: Final = (
    Reason(
        "Unschedulable",
        STALLED,
        "No node for a pod. Reconciling until limits.unschedulableDeadlineSeconds, then Stalled.",
        "Free accelerators, add a node, or choose others in spec.accelerators.",
    ),
    Reason("SchedulingGated", STALLED, "A queue holds the pod back.", "Look at the queue's workload."),
    Reason(
        "ArtifactRefused",
        STALLED,
        "A student's package was changed, or no trusted key signed it: its engine is not started.",
        "Package it again with the signing key, or have an administrator add its key to distill.publicKeys.",
    ),
    Reason(
        "VolumeClaimNotFound",
        STALLED,
        "A PersistentVolumeClaim does not exist.",
        "Create it or correct the field that names it.",
    ),
    Reason(
        "VolumeClaimNotBound",
        STALLED,
        "A PersistentVolumeClaim has no volume.",
        "Look at its storage class and events.",
    ),
    Reason(
        "PodNotSetUp",
        RECONCILING,
        "A node cannot give a pod its volumes or its network; the message quotes its kubelet.",
        "See to what it names: storage, or the node's network.",
    ),
    Reason("SecretNotFound", STALLED, "A Secret does not exist.", "Create it or correct the reference."),
    Reason("SecretKeyNotFound", STALLED, "A Secret lacks a key.", "Add the key or correct the reference."),
    Reason("ConfigMapNotFound", STALLED, "A ConfigMap does not exist.", "Create it or correct the engine profile."),
    Reason("ConfigMapKeyNotFound", STALLED, "A ConfigMap lacks a key.", "Add the key or correct the engine profile."),
    Reason(
        "ContainerConfigInvalid", STALLED, "kubelet cannot set the container up.", "Correct what its message names."
    ),
    Reason("ImageNameInvalid", STALLED, "The image is no image reference.", "Correct the image."),
    Reason("ImageNotFound", STALLED, "The registry has no such image.", "Correct the image."),
    Reason("ImagePullDenied", STALLED, "The registry refuses the pull.", "Add a pull Secret or correct the image."),
    Reason(
        "ImagePullFailed",
        STALLED,
        "The pull failed for another reason; it is tried again.",
        "Check the node's way to the registry.",
    ),
    Reason(
        "ContainerStartFailed", STALLED, "The runtime cannot start the container.", "Correct what its message names."
    ),
    Reason(
        "HostOutOfMemory",
        STALLED,
        "The container used more main memory than its limit.",
        "Raise spec.serving.resources.memory.",
    ),
    Reason(
        "CrashLoop",
        STALLED,
        "The container ends and nothing known says why.",
        "Read its log with `kubectl logs --previous`.",
    ),
    Reason(
        "EngineExited",
        STALLED,
        "The engine ended with code 0, which it also does when it dies.",
        "Read its log with `kubectl logs --previous`.",
    ),
    Reason(
        "ContainerKilled",
        STALLED,
        "The container was killed (code 137), not for its memory limit.",
        "Read its log and the pod's events.",
    ),
    Reason(
        "NativeCrash",
        STALLED,
        "The container crashed in native code.",
        "Try another engine image or driver; report it upstream.",
    ),
    Reason("NodeLost", STALLED, "The node of a pod does not report.", "Bring the node back or delete it."),
    Reason(
        "EphemeralStorageEvicted",
        STALLED,
        "A pod was evicted for local disk.",
        "Use spec.serving.cache or nodes with more disk.",
    ),
    Reason(
        "Evicted",
        STALLED,
        "A pod was evicted for another resource of its node.",
        "Raise spec.serving.resources or relieve the node.",
    ),
    Reason("PodRejectedByNode", STALLED, "A node refused a pod that was meant for it.", "Look at its device plugin."),
    Reason(
        "ProgressDeadlineExceeded",
        STALLED,
        "A rollout made no progress in time, for no cause listed here.",
        "Look at the pods' events.",
    ),
)
_ENGINE_REASONS: Final = (
    _engine("ModelGated", "The model's licence was not accepted, or there is no token."),
    _engine("ModelNotFound", "The hub or the folder has no such model."),
    _engine("RevisionNotFound", "The model has no such revision."),
    _engine("TokenRejected", "The hub does not accept the token."),
    _engine("HubUnreachable", "The hub cannot be reached, or limits the rate."),
    _engine("DiskFull", "A volume is full."),
    _engine("VolumeNotWritable", "The engine's user may not write to a volume."),
    _engine("KVCacheTooSmall", "Beside the weights there is no room for one request of the full length."),
    _engine("GpuMemoryBusy", "Another process holds memory of the accelerator at start."),
    _engine("HeadsNotDivisible", "The tensor parallel size does not divide the model."),
    _engine("GpuOutOfMemory", "The accelerator's memory ran out."),
    _engine("FlagRejected", "The engine does not know a flag or its value."),
    _engine("RemoteCodeNeeded", "The model brings code of its own, which is not run."),
    _engine("ModelNotSupported", "The engine does not support the model's architecture."),
    _engine("WeightsDamaged", "The weight files cannot be read."),
    _engine("DriverMismatch", "The image and the node's driver do not go together."),
    _engine("NotSupportedByGpu", "The accelerator lacks something the model needs."),
    _engine("GpuNotVisible", "The container sees no accelerator."),
    _engine("GpuCommunicationFailed", "Accelerators cannot talk to each other."),
    _engine("SharedMemoryTooSmall", "Shared memory ran out."),
    _engine("StartupTimeout", "The engine did not start in time."),
    _engine("EngineDied", "The engine stopped while serving."),
)
_UPDATE_REASONS: Final = (
    Reason("UpToDate", UPDATE_AVAILABLE, "Nothing is newer than what runs."),
    Reason(
        "NewerAvailable",
        UPDATE_AVAILABLE,
        "A newer plan, image or default would be used by a new rollout.",
        "Change spec.rolloutToken to take it.",
    ),
)
_SCALING_REASONS: Final = (
    Reason("Autoscaling", SCALING_ACTIVE, "The operator's own autoscaler is at work; status.autoscaling has its sums."),
    Reason(
        "MetricsUnknown",
        SCALING_ACTIVE,
        "No ready pod's router said what its engine holds, so the number of pods stays.",
        "Nothing to do while pods start; else check that the operator reaches port 8081 of the pods.",
    ),
    Reason(
        "AnotherAutoscaler",
        SCALING_ACTIVE,
        "A HorizontalPodAutoscaler scales the same pods; the operator leaves their number alone.",
        "Keep one of the two: that object, aimed at the ModelTier, or spec.autoscaling.",
    ),
)
REASONS: Final[tuple[Reason, ...]] = (
    *_ACCEPTED_REASONS,
    *_SIZED_REASONS,
    *_EXTERNAL_REASONS,
    *_READY_REASONS,
    *_PROGRESS_REASONS,
    *_CLUSTER_REASONS,
    *_POD_REASONS,
    *_ENGINE_REASONS,
    *_UPDATE_REASONS,
    *_SCALING_REASONS,
)
SECTIONS: Final[tuple[tuple[str, str, tuple[Reason, ...]], ...]] = (
    ("Accepted: is the spec valid and allowed?", "", _ACCEPTED_REASONS),
    ("Sized: is there a layout?", "When it is False, Ready and Stalled carry the same reason.", _SIZED_REASONS),
    (
        "External tiers",
        "CredentialsFound, EndpointReachable and ModelListed; Ready takes the first that is not True.",
        _EXTERNAL_REASONS,
    ),
    ("Ready is True", "", _READY_REASONS),
    ("On the way", "Ready is Unknown and Reconciling is True, with these reasons on both.", _PROGRESS_REASONS),
    ("Causes: the cluster", "", _CLUSTER_REASONS),
    ("Causes: pods", "", _POD_REASONS),
    ("Causes: the engine's own words", "", _ENGINE_REASONS),
    ("UpdateAvailable", "", _UPDATE_REASONS),
    ("ScalingActive: who chooses the number of pods", "Absent where `spec.replicas` alone does.", _SCALING_REASONS),
)
"""What the reference page has: title, a word about it, reasons; in the order of a page."""
