"""Whose logs a person means: the pods and containers of a tier, of a policy's entry, or of a stage. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from modeltiers import names
from modeltiers.domain.views import ContainerView, PodView
from modeltiers.domain.why.snapshot import JOB, POLICY, TIER, Body, Snapshot, dig, maps, pods_of_tier, text

BOTH: Final = "all"
COMPONENTS: Final = (names.ENGINE_CONTAINER, names.ROUTER_CONTAINER, names.STAGE_CONTAINER, BOTH)


@dataclass(frozen=True, slots=True)
class Stream:
    """One container of one pod."""

    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What to read, and why there is nothing to read of the rest."""

    streams: tuple[Stream, ...]
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; empty is whatever is usual for the object."""

    kind: str
    name: str
    component: str = ""
    stage: str = ""
    pod: str = ""
    previous: bool = False


def choose(snapshot: Snapshot, wanted: Wanted) -> Choice:
    """The containers to read, in the order of the pods' age."""
    every = _pods(snapshot, wanted)
    pods = [pod for pod in every if wanted.pod in ("", PodView.of(pod).name)]
    if not pods:
        return Choice((), (_none(snapshot, wanted, every),))
    streams: list[Stream] = []
    silent: list[str] = []
    for body in pods:
        pod = PodView.of(body)
        for container in _containers(body, wanted):
            state = next((one for one in pod.containers if one.name == container), None)
            if why := _says_nothing(pod, state, container, previous=wanted.previous):
                silent.append(why)
            else:
                streams.append(Stream(pod.name, container))
    if not streams and not silent:
        silent.append(f"no pod of {wanted.kind} {wanted.name} has a container {wanted.component}")
    return Choice(tuple(streams), tuple(silent))


def entry(snapshot: Snapshot, policy: str) -> str:
    """The tier where a policy's requests enter; empty where they enter at routers of its own, or nowhere."""
    body = snapshot.get(POLICY, policy)
    return "" if text(body, "spec", "placement") == "Gateway" else text(body, "status", "entry", "tier")


def stage_of(snapshot: Snapshot, wanted: Wanted) -> str:
    """The stage that is meant: the one that is named, or the one that the job is at."""
    return wanted.stage or text(snapshot.get(JOB, wanted.name), "status", "stage")


def _pods(snapshot: Snapshot, wanted: Wanted) -> Sequence[Body]:
    if wanted.kind == TIER:
        return pods_of_tier(snapshot, wanted.name)
    if wanted.kind == POLICY:
        tier = entry(snapshot, wanted.name)
        if tier:
            return pods_of_tier(snapshot, tier)
        return snapshot.labelled("Pod", {names.LABEL_POLICY: wanted.name})
    stage = stage_of(snapshot, wanted)
    labels = {names.LABEL_DISTILL: wanted.name} | ({names.LABEL_STAGE: stage} if stage else {})
    return snapshot.labelled("Pod", labels)


def _containers(pod: Body, wanted: Wanted) -> Iterator[str]:
    """Names of the pod's containers that are meant: of a policy its router, else those that run on."""
    there = [
        *(text(one, "name") for one in maps(pod, "spec", "initContainers") if dig(one, "restartPolicy") == "Always"),
        *(text(one, "name") for one in maps(pod, "spec", "containers")),
    ]
    usual = names.ROUTER_CONTAINER if wanted.kind == POLICY else BOTH
    component = wanted.component or usual
    yield from (name for name in there if component in (BOTH, name))


def _says_nothing(pod: PodView, state: ContainerView | None, container: str, *, previous: bool) -> str:
    """Why a container has no log; empty where it has one."""
    where = f"pod {pod.name}, container {container}"
    if previous:
        return "" if state is not None and state.restarts else f"{where} has no run before this one"
    if state is not None and (state.running_since or state.ended or state.last):
        return ""
    if pod.unschedulable:
        return f"{where}: the pod has no node yet"
    return f"{where} has not started: {(state.waiting if state else '') or pod.phase or 'Pending'}"


def _none(snapshot: Snapshot, wanted: Wanted, every: Sequence[Body]) -> str:
    if wanted.pod and every:
        there = ", ".join(PodView.of(pod).name for pod in every)
        return f"{wanted.kind} {wanted.name} has no pod {wanted.pod}; there are {there}"
    if "Pod" in snapshot.unseen:
        return f"pods may not be read: {snapshot.unseen['Pod']}"
    if wanted.kind == JOB:
        stage = stage_of(snapshot, wanted)
        known = [text(one, "name") for one in maps(snapshot.get(JOB, wanted.name), "status", "stages")]
        done = f"; stages so far: {', '.join(known)}" if known else ""
        at = f" of stage {stage}" if stage else ""
        return f"DistillJob {wanted.name} has no pod{at}: pods of stages that are done go after a while{done}"
    if wanted.kind == POLICY and not entry(snapshot, wanted.name):
        return f"no router takes requests of RoutingPolicy {wanted.name}"
    return f"{wanted.kind} {wanted.name} has no pod"
