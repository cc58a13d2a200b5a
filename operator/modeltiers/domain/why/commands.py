"""The next command of a reason: which one a person runs, for every word that a condition may say.

Each is whole: it can be pasted and runs. None of them changes anything by itself, but for `edit`, which opens an
editor, and `approve`, `resume` and `retry`, which are what a DistillJob waits for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from modeltiers import names
from modeltiers.domain.accelerators import NVIDIA_PRODUCT
from modeltiers.domain.why.snapshot import JOB, POLICY, SHORT, TIER

PLUGIN: Final = "kubectl modeltiers"


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is about: the object that says the reason, and what was found below it."""

    kind: str
    namespace: str
    name: str
    pod: str = ""
    claim: str = ""
    message: str = ""
    labels: tuple[str, ...] = ()
    """Node labels that the pod asks for."""
    nodes: tuple[str, ...] = ()
    """Nodes that could take the pod, and are full."""
    again: bool = False
    """Whether the container has a run before the present one, whose log is kept."""

    @property
    def short(self) -> str:
        """As commands name it."""
        return f"{SHORT[self.kind]}/{self.name}"


Command = Callable[[Target], str]


def edit(at: Target) -> str:
    """Open the object in an editor."""
    return f"kubectl edit {at.short} -n {at.namespace}"


def wait(at: Target) -> str:
    """Wait for it."""
    kind = "Complete" if at.kind == JOB else "Ready"
    return f"kubectl wait --for=condition={kind} {at.short} -n {at.namespace} --timeout=15m"


def gone(at: Target) -> str:
    """Wait until it is gone."""
    return f"kubectl wait --for=delete {at.short} -n {at.namespace} --timeout=15m"


def describe_pod(at: Target) -> str:
    """Everything that is known of the pod."""
    if at.pod:
        return f"kubectl describe pod {at.pod} -n {at.namespace}"
    return f"kubectl get pods -n {at.namespace} -l {_selector(at)}"


def log(at: Target) -> str:
    """What the container said before it ended."""
    pod = f" --pod {at.pod}" if at.pod else ""
    return f"{PLUGIN} logs {at.short} -n {at.namespace}{pod}{' --previous' if at.again else ''}"


def log_now(at: Target) -> str:
    """What the containers say."""
    return f"{PLUGIN} logs {at.short} -n {at.namespace}"


def nodes(at: Target) -> str:
    """The nodes with the labels that the pod asks for, or what runs on those that are full."""
    if at.nodes:
        return f"kubectl describe node {' '.join(at.nodes)}"
    return f"kubectl get nodes -L {','.join(at.labels or (NVIDIA_PRODUCT,))}"


def claim(at: Target) -> str:
    """The claim and its events; all where it is not known which."""
    if at.claim:
        return f"kubectl describe pvc {at.claim} -n {at.namespace}"
    return f"kubectl get pvc -n {at.namespace}"


def claims(at: Target) -> str:
    """The claims that there are."""
    return f"kubectl get pvc -n {at.namespace}"


def secrets(at: Target) -> str:
    """Names of the Secrets, without values."""
    return f"kubectl get secrets -n {at.namespace}"


def config_maps(at: Target) -> str:
    """Names of the ConfigMaps."""
    return f"kubectl get configmaps -n {at.namespace}"


def quota(at: Target) -> str:
    """What is used of what is allowed."""
    return f"kubectl describe resourcequota -n {at.namespace}"


def limit_range(at: Target) -> str:
    """What a container may ask for."""
    return f"kubectl describe limitrange -n {at.namespace}"


def namespace(at: Target) -> str:
    """The namespace with its labels: the Pod Security level, and whether it is going."""
    return f"kubectl get namespace {at.namespace} --show-labels"


def rights(at: Target) -> str:
    """What the operator may do there."""
    account = f"system:serviceaccount:{names.OPERATOR_NAMESPACE}:{names.OPERATOR_NAME}"
    return f"kubectl auth can-i --list -n {at.namespace} --as={account}"


def webhooks(_: Target) -> str:
    """The admission webhooks of the cluster."""
    return "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"


def policies_of_admission(_: Target) -> str:
    """Whatever of the cluster refuses objects."""
    return "kubectl get validatingadmissionpolicies,validatingwebhookconfigurations,mutatingwebhookconfigurations"


def events(at: Target) -> str:
    """What happened to it last."""
    return f"kubectl events -n {at.namespace} --for {at.kind.lower()}.{names.GROUP}/{at.name}"


_CHILD: Final = re.compile(r"\b([A-Z][A-Za-z]{1,40}) [a-z0-9-]{1,63}/([a-z0-9][a-z0-9.-]{0,252})")


