"""The harness against real processes: what it promises to every other test that runs on a real API server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, ExternalCluster, HarnessError, NodePool, replays
from e2e.cluster.process import Processes, wait_until

ROOT = Path(__file__).parent.parent.parent
TOLERATED = [{"key": "nvidia.com/gpu", "operator": "Exists"}]


def pod(name: str, gpus: int = 0, replay: str = "") -> dict[str, Any]:
    """A pod as a tier has it: an engine, and a router beside it as a native sidecar."""
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    engine = {"name": "engine", "image": "example.com/engine:1", "resources": {"limits": limits}}
    router = {"name": "router", "image": "example.com/router:1", "restartPolicy": "Always"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {replays.ANNOTATION: replay} if replay else {}},
        "spec": {"tolerations": TOLERATED, "initContainers": [router], "containers": [engine]},
    }


def create(cluster: Cluster, namespace: str, *items: dict[str, Any]) -> None:
    """Create objects in one call."""
    cluster.kubectl(
        "create", "-n", namespace, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )


def get(cluster: Cluster, namespace: str, *what: str) -> Any:
    """Read an object."""
    return json.loads(cluster.kubectl("get", "-n", namespace, *what, "-o", "json").stdout)


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    """The phase of a pod."""
    return str(get(cluster, namespace, "pod", name)["status"]["phase"])


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of an object; empty when it has none of this type."""
    return next((entry for entry in found["status"].get("conditions", ()) if entry["type"] == kind), {})


