"""The client against a real API server: applies, lists, refusals, rights, and what the operator's own roles allow."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from e2e.cluster import Cluster
from modeltiers import names
from modeltiers.kube import access, errors
from modeltiers.kube.capacity import Capacity
from modeltiers.kube.client import Api
from modeltiers.kube.events import EventRecorder
from modeltiers.kube.refs import KINDS, Kind, Ref
from modeltiers.kube.session import Connection, connect
from tests.cluster.kit import api_server_back, decoded, until

# Tests make and delete things that the operator itself may not.
MORE = (
    *access.USES,
    access.Grant("Deployment", ("delete",), "Tier namespaces", "tests"),
    access.Grant("ServiceAccount", ("delete",), "Tier namespaces", "tests"),
    access.Grant("Pod", ("create",), "Tier namespaces", "tests"),
)


@pytest.fixture
async def connection(cluster: Cluster) -> AsyncIterator[Connection]:
    """As the administrator."""
    made = await connect(cluster.kubeconfig)
    yield made
    await made.close()


@pytest.fixture
def api(connection: Connection) -> Api:
    """With more declared than the operator has."""
    return Api(connection, uses=MORE)


def deployment(namespace: str, name: str = "small", replicas: int | None = 0, **metadata: Any) -> dict[str, Any]:
    """A Deployment of nothing."""
    labels = {"app": name}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "engine", "image": "example.com/engine:1"}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    metadata = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def account(namespace: str, name: str, **metadata: Any) -> dict[str, Any]:
    """The smallest object there is."""
    metadata = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


async def test_apply_get_and_a_second_apply_that_changes_nothing(api: Api, namespace: str) -> None:
    """The field manager is ours, and the same intent twice is one version."""
    first = await api.apply(deployment(namespace))
    assert {entry["manager"] for entry in first["metadata"]["managedFields"]} == {names.FIELD_MANAGER}
    versions = {(await api.apply(account(namespace, "same")))["metadata"]["resourceVersion"] for _ in range(3)}
    assert len(versions) == 1
    assert (await api.get(Ref(KINDS["Deployment"], namespace, "small")) or {})["metadata"]["uid"]
    assert await api.get(Ref(KINDS["Deployment"], namespace, "none")) is None


async def test_a_field_that_is_left_out_is_released(api: Api, namespace: str, cluster: Cluster) -> None:
    """Who scales the Deployment keeps what it set, once we have stopped saying a number."""
    await api.apply(deployment(namespace, replicas=1))
    cluster.kubectl("scale", "deployment", "small", "-n", namespace, "--replicas=3")
    applied = await api.apply(deployment(namespace, replicas=None))
    assert applied["spec"]["replicas"] == 3


async def test_guards_of_an_apply(api: Api, namespace: str) -> None:
    """Create only, this object only: what does not hold is a Conflict, whatever the server calls it."""
    made = await api.apply(deployment(namespace, resourceVersion="1"))
    await api.apply(deployment(namespace, uid=made["metadata"]["uid"]))
    other = "11111111-1111-1111-1111-111111111111"
    for guarded in (deployment(namespace, resourceVersion="1"), deployment(namespace, uid=other)):
        with pytest.raises(errors.Conflict):
            await api.apply(guarded)
    with pytest.raises(errors.Conflict):
        await api.apply(deployment(namespace, "absent", uid=other))


async def test_delete_is_for_one_object_and_fine_twice(api: Api, namespace: str) -> None:
    """With another uid it is refused."""
    made = await api.create(account(namespace, "gone"))
    ref = Ref(KINDS["ServiceAccount"], namespace, "gone")
    with pytest.raises(errors.AlreadyExists):
        await api.create(account(namespace, "gone"))
    with pytest.raises(errors.Conflict):
        await api.delete(ref, uid="another")
    await api.delete(ref, uid=made["metadata"]["uid"])
    await api.delete(ref)
    assert await api.get(ref) is None


async def test_lists_come_in_pages_by_labels_and_as_metadata(api: Api, namespace: str) -> None:
    """Each object once; a namespace that is not there has none."""
    for number in range(7):
        await api.apply(account(namespace, f"a{number}", labels={"team": "a" if number < 5 else "b"}))
    kind = KINDS["ServiceAccount"]
    found = [item async for item in api.list(kind, namespace, labels="team=a", limit=2, metadata_only=True)]
    assert [item["metadata"]["name"] for item in found] == [f"a{number}" for number in range(5)]
    assert {item["kind"] for item in found} == {"PartialObjectMetadata"}
    assert [item async for item in api.list(kind, "nowhere")] == []
    everywhere = [item async for item in api.list(kind, fields="metadata.name=a6")]
    assert [item["metadata"]["namespace"] for item in everywhere] == [namespace]


async def test_a_list_goes_on_over_a_compaction(api: Api, namespace: str, cluster: Cluster) -> None:
    """The token dies with its history; the server's own way on gives every object once, and the newest too."""
    for number in range(6):
        await api.apply(account(namespace, f"a{number}", labels={"paged": "yes"}))
    found = []
    async for item in api.list(KINDS["ServiceAccount"], namespace, labels="paged=yes", limit=2):
        found.append(item["metadata"]["name"])
        if len(found) == 2:
            await api.apply(account(namespace, "z", labels={"paged": "yes"}))
            # From its memory it would go on without a word.
            compact(cluster)
            cluster.stop("kube-apiserver")
            api_server_back(cluster)
    assert found == [*(f"a{number}" for number in range(6)), "z"]


