"""Why a pod does not serve: it has no place, its container cannot run, or what ran in it ended.

An ordered list of named checks over the pods of the present template; the first finding wins (`CHECKS`). The words of
scheduler, kubelet and engine are quoted, never trusted: an engine that dies exits with 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from modeltiers import names
from modeltiers.domain import engine_messages
from modeltiers.domain.engine_messages import line_of, quote, recognise
from modeltiers.domain.facts import FAILING, WAITING, Cause, Check, Scene, Severity, TierFacts, gave_up, told
from modeltiers.domain.views import ConditionView, ContainerView, EndView, PodView, instant

REFUSED: Final = 78  # what our own programs exit with where another try would end alike
REPEATED: Final = 3  # failures in a row after which it is no accident
BACK_OFF_RESET: Final = 600.0  # kubelet forgets a crash after a container ran for ten minutes
PROBE_SLACK: Final = 30.0  # a start-up probe runs out a few periods after its last second
RECENT: Final = timedelta(hours=1)  # a failed pod stays listed for long; after this it explains nothing any more


# --- pods: where to run ---------------------------------------------------------------------------------------------

_CLAIM_MISSING: Final = re.compile(r'persistentvolumeclaim "([^"]{1,253})" not found')
_CLAIM_UNBOUND: Final = re.compile(r"unbound immediate PersistentVolumeClaims|bound to non-existent persistentvolume")


def claim_is_missing(scene: Scene) -> Cause | None:
    """A volume claim that the pods mount does not exist."""
    for pod, seen in _unscheduled(scene):
        if missing := _CLAIM_MISSING.search(seen.message):
            what = f"there is no PersistentVolumeClaim {missing[1]}"
            way_out = f"create it, or correct the field that names it: {scene.facts.claim_fields}"
            return Cause("VolumeClaimNotFound", told(scene.named(pod), what, quote(seen.message), way_out), FAILING)
    return None


def claim_is_unbound(scene: Scene) -> Cause | None:
    """A volume claim waits for its volume."""
    for pod, seen in _unscheduled(scene):
        if _CLAIM_UNBOUND.search(seen.message):
            what = "a PersistentVolumeClaim has no volume yet"
            way_out = f"look at the storage class and events of the claim that {scene.facts.claim_fields} names"
            severity, until = _deadline(scene, seen, "VolumeClaimNotBound")
            message = told(scene.named(pod), what, quote(seen.message), way_out)
            return Cause("VolumeClaimNotBound", message, severity, until)
    return None


def scheduling_is_gated(scene: Scene) -> Cause | None:
    """A queue holds the pods back on purpose."""
    for pod in scene.live():
        seen = pod.condition("PodScheduled")
        if seen and seen.status == "False" and seen.reason == "SchedulingGated":
            way_out = "it starts when the queue admits it; look at the queue's workload"
            message = told(scene.named(pod), "it waits for a queue", quote(seen.message), way_out)
            return Cause("SchedulingGated", message, WAITING)
    return None


def pod_is_unschedulable(scene: Scene) -> Cause | None:
    """The scheduler finds no node. Node autoscalers start from zero, so this is progress until a deadline."""
    for pod, seen in _unscheduled(scene):
        severity, until = _deadline(scene, seen, "Unschedulable")
        shortage = _shortage(scene.facts, seen.message)
        what = f"no node for it ({shortage})" if scene.facts.gpus_per_replica else "no node for it"
        way_out = "free accelerators, add a node, or choose others in spec.accelerators"
        if not scene.facts.gpus_per_replica:
            way_out = "free CPU and memory, or add a node"
        if severity is WAITING:
            way_out += f"; a node autoscaler has {_words(scene.facts.unschedulable_deadline_seconds)} to add one"
        return Cause("Unschedulable", told(scene.named(pod), what, quote(seen.message), way_out), severity, until)
    return None


def _unscheduled(scene: Scene) -> Iterator[tuple[PodView, ConditionView]]:
    for pod in scene.live():
        seen = pod.condition("PodScheduled")
        if pod.unschedulable and seen:
            yield pod, seen


def _deadline(scene: Scene, seen: ConditionView, reason: str) -> tuple[Severity, datetime | None]:
    """Waiting until the deadline, then Failing. Once failing it stays so, also when the operator forgot since when."""
    if scene.stalled_by() == reason:
        return FAILING, None
    since = scene.facts.unschedulable_since or instant(seen.since) or scene.now
    until = min(since, scene.now) + timedelta(seconds=scene.facts.unschedulable_deadline_seconds)
    return (WAITING, until) if scene.now < until else (FAILING, None)


def _shortage(facts: TierFacts, said: str) -> str:
    kind = f"{facts.resource} of {facts.product}" if facts.product else facts.resource
    needs = f"needs {facts.gpus_per_replica} {kind}"
    if facts.free is None:
        return f"{needs} on one node; how many are free is not known"
    largest = facts.free.largest
    if largest >= facts.gpus_per_replica and f"Insufficient {facts.resource}" in said:
        # The two looks are moments apart; where they contradict each other, neither number is worth telling.
        return f"{needs} on one node; accelerators are coming free or being taken just now"
    if largest >= facts.gpus_per_replica:
        return f"{needs}, and a node has {largest} free: something else keeps it away"
    return f"{needs}, largest free {largest} on one node, {facts.free.total} in all"


def _words(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds} s"


# --- pods: before the container runs --------------------------------------------------------------------------------

_SECRET_KEY: Final = re.compile(r"couldn't find key (\S{1,253}) in Secret \S{1,63}/(\S{1,253})")
_CONFIG_KEY: Final = re.compile(r"couldn't find key (\S{1,253}) in ConfigMap \S{1,63}/(\S{1,253})")
_SECRET: Final = re.compile(r'secrets? "([^"]{1,253})" not found', re.IGNORECASE)
_CONFIG_MAP: Final = re.compile(r'configmaps? "([^"]{1,253})" not found', re.IGNORECASE)
_REFERENCES: Final = "spec.model.tokenSecretRef, spec.serving.env or the engine profile"
_CONFIG_ERRORS: Final = (
    ("SecretKeyNotFound", _SECRET_KEY, "Secret {1} has no key {0}", f"add the key, or correct {_REFERENCES}"),
    ("ConfigMapKeyNotFound", _CONFIG_KEY, "ConfigMap {1} has no key {0}", "add the key, or correct the engine profile"),
    ("SecretNotFound", _SECRET, "there is no Secret {0}", f"create it in this namespace, or correct {_REFERENCES}"),
    (
        "ConfigMapNotFound",
        _CONFIG_MAP,
        "there is no ConfigMap {0}",
        "create it in this namespace, or correct the engine profile",
    ),
)
_CONTAINER_ERRORS: Final = ("CreateContainerError", "RunContainerError", "PostStartHookError", "CreatePodSandboxError")
_START_ERRORS: Final = ("StartError", "ContainerCannotRun")
_IMAGE_FIELDS: Final = "spec.serving.image, or the image of the engine profile or of the administrator's settings"
_ROUTER_IMAGE: Final = "router.image in the administrator's settings"
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]{0,512}"(?:: ErrImagePull)?:? *')
_IMAGE_DENIED: Final = re.compile(
    r"denied|unauthori[sz]ed|authentication required|authorization failed|\b40[13]\b|insufficient_scope", re.IGNORECASE
)
_IMAGE_UNKNOWN: Final = re.compile(
    r"not ?found|manifest unknown|name unknown|no such image|does not exist", re.IGNORECASE
)
_IMAGE_FAILURES: Final = ("ImageNotFound", "ImagePullDenied", "ImagePullFailed")


def reference_is_missing(scene: Scene) -> Cause | None:
    """A Secret or ConfigMap that the container refers to is not there."""
    for pod, item in scene.containers():
        if item.waiting == "CreateContainerConfigError":
            return _config_error(scene.named(pod, item), item.waiting_message)
    return None


def _config_error(where: str, text: str) -> Cause:
    for reason, pattern, what, way_out in _CONFIG_ERRORS:
        if found := pattern.search(text):
            return Cause(reason, told(where, what.format(*found.groups()), quote(text), way_out), FAILING)
    way_out = "correct what it names: an engine profile or the spec refers to it"
    return Cause("ContainerConfigInvalid", told(where, "the container cannot be set up", quote(text), way_out), FAILING)


_NO_SECRET_KEY: Final = re.compile(r"references non-existent secret key: (\S{1,253})")
_NO_CONFIG_KEY: Final = re.compile(r"references non-existent config key: (\S{1,253})")
_SETUP_ERRORS: Final = (
    ("SecretKeyNotFound", _NO_SECRET_KEY, "a Secret that it mounts has no key {0}"),
    ("ConfigMapKeyNotFound", _NO_CONFIG_KEY, "a ConfigMap that it mounts has no key {0}"),
    ("SecretNotFound", _SECRET, "there is no Secret {0}"),
    ("ConfigMapNotFound", _CONFIG_MAP, "there is no ConfigMap {0}"),
)


def pod_is_not_set_up(scene: Scene) -> Cause | None:
    """The node cannot give a pod its volumes or its network, and tries again."""
    for pod in scene.live():
        if not pod.setup_error:
            continue
        for reason, pattern, what in _SETUP_ERRORS:
            if found := pattern.search(pod.setup_error):
                way_out = "create it in this namespace, or correct what names it in the spec or the engine profile"
                said = told(scene.named(pod), what.format(*found.groups()), quote(pod.setup_error), way_out)
                return Cause(reason, said, FAILING)
        way_out = "see to what it names: the storage of a volume, or the network of the node"
        where = f"{scene.named(pod)} on node {pod.node}"
        message = told(where, "the node cannot set it up", quote(pod.setup_error), way_out)
        return Cause("PodNotSetUp", message, WAITING)
    return None


def image_is_not_pulled(scene: Scene) -> Cause | None:
    """The image cannot be had."""
    for pod, item in scene.containers():
        where = f"{scene.named(pod, item)}, image {quote(item.image)}" if item.image else scene.named(pod, item)
        fields = _ROUTER_IMAGE if item.name == names.ROUTER_CONTAINER else _IMAGE_FIELDS
        if item.waiting == "InvalidImageName":
            message = told(where, "it is no image reference", quote(item.waiting_message), f"correct {fields}")
            return Cause("ImageNameInvalid", message, FAILING)
        if item.waiting == "ErrImageNeverPull":
            way_out = "load it into the node, or change the pull policy"
            message = told(where, "the node lacks it and may not pull it", quote(item.waiting_message), way_out)
            return Cause("ImageNotFound", message, FAILING)
        if item.waiting in ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"):
            return _pull_error(scene, where, _BACK_OFF.sub("", item.waiting_message), fields)
    return None


def _pull_error(scene: Scene, where: str, text: str, fields: str) -> Cause:
    """kubelet says the same in turns as ErrImagePull and ImagePullBackOff; older ones leave the latter bare."""
    reason = "ImagePullDenied" if _IMAGE_DENIED.search(text) else "ImageNotFound" if _IMAGE_UNKNOWN.search(text) else ""
    if not reason:
        reason = scene.stalled_by() if not text and scene.stalled_by() in _IMAGE_FAILURES else "ImagePullFailed"
    what, way_out, severity = {
        "ImagePullDenied": (
            "the registry refuses the pull, or hides that there is no such image",
            f"add a pull Secret (engine.pullSecrets in the settings), or correct {fields}",
            FAILING,
        ),
        "ImageNotFound": ("there is no such image", f"correct {fields}", FAILING),
        "ImagePullFailed": (
            "the image could not be pulled",
            "it is tried again; check the node's way to the registry if it stays",
            WAITING,
        ),
    }[reason]
    return Cause(reason, told(where, what, quote(text), way_out), severity)


def container_cannot_start(scene: Scene) -> Cause | None:
    """The runtime cannot start the container at all."""
    for pod, item in scene.containers():
        end = item.ended or item.last
        if item.waiting in _CONTAINER_ERRORS:
            text = item.waiting_message
        elif end and end.reason in _START_ERRORS:
            text = end.message
        else:
            continue
        known = recognise(text)
        reason = known.reason if known else "ContainerStartFailed"
        way_out = known.way_out if known else "correct the command, mounts or device plugin that it names"
        return Cause(
            reason, told(scene.named(pod, item), "the container cannot be started", quote(text), way_out), FAILING
        )
    return None


# --- pods: how the container ended ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Crash:
    """A container that ended and is not back."""

    pod: PodView
    container: ContainerView
    end: EndView
    repeated: bool
    over: datetime | None
    """When the present run outlives the crash, if there is a present run."""


def _crashes(scene: Scene) -> Iterator[_Crash]:
    for pod, item in scene.containers():
        # A container that runs again is judged by its last end until it has run well past that point.
        end = item.ended or item.last
        if end is None or (item.init and end.exit_code == 0):
            continue
        over = _over(item, end)
        if over and scene.now >= over:
            continue
        yield _Crash(pod, item, end, _is_repeated(scene, item, end), over)


def _over(item: ContainerView, end: EndView) -> datetime | None:
    since = instant(item.running_since)
    if since is None:
        return None
    ran = end.seconds()
    return since + timedelta(seconds=60 + 2 * min(max(BACK_OFF_RESET if ran is None else ran, 0), 1800))


def _is_repeated(scene: Scene, item: ContainerView, end: EndView) -> bool:
    ran = end.seconds()
    short = ran is None or ran < max(BACK_OFF_RESET, scene.facts.startup_seconds + PROBE_SLACK)
    return item.restarts >= REPEATED and (short or item.waiting == "CrashLoopBackOff")


def host_memory_ran_out(scene: Scene) -> Cause | None:
    """The kernel ended the container at its memory limit."""
    for crash in _crashes(scene):
        if crash.end.reason == "OOMKilled":
            where = scene.named(crash.pod, crash.container)
            ours = crash.container.name == names.ROUTER_CONTAINER
            way_out = f"raise {'router.memory in the settings' if ours else 'spec.serving.resources.memory'}"
            message = told(where, "it used more main memory than its limit and was killed (OOMKilled)", "", way_out)
            return Cause("HostOutOfMemory", message, FAILING if crash.repeated else WAITING, crash.over)
    return None


def engine_said_why(scene: Scene) -> Cause | None:
    """The container's last lines hold a message that is known."""
    for crash in _crashes(scene):
        known = recognise(crash.end.message)
        if known is None:
            continue
        said = line_of(crash.end.message, known)
        failing = crash.repeated or not known.retryable
        message = told(scene.named(crash.pod, crash.container), "it ended", said, known.way_out)
        return Cause(known.reason, message, FAILING if failing else WAITING, crash.over)
    return None


