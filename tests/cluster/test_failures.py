"""Every cause is told apart within a reconcile of being visible, and its message names the way out."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster, NodePool
from modeltiers import names
from modeltiers.kube.refs import KINDS
from tests import canaries
from tests.cluster.kit import LARGE, SPEC, Tiers, until

# What the kubelet or the engine says -> the reason in status, and words that the message must have.
TAINT = "example.com/replay"  # nobody else lands there
REPLAYS: dict[str, tuple[str, str]] = {
    "container-create-config-error": ("SecretNotFound", "hf-token"),
    "crash-loop": ("CrashLoop", "log"),
    "disk-full": ("DiskFull", "cache"),
    "engine-exit-zero": ("EngineExited", "code 0"),
    "err-image-pull-denied": ("ImagePullDenied", "pull"),
    "evicted-ephemeral-storage": ("EphemeralStorageEvicted", "spec.serving.cache"),
    "gated-model": ("ModelGated", "token"),
    "gpu-memory-busy": ("GpuMemoryBusy", "memory"),
    "gpu-oom": ("GpuOutOfMemory", "memory"),
    "heads-not-divisible": ("HeadsNotDivisible", "tensor"),
    "host-oom": ("HostOutOfMemory", "memory"),
    "image-pull-backoff": ("ImageNotFound", "image"),
    "invalid-image-name": ("ImageNameInvalid", "image"),
    "kv-too-small": ("KVCacheTooSmall", "maxModelLen"),
    "rejected-flag": ("FlagRejected", "flag"),
    "secret-not-mounted": ("SecretNotFound", "trusted-keys"),
    "startup-slow": ("StartupTimeout", "startupSeconds"),
    "unknown-model": ("ModelNotFound", "spec.model.source"),
    "unknown-revision": ("RevisionNotFound", "revision"),
}


@pytest.fixture(scope="module")
def failing(installed: Cluster) -> Iterator[Cluster]:
    """A node for each failure: every pod on it ends as that failure was recorded."""
    cases = list(REPLAYS)
    for case in cases:
        installed.add_pool(NodePool(f"replay-{case}", 1, gpus=8, extra_labels={"example.com/case": case}))
        installed.kubectl("taint", "node", f"replay-{case}-0", f"{TAINT}=yes:NoSchedule")
    yield installed
    for case in cases:
        installed.remove_node(f"replay-{case}-0")


@pytest.mark.parametrize("case", REPLAYS)
def test_replayed_failures_are_told_apart(tiers: Tiers, failing: Cluster, case: str) -> None:
    """Replayed from statuses that say where they come from; a real kubelet joins later."""
    reason, word = REPLAYS[case]
    tolerations = [{"key": TAINT, "operator": "Exists"}]
    tiers.apply("small", scheduling={"nodeSelector": {"example.com/case": case}, "tolerations": tolerations})

    def told() -> bool:
        return any(i.get("reason") == reason for i in tiers.status("small").get("conditions", ()))

    until(told, lambda: tiers.explain("small"))
    messages = " ".join(i["message"] for i in tiers.status("small")["conditions"] if i["reason"] == reason)
    assert word.lower() in messages.lower()
    assert tiers.condition("small", "Ready")["status"] != "True"


def test_an_unknown_model(tiers: Tiers) -> None:
    tiers.apply("x", model={"source": "hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7"})
    message = tiers.stalled("x", "UnknownModel")
    assert "DeepSeek-R1-Distill-Qwen-7B" in message
    assert "spec.model.architecture" in message
    assert tiers.get("deployment", "x") is None


def test_a_model_that_fits_no_accelerator(tiers: Tiers) -> None:
    tiers.apply(
        "x",
        model={"source": "hf://deepseek-ai/DeepSeek-V3-0324"},
        accelerators=[{"name": "l4", "product": "NVIDIA-L4"}],
    )
    assert "GiB" in tiers.stalled("x", "FitsNoAccelerator")


def test_no_room_is_waiting_first_and_a_fault_after_the_deadline(tiers: Tiers) -> None:
    tiers.apply("large", LARGE, replicas=9)
    message = tiers.reasoned("large", "Ready", "Unknown", "Unschedulable")
    assert "needs 4" in message
    assert "free" in message
    assert tiers.condition("large", "Reconciling")["status"] == "True"
    tiers.stalled("large", "Unschedulable", timeout=30)
    tiers.apply("large", LARGE, replicas=1)
    tiers.ready("large")
    assert tiers.condition("large", "Stalled").get("status") != "True"


def test_a_flag_that_the_operator_owns(tiers: Tiers) -> None:
    tiers.apply("x")
    tiers.ready("x")
    tiers.apply("x", serving={"args": ["--tensor-parallel-size=8"]})
    message = tiers.stalled("x", "NotAllowed")
    assert "spec.serving.args[0]" in message
    assert "spec.sizing" in message
    child = tiers.get("deployment", "x")
    assert child and child["status"]["readyReplicas"] == 1  # what served still serves


@pytest.mark.parametrize(
    ("serving", "word"),
    [
        ({"profile": "nope"}, "plain"),
        ({"image": "evil.io/x:1"}, "allowedImages"),
        ({"env": [{"name": "LD_PRELOAD", "value": "x"}]}, "LD_PRELOAD"),
        ({"args": ["--trust-remote-code"]}, "engineProfiles"),
    ],
)
def test_what_the_administrator_has_not_allowed(tiers: Tiers, serving: dict[str, Any], word: str) -> None:
    tiers.apply("x", serving=serving)
    until(lambda: tiers.condition("x", "Stalled").get("status") == "True", lambda: tiers.explain("x"))
    assert word in tiers.condition("x", "Stalled")["message"]


def test_more_replicas_than_allowed(tiers: Tiers) -> None:
    tiers.apply("x", replicas=101)
    until(lambda: tiers.condition("x", "Stalled").get("status") == "True", lambda: tiers.explain("x"))
    assert "limits.maxReplicas" in tiers.condition("x", "Stalled")["message"]


def test_a_single_writer_volume_for_many_pods(tiers: Tiers) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    tiers.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claim})
    tiers.apply("x", serving={"cache": {"claimName": "models"}}, replicas=2)
    until(lambda: tiers.condition("x", "Stalled").get("status") == "True", lambda: tiers.explain("x"))
    assert "ReadWriteMany" in tiers.condition("x", "Stalled")["message"]
    tiers.apply("x", serving={"cache": {"claimName": "models"}})
    child = until(lambda: tiers.get("deployment", "x"), "a Deployment")
    assert child["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_quota(tiers: Tiers) -> None:
    tiers.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"requests.nvidia.com/gpu": "0"}},
        }
    )
    tiers.apply("x")
    message = tiers.reasoned("x", "Stalled", "True", "QuotaExceeded")
    assert "none" in message
    tiers.kubectl("delete", "resourcequota", "none")
    tiers.ready("x", timeout=60)


def test_a_limit_range(tiers: Tiers) -> None:
    most = {"type": "Container", "max": {"memory": "1Gi"}}
    tiers.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [most]}})
    tiers.apply("x")
    message = tiers.reasoned("x", "Stalled", "True", "LimitRangeViolated")
    assert "maximum memory usage per Container is 1Gi" in message
    assert "spec.serving.resources" in message
    tiers.kubectl("delete", "limitrange", "small")
    tiers.ready("x", timeout=60)


def test_a_rollout_that_somebody_paused(tiers: Tiers) -> None:
    tiers.apply("x")
    tiers.ready("x", timeout=60)
    tiers.kubectl("rollout", "pause", "deployment/x")
    tiers.apply("x", rolloutToken="again")
    assert "is paused" in tiers.reasoned("x", "Reconciling", "True", "RolloutPaused")
    tiers.kubectl("rollout", "resume", "deployment/x")
    until(lambda: tiers.condition("x", "Ready").get("reason") == "Serving", lambda: tiers.explain("x"), 60)


FOREIGN: dict[str, dict[str, Any]] = {
    "Service": {"spec": {"ports": [{"port": 1234}]}},
    "ConfigMap": {"metadata": {"name": "x-table"}, "data": {"theirs": "1"}},
    "ServiceAccount": {},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 3, "selector": {"matchLabels": {"a": "b"}}}},
    "NetworkPolicy": {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
    "Deployment": {
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }
    },
}


def theirs(body: Any) -> dict[str, Any]:
    """An object without what the controllers of Kubernetes write on it meanwhile."""
    kept = ("uid", "generation", "labels", "ownerReferences")
    about = {key: body["metadata"].get(key) for key in kept}
    return {key: value for key, value in body.items() if key not in ("metadata", "status")} | {"metadata": about}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_name_that_is_taken_is_never_overwritten(tiers: Tiers, kind: str) -> None:
    foreign = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": "x"}, **FOREIGN[kind]}
    name = foreign["metadata"]["name"]
    tiers.create(foreign)
    before = theirs(tiers.get(kind, name))
    tiers.apply("x")
    message = tiers.stalled("x", "NameConflict")
    assert kind in message
    after = tiers.get(kind, name) or {}
    assert theirs(after) == before
    assert names.FIELD_MANAGER not in {one["manager"] for one in after["metadata"]["managedFields"]}
    tiers.kubectl("delete", kind, name)
    tiers.ready("x", timeout=60)


def test_a_right_that_was_taken_away(tiers: Tiers) -> None:
    binding = "modeltiers-operator"
    saved = tiers.cluster.kubectl("get", "clusterrolebinding", binding, "-o", "yaml").stdout
    role = json.loads(tiers.cluster.kubectl("get", "clusterrole", binding, "-o", "json").stdout)
    cut = [rule for rule in role["rules"] if rule["resources"] != ["poddisruptionbudgets"]]
    watch = {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["get", "list", "watch"]}
    role["rules"] = [*cut, watch]
    tiers.cluster.kubectl("replace", "-f", "-", input=json.dumps(role))
    try:
        tiers.apply("x")
        message = tiers.stalled("x", "Forbidden", timeout=30)
        assert "poddisruptionbudgets" in message
        assert tiers.get("deployment", "x")  # the others are applied all the same
    finally:
        tiers.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "manifests/rbac.yaml")
    assert saved
    tiers.ready("x", timeout=60)


def test_a_stored_object_that_today_would_be_refused(tiers: Tiers) -> None:
    """An object from an older, looser schema: it gets a condition with the path, and the others are not disturbed."""
    crd = json.loads(tiers.cluster.kubectl("get", "crd", "modeltiers.modeltiers.dev", "-o", "json").stdout)
    loose = json.loads(json.dumps(crd))
    schema = loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["sizing"]["properties"]["concurrency"] = {"type": "integer", "format": "int64"}
    tiers.cluster.kubectl("replace", "-f", "-", input=json.dumps(loose))
    try:

        def stored() -> bool:
            body = {
                "apiVersion": "modeltiers.dev/v1alpha1",
                "kind": "ModelTier",
                "metadata": {"name": "old", "namespace": tiers.namespace},
                "spec": {**SPEC, "sizing": {"concurrency": -5}},
            }
            return (
                tiers.cluster.kubectl(
                    "apply", "--server-side", "-f", "-", input=json.dumps(body), check=False
                ).returncode
                == 0
            )

        until(stored, "the loose schema")
    finally:
        tiers.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "crds")
    message = tiers.stalled("old", "InvalidSpec")
    assert "spec.sizing.concurrency" in message
    tiers.apply("good")
    tiers.ready("good")


class Models(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible API as far as a tier looks at it; below /keyed it wants a key."""

    def do_GET(self) -> None:
        if self.path.startswith("/keyed"):
            self.send_response(401)
            self.end_headers()
            return
        body = json.dumps({"data": [{"id": "frontier-1"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """A small API on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Models)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def external(api: str, model: str = "frontier-1", **more: Any) -> dict[str, Any]:
    return {"external": {"baseUrl": api, "model": model, **more}}


def test_external_answers_and_asks_for_a_key(tiers: Tiers, api: str) -> None:
    tiers.apply("frontier", external(f"{api}/keyed/v1"))
    tiers.reasoned("frontier", "EndpointReachable", "True", "EndpointAnswers")
    assert "spec.external.apiKeySecretRef" in tiers.condition("frontier", "CredentialsFound")["message"]
    assert tiers.condition("frontier", "Ready")["status"] == "False"


def grant(tiers: Tiers, secret: str) -> None:
    """What a user does to have the key checked."""
    kind = "rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}
    tiers.create({"apiVersion": kind, "kind": "Role", "metadata": {"name": "look"}, "rules": [rule]})
    account = {"kind": "ServiceAccount", "name": "modeltiers-operator", "namespace": "modeltiers-system"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"}
    binding = {"apiVersion": kind, "kind": "RoleBinding", "metadata": {"name": "look"}, "roleRef": ref}
    tiers.create({**binding, "subjects": [account]})


def keyed(tiers: Tiers, value: str) -> None:
    """A Secret with a key."""
    tiers.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}, "stringData": {"key": value}})


def test_external_key_that_the_operator_may_not_read(tiers: Tiers) -> None:
    ref = {"name": "api", "key": "key"}
    tiers.apply("frontier", external("https://localhost:1/v1", apiKeySecretRef=ref))
    message = tiers.reasoned("frontier", "CredentialsFound", "Unknown", "CredentialsNotChecked")
    assert "grant" in message


def test_external_secret_that_is_missing_or_lacks_the_key(tiers: Tiers) -> None:
    grant(tiers, "api")
    tiers.apply("frontier", external("https://localhost:1/v1", apiKeySecretRef={"name": "api", "key": "key"}))
    until(lambda: "no Secret api" in tiers.explain("frontier"), lambda: tiers.explain("frontier"))
    keyed(tiers, canaries.KEY)
    tiers.apply("frontier", external("https://localhost:1/v1", apiKeySecretRef={"name": "api", "key": "other"}))
    until(lambda: "no key other" in tiers.explain("frontier"), lambda: tiers.explain("frontier"))
    tiers.apply("frontier", external("https://localhost:1/v1", apiKeySecretRef={"name": "api", "key": "key"}))
    tiers.reasoned("frontier", "CredentialsFound", "True", "CredentialsFound")
    assert canaries.KEY not in tiers.kubectl("get", "mt,events", "-o", "yaml")


def test_external_without_a_key_becomes_ready(tiers: Tiers, api: str) -> None:
    tiers.apply("frontier", external(f"{api}/v1"))
    status = tiers.ready("frontier")
    assert (status["endpoint"], status["model"]) == (f"{api}/v1", "frontier-1")


def test_external_model_that_is_not_listed(tiers: Tiers, api: str) -> None:
    tiers.apply("frontier", external(f"{api}/v1", "frontier-2"))
    message = tiers.reasoned("frontier", "ModelListed", "False", "ModelNotListed")
    assert "frontier-1" in message


def test_external_host_that_is_not_allowed(tiers: Tiers) -> None:
    tiers.apply("frontier", external("https://api.example.org/v1"))
    until(lambda: "externalHosts" in tiers.explain("frontier"), lambda: tiers.explain("frontier"))
    assert tiers.condition("frontier", "Ready")["status"] == "False"


def test_external_name_that_cannot_be_resolved(tiers: Tiers) -> None:
    tiers.apply("frontier", external("https://nowhere.invalid/v1"))
    until(lambda: "resolved" in tiers.explain("frontier"), lambda: tiers.explain("frontier"))
    assert tiers.condition("frontier", "Ready")["status"] == "False"