def child(at: Target) -> str:
    """The object that a message names."""
    found = _CHILD.search(at.message)
    if found is None:
        return events(at)
    return f"kubectl get {found[1].lower()} {found[2].rstrip('.')} -n {at.namespace} -o yaml"


def resume_rollout(at: Target) -> str:
    """What lets a paused Deployment go on."""
    found = _CHILD.search(at.message)
    return f"kubectl rollout resume deployment/{found[2]} -n {at.namespace}" if found else events(at)


def settings(_: Target) -> str:
    """The administrator's settings."""
    return f"kubectl get configmap {names.OPERATOR_SETTINGS} -n {names.OPERATOR_NAMESPACE} -o yaml"


def operator(_: Target) -> str:
    """The operator's pods."""
    return f"kubectl get deployment,pods -n {names.OPERATOR_NAMESPACE}"


def operator_log(_: Target) -> str:
    """What the operator says."""
    return f"kubectl logs -n {names.OPERATOR_NAMESPACE} deployment/{names.OPERATOR_NAME} --tail=50"


def tiers(at: Target) -> str:
    """The tiers that there are."""
    return f"kubectl get mt -n {at.namespace}"


def jobs(at: Target) -> str:
    """The DistillJobs that there are."""
    return f"kubectl get dj -n {at.namespace}"


def stages(at: Target) -> str:
    """The Jobs of a distillation's stages, also those that a queue has not admitted."""
    return f"kubectl get jobs -n {at.namespace} -l {_selector(at)}"


def ours(at: Target) -> str:
    """The object as it is, with all it says."""
    return f"kubectl get {at.short} -n {at.namespace} -o yaml"


def routers(at: Target) -> str:
    """The pods that serve the policy's table."""
    return f"kubectl get pods -n {at.namespace} -l {names.LABEL_MANAGED_BY}={names.FIELD_MANAGER} -o wide"


def entry_log(at: Target) -> str:
    """What the router before the entry says."""
    return f"{PLUGIN} logs {at.short} -n {at.namespace}"


def plan(at: Target) -> str:
    """The arithmetic of the layout."""
    return f"kubectl get {at.short} -n {at.namespace} -o yaml | {PLUGIN} plan -f -"


def autoscalers(at: Target) -> str:
    """What scales the pods."""
    return f"kubectl get hpa -n {at.namespace}"


def overview(at: Target) -> str:
    """How far a distillation is and what it found."""
    return f"{PLUGIN} report {at.short} -n {at.namespace}"


def retry(at: Target) -> str:
    """Run the stage once more."""
    return f"{PLUGIN} retry {at.short} -n {at.namespace}"


def resume(at: Target) -> str:
    """Go on."""
    return f"{PLUGIN} resume {at.short} -n {at.namespace}"


def routes(at: Target) -> str:
    """The HTTPRoutes of the namespace."""
    return f"kubectl get httproutes -n {at.namespace} -o yaml"


def api_kinds(_: Target) -> str:
    """Which kinds of Gateway API the cluster serves."""
    return "kubectl api-resources --api-group=gateway.networking.k8s.io"


def priority_classes(_: Target) -> str:
    """The PriorityClasses that there are."""
    return "kubectl get priorityclasses"


def runtime_classes(_: Target) -> str:
    """The RuntimeClasses that there are."""
    return "kubectl get runtimeclasses"


def _selector(at: Target) -> str:
    label = {TIER: names.LABEL_TIER, POLICY: names.LABEL_POLICY, JOB: names.LABEL_DISTILL}[at.kind]
    return f"{label}={at.name}"


def _words(command: Command, words: str) -> Iterable[tuple[str, Command]]:
    return ((word, command) for word in words.split())


