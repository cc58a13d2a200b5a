"""Short words for what the tests on a control plane do over and over: apply a tier, wait for its status, look at
children.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from e2e.cluster import Cluster
from modeltiers.domain import kstatus

SPEC: dict[str, Any] = {
    "model": {"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "maxModelLen": 32768},
    "accelerators": [{"name": "h100", "product": "NVIDIA-H100-80GB-HBM3"}],
}
LARGE: dict[str, Any] = {
    **SPEC,
    "model": {"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "maxModelLen": 32768},
}


PATIENCE: Final = 3
"""How much longer than is usual a test waits before it fails: a busy machine is slow at everything."""


def until(holds: Callable[[], Any], what: str | Callable[[], str], timeout: float = 20) -> Any:
    """Wait until a question has a true answer and return it; `timeout` is in seconds of an idle machine."""
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        answer = holds()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.1)


def api_server_back(cluster: Cluster) -> None:
    """Start the API server again, and anew what asks it: left alone, that asks again only within a minute."""
    cluster.start("kube-apiserver")
    for component in ("kube-controller-manager", "kube-scheduler"):
        cluster.restart(component)


def without_crds(cluster: Cluster, *which: str) -> None:
    """Delete CRDs, by names or a selector, and see them gone.

    Each is told of a change meanwhile: one deleted while its storage was being set up is else looked at minutes later.
    """

    def left() -> str:
        cluster.kubectl("annotate", "crd", *which, f"looked-at={time.monotonic()}", "--overwrite", check=False)
        return cluster.kubectl("get", "crd", *which, "-o", "name", "--ignore-not-found").stdout.strip()

    cluster.kubectl("delete", "crd", *which, "--ignore-not-found", "--wait=false")
    until(lambda: not left(), "the CRDs to go", timeout=90)


def decoded(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text that holds one JSON object after the other; the last may be cut short."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        try:
            body, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        yield body
        at += len(text[at:]) - len(text[at:].lstrip())


def breach(state: dict[str, Any]) -> str | None:
    """What is wrong with a tier's status by the contract that GitOps tools read it by; None when nothing."""
    status = state.get("status")
    if not status:
        return None  # not looked at yet
    said = {item["type"]: item for item in status.get("conditions", ())}
    if "observedGeneration" not in status or any("observedGeneration" not in item for item in said.values()):
        return "observedGeneration is missing"
    ready, stalled, reconciling = (said[kind]["status"] for kind in ("Ready", "Stalled", "Reconciling"))
    if stalled == reconciling == "True":
        return "Stalled and Reconciling at once"
    if ready == "True" and "True" in (stalled, reconciling):
        return "Ready while it is not"
    told = kstatus.compute(state).status
    current = status["observedGeneration"] == state["metadata"]["generation"]
    if told is kstatus.Status.CURRENT and ready != "True":
        return "kstatus says Current and Ready is not True"
    if told is kstatus.Status.FAILED and (stalled != "True" or ready == "True"):
        return "kstatus says Failed and it is not stalled"
    return "never Current" if current and ready == "True" and told not in _SETTLED else None


def breach_of_job(state: dict[str, Any]) -> str | None:
    """What is wrong with a DistillJob's status by the same contract, and between Complete and the others."""
    said = {item["type"]: item["status"] for item in (state.get("status") or {}).get("conditions", ())}
    if not said:
        return breach(state)
    if (said["Complete"] == "True") != (said["Ready"] == "True"):
        return "Complete and Ready are not of one mind"
    if said["Complete"] == "True" and said["AwaitingApproval"] == "True":
        return "Complete while somebody has to approve"
    if "True" not in (said["Complete"], said["Reconciling"], said["Stalled"]):
        return "neither at its end, nor on its way, nor stopped"
    return breach(state)


_SETTLED = (kstatus.Status.CURRENT, kstatus.Status.TERMINATING)


@dataclass(frozen=True)
class Tiers:
    """The tiers of one namespace."""

    cluster: Cluster
    namespace: str

    def apply(self, name: str, spec: dict[str, Any] | None = None, **changes: Any) -> None:
        """Apply a tier as a user does."""
        body = {
            "apiVersion": "modeltiers.dev/v1alpha1",
            "kind": "ModelTier",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {**(spec or SPEC), **changes},
        }
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))

    def refused(self, **spec: Any) -> str:
        """What the API server says of a tier that it does not take."""
        body = {
            "apiVersion": "modeltiers.dev/v1alpha1",
            "kind": "ModelTier",
            "metadata": {"name": "bad", "namespace": self.namespace},
            "spec": {**SPEC, **spec},
        }
        done = self.cluster.kubectl("apply", "-f", "-", input=json.dumps(body), check=False)
        assert done.returncode, "the API server took it"
        return done.stderr

    def create(self, document: dict[str, Any]) -> None:
        """Apply any object in the namespace."""
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", input=yaml.safe_dump(document))

    def kubectl(self, *args: str, check: bool = True) -> str:
        """Run kubectl in the namespace."""
        return self.cluster.kubectl(*args, "-n", self.namespace, check=check).stdout

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        return self.cluster.objects.get(kind, name, self.namespace)

    def listed(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind that a label selector chooses."""
        return self.cluster.objects.list(kind, self.namespace, selector)

    def status(self, name: str) -> dict[str, Any]:
        """A tier's status."""
        body = self.get("modeltier", name)
        return (body or {}).get("status") or {}

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """One condition of a tier, for the current generation; empty when there is none."""
        body = self.get("modeltier", name) or {"metadata": {}}
        for item in (body.get("status") or {}).get("conditions") or ():
            if item["type"] == kind and item["observedGeneration"] == body["metadata"]["generation"]:
                found: dict[str, Any] = item
                return found
        return {}

    def ready(self, name: str, timeout: float = 20) -> dict[str, Any]:
        """Wait until a tier is Ready and return its status."""
        until(lambda: self.condition(name, "Ready").get("status") == "True", lambda: self.explain(name), timeout)
        return self.status(name)

    def stalled(self, name: str, reason: str, timeout: float = 20) -> str:
        """Wait until a tier is Stalled for this reason and return the message."""
        return self.reasoned(name, "Stalled", "True", reason, timeout)

    def reasoned(self, name: str, kind: str, status: str, reason: str, timeout: float = 20) -> str:
        """Wait for a condition with this status and reason and return its message."""

        def holds() -> bool:
            item = self.condition(name, kind)
            return (item.get("status"), item.get("reason")) == (status, reason)

        until(holds, lambda: f"{kind}={status}/{reason}; there is\n{self.explain(name)}", timeout)
        message: str = self.condition(name, kind)["message"]
        return message

    def explain(self, name: str) -> str:
        """What a tier's conditions say now."""
        items = self.status(name).get("conditions", [])
        return "\n".join(f"{i['type']}={i['status']} {i['reason']}: {i['message']}" for i in items) or "no conditions"
