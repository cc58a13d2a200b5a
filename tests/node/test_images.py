"""The images of this project, built from their Containerfiles and run by a real kubelet as nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e import team as teams
from e2e.ask import ask
from e2e.bench.router.processes import free_port
from e2e.cluster import Cluster, binaries, distribution, volumes
from e2e.cluster.process import wait_until
from e2e.cluster.recipes import ROOT, Made
from e2e.containerfile import bases, bom, build, registry, rootfs
from e2e.operator_pod import OperatorPod
from e2e.team import Team
from tests.distill.data import sums
from tests.node import imagery
from tests.node.kit import RESTRICTED, Pods

pytestmark = pytest.mark.slow

NAMES = ("operator", "router", "distill")  # the trainer's takes long and has a file of its own
ROWS = 60
TABLE = """\
formatVersion: 1
tiers:
- {name: small, address: "127.0.0.1:9", model: small}
policies:
- {name: support, model: support, tiers: [small], mode: Upfront}
"""


def container(image: str, port: int, *args: str, **more: Any) -> dict[str, Any]:
    """Return a container of an image as it is, ready when its health port says so."""
    return {
        "name": "main",
        "image": image,
        "args": args,
        "securityContext": RESTRICTED,
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
        **more,
    }


@dataclass(frozen=True)
class Built:
    """An image that is on the node, and what is in it."""

    made: Made
    image: rootfs.Image


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where images are built."""
    made = tmp_path_factory.mktemp("buildah")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def bare(home: Path) -> dict[str, Path]:
    """Bases made of the distribution's packages: no registry is asked."""
    return bases.write(home / "bases")


@pytest.fixture(scope="module")
def built(node_cluster: Cluster, home: Path, bare: dict[str, Path]) -> dict[str, Built]:
    """The images as users build them, on the node."""
    found = {}
    for name in NAMES:
        made = build.build(name, home, bases=bare)
        found[name] = Built(made, rootfs.read(made.archive))
        node_cluster.load_image(made.archive)
        print(f"\n{imagery.described(name, found[name].image)}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_what_its_program_runs_and_nothing_more(built: dict[str, Built], name: str) -> None:
    """Files of root that nobody else may change, no shell, no compiler, nothing that the build left over."""
    image = built[name].image
    assert imagery.faults_of(image) == []
    assert imagery.without_bytecode(image) == []
    assert (image.config["User"], image.config["WorkingDir"]) == ("10001:10001", "/")


@pytest.mark.parametrize("name", NAMES)
def test_its_bill_of_materials_has_every_package(built: dict[str, Built], name: str, tmp_path: Path) -> None:
    """Those of the lock file and those of the base, with their versions, as CycloneDX's schema wants them."""
    bill = imagery.check_bill(name, built[name].made, tmp_path / f"{name}.cdx.json")
    print(f"\n{name}: {len(bill['components'])} components")


def test_a_change_of_code_leaves_the_layer_of_packages_as_it_is(
    built: dict[str, Built], bare: dict[str, Path], tmp_path: Path
) -> None:
    """Bit by bit, in a build that knows nothing of the first: a node that has it fetches our code alone."""
    shutil.copytree(ROOT / "operator/modeltiers", tmp_path / "top/operator/modeltiers")
    for name in ("images", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / "top" / name)
    shutil.copy(ROOT / ".dockerignore", tmp_path / "top")
    with (tmp_path / "top/operator/modeltiers/names.py").open("a") as file:
        file.write("CHANGED = True\n")
    again = rootfs.read(build.build("router", tmp_path, bases=bare, top=tmp_path / "top").archive)
    *kept, before = built["router"].image.layers
    assert again.layers[:-1] == tuple(kept)
    assert again.layers[-1] != before


@pytest.fixture
def registry_here(tmp_path: Path) -> Iterator[str]:
    """A registry of this machine's loopback: the distribution's, fetched and not installed."""
    port = free_port()
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "registry.yaml").write_text(json.dumps(config))
    program = distribution.tree(("docker-registry",)) / "usr/bin/docker-registry"
    with (tmp_path / "registry.log").open("wb") as log:
        with subprocess.Popen([program, "serve", tmp_path / "registry.yaml"], stdout=log, stderr=log) as process:
            try:
                wait_until(lambda: ask(f"http://127.0.0.1:{port}/v2/")[0] == 200, "the registry to answer", 30)
                yield f"127.0.0.1:{port}"
            finally:
                process.kill()


def test_an_image_goes_to_a_registry_and_its_bill_of_materials_hangs_on_it(
    built: dict[str, Built], registry_here: str, tmp_path: Path
) -> None:
    """Under its own digest; whoever has the image's name finds the bill."""
    one = built["router"]
    bill = bom.write(one.made, imagery.VERSION, tmp_path / "router.cdx.json")
    pinned = registry.push(one.made.archive, one.image.digest, bill, f"{registry_here}/modeltiers/router:0.0.0")
    assert pinned == f"{registry_here}/modeltiers/router@{one.image.digest}"
    oras = str(binaries.oras())
    found = json.loads(build.run([oras, "discover", "--plain-http", "--format=json", pinned]))
    (attached,) = found["referrers"]
    assert attached["artifactType"] == registry.BILL
    build.run([oras, "pull", "--plain-http", f"--output={tmp_path / 'back'}", attached["reference"]])
    (back,) = (tmp_path / "back").rglob("*.json")
    assert back.read_bytes() == bill.read_bytes()