NEXT: Final[Mapping[str, Command]] = dict(
    [
        *_words(
            edit,
            "InvalidSpec NotAllowed ContextTooLong IllegalLayout AcceleratorUnknown ArchitectureNotSupported"
            " ArchitectureIncomplete ImplausibleWeights QuantizationConflict UnknownModel ModelNotListed"
            " ImageNameInvalid TokenRejected RevisionNotFound ModelNotFound HeadsNotDivisible FlagRejected"
            " RemoteCodeNeeded ModelNotSupported NotSupportedByGpu NeedsGateway InvalidPolicy TableTooLarge ShelfFull"
            " DataWouldLeave TierDeleting ModelNameTaken LadderInCircle PaybackTooLong"
            " PaybackUnknown BudgetExhausted"
            " EndpointUnreachable KVCacheTooSmall GpuOutOfMemory HostOutOfMemory SharedMemoryTooSmall ModelGated"
            " ScaledToZero Rejected",
        ),
        *_words(plan, "FitsNoAccelerator"),
        *_words(
            describe_pod,
            "PodNotSetUp ImageNotFound ImagePullDenied ImagePullFailed Preparing Scheduling ContainerStartFailed"
            " ContainerConfigInvalid NotReady Evicted EphemeralStorageEvicted PodRejectedByNode ContainerKilled"
            " ProgressDeadlineExceeded GpuNotVisible SchedulingGated StageStarting ReportMissing Scaling RollingOut",
        ),
        *_words(
            log,
            "CrashLoop EngineExited NativeCrash EngineDied WeightsDamaged DriverMismatch GpuCommunicationFailed"
            " GpuMemoryBusy DiskFull VolumeNotWritable ArtifactRefused HubUnreachable",
        ),
        *_words(log_now, "Starting StartupTimeout StageRunning"),
        *_words(nodes, "Unschedulable NodeLost CanaryDoesNotFit"),
        *_words(claim, "VolumeClaimNotBound"),
        *_words(claims, "VolumeClaimNotFound VolumeClaimNotShared"),
        *_words(
            secrets,
            "SecretNotFound SecretKeyNotFound CredentialsNotUsable CredentialsNotChecked KeyRejected KeyMissing"
            " HopKeyMissing KeysNotKnown KeyRefused",
        ),
        *_words(config_maps, "ConfigMapNotFound ConfigMapKeyNotFound"),
        *_words(quota, "QuotaExceeded"),
        *_words(limit_range, "LimitRangeViolated"),
        *_words(namespace, "PodSecurityViolation NamespaceTerminating ServiceAccountNotFound"),
        *_words(rights, "Forbidden NotWritten"),
        *_words(webhooks, "WebhookUnavailable"),
        *_words(policies_of_admission, "AdmissionDenied"),
        *_words(child, "NameConflict RouteNotWritten"),
        *_words(resume_rollout, "RolloutPaused"),
        *_words(operator_log, "Unauthorized ApiUnavailable"),
        *_words(settings, "HostNotAllowed NoRouterImage GatewayNotKnown"),
        *_words(
            tiers,
            "TierNotFound TierNotAccepted TierStalled TierNotReady NoTierReady NoPodReady SomeAsleep"
            " FirstTierLeaving FirstTierNotReady FirstTierUnsteady TableNotThere NoEntry TiersNotKnown"
            # What decides a DistillJob cannot be edited in it: it is a tier that has to change.
            " TierNotAdmitting TeacherIsStudent JudgeIsStudent TierNotFollowing TierIsExternal",
        ),
        *_words(jobs, "DistillJobNotFound StageElsewhere"),
        *_words(stages, "StageQueued"),
        *_words(routers, "RoutersUnreachable Spreading NoRouters GatewayNotReady GatewayFailed NoTable"),
        *_words(entry_log, "TableRefused"),
        *_words(routes, "RouteNotSeen RouteRefused"),
        *_words(api_kinds, "GatewayApiMissing"),
        *_words(priority_classes, "PriorityClassNotFound"),
        *_words(runtime_classes, "RuntimeClassNotFound"),
        *_words(autoscalers, "MetricsUnknown AnotherAutoscaler"),
        *_words(resume, "Suspended"),
        *_words(
            overview,
            "StageFailed BadData ScrubberFault InvalidPlan StoreChanged Contaminated TeacherChanged"
            " JudgeChanged JudgeMoved ModelUnknown TeacherMoved CertificateUntrusted AccountExhausted NothingAnswered"
            " LedgerDamaged PriceUnknown WrongModel EngineRefuses Inconclusive RolledBack ApprovalWanted DoesNotFit",
        ),
        *_words(gone, "Terminating"),
        *_words(wait, "Creating Applying Bridging CanaryRunning SettlingRunning NotKnownYet NotSized"),
        *_words(
            ours,
            "DoubtsFound NewerAvailable NotCompiled NotLinted RouteLeftAlone NothingToExport InProgress NotStarted"
            " Stopped TermsNotAcknowledged NotServable",
        ),
    ]
)
"""Reason -> its command. Words that say that all is well have none."""


_OF_JOBS: Final[Mapping[str, Command]] = dict(_words(overview, "Rejected"))
"""Words that mean another thing of a DistillJob: a gate that was not passed."""


def next_command(reason: str, at: Target) -> str:
    """What to run next for a reason."""
    own = _OF_JOBS.get(reason) if at.kind == JOB else None
    return (own or NEXT.get(reason, events))(at)
