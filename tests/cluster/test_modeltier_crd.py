"""ModelTier against the real API server, beyond what holds for every resource: scale, and a stricter schema."""

import copy
import json
import secrets
from collections.abc import Callable, Iterator

import pytest

from e2e.cluster import Cluster
from e2e.cluster.process import wait_until
from modeltiers.api.crd import MODEL_TIER, crd
from modeltiers.api.schema import VALIDATIONS, Schema
from tests.cluster.admission import ApiServer, Body, install, patched
from tests.cluster.kinds import TIERS


def in_group(group: str, change: Callable[[Schema], object] = lambda root: None) -> Body:
    """Our CRD in another group, so that a test may change it beside the others."""
    copied: Body = copy.deepcopy(crd(MODEL_TIER))
    copied["metadata"]["name"] = f"modeltiers.{group}"
    copied["spec"]["group"] = group
    copied["spec"]["names"]["shortNames"] = copied["spec"]["names"]["categories"] = []
    change(copied["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return copied


@pytest.fixture
def group(cluster: Cluster) -> Iterator[str]:
    """A group of one test's own; its CRD goes with the test."""
    name = f"test-{secrets.token_hex(3)}.example.com"
    yield name
    cluster.kubectl("delete", "crd", f"modeltiers.{name}", "--ignore-not-found", "--wait=false")


class TestScale:
    """The scale subresource, in a group of its own so that no operator answers."""

    def test_scale(self, cluster: Cluster, server: ApiServer, namespace: str, group: str) -> None:
        """It works on an object that omits replicas, and shows the selector that an HPA needs."""
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group)))
        body = {**TIERS["smallest"], "apiVersion": f"{group}/v1alpha1"}
        path = f"/apis/{group}/v1alpha1/namespaces/{namespace}/modeltiers/smallest"
        wait_until(lambda: server.apply(body, namespace, dry=False).accepted, "the copied CRD to be served")
        status = {"status": {"replicas": 1, "selector": "modeltiers.dev/tier=smallest"}}
        assert server.ask("PATCH", f"{path}/status", status, "application/merge-patch+json").accepted
        scale = server.ask("GET", f"{path}/scale").body
        assert scale["spec"] == {"replicas": 1}
        assert scale["status"] == {"replicas": 1, "selector": "modeltiers.dev/tier=smallest"}
        wait_until(
            lambda: (
                not cluster.kubectl(
                    "scale", f"modeltiers.{group}/smallest", "--replicas=3", "-n", namespace, check=False
                ).returncode
            ),
            "kubectl to discover the group",
        )
        assert server.ask("GET", path).body["spec"]["replicas"] == 3


def loosen(root: Schema) -> None:
    """A schema as it may have been earlier: fewer rules, wider bounds."""
    root["properties"]["spec"].pop(VALIDATIONS)
    root["properties"]["spec"]["properties"]["rank"]["maximum"] = 100_000
    root["properties"]["spec"]["properties"]["rolloutToken"].pop("pattern")


class TestRatcheting:
    """A schema that got stricter does not strand what was stored before."""

    def test_old_objects_live_on(self, cluster: Cluster, server: ApiServer, namespace: str, group: str) -> None:
        """Status and other fields can be written; what is changed must be legal; new objects must be whole."""
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group, loosen)))
        path = f"/apis/{group}/v1alpha1/namespaces/{namespace}/modeltiers/smallest"
        old = patched(TIERS["smallest"], {"spec": {"rank": 5000, "rolloutToken": "not legal", "accelerators": None}})
        old["apiVersion"] = f"{group}/v1alpha1"
        wait_until(lambda: server.apply(old, namespace, dry=False).accepted, "the loose CRD to be served")
        install(cluster, f"modeltiers.{group}", text=json.dumps(in_group(group)))
        again = patched(old, {"metadata": {"name": "another"}})
        wait_until(lambda: server.create(again, namespace).code == 422, "the strict CRD to be served")

        def patch(body: Body, subresource: str = "") -> tuple[int, str]:
            answer = server.ask("PATCH", path + subresource, body, "application/merge-patch+json")
            return answer.code, answer.message

        assert patch({"status": {"observedGeneration": 1, "ready": "0/1"}}, "/status") == (200, "")
        assert patch({"metadata": {"labels": {"a": "b"}}}) == (200, "")
        assert (
            patch({"spec": {"model": {"maxModelLen": 4096}}})[0] == 422
        )  # the rule about accelerators sees a new spec
        assert patch({"spec": {"rank": 6000, "accelerators": TIERS["smallest"]["spec"]["accelerators"]}})[0] == 422
        assert patch({"spec": {"accelerators": TIERS["smallest"]["spec"]["accelerators"]}}) == (200, "")
        assert patch({"spec": {"model": {"maxModelLen": 4096}}}) == (200, "")
        assert patch({"spec": {"rank": 10, "rolloutToken": "a"}}) == (200, "")
        stored = server.ask("GET", path).body
        assert (stored["status"]["ready"], stored["spec"]["rank"]) == ("0/1", 10)