def start_takes_too_long(scene: Scene) -> Cause | None:
    """The container runs for longer than its start-up probe allows, or was killed at that point."""
    allowed = scene.facts.startup_seconds
    if not allowed:
        return None
    known = engine_messages.known("StartupTimeout")
    for pod, item in scene.containers():
        since = instant(item.running_since)
        slow = since and not item.started and scene.now >= since + timedelta(seconds=allowed + PROBE_SLACK)
        if not item.init and (slow or _was_killed_at(item, allowed)):
            what = f"it did not start within {_words(allowed)}"
            said = line_of(item.last.message) if item.last else ""
            return Cause("StartupTimeout", told(scene.named(pod, item), what, said, known.way_out), FAILING)
    return None


def _was_killed_at(item: ContainerView, allowed: int) -> bool:
    end = item.ended or item.last
    ran = end.seconds() if end else None
    if end is None or ran is None or item.started:
        return False
    signalled = end.exit_code in (137, 143) or "KeyboardInterrupt: terminated" in end.message
    return signalled and allowed - PROBE_SLACK <= ran <= allowed + 300


def artifact_is_refused(scene: Scene) -> Cause | None:
    """The check before the engine found that a student's package is not what a trusted key signed."""
    for pod, container in scene.containers():
        end = container.ended or container.last
        if container.name == names.VERIFY_CONTAINER and end is not None and end.exit_code == REFUSED:
            what = "the package that it should serve is not what a trusted key signed"
            way_out = "package it again with the signing key, or have an administrator trust its key"
            message = told(scene.named(pod, container), what, line_of(end.message), way_out)
            return Cause("ArtifactRefused", message, FAILING)
    return None


