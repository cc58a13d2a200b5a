"""The image that trains, with the torch that users get: built from its Containerfile, and a student trained by it.

It takes 28 GB of disk while it is built, and minutes; nothing of it is left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, volumes
from e2e.cluster.process import wait_until
from e2e.cluster.recipes import Made
from e2e.containerfile import bases, build, rootfs
from e2e.train.models import answered, make_base
from e2e.train.store import Prepared, prepare
from e2e.train.task import make_rows
from modeltiers.api.settings import Settings
from modeltiers.distill import manifest
from modeltiers.distill.run import stage_folder
from modeltiers.domain.distill.stages import Next, Stage, digest_of
from modeltiers.render.distilljob import model_path, models_of, render_frame, render_job
from modeltiers.render.owner import Owner
from tests.node import imagery
from tests.node.kit import Pods

pytestmark = pytest.mark.slow

LORA = {
    "batchSize": 8,
    "epochs": 2,
    "learningRateNanos": 3_000_000,
    "checkpointSteps": 5,
    "lora": {"rank": 4, "alpha": 8},
}
ENDED = ("Succeeded", "Failed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where it is built."""
    made = tmp_path_factory.mktemp("train")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def trainer(able: None, home: Path) -> Made:
    """The image as users build it; skipped, with the reason, where the disk is too full for it."""
    free, wanted = shutil.disk_usage(home).free / 2**30, build.ROOM_GIB["train"]
    if free < wanted:
        pytest.skip(f"building the trainer's image takes {wanted:.0f} GiB of disk, and {free:.0f} are free")
    return build.build("train", home, bases=bases.write(home / "bases"))


def test_it_holds_what_training_takes_and_nothing_more(trainer: Made) -> None:
    """As every image of ours does."""
    image = rootfs.read(trainer.archive)
    print(f"\n{imagery.described('train', image)}")
    assert imagery.faults_of(image) == []
    assert imagery.without_bytecode(image) == []


def test_its_bill_of_materials_has_every_package(trainer: Made, home: Path) -> None:
    """CUDA's libraries too."""
    bill = imagery.check_bill("train", trainer, home / "train.cdx.json")
    print(f"\ntrain: {len(bill['components'])} components")


def test_it_trains_adapters_as_the_operator_would_have_it(
    node_cluster: Cluster, pods: Pods, trainer: Made, home: Path
) -> None:
    """The Job that the operator makes of the stage, without GPUs: nobody, no capability, no root to write to."""
    node_cluster.load_image(trainer.archive, timeout=1200)
    trainer.archive.unlink()
    base = make_base(home / "models" / "base")
    trial = prepare(str(home / "artifacts"), answered(make_rows(40, 3)), {"base": base}, LORA)
    for path in home.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)  # the stage runs as nobody that this machine knows
    assert node_cluster.node
    items = volumes.local(node_cluster.node, pods.namespace, "models", home / "models")
    items += volumes.local(node_cluster.node, pods.namespace, "store", home / "artifacts", shared=True)
    objects, digest = _stage(trial, pods.namespace, trainer.reference)
    try:
        pods.create(*items, *objects)
        wait_until(lambda: _phase(pods) in ENDED, "the training to end", timeout=600, poll=1)
        said = pods.kubectl("logs", "-l", "modeltiers.dev/stage", "--tail=40", check=False)
        assert _phase(pods) == "Succeeded", said + pods.kubectl("describe", "pods")
    finally:
        pods.kubectl("delete", "jobs", "--all", "--cascade=foreground", "--timeout=60s")
        node_cluster.kubectl(
            "delete", "pv", *(f"{pods.namespace}-{one}" for one in ("models", "store")), "--wait=false"
        )
        node_cluster.forget_image(trainer.reference)
    made = manifest.read(stage_folder(trial.root, Stage.TRAIN, digest))
    assert made is not None
    assert (made.facts["steps"], made.facts["lowRank"]) == (10, 4)
    assert made.facts["ceMilli"] < made.facts["firstCeMilli"]
    print(f"\n{made.body['summary']}; {json.dumps(made.facts)}")


def _stage(trial: Prepared, namespace: str, image: str) -> tuple[list[dict[str, Any]], str]:
    """What the operator makes of the stage, without the owner that is not there."""
    spec = trial.plan.spec
    models = models_of(spec, Stage.TRAIN, None)
    paths = {role: model_path(role, weights) for role, weights in models.items()}
    plan = trial.plan.model_copy(update={"models": paths})
    digest = digest_of(Stage.TRAIN, spec, trial.outcomes)
    settings = Settings.model_validate(
        {"distill": {"image": image, "trainImage": image, "trainCpu": "500m", "trainMemory": "4Gi"}}
    )
    owner = Owner(namespace, "trial", "none", "DistillJob")
    job = render_job(owner, plan, Next(Stage.TRAIN, digest), trial.outcomes, settings, models=models)
    objects = [*render_frame(owner, plan, None), job]
    for one in objects:
        one["metadata"].pop("ownerReferences")
    return objects, digest


def _phase(pods: Pods) -> str:
    found = pods.get("pods", "-l", "modeltiers.dev/stage").get("items", [])
    return str(found[0]["status"].get("phase")) if found else ""
