"""How many pods: the scale subresource, a real HorizontalPodAutoscaler, and the operator's own autoscaler.

The pods are simulated; where it matters, real routers before real sockets stand in for those in the pods.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.cluster.kit import SPEC, Tiers, until
from tests.router.kit.client import Wire, chat_body, request
from tests.router.kit.router import Router, table
from tests.router.kit.upstream import Upstream, answer, hang

AUTOSCALING: dict[str, Any] = {"min": 1, "max": 3, "targetInFlight": 2, "scaleDownWindowSeconds": 0}
PATIENT = {"firstByteMs": 300_000, "totalMs": 300_000}


def scale(tiers: Tiers, name: str = "small") -> dict[str, Any]:
    """The scale subresource, as autoscalers read it."""
    path = f"/apis/modeltiers.dev/v1alpha1/namespaces/{tiers.namespace}/modeltiers/{name}/scale"
    return dict(json.loads(tiers.cluster.kubectl("get", "--raw", path).stdout))


def pods(tiers: Tiers, selector: str) -> list[dict[str, Any]]:
    """The pods that a selector finds."""
    return list(json.loads(tiers.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"])


def wanted(tiers: Tiers, name: str = "small") -> int:
    """How many pods the Deployment wants."""
    return int((tiers.get("deployment", name) or {"spec": {"replicas": -1}})["spec"]["replicas"])


def hpa(target: str, kind: str = "ModelTier", group: str = "modeltiers.dev/v1alpha1", least: int = 2) -> dict[str, Any]:
    """An autoscaler that has nothing but its bounds: no metrics server is here."""
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"for-{target}"},
        "spec": {
            "scaleTargetRef": {"apiVersion": group, "kind": kind, "name": target},
            "minReplicas": least,
            "maxReplicas": 5,
            "metrics": [metric],
        },
    }


# --- the scale subresource ----------------------------------------------------------------------------------------


def test_kubectl_scale_scales_a_live_tier_and_the_selector_finds_its_pods(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.kubectl("scale", "modeltier/small", "--replicas=3")
    until(lambda: scale(tiers).get("status", {}).get("replicas") == 3, lambda: json.dumps(scale(tiers)))
    said = scale(tiers)
    assert said["spec"]["replicas"] == 3
    assert len(pods(tiers, said["status"]["selector"])) == 3
    assert tiers.ready("small")["ready"] == "3/3"
    tiers.kubectl("scale", "modeltier/small", "--replicas=0")
    until(lambda: scale(tiers)["status"].get("replicas", 0) == 0, lambda: json.dumps(scale(tiers)))
    tiers.reasoned("small", "Ready", "True", "ScaledToZero")


def test_a_real_horizontal_pod_autoscaler_scales_the_tier_and_nobody_writes_against_it(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.create(hpa("small"))
    until(lambda: wanted(tiers) == 2, lambda: tiers.kubectl("describe", "hpa", "for-small"), 60)
    assert (tiers.get("modeltier", "small") or {})["spec"]["replicas"] == 2
    until(lambda: tiers.ready("small")["ready"] == "2/2", lambda: tiers.explain("small"))
    assert not tiers.condition("small", "ScalingActive")


def test_an_autoscaler_of_the_deployment_is_let_and_told(tiers: Tiers) -> None:
    tiers.apply("small")
    tiers.ready("small")
    tiers.create(hpa("small", "Deployment", "apps/v1"))
    message = tiers.reasoned("small", "ScalingActive", "False", "AnotherAutoscaler")
    assert "for-small" in message
    assert "let it scale the ModelTier instead" in message
    until(lambda: wanted(tiers) == 2, lambda: tiers.kubectl("describe", "hpa", "for-small"), 60)
    until(lambda: tiers.ready("small")["ready"] == "2/2", lambda: tiers.explain("small"))
    # A change of the tier writes the Deployment, and not the number.
    tiers.apply("small", rolloutToken="again")
    until(lambda: tiers.ready("small")["observedGeneration"] == 2, lambda: tiers.explain("small"))
    assert wanted(tiers) == 2
    tiers.kubectl("delete", "hpa", "for-small")
    until(lambda: wanted(tiers) == 1, lambda: tiers.explain("small"))
    until(lambda: not tiers.condition("small", "ScalingActive"), lambda: tiers.explain("small"))


# --- our own ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def routers(tiers: Tiers, count: int, upstream: Upstream) -> Iterator[list[Router]]:
    """Real routers at the addresses of so many pods, before one real engine."""
    with contextlib.ExitStack() as stack:
        made = []
        for pod in pods(tiers, "modeltiers.dev/tier=small")[:count]:
            ip = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"  # noqa: S311  no secret
            beside = ("--local", f"t0=127.0.0.1:{upstream.port}", "--admin", f"{ip}:8081")
            made.append(stack.enter_context(Router(table(upstream.port, timeouts=PATIENT), *beside)))
            address = json.dumps({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}})
            how = ("--subresource=status", "--type=merge")
            tiers.kubectl("patch", "pod", pod["metadata"]["name"], *how, "-p", address)
        yield made


def autoscaled(tiers: Tiers) -> dict[str, Any]:
    """What status says of the last decision."""
    return dict(tiers.status("small").get("autoscaling") or {})


def test_the_own_autoscaler_follows_what_the_routers_say_and_stands_back_for_another(tiers: Tiers) -> None:
    tiers.apply("small", {**SPEC, "autoscaling": AUTOSCALING})
    tiers.ready("small")
    # Nobody can be asked at a simulated pod's address: the number stays, and that is what is said.
    tiers.reasoned("small", "ScalingActive", "Unknown", "MetricsUnknown")
    assert wanted(tiers) == 1
    with Upstream(hang) as engine, routers(tiers, 1, engine) as (router,), contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Wire(router.port)).send(request(chat_body()))
        until(lambda: wanted(tiers) == 3, lambda: tiers.explain("small"), 40)
        tiers.reasoned("small", "ScalingActive", "True", "Autoscaling")
        said = until(lambda: autoscaled(tiers) if autoscaled(tiers).get("reason") == "ScaledUp" else None, "a decision")
        assert (said["wanted"], said["inFlight"], said["podsMeasured"]) == (3, 5, 1)
        assert said["message"].startswith("5 requests on 1 of 1 ready pods, 2 each aimed at: 3 needed")
        # The spec's number is not ours to write, and has no effect now; somebody who writes it is told.
        assert (tiers.get("modeltier", "small") or {})["spec"]["replicas"] == 1
        tiers.kubectl("scale", "modeltier/small", "--replicas=2")
        until(
            lambda: "spec.replicas (2) has no effect" in tiers.condition("small", "ScalingActive").get("message", ""),
            lambda: tiers.explain("small"),
        )
        assert wanted(tiers) == 3
        # With another one that scales the tier, nobody does until a person has chosen.
        tiers.create(hpa("small", least=1))
        message = tiers.reasoned("small", "ScalingActive", "False", "AnotherAutoscaler")
        assert "Remove it or spec.autoscaling" in message
        assert wanted(tiers) == 3
        assert "autoscaling" not in tiers.status("small")
        tiers.kubectl("delete", "hpa", "for-small")
        tiers.reasoned("small", "ScalingActive", "True", "Autoscaling", 40)
    with Upstream(answer("x")) as engine, routers(tiers, 3, engine):
        until(lambda: wanted(tiers) == 2, lambda: tiers.explain("small"), 60)
        until(lambda: autoscaled(tiers)["reason"] in ("ScaledDown", "Stabilizing"), lambda: tiers.explain("small"))


def test_more_pods_than_free_accelerators_are_not_asked_for(tiers: Tiers) -> None:
    tiers.apply("small", {**SPEC, "autoscaling": {**AUTOSCALING, "max": 100, "targetInFlight": 1}})
    tiers.ready("small")
    with Upstream(hang) as engine, routers(tiers, 1, engine) as (router,), contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Wire(router.port)).send(request(chat_body()))
        until(
            lambda: autoscaled(tiers).get("reason") == "NoFreeAccelerators", lambda: json.dumps(autoscaled(tiers)), 120
        )
        assert "accelerators are seen free for" in autoscaled(tiers)["message"]
        until(lambda: tiers.condition("small", "Ready").get("status") == "True", lambda: tiers.explain("small"))
        assert 1 < wanted(tiers) < 100


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bounds_that_cannot_be_are_refused(tiers: Tiers) -> None:
    for autoscaling, said in (
        ({"min": 3, "max": 2}, "min must not be greater than max"),
        ({"min": 0, "max": 2}, "should be greater than or equal to 1"),
        ({"min": 1}, "max: Required value"),
    ):
        assert said in tiers.refused(autoscaling=autoscaling)
    tiers.apply("over", {**SPEC, "autoscaling": {"min": 1, "max": 101}})
    message = tiers.stalled("over", "NotAllowed")
    assert "spec.autoscaling.max" in message
    assert "limits.maxReplicas" in message
