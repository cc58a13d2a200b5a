"""What clients see while tiers, pods, the kubelet and the operator are taken away and come back, on the real node.

Every test asks without a pause and tries nothing twice: no whole answer may fail, and no stream may claim to be whole
when it is not.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.cluster.process import wait_until
from e2e.operator_pod import OperatorPod
from e2e.team import TIERS, Team, restarts
from tests.node.kit import Pods
from tests.node.load import HARD, Load
from tests.node.routers import wait_whole

pytestmark = pytest.mark.slow

HOLD = "import signal, time; signal.signal(15, lambda *_: exit(0)); time.sleep(3600)"


@contextlib.contextmanager
def asking(served: Team, question: str | None = None) -> Iterator[Load]:
    """Ask the policy all the while; the numbers are printed, whatever happens."""
    with served.gate() as gate:
        load = Load(f"http://{gate.address}", **({"question": question} if question else {}))
        try:
            with load:
                wait_until(lambda: load.tiers().total() >= 5, "the first answers", 30)
                yield load
                answered_again(load)
        finally:
            print(f"\n{load.told()}")
            for fault in load.faults()[:10] + load.faults(stream=True)[:10]:
                print(f"  {fault}")


def answered_again(load: Load) -> None:
    """Wait for some answers from now on, and for a stream."""
    moment = time.monotonic()
    wait_until(lambda: len(load.since(moment)) >= 5, "answers from now on", 60)
    wait_until(lambda: bool(load.since(moment, stream=True)), "a stream from now on", 60)


def nothing_failed(load: Load) -> None:
    """No whole answer failed, and nothing was untrue."""
    assert load.faults() == []
    assert load.lies() == []


def pods_of(served: Team, tier: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in served.pods(tier)}


def replaced(served: Team, tier: str, before: set[str]) -> Callable[[], bool]:
    """Whether every pod of a tier is another one."""
    return lambda: bool(now := pods_of(served, tier)) and not now & before


def deleted(served: Team, tier: str, load: Load) -> float:
    """Delete a tier under load, until its pods are gone and answers come; the policy tells. Returns when it began."""
    began = time.monotonic()
    served.kubectl("delete", "mt", tier)
    wait_until(lambda: not served.pods(tier), f"the pods of the {tier} tier to go", 90)
    answered_again(load)
    ready = served.conditions("rp/support")["Ready"]
    print(f"Ready={ready['status']}: {ready['message']}")
    assert (ready["status"], ready["reason"]) == ("False", "TierNotFound")
    return began


class TestTiers:
    """The ladder changes under load."""

    def test_a_large_tier_that_is_deleted_is_told_of_and_missed_by_nobody(self, served: Team) -> None:
        """What the small tier is not sure of is answered all the same."""
        with asking(served, HARD) as load:
            assert load.tiers().keys() <= {"large"}
            tiers = load.tiers(deleted(served, "large", load))
        print(f"answers after the deletion {dict(tiers)}")
        nothing_failed(load)

    def test_a_small_tier_that_is_deleted_is_told_of_and_missed_by_nobody(self, served: Team) -> None:
        """The policy's Service leads to the next tier, by the last good table."""
        with asking(served) as load:
            gap = load.gap_ms(deleted(served, "small", load))
        print(f"longest gap after the deletion {gap:.0f} ms")
        nothing_failed(load)

    def test_the_small_tier_sleeps_and_wakes(self, served: Team) -> None:
        """Scaled to zero and back under load; the gap that clients see is printed."""
        with asking(served) as load:
            scaled = time.monotonic()
            served.kubectl("scale", "mt/small", "--replicas=0")
            wait_until(lambda: not served.pods("small"), "the small tier to sleep", 90)
            answered_again(load)
            asleep, woken = load.gap_ms(scaled), time.monotonic()
            served.kubectl("scale", "mt/small", "--replicas=1")
            wait_whole(served)
            wait_until(lambda: load.tiers(time.monotonic() - 2).get("small", 0) > 0, "the small tier to answer", 60)
            awake = load.gap_ms(woken)
        print(f"longest gap: to zero {asleep:.0f} ms, and back {awake:.0f} ms; answers by {dict(load.tiers())}")
        assert {"small", "large"} <= load.tiers().keys()
        nothing_failed(load)


class TestPods:
    """Pods of a tier are replaced under load."""

    def test_an_evicted_pod_is_missed_by_nobody(self, served: Team) -> None:
        """By the eviction API, as a drain of its node does it."""
        before = pods_of(served, "small")
        (name,) = (pod["metadata"]["name"] for pod in served.pods("small"))
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        with asking(served) as load:
            path = f"/api/v1/namespaces/{served.namespace}/pods/{name}/eviction"
            served.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
            wait_until(replaced(served, "small", before), "another pod", 90)
            wait_whole(served)
        nothing_failed(load)

    @pytest.mark.parametrize("room", [True, False], ids=["surge", "no-room"])
    def test_a_rolling_update_is_missed_by_nobody(self, served: Team, router_image: str, room: bool) -> None:
        """With room for one pod more it comes first; without, another tier answers meanwhile."""
        before, spec = pods_of(served, "small"), served.tier("small")["spec"]
        with contextlib.ExitStack() as stack:
            if not room:
                stack.enter_context(all_gpus_taken(served, router_image))
            load = stack.enter_context(asking(served))
            began = time.monotonic()
            served.apply(served.tier("small", rolloutToken=f"room-{room}", serving=spec["serving"]))
            wait_until(replaced(served, "small", before), "another pod", 240)
            wait_whole(served)
            took = time.monotonic() - began
        strategy = served.get("deployment", "small")["spec"]["strategy"]["rollingUpdate"]
        print(f"{strategy}; rolled in {took:.0f} s; answers by {dict(load.tiers())}")
        assert strategy["maxSurge"] == (1 if room else 0)
        nothing_failed(load)


@contextlib.contextmanager
def all_gpus_taken(served: Team, image: str) -> Iterator[None]:
    """Let a pod hold every GPU that the tiers do not."""
    assert served.cluster.node
    pods = Pods(served.cluster, served.namespace, image)
    holder = pods.pod("holder", HOLD, gpus=served.cluster.node.gpus - len(TIERS))
    pods.create(holder)
    pods.wait_ready("holder")
    try:
        yield
    finally:
        pods.kubectl("delete", "pod", "holder", "--wait=true")


class TestMachinery:
    """Parts that no request goes through end and come back."""

    def test_a_kubelet_restarts(self, served: Team) -> None:
        """Pods go on; readiness is found as it was."""
        before = restarts(served.pods())
        with asking(served) as load:
            served.cluster.restart("kubelet")
            time.sleep(15)  # its probes of every pod begin anew
            wait_whole(served)
        nothing_failed(load)
        assert restarts(served.pods()) == before

    def test_the_operator_is_killed(self, served: Team, operator: OperatorPod) -> None:
        """Requests need no operator; another one takes over and finds nothing to do to pods."""
        before = restarts(served.pods())
        with asking(served) as load:
            killed = time.monotonic()
            operator.kill()
            operator.wait_ready()
            operator.wait_leading()
            took = time.monotonic() - killed
            served.apply(served.policy(accept={"thresholdPermille": 640, "confidence": {}}))
            wait_whole(served)
        print(f"the next operator leads after {took:.1f} s")
        nothing_failed(load)
        assert not load.faults(stream=True)
        assert restarts(served.pods()) == before
