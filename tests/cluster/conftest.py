"""The operator as its own program, on the shared control plane, under its own ServiceAccount."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.cluster.kwok import NodePool
from e2e.cluster.process import wait_until
from e2e.operator_process import OperatorProcess, install
from tests import argocd, canaries, statuses
from tests.cluster import admission
from tests.cluster.admission import CRDS, ApiServer
from tests.cluster.kinds import KINDS
from tests.cluster.kit import LARGE, Tiers, breach, breach_of_job, until
from tests.cluster.policies import apply, table
from tests.cluster.recorder import Recorder
from tests.cluster.rights import used

ENTRY_RETURN = 3
"""Seconds after which a policy's entry goes back to a tier that is ready again."""
SETTINGS: dict[str, Any] = {
    "limits": {"unschedulableDeadlineSeconds": 10, "maxReplicas": 100},
    "engineProfiles": {"plain": {"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}]}},
    "allowedImages": ["example.com/"],
    "router": {"image": "example.com/router:1", "entryReturnSeconds": ENTRY_RETURN},
    "facts": {"readSeconds": 2, "writeSeconds": 2},
    "distill": {"image": "example.com/distill:1", "trainImage": "example.com/train:1", "progressSeconds": 1},
    "gateways": {"public": {"name": "edge", "namespace": "gateways"}},
    "externalHosts": [{"host": "localhost", "private": True}, {"host": "nowhere.invalid"}],
}


@pytest.fixture(scope="session", autouse=True)
def accounted(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of all, leave word of the rights that operators used, where `--rights` says; test_rights judges."""
    yield
    found = [log for log in tmp_path_factory.getbasetemp().glob("*/logs/audit.log") if not log.parents[1].is_symlink()]
    if found and (folder := pytestconfig.getoption("--rights")):
        Path(folder, f"{secrets.token_hex(4)}.json").write_text(json.dumps(sorted(used(found))))


@pytest.fixture(scope="session")
def cluster_pools() -> tuple[NodePool, ...]:
    """Nodes with accelerators for engines, and one without for routers that stand by themselves."""
    return (NodePool("h100", 2), NodePool("plain", 1, gpus=0))


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """The shared cluster with CRDs and the operator's rights."""
    install(cluster)
    return cluster


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server with our CRDs, to be asked about many objects."""
    for kind in KINDS:
        admission.install(cluster, kind.resource.name, "-f", str(CRDS))
    with ApiServer(cluster.kubeconfig, tmp_path_factory.mktemp("admission")) as api:
        for kind in KINDS:
            smallest = kind.accepted["smallest"]
            wait_until(lambda one=smallest: api.create(one, "default").accepted, f"{kind.resource.plural} to be served")
        yield api


@pytest.fixture(scope="module")
def shared(cluster: Cluster, server: ApiServer) -> Iterator[str]:
    """A namespace for questions that leave nothing behind."""
    name = cluster.create_namespace(f"test-{secrets.token_hex(4)}")
    yield name
    cluster.delete_namespace(name)


@pytest.fixture(scope="session")
def recorded(
    installed: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Every state of every resource that these tests lead to; each must keep kstatus's contract, and Argo CD's."""
    contracts = {"modeltiers": breach, "routingpolicies": breach, "distilljobs": breach_of_job}
    place = tmp_path_factory.mktemp("recorded")
    recorders = {plural: Recorder(installed, plural, place) for plural in contracts}
    yield
    # It has seen all only if it sees what comes last.
    Tiers(installed, installed.create_namespace(f"last-{secrets.token_hex(4)}")).apply("the-last-of-all")
    until(lambda: recorders["modeltiers"].saw(b'"the-last-of-all"'), "the recorder to see the last tier")
    for plural, recorder in recorders.items():
        recorder.end()
        for file in recorder.files():
            canaries.look(f"a status of {plural}", file.read_bytes())
    states = {plural: list(recorder.states()) for plural, recorder in recorders.items()}
    if request.config.getoption("--statuses") == "rewrite":
        statuses.record(state for seen in states.values() for state in seen)
    broken = [
        f"{problem}\n{json.dumps(state.get('status'))[:2000]}"
        for plural, contract in contracts.items()
        for state in states[plural]
        if (problem := contract(state) or argocd.breach(state))
    ]
    assert broken == []


@pytest.fixture(scope="session")
def operator(
    installed: Cluster,
    recorded: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OperatorProcess]:
    """The operator, running over the whole session."""
    with OperatorProcess(installed, tmp_path_factory.mktemp("operator"), settings=SETTINGS) as running:
        yield running
        for what, text in _written(installed, running):
            canaries.look(what, text)
        assert running.process.poll() is None, f"the operator ended on the way:\n{running.tail()}"
        assert running.metric("modeltiers_reconcile_errors_total", reason="Bug") == 0, running.tail(200)


def _written(cluster: Cluster, operator: OperatorProcess) -> Iterator[tuple[str, str]]:
    """All that the operator has written: its log, its metrics, and every object but the Secrets that tests made."""
    yield "the operator's log", operator.log.read_text(errors="replace")
    yield "a metric", operator.get("/metrics")[1]
    ours = ("modeltiers", "routingpolicies", "distilljobs", "events", "configmaps", "services", "networkpolicies")
    for kind in (*ours, "deployments", "jobs", "pods", "leases"):
        yield f"one of {kind}", cluster.kubectl("get", kind, "--all-namespaces", "-o", "json").stdout


@pytest.fixture
def tiers(installed: Cluster, operator: OperatorProcess) -> Iterator[Tiers]:
    """Tiers of one namespace, with the operator at work.

    No pod that is not `restricted` gets into it: whatever becomes Ready in any test has pods that are.
    """
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = installed.create_namespace(f"test-{secrets.token_hex(4)}", labels)
    yield Tiers(installed, name)
    installed.delete_namespace(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a test's own processes keep their files."""
    return tmp_path


@pytest.fixture
def ladder(tiers: Tiers) -> Tiers:
    """Two tiers, ready, and a policy over them."""
    tiers.apply("small")
    tiers.apply("large", LARGE)
    tiers.ready("small")
    tiers.ready("large")
    apply(tiers)
    until(lambda: table(tiers, "small") and table(tiers, "large"), "the table on both tiers")
    return tiers