def compact(cluster: Cluster) -> None:
    """Drop etcd's history, as the API server does every five minutes."""
    made = cluster._layout
    trust = ssl.create_default_context(cafile=str(made.pki / "ca.crt"))
    trust.load_cert_chain(made.pki / "etcd-client.crt", made.pki / "etcd-client.key")

    def ask(path: str, **body: Any) -> Any:
        url = f"https://127.0.0.1:{made.ports.etcd}/v3/kv/{path}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), context=trust, timeout=5) as answer:
            return json.load(answer)

    revision = ask("range", key="AA==")["header"]["revision"]
    ask("compaction", revision=revision, physical=True)


@pytest.fixture
def peopled(namespace: str, cluster: Cluster) -> str:
    """A namespace whose ServiceAccount `default` is there: no pod can be created before."""
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
    return namespace


async def test_refusals_of_a_real_server(api: Api, peopled: str, cluster: Cluster) -> None:
    """Quota, Pod Security, a field that is not there, one that may not change, a namespace that is not there."""
    namespace = peopled
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"containers": [{"name": "engine", "image": "example.com/engine:1"}]},
    }
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(errors.PodSecurity, match="violates PodSecurity"):
        await api.create(pod)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")
    cluster.kubectl("create", "quota", "none", "-n", namespace, "--hard=count/deployments.apps=0")
    # The quota counts once its controller has looked.
    await refused(api, deployment(namespace, "quota"), errors.QuotaExceeded)
    cluster.kubectl("delete", "quota", "none", "-n", namespace)
    await accepted(api, deployment(namespace))
    broken = deployment(namespace, "broken")
    broken["spec"]["nope"] = 1
    with pytest.raises(errors.Rejected, match="field not declared in schema"):
        await api.apply(broken)
    other = deployment(namespace)
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(errors.Rejected, match="immutable"):
        await api.apply(other)
    with pytest.raises(errors.NotFound):
        await api.apply(deployment("nowhere"))


