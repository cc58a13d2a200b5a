"""The stage on tiny models: a student that learns, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from e2e.train.models import answered
from e2e.train.task import answer_of, make_rows
from modeltiers.distill.train.checkpoints import Checkpoints
from tests.train.conftest import MakeTrial
from tests.train.speak import answers


def test_a_student_learns_its_rows_and_stops_after_the_answer(trial: MakeTrial) -> None:
    rows = answered(make_rows(8, 3))
    one = trial(rows, epochs=60, learningRateNanos=10_000_000)
    made = one.run()
    assert made.facts["steps"] == 60
    assert made.facts["ceMilli"] < 50 < made.facts["firstCeMilli"]
    assert answers(one.local / "model", rows) == [answer_of(row) for row in rows]


def test_what_it_leaves_is_a_folder_that_an_engine_serves_as_the_base(trial: MakeTrial, base: Path) -> None:
    one = trial()
    made = one.run()
    model = one.local / "model"
    assert {path.name for path in model.iterdir()} == {path.name for path in base.iterdir()}
    for path in base.iterdir():
        same = path.read_bytes() == (model / path.name).read_bytes()
        assert same == (path.name != "model.safetensors"), path.name
    assert {name for name in made.body["outputs"] if name.startswith("model/")} == {
        f"model/{path.name}" for path in base.iterdir()
    }
    assert not (one.local / "checkpoints" / "checkpoint-10").exists()
    assert not (one.local / ".scratch").exists()


def test_the_loss_of_every_step_is_kept_and_drawn(trial: MakeTrial) -> None:
    one = trial()
    made = one.run()
    told = [json.loads(line) for line in one.folder.read("loss.jsonl").splitlines()]
    assert [step["step"] for step in told] == list(range(1, 11))
    assert all(step["soft"] == 0 and step["loss"] == step["ce"] > 0 for step in told)
    assert told[0]["rate"] == 3e-3 > told[-1]["rate"] > 0
    assert ET.fromstring(one.folder.read("loss.svg")).tag.endswith("svg")  # noqa: S314 - our own file
    shown = one.progress.shown()
    assert (shown["done"], shown["of"], shown["unit"]) == (10, 10, "steps")
    assert shown["lossMilli"] == made.facts["lossMilli"]


def test_the_same_inputs_give_the_same_outcome(trial: MakeTrial) -> None:
    first, second = trial(into="one").run(), trial(into="two").run()
    assert first.outcome == second.outcome
    assert first.body["outputs"] == second.body["outputs"]
    assert trial(into="three", seed=5).run().body["outputs"] != first.body["outputs"]


def test_merged_adapters_say_what_they_said_beside_the_base(
    trial: MakeTrial, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "clear", lambda _: None)  # the last one holds the adapters
    one = trial(lora={"rank": 4, "alpha": 8})
    assert one.run().facts["lowRank"] == 4
    merged = AutoModelForCausalLM.from_pretrained(one.local / "model")
    beside = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), one.local / "checkpoints" / "checkpoint-10"
    )
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(beside(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-5, rtol=1e-4)
        untrained = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids).logits
    assert (untrained - merged(input_ids=ids).logits).abs().max() > 1e-2