def test_the_router_serves_from_its_image(pods: Pods) -> None:
    """The quick local way."""
    _serves(pods, pods.image)


def test_the_router_serves_from_the_image_of_its_containerfile(pods: Pods, built: dict[str, Built]) -> None:
    """What buildah makes of it does the same."""
    _serves(pods, built["router"].made.reference)


def _serves(pods: Pods, image: str) -> None:
    """With a table from a ConfigMap, as the sidecar has it."""
    table = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table"}, "data": {"support.yaml": TABLE}}
    manifest = pods.pod("router", "")
    manifest["spec"]["volumes"] = [{"name": "table", "configMap": {"name": "table"}}]
    manifest["spec"]["containers"] = [
        container(
            image,
            8081,
            "--table=/tables",
            "--listen=0.0.0.0:8080",
            "--admin=0.0.0.0:8081",
            volumeMounts=[{"name": "table", "mountPath": "/tables"}],
        )
    ]
    pods.create(table, manifest, pods.service("router", target=8080))
    pods.wait_ready("router")
    with pods.cluster.gate_to(pods.namespace, "router", 80) as gate:
        wait_until(lambda: _models(gate.address) == ["support"], "the router to know its policy", timeout=15)


def _models(address: str) -> list[str]:
    try:
        with urllib.request.urlopen(f"http://{address}/v1/models", timeout=5) as answer:
            return [model["id"] for model in json.loads(answer.read())["data"]]
    except OSError:
        return []


def test_the_operator_runs_as_a_pod_under_its_own_account(operator: OperatorPod) -> None:
    """It reaches the API by its Service, with its ServiceAccount's token and no other right."""
    operator.wait_leading()
    (pod,) = operator.pods()
    assert pod["spec"]["serviceAccountName"] == "modeltiers-operator"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert operator.get("/healthz")[0] == operator.get("/readyz")[0] == 200


@pytest.fixture
def whole(
    node_cluster: Cluster,
    operator: OperatorPod,
    engine_image: str,
    built: dict[str, Built],
    models: Path,
    tmp_path: Path,
) -> Iterator[Team]:
    """A namespace under an operator that, as all that it starts, runs from an image of a Containerfile."""
    store = tmp_path / "artifacts"
    store.mkdir()
    store.chmod(0o777)  # the stages run as nobody that this machine knows
    router, distill = (built[name].made.reference for name in ("router", "distill"))
    settings = teams.settings(engine_image, router)
    settings["distill"] = {"image": distill, "cpu": "100m", "memory": "512Mi"}
    mine = OperatorPod(node_cluster, settings, built["operator"].made.reference)
    try:
        _replace(operator, mine)
        with teams.team(node_cluster, models) as made:
            assert node_cluster.node
            made.apply(*volumes.local(node_cluster.node, made.namespace, "artifacts", store, shared=True))
            yield made
        node_cluster.kubectl("delete", "pv", f"{made.namespace}-artifacts", "--wait=false", "--ignore-not-found")
    finally:
        _replace(mine, operator)


def _replace(running: OperatorPod, other: OperatorPod) -> None:
    """One operator in the place of another, which is gone before."""
    running.close()
    wait_until(lambda: not running.pods(), "the operator to end", 90)
    other.start()
    other.wait_leading()


def test_operator_router_and_stages_work_from_the_images_of_their_containerfiles(
    whole: Team, built: dict[str, Built]
) -> None:
    """A tier is reconciled, its router is ready before a real engine, and a DistillJob's first stages do their work."""
    lines = "".join(f"{json.dumps(row)}\n" for row in sums(ROWS))
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"rows.jsonl": lines}}
    tier = whole.tier("small", access={"mode": "Open"})
    whole.apply(data, tier, _job(tier))
    whole.wait_ready("mt/small")
    (pod,) = whole.pods("small")
    assert pod["spec"]["initContainers"][0]["image"] == built["router"].made.reference
    wait_until(lambda: {"Snapshot", "Split"} <= set(_stages(whole)), "the first stages to be complete", timeout=120)
    assert f"{ROWS} rows" in _stages(whole)["Snapshot"]
    images = {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in whole.get("jobs")["items"]}
    assert images == {built["distill"].made.reference}
    whole.kubectl("delete", "dj", "trial")


def _job(teacher: dict[str, Any]) -> dict[str, Any]:
    base = {"source": "pvc://models/small", "architecture": teacher["spec"]["model"]["architecture"]}
    spec = {
        "workload": {"verifiers": [{"name": "right", "type": "Numeric"}]},
        "teacher": {"tierRef": {"name": "small"}},
        "student": {"base": base},
        "data": {
            "sources": [{"name": "rows", "configMap": {"name": "rows", "key": "rows.jsonl"}}],
            "split": {"evaluation": 20},
        },
        "evaluation": {"tierRef": {"name": "small"}},
        "store": {"claimName": "artifacts"},
    }
    return {"apiVersion": "modeltiers.dev/v1alpha1", "kind": "DistillJob", "metadata": {"name": "trial"}, "spec": spec}


def _stages(team: Team) -> dict[str, str]:
    """What the job's complete stages say."""
    status = team.get("dj", "trial").get("status", {})
    return {one["name"]: one.get("summary", "") for one in status.get("stages", ()) if one.get("ended")}