def container_keeps_ending(scene: Scene) -> Cause | None:
    """The container ended and nothing known says why. Code 0 is no success: the engine has it when it dies."""
    for crash in _crashes(scene):
        reason, what = _ending(crash.end)
        log = f"kubectl logs -n {scene.facts.namespace} {crash.pod.name} -c {crash.container.name} --previous"
        way_out = f"read its log: {log}"
        message = told(scene.named(crash.pod, crash.container), what, line_of(crash.end.message), way_out)
        return Cause(reason, message, FAILING if crash.repeated else WAITING, crash.over)
    return None


def _ending(end: EndView) -> tuple[str, str]:
    match end.exit_code:
        case 0:
            return "EngineExited", "it ended with code 0, which is no success for a server"
        case 137:
            return "ContainerKilled", "it was killed (code 137): by a probe, by hand, or for the node's memory"
        case 132 | 134 | 135 | 136 | 139:
            return "NativeCrash", f"it crashed in native code (code {end.exit_code})"
        case None:
            return "CrashLoop", "it ended"
        case _:
            return "CrashLoop", f"it ended with code {end.exit_code}"


# --- pods: lost with or by their node -------------------------------------------------------------------------------


def node_is_lost(scene: Scene) -> Cause | None:
    """The node of a pod does not report any more."""
    for pod in scene.facts.pods:
        if pod.reason == "NodeLost" or pod.phase == "Unknown":
            what = f"node {pod.node or 'of the pod'} does not report"
            way_out = "bring the node back, or delete it so that the pod is replaced"
            return Cause("NodeLost", told(scene.named(pod), what, quote(pod.message), way_out), WAITING)
    return None