async def refused(api: Api, obj: dict[str, Any], fault: type[errors.ApiFault], seconds: float = 15) -> str:
    """Apply new objects until one is refused for this reason."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await api.apply(obj)
            await api.delete(Ref(KINDS[obj["kind"]], obj["metadata"]["namespace"], obj["metadata"]["name"]))
        except fault as seen:
            return str(seen)
    raise AssertionError(f"never {fault.__name__}")


async def accepted(api: Api, obj: dict[str, Any], seconds: float = 15) -> None:
    """Apply until it is not forbidden any more."""
    end = time.monotonic() + seconds
    while True:
        try:
            await api.apply(obj)
            return
        except errors.Forbidden:
            assert time.monotonic() < end


async def test_a_policy_and_a_terminating_namespace(api: Api, namespace: str, cluster: Cluster) -> None:
    """Both are Forbidden and not Rejected: they pass when the administrator, or time, says so."""
    policy = f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {namespace}}}
spec:
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [serviceaccounts]}}]
  validations: [{{expression: "object.metadata.name != 'bad'", message: "bad is not a name"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {namespace}}}
spec: {{policyName: {namespace}, validationActions: [Deny]}}
"""
    cluster.kubectl("apply", "-f", "-", input=policy)
    try:
        assert "bad is not a name" in await refused(api, account(namespace, "bad"), errors.AdmissionDenied)
    finally:
        cluster.kubectl("delete", "-f", "-", input=policy)
    hold = '{"metadata":{"finalizers":["example.com/hold"]}}'
    cluster.kubectl("patch", "namespace", namespace, "--type=merge", "-p", hold)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    try:
        await refused(api, account(namespace, "late"), errors.NamespaceTerminating)
    finally:
        cluster.kubectl("patch", "namespace", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


async def test_questions(api: Api) -> None:
    """What is served, and by what version."""
    assert (await api.version())["gitVersion"].startswith("v1.")
    known = [KINDS["Deployment"], KINDS["ConfigMap"]]
    strangers = [Kind("nobody.example.com", "v1", "Nothing", "nothings"), Kind("apps", "v1", "Nothing", "nothings")]
    assert await api.served([*known, *strangers]) == set(known)


async def test_an_event_is_told_and_counted_up(api: Api, namespace: str, cluster: Cluster) -> None:
    """As `kubectl` shows it; a new recorder, as after a restart, changes the same one."""
    about = await api.apply(deployment(namespace))
    for times in (3, 1):
        recorder = EventRecorder(api, "pod-1")
        for _ in range(times):
            recorder.record(about, "Warning", "Unschedulable", "needs 8, largest free 4")
        while recorder._waiting:
            name, event = recorder._waiting.popitem()
            assert await recorder._send(event) == "sent"
        found = json.loads(cluster.kubectl("get", "events", "-n", namespace, "-o", "json").stdout)["items"]
        (told,) = [item for item in found if item["reason"] == "Unschedulable"]
        assert (told["metadata"]["name"], told["count"]) == (name, times)
    assert "needs 8, largest free 4" in cluster.kubectl("describe", "deployment", "small", "-n", namespace).stdout


async def test_free_accelerators(api: Api, peopled: str) -> None:
    """On the fake nodes, with one pod that is bound and one that is not."""
    namespace = peopled
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "nowhere"},
            "containers": [
                {"name": "e", "image": "example.com/e:1", "resources": {"limits": {"nvidia.com/gpu": "3"}}},
            ],
        },
    }
    node = await anext(api.list(KINDS["Node"]))
    label, product = "nvidia.com/gpu.product", node["metadata"]["labels"]["nvidia.com/gpu.product"]
    before = await Capacity(api).free("nvidia.com/gpu", label, product)
    assert before is not None
    await api.create(pod)
    assert await Capacity(api).free("nvidia.com/gpu", label, product) == before
    bound = {**pod, "metadata": {"name": "b", "namespace": namespace}, "spec": {**pod["spec"]}}  # type: ignore[dict-item]  # a manifest
    bound["spec"] = {"containers": pod["spec"]["containers"], "nodeName": node["metadata"]["name"]}  # type: ignore[index]  # a manifest
    await api.create(bound)
    after = await Capacity(api).free("nvidia.com/gpu", label, product)
    assert after is not None
    assert after.total == before.total - 3


# --- rights -----------------------------------------------------------------------------------------------------------


