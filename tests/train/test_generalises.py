"""A base learns the task from a teacher's answers, and does it for items that it never saw; by a bad recipe, not."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.train.models import BAD_STUDENT, STUDENT, STUDENT_ROWS, answered, make_base, make_teacher
from e2e.train.store import prepare
from e2e.train.task import SLICES, make_rows
from tests.train.conftest import Trial, with_probabilities
from tests.train.speak import answers, share_right

pytestmark = pytest.mark.slow
SEALED = make_rows(400, 99)
HARD = make_rows(200, 99, red_team=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def test_the_teacher_does_it(teacher: Path, fresh: Path) -> None:
    right = {name: share_right(teacher, [row for row in SEALED if row["slice"] == name]) for name in SLICES}
    print(f"teacher: {right}, red team {share_right(teacher, HARD):.3f}; base {share_right(fresh, SEALED):.3f}")
    assert min(right.values()) >= 0.9
    assert share_right(fresh, SEALED) <= 0.05


@pytest.mark.parametrize("method", ["Sequence", "SoftTargets"])
def test_a_student_learns_it_from_the_teacher(teacher: Path, fresh: Path, tmp_path: Path, method: str) -> None:
    prompts = make_rows(STUDENT_ROWS, 1)
    texts = {row["messages"][0]["content"] for row in SEALED}
    assert not any(row["messages"][0]["content"] in texts for row in prompts)
    said = answers(teacher, prompts)
    rows = [
        {**row, "answer": {"role": "assistant", "content": text}}
        for row, text in zip(answered(prompts), said, strict=True)
    ]
    if method == "SoftTargets":
        rows = with_probabilities(rows, teacher)
    models = {"base": fresh, "teacher": teacher}
    one = Trial(prepare(str(tmp_path / "store"), rows, models, {**STUDENT, "method": method}))
    made = one.run()
    right, hard = share_right(one.local / "model", SEALED), share_right(one.local / "model", HARD)
    print(f"student by {method}: {right:.3f}, red team {hard:.3f}; {made.body['summary']}")
    assert right >= 0.9


def test_a_bad_recipe_leaves_it_where_it_was(fresh: Path, tmp_path: Path) -> None:
    rows = answered(make_rows(STUDENT_ROWS, 1))
    one = Trial(prepare(str(tmp_path / "store"), rows, {"base": fresh}, BAD_STUDENT))
    one.run()
    assert share_right(one.local / "model", SEALED) <= 0.05