def pod_was_evicted(scene: Scene) -> Cause | None:
    """kubelet evicted pods, or refused them; their controller makes others."""
    lost = [pod for pod in scene.pods() if pod.phase == "Failed" and pod.reason and _is_recent(scene, pod)]
    if not lost:
        return None
    pod, severity = lost[-1], FAILING if len(lost) >= REPEATED else WAITING
    reason, what, way_out = _loss(pod)
    return Cause(reason, told(scene.named(pod), what, quote(pod.message), way_out), severity)


def _loss(pod: PodView) -> tuple[str, str, str]:
    if pod.reason != "Evicted":
        what = f"the node refused it ({quote(pod.reason, 64)})"
        return "PodRejectedByNode", what, "look at the node's device plugin and resources"
    if re.search(r"ephemeral|disk", pod.message, re.IGNORECASE):
        way_out = "keep weights on a volume with spec.serving.cache, or use nodes with more local disk"
        return "EphemeralStorageEvicted", "it was evicted for local disk", way_out
    return "Evicted", "it was evicted", "raise spec.serving.resources, or relieve the node"


def _is_recent(scene: Scene, pod: PodView) -> bool:
    seen = pod.condition("DisruptionTarget") or pod.condition("Ready")
    since = instant(seen.since) if seen else None
    return since is None or scene.now - since < RECENT


def progress_stopped(scene: Scene) -> Cause | None:
    """The Deployment gave up waiting, and nothing above says for what."""
    deployment = scene.facts.deployment
    if deployment is None or not gave_up(scene.facts):
        return None
    seen = deployment.condition("Progressing")
    selector = f"{names.LABEL_TIER}={scene.facts.name}"
    way_out = f"look at its pods: kubectl describe pods -n {scene.facts.namespace} -l {selector}"
    where = f"Deployment {scene.facts.namespace}/{deployment.name}"
    message = told(where, "no progress within its deadline", quote(seen.message if seen else ""), way_out)
    return Cause("ProgressDeadlineExceeded", message, FAILING)


CHECKS: Final[tuple[Check, ...]] = (
    claim_is_missing,
    reference_is_missing,
    pod_is_not_set_up,
    image_is_not_pulled,
    artifact_is_refused,
    container_cannot_start,
    host_memory_ran_out,
    engine_said_why,
    start_takes_too_long,
    container_keeps_ending,
    claim_is_unbound,
    scheduling_is_gated,
    pod_is_unschedulable,
    node_is_lost,
    pod_was_evicted,
    progress_stopped,
)