async def as_operator(cluster: Cluster, manifests: list[dict[str, Any]]) -> Connection:
    """Install the rights and connect as the operator's ServiceAccount."""
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    where = manifests[0]["metadata"]
    return await connect(cluster.service_account_kubeconfig(where["namespace"], where["name"]))


NEVER = (("create", "Pod"), ("delete", "Pod"), ("get", "Secret"), ("create", "Secret"))


def question(verb: str, kind: str, namespace: str, subresource: str = "", only: Sequence[str] = ()) -> dict[str, str]:
    """May somebody do this, on all objects or on one name; in the namespace, or everywhere when it is empty?"""
    what = KINDS[kind]
    where = namespace if what.namespaced else ""
    named = {"name": only[0]} if only else {}
    asked = {"verb": verb, "group": what.group, "resource": what.plural, "subresource": subresource, "namespace": where}
    return {**asked, **named}


def may(cluster: Cluster, user: str, questions: list[dict[str, str]]) -> list[bool]:
    """What the API server answers to these questions about a user."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    items = [{**review, "spec": {"user": user, "resourceAttributes": one}} for one in questions]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    answers = decoded(cluster.kubectl("create", "-f", "-", "-o", "json", input=listed).stdout)
    return [bool(one["status"].get("allowed")) for one in answers]


async def test_every_declared_right_is_granted_in_a_namespace(cluster: Cluster, namespace: str) -> None:
    """And those that only a user grants, or that are cluster-wide, are not."""
    connection = await as_operator(cluster, access.rbac_manifests([namespace], namespace))
    api = Api(connection)
    declared = [(grant, verb) for grant in access.USES for verb in grant.verbs]
    asked = [question(verb, grant.kind, namespace, grant.subresource, grant.only) for grant, verb in declared]
    never = [question(verb, kind, namespace) for verb, kind in NEVER] + [question("list", "ModelTier", "")]
    granted = may(cluster, f"system:serviceaccount:{namespace}:{names.OPERATOR_NAME}", [*asked, *never])
    for (grant, verb), allowed in zip(declared, granted, strict=False):
        assert allowed == (grant.scope != "Cluster" and not grant.by_user), (grant, verb)
    assert granted[len(asked) :] == [False] * len(never)
    try:
        assert await Capacity(api).free("nvidia.com/gpu", "x", "y") is None
        with pytest.raises(errors.Denied, match='cannot get resource "secrets"'):
            await api.get(Ref(KINDS["Secret"], namespace, "key"))
    finally:
        await connection.close()


async def test_a_right_that_is_taken_away_is_denied_and_comes_back(cluster: Cluster, namespace: str) -> None:
    """Without a restart on our side; applying needs `create` besides `patch`."""
    manifests = access.rbac_manifests([namespace], namespace)
    role = next(item for item in manifests if item["kind"] == "Role" and item["metadata"]["name"].endswith("-tiers"))
    connection = await as_operator(cluster, manifests)
    api = Api(connection)
    try:
        await accepted(api, account(namespace, "one"))
        less = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != "create"]} for rule in role["rules"]]
        cluster.kubectl("replace", "-f", "-", input=json.dumps({**role, "rules": less}))
        until_denied = 0
        while True:
            until_denied += 1
            try:
                await api.apply(account(namespace, f"two-{until_denied}"))
            except errors.Denied as fault:
                assert "cannot create resource" in str(fault)
                break
            assert until_denied < 500
        cluster.kubectl("replace", "-f", "-", input=json.dumps(role))
        await accepted(api, account(namespace, "three"))
    finally:
        await connection.close()


async def test_a_server_that_goes_away_and_comes_back(cluster: Cluster, api: Api, namespace: str) -> None:
    """Transient while it is away, and the same Api works again."""
    await api.apply(account(namespace, "before"))
    cluster.stop("kube-apiserver")
    try:
        with pytest.raises(errors.Transient):
            await api.apply(account(namespace, "during"))
    finally:
        api_server_back(cluster)
    until(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "the server is ready", 60)
    await api.apply(account(namespace, "after"))