def cli(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does."""
    command = [sys.executable, "-m", "e2e.cluster", arguments[0], "--name", "second", "--state", str(state)]
    return subprocess.run([*command, *arguments[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


class TestStart:
    """What `up` does."""

    def test_warm_start_is_quick(self, cluster: Cluster) -> None:
        """Three to five seconds on two idle cores; the limit leaves room for a busy machine."""
        print(f"\n{cluster.timing.table()}")
        assert cluster.timing.total < 30

    def test_the_version_is_the_pinned_one(self, cluster: Cluster) -> None:
        """Without the version flags the API server would call itself v0.0.0."""
        assert not cluster.version.startswith("v0.0.0")

    def test_up_again_starts_nothing(self, cluster: Cluster) -> None:
        """A second `up` finds everything running."""
        before = cluster.status()
        cluster.up()
        assert all(before.values())
        assert before == cluster.status()

    def test_the_state_is_private(self, cluster: Cluster) -> None:
        """Nobody else on the machine reads keys, Secrets or the audit log."""
        assert cluster.state.stat().st_mode & 0o777 == 0o700
        files = [path for path in cluster.state.rglob("*") if path.is_file() and "kubectl-cache" not in path.parts]
        assert [path for path in files if path.stat().st_mode & 0o077] == []


class TestGpuNodes:
    """What kwok's nodes are to the scheduler."""

    def test_nodes_look_like_gpu_nodes(self, cluster: Cluster) -> None:
        """They advertise GPUs and carry the labels that sizing reads."""
        node = get(cluster, "default", "node", "h100-0")
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
        assert node["metadata"]["labels"]["nvidia.com/gpu.memory"] == "81559"
        assert [taint["key"] for taint in node["spec"]["taints"]] == ["nvidia.com/gpu"]

    def test_the_ninth_gpu_is_insufficient(self, cluster: Cluster, namespace: str) -> None:
        """The real scheduler counts: a node is full with eight."""
        cluster.add_pool(NodePool("lonely", 1, extra_labels={"example.com/pool": "lonely"}))
        first, second = pod("first", 8), pod("second", 1)
        for manifest in (first, second):
            manifest["spec"]["nodeSelector"] = {"example.com/pool": "lonely"}
        create(cluster, namespace, first)
        wait_until(lambda: phase(cluster, namespace, "first") == "Running", "the first pod to run")
        create(cluster, namespace, second)
        wait_until(
            lambda: (
                "Insufficient nvidia.com/gpu"
                in condition(get(cluster, namespace, "pod", "second"), "PodScheduled").get("message", "")
            ),
            "the scheduler to refuse the ninth GPU",
        )
        ready = condition(get(cluster, namespace, "pod", "first"), "Ready")
        assert (ready["status"], phase(cluster, namespace, "second")) == ("True", "Pending")
        cluster.remove_node("lonely-0")
        assert cluster.kubectl("get", "pod", "first", "-n", namespace, check=False).returncode

    def test_a_drained_node_is_empty_and_closed(self, cluster: Cluster, namespace: str) -> None:
        """Eviction ends fake pods too."""
        cluster.add_pool(NodePool("drained", 1))
        manifest = pod("engine", 1)
        manifest["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "drained-0"}
        create(cluster, namespace, manifest)
        wait_until(lambda: phase(cluster, namespace, "engine") == "Running", "the pod to run")
        cluster.drain("drained-0")
        assert get(cluster, namespace, "pods")["items"] == []
        assert get(cluster, namespace, "node", "drained-0")["spec"]["unschedulable"]
        cluster.cordon("drained-0", cordoned=False)
        assert "unschedulable" not in get(cluster, namespace, "node", "drained-0")["spec"]
        cluster.remove_node("drained-0")


class TestReplays:
    """Recorded pod statuses on a real API server."""

    def test_every_case_shows_on_its_pod(self, cluster: Cluster, namespace: str) -> None:
        """The API server accepts and shows what each file records."""
        cases = replays.load()
        create(cluster, namespace, *(pod(case.case, replay=case.case) for case in cases))

        def shown() -> dict[str, dict[str, Any]]:
            pods = {item["metadata"]["name"]: item for item in get(cluster, namespace, "pods")["items"]}
            return {name: item for name, item in pods.items() if condition(item, replays.CONDITION)}

        wait_until(lambda: len(shown()) == len(cases), "all replays")
        for case in cases:
            status = shown()[case.case]["status"]
            recorded = case.status["containerStatuses"][0]
            engine = status["containerStatuses"][0]
            assert status["phase"] == case.status["phase"]
            assert status.get("reason") == case.status.get("reason")
            assert list(engine["state"]) == list(recorded["state"])
            assert engine["restartCount"] == recorded.get("restartCount", 0)
            assert "${" not in json.dumps(status)
            if "lastState" in recorded:
                last, ended = engine["lastState"]["terminated"], recorded["lastState"]["terminated"]
                assert (last["exitCode"], last["reason"]) == (ended["exitCode"], ended["reason"])
                assert last.get("message") == ended.get("message")

    def test_a_replay_comes_and_goes_while_the_pod_runs(self, cluster: Cluster, namespace: str) -> None:
        """Tests break pods that an operator made, and heal them."""
        create(cluster, namespace, pod("engine"))

        def ready() -> str:
            return str(condition(get(cluster, namespace, "pod", "engine"), "Ready").get("status"))

        wait_until(lambda: ready() == "True", "the pod to be ready")
        cluster.kubectl("annotate", "pod", "engine", "-n", namespace, f"{replays.ANNOTATION}=gpu-oom")
        wait_until(lambda: ready() == "False", "the replay")
        status = get(cluster, namespace, "pod", "engine")["status"]
        assert "CUDA out of memory" in status["containerStatuses"][0]["lastState"]["terminated"]["message"]
        assert status["initContainerStatuses"][0]["ready"]
        cluster.kubectl("annotate", "pod", "engine", "-n", namespace, f"{replays.ANNOTATION}-")
        wait_until(lambda: ready() == "True", "the pod to be ready again")

    def test_a_pool_replays_for_all_its_pods(self, cluster: Cluster, namespace: str) -> None:
        """Pods can be born failing without an annotation that an operator would not write."""
        cluster.add_pool(NodePool("replay-startup-slow", 1))
        manifest = pod("engine")
        manifest["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "replay-startup-slow-0"}
        create(cluster, namespace, manifest)
        wait_until(lambda: phase(cluster, namespace, "engine") == "Running", "the replay")
        engine = get(cluster, namespace, "pod", "engine")["status"]["containerStatuses"][0]
        assert (engine["ready"], engine["started"], "running" in engine["state"]) == (False, False, True)
        cluster.remove_node("replay-startup-slow-0")


class TestGuards:
    """What a real API server refuses and remembers."""

    def test_pod_security_refuses_a_privileged_pod(self, cluster: Cluster, namespace: str) -> None:
        """The default admission plugins work."""
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        manifest = pod("privileged")
        manifest["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        with pytest.raises(HarnessError, match="violates PodSecurity"):
            create(cluster, namespace, manifest)

    def test_a_service_account_may_do_what_rbac_says(self, cluster: Cluster, namespace: str) -> None:
        """Nothing without a binding, the bound things with one; the audit log counts writes by user."""
        user = f"system:serviceaccount:{namespace}:robot"
        cluster.kubectl("create", "serviceaccount", "robot", "-n", namespace)
        kubeconfig = cluster.service_account_kubeconfig(namespace, "robot")

        def robot(*args: str) -> subprocess.CompletedProcess[str]:
            command = [str(cluster.as_admin.program), f"--kubeconfig={kubeconfig}", *args]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        refused = robot("get", "pods")
        assert refused.returncode
        assert f'User "{user}" cannot list resource "pods"' in refused.stderr
        cluster.kubectl(
            "create",
            "rolebinding",
            "robot",
            "-n",
            namespace,
            "--clusterrole=edit",
            f"--serviceaccount={namespace}:robot",
        )
        wait_until(lambda: robot("get", "pods").returncode == 0, "the binding to count")
        assert [request for request in cluster.requests(user) if request.writes] == []
        robot("create", "configmap", "one")
        robot("create", "configmap", "two")
        writes = [request for request in cluster.requests(user) if request.writes]
        assert [(write.verb, write.resource, write.code) for write in writes] == [("create", "configmaps", 201)] * 2


@pytest.fixture(scope="class")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state of a cluster that the command line started, in a path too long for a socket's address."""
    state = tmp_path_factory.mktemp("second") / ("long" * 30)
    started = cli("up", state=state)
    try:
        assert started.returncode == 0, started.stderr
        assert f"export KUBECONFIG={state}/config/admin.kubeconfig\nkubectl get nodes\n" == started.stdout
        yield state
    finally:
        cli("down", state=state)


class TestCommandLine:
    """A detached cluster, beside the one that the other tests use; the tests build on each other."""

    def test_two_clusters_run_side_by_side(self, cluster: Cluster, second: Path) -> None:
        """Each has ports, nodes and users of its own."""
        other = Cluster(second)
        assert other.server != cluster.server
        assert other.context == "modeltiers-second"
        assert "l40s-0" in other.kubectl("get", "nodes").stdout
        assert "l40s-0" not in cluster.kubectl("get", "nodes").stdout

    def test_components_fail_and_return(self, second: Path) -> None:
        """A stopped component stays away until it is started."""
        other = Cluster(second)
        before = other.status()
        other.stop("kube-scheduler")
        assert other.status()["kube-scheduler"] is None
        assert cli("status", state=second).returncode == 3
        other.start("kube-scheduler")
        other.restart("etcd")
        wait_until(lambda: other.kubectl("get", "nodes", check=False).returncode == 0, "the API after etcd's restart")
        after = other.status()
        assert {"kube-scheduler", "etcd"} == {name for name in after if after[name] != before[name]}

    def test_a_killed_supervisor_takes_all_along_and_up_recovers(self, second: Path) -> None:
        """No orphan stays; what was stored is there again after `up`."""
        other = Cluster(second)
        other.create_namespace("kept")
        supervisor = other.status()["supervisor"]
        assert supervisor
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not any(other.status().values()), "all processes to end", timeout=5)
        recovered = cli("up", state=second)
        assert recovered.returncode == 0, recovered.stderr
        assert "kept" in Cluster(second).kubectl("get", "namespaces").stdout

    def test_down_after_the_supervisor_was_killed(self, second: Path) -> None:
        """`down` needs no supervisor, ends nothing twice, and leaves the logs."""
        supervisor = Cluster(second).status()["supervisor"]
        assert supervisor
        os.kill(supervisor, signal.SIGKILL)
        ended = cli("down", state=second)
        assert ended.returncode == 0, ended.stderr
        assert not any(Cluster(second).status().values())
        assert {".lock", "logs"} == {path.name for path in second.iterdir()}
        assert "nothing ran" in cli("down", state=second).stderr


def test_an_early_exit_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    """A component that cannot start fails the start at once, in its own words."""
    broken = tmp_path / "bin" / "etcd"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 3\n")
    broken.chmod(0o700)
    cluster = Cluster(tmp_path / "state", bin_dir=broken.parent, tied=True)
    with pytest.raises(HarnessError, match=r"etcd ended with exit code 3(.|\n)*no space left"), cluster:
        pass
    assert not any(cluster.status().values())


def test_a_users_cluster_is_reached_by_its_named_context(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same things can be done with it; a context that does not exist is not replaced by another."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("PATH", str(cluster.as_admin.program.parent), prepend=os.pathsep)
    external = ExternalCluster(cluster.context, tmp_path / "home")
    assert external.version == cluster.version
    assert "h100-0" in external.kubectl("get", "nodes").stdout
    with pytest.raises(HarnessError, match="no context 'production'"):
        ExternalCluster("production", tmp_path / "home")


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    """A tied cluster ends with its parent, also when that gets no chance to clean up."""
    program = (
        "import sys, time, pathlib; from e2e.cluster import Cluster\n"
        "Cluster(pathlib.Path(sys.argv[1]), tied=True).up(); print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "up\n"
        processes = Processes(tmp_path, tmp_path / "logs")
        assert len(processes.living()) == 6
        parent.kill()
    wait_until(lambda: not processes.living(), "all processes to end", timeout=5)
