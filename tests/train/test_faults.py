"""What is wrong is named, with the way out: rows, the base's folder, hyper-parameters, tokenizers, the disk."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.train.models import answered
from e2e.train.task import make_rows
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.train import base as bases
from tests.train.conftest import MakeTrial, with_probabilities


@pytest.fixture
def broken(base: Path, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    """A copy of the base after something was done to it."""

    def make(how: Callable[[Path], None]) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(base, folder)
        how(folder)
        return folder

    return make


def change(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_no_rows(trial: MakeTrial) -> None:
    with pytest.raises(BadData, match="no row to train on") as caught:
        trial([]).run()
    assert caught.value.reason == "NoRows"


def test_every_row_too_long(trial: MakeTrial) -> None:
    with pytest.raises(
        BadData, match=r"all 40 rows are longer than training.maxLength \(16 tokens; the longest"
    ) as caught:
        trial(maxLength=16).run()
    assert caught.value.field == "spec.training.maxLength"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "no model's folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"rubbish"), "cannot be loaded"),
        (lambda folder: change(folder, "config.json", num_hidden_layers=3), "lacks weights"),
        (lambda folder: change(folder, "config.json", hidden_size=128), "cannot be loaded|lacks weights"),
        (lambda folder: change(folder, "config.json", quantization_config={"quant_method": "fp8"}), "quantised"),
        (lambda folder: change(folder, "config.json", model_type="nobody_knows_this"), "loaded"),
    ],
    ids=["template", "tokenizer", "config", "json", "weights", "rubbish", "layers", "sizes", "quantised", "kind"],
)
def test_a_base_that_is_none(
    trial: MakeTrial, broken: Callable[[Callable[[Path], None]], Path], how: Callable[[Path], None], why: str
) -> None:
    one = trial()
    one.prepared.plan.models["base"] = str(broken(how))
    with pytest.raises(BadData, match=why) as caught:
        one.run()
    assert caught.value.field == "spec.student.base.source"


def test_a_plan_that_does_not_say_where_the_base_is(trial: MakeTrial) -> None:
    one = trial()
    one.prepared.plan.models.clear()
    with pytest.raises(BadData, match="where the model base is"):
        one.run()


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(TryAgain, match="could not be had from the Hub"):
        bases.folder_of("base", "hf://nobody/nothing", "0" * 40)


def test_a_learning_rate_of_one_is_stopped_and_named(trial: MakeTrial) -> None:
    with pytest.raises(BadData, match=r"at step \d+ of 200 with a learning rate of 1: lower") as caught:
        trial(learningRateNanos=10**9, epochs=40).run()
    assert (caught.value.reason, caught.value.field) == ("Diverged", "spec.training.learningRateNanos")


def test_a_batch_that_the_gpus_cannot_share(trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    with pytest.raises(BadData, match="8 rows cannot be shared out evenly among 3 GPUs"):
        trial().run()


def test_a_tokenizer_of_equal_size_that_differs(
    trial: MakeTrial, base: Path, broken: Callable[[Callable[[Path], None]], Path]
) -> None:
    def swap(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        path.write_text(json.dumps(content))

    other = broken(swap)
    rows = with_probabilities(answered(make_rows(8, 1)), base)
    facts = trial(rows, models={"teacher": other}, method="Auto", into="auto").run().facts
    assert facts["method"] == "Sequence"
    assert "different tokenizers" in facts["why"]
    with pytest.raises(BadData, match="different tokenizers") as caught:
        trial(rows, models={"teacher": other}, method="SoftTargets").run()
    assert caught.value.field == "spec.training.method"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(trial: MakeTrial, small_disk: Path) -> None:
    one = trial(into="disk/store", epochs=20)
    with pytest.raises(TryAgain, match=f"{small_disk}.*: no space left: make the volume larger") as caught:
        one.run()
    assert caught.value.reason == "DiskFull"
    assert not [path for path in one.local.rglob("checkpoint-*") if not (path / "whole.json").exists()]
