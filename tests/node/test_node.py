"""A real node: pods that run, find each other by name and are reached through Services, and GPUs that are counted."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from tests.node.kit import SERVE, Pods

pytestmark = pytest.mark.slow

# Between a pod's readiness and the rules of its Service lies a moment in which connections are refused.
FETCH = """
import sys, time, urllib.error, urllib.request
for attempt in range(50):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
        break
    except urllib.error.URLError as error:
        if attempt == 49 or not isinstance(error.reason, ConnectionRefusedError):
            raise
        time.sleep(0.1)
"""
LOOK_UP = """
import socket, sys
try:
    print(socket.getaddrinfo(sys.argv[1], 80, family=socket.AF_INET)[0][4][0])
except OSError as error:
    sys.exit(f"no such name: {error}")
"""
SLEEP = "import signal, time; signal.signal(15, lambda *_: exit(0)); time.sleep(3600)"


def fetch(url: str) -> str:
    """GET from this process."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own addresses
        return str(answer.read().decode())


class TestPods:
    """What a kubelet does, by one."""

    def test_a_pod_finds_another_by_the_name_of_its_service(self, pods: Pods) -> None:
        """DNS, the rules of Services and the pods' network, under `restricted` pod security."""
        pods.create(pods.pod("web", SERVE), pods.service("web"))
        pods.wait_ready("web")
        phase, said = pods.run(FETCH, f"http://web.{pods.namespace}.svc.cluster.local/hello")
        assert (phase, said) == ("Succeeded", "web")
        assert "/hello" in pods.kubectl("logs", "web")

    def test_a_pod_calls_itself_through_its_service(self, pods: Pods) -> None:
        """Routers call the tier that they belong to by its Service."""
        pods.create(pods.pod("web", SERVE), pods.service("web"))
        pods.wait_ready("web")
        url = f"http://web.{pods.namespace}/"  # the bare name would be the pod's own host name
        command = ("exec", "web", "--", "python3", "-c", FETCH, url)
        wait_until(lambda: pods.kubectl(*command, check=False).strip() == "web", "the Service to lead back")

    def test_a_name_of_the_outside_is_refused_at_once(self, pods: Pods) -> None:
        """Nothing is forwarded: the node asks nobody."""
        began = time.monotonic()
        phase, said = pods.run(LOOK_UP, "example.com")
        assert phase == "Failed"
        assert "no such name" in said
        assert time.monotonic() - began < 20

    def test_the_host_reaches_a_service_through_a_gate(self, pods: Pods) -> None:
        """An SDK on the host asks as a pod of the cluster does."""
        pods.create(pods.pod("web", SERVE), pods.service("web"))
        pods.wait_ready("web")
        with pods.cluster.gate_to(pods.namespace, "web", 80) as gate:
            wait_until(lambda: _answers(f"http://{gate.address}/"), "the Service to answer", 10)
            assert [fetch(f"http://{gate.address}/{number}") for number in range(5)] == ["web"] * 5
        with pytest.raises(OSError, match="refused"):
            fetch(f"http://{gate.address}/")

    def test_pods_ask_the_api_server(self, pods: Pods) -> None:
        """An operator that runs as a pod reaches the API by its Service, and who it is by its token."""
        code = """
import json, ssl, urllib.request
home = "/var/run/secrets/kubernetes.io/serviceaccount"
request = urllib.request.Request("https://kubernetes.default.svc/api/v1/namespaces", headers={
    "Authorization": "Bearer " + open(home + "/token").read()})
try:
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=home + "/ca.crt"), timeout=10)
except urllib.error.HTTPError as error:
    print(error.code, json.loads(error.read())["message"])
"""
        phase, said = pods.run(code)
        assert phase == "Succeeded"
        assert said.startswith("403 ")
        assert f"system:serviceaccount:{pods.namespace}:default" in said

    def test_a_privileged_pod_is_refused(self, pods: Pods) -> None:
        """The namespace enforces what users' namespaces should."""
        manifest = pods.pod("bad", SLEEP)
        manifest["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        said = pods.kubectl("create", "-f", "-", input=json.dumps(manifest), check=False)
        assert "violates PodSecurity" in said


class TestNetworkPolicies:
    """Who may call whom, judged for real."""

    def test_a_stranger_is_kept_out_and_a_friend_is_not(self, pods: Pods) -> None:
        """The node's own probes go on."""
        friends = [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "friends"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": friends},
        }
        pods.create(pods.pod("web", SERVE), pods.service("web"))
        pods.wait_ready("web")
        url = f"http://web.{pods.namespace}/"
        assert pods.run(FETCH, url, name="anybody") == ("Succeeded", "web")
        pods.create(policy)
        time.sleep(0.5)  # nothing tells when an enforcer has seen a policy
        phase, said = pods.run(FETCH.replace("timeout=10", "timeout=2"), url, name="stranger")
        assert phase == "Failed"
        assert "timed out" in said
        assert pods.run(FETCH, url, name="friend") == ("Succeeded", "web")
        assert pods.get("pod", "web")["status"]["containerStatuses"][0]["ready"]


class TestGpus:
    """GPUs that the node claims and everybody believes in."""

    def test_pods_are_admitted_with_gpus_and_wait_for_them(self, pods: Pods) -> None:
        """The real scheduler counts and the real kubelet admits."""
        pods.create(pods.pod("first", SLEEP, gpus=pods.free_gpus()))
        pods.wait_ready("first")
        pods.create(pods.pod("second", SLEEP, gpus=1))
        wait_until(lambda: "Insufficient nvidia.com/gpu" in json.dumps(pods.get("pod", "second")), "the refusal")
        pods.kubectl("delete", "pod", "first")
        pods.wait_ready("second")

    def test_the_node_says_which_gpus_it_has(self, node_cluster: Cluster) -> None:
        """Sizing reads labels; the scheduler reads what is allocatable."""
        node = json.loads(node_cluster.kubectl("get", "node", "node1", "-o", "json").stdout)
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L40S"


class TestFaults:
    """Parts of a node end and come back."""

    def test_pods_outlive_their_kubelet(self, pods: Pods) -> None:
        """A restarted kubelet finds its pods, and the GPUs are still there."""
        pods.create(pods.pod("web", SERVE, gpus=2), pods.service("web"))
        pods.wait_ready("web")
        began = pods.get("pod", "web")["status"]["containerStatuses"][0]["containerID"]
        pods.cluster.restart("kubelet")
        assert pods.cluster.status()["kubelet"]
        pods.create(pods.pod("later", SLEEP, gpus=pods.free_gpus()))
        pods.wait_ready("later")
        after = pods.get("pod", "web")["status"]["containerStatuses"][0]
        assert (after["containerID"], after["restartCount"]) == (began, 0)

    def test_pods_outlive_their_runtime(self, pods: Pods) -> None:
        """containerd's shims hold the containers while it is away."""
        pods.create(pods.pod("web", SERVE), pods.service("web"))
        pods.wait_ready("web")
        pods.cluster.restart("containerd")
        # The kubelet dials it again when it thinks fit.
        ask = ("exec", "web", "--", "python3", "-c", "print(6 * 7)")
        wait_until(lambda: pods.kubectl(*ask, check=False).strip() == "42", "an answer from the container", timeout=60)
        assert pods.get("pod", "web")["status"]["containerStatuses"][0]["restartCount"] == 0

    def test_a_container_that_ends_is_started_again(self, pods: Pods) -> None:
        """The kubelet restarts what ends by itself."""
        pods.create(pods.pod("brief", "print('again')"))
        wait_until(
            lambda: (
                pods.get("pod", "brief")["status"].get("containerStatuses", [{"restartCount": 0}])[0]["restartCount"]
                > 0
            ),
            "a restart",
        )


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True
