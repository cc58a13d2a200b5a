"""The operator dies, restarts, is doubled and is away: nothing is lost, nothing is written twice."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.cluster import Cluster, NodePool
from e2e.operator_process import USER, OperatorProcess, install
from modeltiers.domain.distill.stages import Stage
from tests.cluster.conftest import SETTINGS
from tests.cluster.kit import SPEC, Tiers, until
from tests.cluster.test_distilljob import GATE, prepared


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of this module's own: operators start and end here, and components die."""
    with Cluster(tmp_path_factory.mktemp("own"), name="own", tied=True, pools=(NodePool("h100", 30),)) as cluster:
        install(cluster)
        yield cluster


@pytest.fixture
def place(own: Cluster) -> Iterator[Tiers]:
    name = own.create_namespace(f"place-{time.monotonic_ns()}")
    yield Tiers(own, name)
    own.delete_namespace(name)


def replica(own: Cluster, home: Path, number: int = 0) -> OperatorProcess:
    return OperatorProcess(own, home, name=f"operator-{number}", settings=SETTINGS)


def writes(own: Cluster) -> int:
    return sum(1 for r in own.requests(USER) if r.writes and r.resource != "leases")


def quiet(own: Cluster, seconds: float = 1.5) -> int:
    """Wait until the operator writes nothing any more; returns its writes so far."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        now = writes(own)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)
    return last


def test_a_restart_with_200_ready_tiers_writes_nothing(own: Cluster, place: Tiers, home: Path) -> None:
    def body(n: int) -> str:
        metadata = {"name": f"t{n}", "namespace": place.namespace}
        return json.dumps(
            {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "ModelTier", "metadata": metadata, "spec": SPEC}
        )

    with ThreadPoolExecutor(2) as pool:
        chunks = ["\n---\n".join(body(n) for n in range(start, start + 50)) for start in range(0, 200, 50)]
        list(pool.map(lambda text: own.kubectl("apply", "--server-side", "-f", "-", input=text), chunks))
    with replica(own, home):
        place.kubectl("wait", "--for=condition=Ready", "modeltier", "--all", "--timeout=120s")
        before = quiet(own)
    with replica(own, home, 1) as again:
        until(lambda: again.metric("modeltiers_reconcile_total") >= 200, "200 reconciles")
        after = quiet(own)
    assert after - before == 0


def test_newer_defaults_roll_nothing_until_they_are_asked_for(own: Cluster, place: Tiers, home: Path) -> None:
    """Another default image, another template: running pods stay, status says what is newer, a token takes it."""
    with replica(own, home):
        place.apply("a")
        place.ready("a", timeout=60)
    before = place.get("deployment", "a")
    newer = {**SETTINGS, "engine": {"image": "example.com/vllm:newer", "runAsUser": 3000}}
    with OperatorProcess(own, home, name="operator-1", settings=newer):
        message = place.reasoned("a", "UpdateAvailable", "True", "NewerAvailable")
        assert "example.com/vllm:newer" in message
        after = place.get("deployment", "a")
        assert before and after
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        place.kubectl("scale", "mt/a", "--replicas=2")  # scaling rolls nothing either
        until(lambda: place.status("a").get("readyReplicas") == 2, lambda: place.explain("a"))
        assert place.status("a")["revisions"][0]["image"] != "example.com/vllm:newer"
        place.apply("a", replicas=2, rolloutToken="take-it")
        status = place.ready("a", timeout=60)
        assert status["revisions"][0]["image"] == "example.com/vllm:newer"
        assert place.condition("a", "UpdateAvailable")["status"] == "False"


def test_killed_and_restarted_it_goes_on(own: Cluster, place: Tiers, home: Path) -> None:
    with replica(own, home) as first:
        place.apply("a")
        place.ready("a", timeout=60)
        first.kill()
    place.apply("b")
    place.kubectl("delete", "mt/a", "--wait=true")  # no finalizer holds it while the operator is away
    with replica(own, home, 1):
        place.ready("b", timeout=60)
    until(lambda: place.get("deployment", "a") is None, "the garbage collector at work", timeout=60)


@pytest.mark.slow
def test_a_namespace_deletes_while_the_operator_is_down(own: Cluster, home: Path) -> None:
    place = Tiers(own, own.create_namespace(f"away-{time.monotonic_ns()}"))
    with replica(own, home):
        place.apply("a")
        place.ready("a", timeout=40)
    own.kubectl("delete", "namespace", place.namespace, "--wait=true", "--timeout=120s")


def test_one_of_two_leads_and_the_other_takes_over(own: Cluster, place: Tiers, home: Path) -> None:
    with replica(own, home) as first, replica(own, home, 1) as second:
        until(lambda: first.metric("modeltiers_leading") == 1, "the first leads")
        time.sleep(3)
        assert second.metric("modeltiers_leading") == 0
        assert second.get("/readyz")[0] == 200  # a standby has the whole picture
        first.kill()
        began = time.monotonic()
        place.apply("a")
        until(lambda: place.condition("a", "Accepted"), "the second at work", timeout=30)
        takeover = time.monotonic() - began
        print(f"takeover after kill -9: {takeover:.1f} s")
        assert takeover <= 15


def test_a_clean_stop_hands_over_at_once(own: Cluster, place: Tiers, home: Path) -> None:
    with replica(own, home) as first, replica(own, home, 1) as second:
        until(lambda: first.metric("modeltiers_leading") == 1, "the first leads", timeout=30)
        seconds = first.stop()
        assert first.process.returncode == 0, first.tail()
        assert seconds <= 10
        began = time.monotonic()
        until(lambda: second.metric("modeltiers_leading") == 1, "the second leads", timeout=15)
        print(f"SIGTERM took {seconds:.1f} s, handover {time.monotonic() - began:.1f} s")


@pytest.mark.slow
def test_a_leader_that_was_asleep_writes_nothing_after_it_wakes(own: Cluster, place: Tiers, home: Path) -> None:
    with replica(own, home) as first:
        until(lambda: first.metric("modeltiers_leading") == 1, "the first leads", timeout=30)
        first.signal(signal.SIGSTOP)
        with replica(own, home, 1) as second:
            until(lambda: second.metric("modeltiers_leading") == 1, "the second leads", timeout=30)
            place.apply("a")
            place.ready("a")
            second.stop()
            place.apply("a", rank=7)  # work for whoever may
            before = writes(own)
            first.signal(signal.SIGCONT)
            time.sleep(1)
            # It may lead again only after it has seen the lease as it is now; until then, not one write.
            if first.metric("modeltiers_leading") == 0:
                assert writes(own) == before


@pytest.mark.slow
def test_the_api_server_is_away_and_comes_back(own: Cluster, place: Tiers, home: Path) -> None:
    with replica(own, home) as operator:
        place.apply("a")
        place.ready("a", timeout=40)
        own.stop("kube-apiserver")
        until(lambda: operator.metric("modeltiers_leading") == 0, "it gives up leading", timeout=20)
        time.sleep(3)
        assert operator.get("/healthz")[0] == 200  # a restart would not help
        own.start("kube-apiserver")
        place.apply("b")
        began = time.monotonic()
        place.ready("b", timeout=60)
        print(f"converged {time.monotonic() - began:.1f} s after the API server came back")


@pytest.mark.slow
def test_without_the_crd_it_waits_and_says_so(own: Cluster, home: Path) -> None:
    own.kubectl("delete", "crd", "modeltiers.modeltiers.dev")
    operator = replica(own, home)
    with contextlib.closing(operator.start(wait=False)):
        until(lambda: "ModelTier not served" in operator.get("/readyz")[1], "readyz tells", timeout=20)
        install(own)
        operator.wait_ready()


def test_with_roles_only_everything_still_works(own: Cluster, home: Path) -> None:
    """No ClusterRole, no nodes: sizing comes from the bundled table, and free accelerators are unknown."""
    from modeltiers.kube.access import rbac_manifests

    place = Tiers(own, own.create_namespace(f"roles-{time.monotonic_ns()}"))
    system = own.create_namespace(f"system-{time.monotonic_ns()}")
    for manifest in rbac_manifests([place.namespace], system):
        own.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    kubeconfig = own.service_account_kubeconfig(system, "modeltiers-operator")
    settings = {**SETTINGS, "watchNamespaces": [place.namespace]}
    with OperatorProcess(own, home, settings=settings, kubeconfig=kubeconfig, namespace=system):
        place.apply("a")
        status = place.ready("a")
        assert status["sizing"]["freeGpus"] == "unknown"
        place.apply("b", replicas=2, scheduling={"nodeSelector": {"no": "such"}})
        message = place.reasoned("b", "Ready", "Unknown", "Unschedulable")
        assert "nodes are available" in message
    refused = [r for r in own.requests(f"system:serviceaccount:{system}:modeltiers-operator") if r.forbidden]
    assert refused == []


@pytest.mark.slow
def test_killed_in_every_stage_of_a_distillation_it_makes_no_job_twice(own: Cluster, place: Tiers, home: Path) -> None:
    """Each stage ends while no operator is there; the next one goes on where the job is."""
    with contextlib.ExitStack() as stack:
        operator = stack.enter_context(replica(own, home))
        distill = prepared(place)
        distill.apply()
        for stage in Stage:
            if stage in (Stage.EVALUATE_INCUMBENT, Stage.JUDGE, Stage.CALIBRATE):
                continue
            distill.job(stage)
            operator.kill()
            facts = {Stage.GATE: GATE, Stage.PACKAGE: {"digest": "ab" * 16}}.get(stage, {})
            distill.complete(stage, facts=facts)
            operator = stack.enter_context(replica(own, home))
        distill.until("Complete", "True", "Packaged", 60)
        stages = [one["metadata"]["labels"]["modeltiers.dev/stage"] for one in distill.jobs()]
        assert sorted(stages) == sorted(set(stages))
        assert len(stages) == 11
        created = [one for one in own.requests(USER) if one.resource == "jobs" and one.writes and one.verb != "delete"]
        assert len(created) == 11
