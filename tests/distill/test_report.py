"""The report that the Gate and the Package stage write, from a store with everything in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from modeltiers.distill import gate, manifest
from modeltiers.domain.distill.stages import Stage
from tests.distill.study import Quality, Study, failing, passing, undecided


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A job that passed and is packaged."""
    return passing(tmp_path_factory.mktemp("passed"))


class Page(HTMLParser):
    """Which elements a page has, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [one for one in attrs if one[0] in ("src", "href", "action", "style") or one[0].startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_pass_says_how_to_approve_this_artifact(passed: Study) -> None:
    digest = manifest.read(passed.folder(Stage.PACKAGE)).facts["digest"]
    for name in ("report.html", "report.md"):
        report = passed.report(name)
        assert f"modeltiers approve dj/till --digest {digest}" in report
        assert "who approved is not proved" in report
    for said in ("97.7 % (96.1 to 98.6)", "incumbent", "Calibration", "WrongAnswer", "0.0599 USD", "in doubt"):
        assert said in passed.report()
    assert "teacher-70b" in passed.report()


def test_the_gates_own_report_has_no_digest_to_approve(passed: Study) -> None:
    report = passed.report(stage=Stage.GATE)
    assert "modeltiers approve" not in report
    assert "packaged next" in report
    assert "Calibration" not in report


def test_the_page_loads_and_runs_nothing(passed: Study) -> None:
    page = Page(passed.report())
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert page.loads == []
    assert "url(" not in passed.report()


def test_markup_in_rows_is_shown_as_the_text_that_it_is(tmp_path: Path) -> None:
    study = Study(tmp_path, Quality(student=(0.4, 0.3)), rows=420, evaluation=80).all()
    page = Page(study.report())
    assert "script" not in page.tags
    assert "<script>alert(" in page.text
    assert re.search(r"^    .*<script>alert", study.report("report.md"), re.MULTILINE)


def test_a_fail_and_an_inconclusive_have_a_report(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "few").mkdir()
    bad, few = failing(tmp_path / "bad"), undecided(tmp_path / "few")
    assert (bad.decision, few.decision) == ("Fail", "Inconclusive")
    assert "shown to be worse than the incumbent" in bad.report()
    assert "base (incumbent)" in bad.report()
    assert "modeltiers approve" not in bad.report() + few.report()
    needed = json.loads(few.folder(Stage.GATE).read(gate.DECISION))["more"]
    assert f"{needed:,} more items (data.split.evaluation of {needed + 80:,})" in few.report()


def test_equal_inputs_give_equal_files(passed: Study, tmp_path: Path) -> None:
    again = passing(tmp_path)
    assert again.outcomes == passed.outcomes
    for name in ("report.html", "report.md"):
        assert again.report(name) == passed.report(name)
    told = manifest.read(again.folder(Stage.PACKAGE)).body["notes"]["report"]
    assert told["report.html"] == again.folder(Stage.PACKAGE).facts("report.html").sha256


def test_what_was_spent_changes_the_report_and_no_digest(passed: Study, tmp_path: Path) -> None:
    class Dearer(Study):
        """Asked twice as much of its teacher."""

        def leave(self, stage: Stage, rows: object, **more: object) -> None:
            if more.get("spend"):
                more["spend"] = {"promptTokens": 1_000_000, "answerTokens": 1, "inDoubt": 0}
            super().leave(stage, rows, **more)

    dearer = Dearer(tmp_path, Quality(incumbent=(0.97, 0.9))).all()
    assert dearer.outcomes == passed.outcomes
    assert "1,000,000" in dearer.report()
    assert "unknown" in dearer.report()  # the cost, without a price


def test_a_sealed_set_that_is_used_up_is_said(tmp_path: Path) -> None:
    gate_of = {"looks": 1, "slices": [{"name": "nowhere"}]}
    first = Study(tmp_path, Quality(), rows=420, evaluation=80, gate=gate_of).all()
    assert re.search(r"\d+ more items of slice nowhere", first.report())
    worse = Quality(student=(0.8, 0.7))
    second = Study(tmp_path, worse, rows=420, evaluation=80, gate=gate_of).all()
    assert "This sealed set is used up" in second.report()
    assert "Nothing was: the sealed set was looked at" in second.report()


def test_what_another_job_paid_for_is_said_and_not_counted(tmp_path: Path) -> None:
    class Second(Study):
        """Finds the teacher's answers in the store."""

        def leave(self, stage: Stage, rows: object, **more: object) -> None:
            plan = self.plan
            if more.get("spend"):
                self.plan = plan.model_copy(update={"job": "first"})
            super().leave(stage, rows, **more)
            self.plan = plan

    report = Second(tmp_path, Quality(), rows=420, evaluation=80).all().report()
    assert "in the store already: first paid for it" in report
    assert "0.0599 USD" not in report


def test_a_student_from_elsewhere_has_a_report(tmp_path: Path) -> None:
    study = Study(
        tmp_path,
        Quality(),
        student={"base": {"source": "pvc://models/base"}, "trained": {"source": "pvc://models/tuned"}},
    )
    study.run(Stage.SNAPSHOT, Stage.SPLIT)
    for stage in (Stage.EVALUATE_TEACHER, Stage.EVALUATE_BASE, Stage.EVALUATE_STUDENT):
        study.evaluated(stage)
    study.run(Stage.GATE)
    report = study.report()
    assert "trained elsewhere" in report
    assert "<h2>Training</h2>" not in report
    assert re.search(r"student&#39;s base|student's base", report)


def test_the_same_answers_under_the_same_rule_are_one_look(passed: Study) -> None:
    """Also where the report rests on more than what was looked at."""
    looks = list((passed.path / "store/sealed").glob("*/*.json"))
    assert len(looks) == 1
    before = looks[0].read_text()
    (passed.folder(Stage.GATE).local or passed.path).joinpath("manifest.json").unlink()
    passed.run(Stage.GATE)
    assert [one.read_text() for one in (passed.path / "store/sealed").glob("*/*.json")] == [before]


JUDGE = {"tierRef": {"name": "wise"}, "rubric": "The <b>sum</b>, and | nothing else."}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The job that passed, with a judge."""
    return Study(tmp_path_factory.mktemp("judged"), Quality(incumbent=(0.97, 0.9)), judge=JUDGE).all()


def test_a_judge_has_its_section_and_its_own_spend(beside: Study) -> None:
    for name in ("report.html", "report.md"):
        report = beside.report(name)
        for said in (
            "What the judge says",
            "The gate does not look at these scores",
            "To 3 answers it gave no score",
            "It tells right answers from wrong ones better than chance",
            "of the wrong answers, not liked by it",
            "student, red team",
            "0.0093 USD",
            "0.0599 USD",
            "the judge",
            "the teacher",
        ):
            assert said in report, (name, said)
    assert "The judge&#39;s mean score of each model" in beside.report()
    assert "<b>sum" not in beside.report()
    provenance = json.loads(beside.folder(Stage.PACKAGE).read("model/provenance.json"))
    assert provenance["judge"] == {
        "model": "wise",
        "external": False,
        "termsAcknowledged": False,
        "rubric": JUDGE["rubric"],
        "minScorePermille": None,
    }


def test_a_judge_changes_nothing_of_what_the_gate_says(beside: Study, passed: Study) -> None:
    for study in (beside, passed):
        assert study.decision == "Pass"
    one, other = (study.folder(Stage.GATE).read(gate.DECISION) for study in (beside, passed))
    assert one == other
    assert "What the judge says" not in passed.report()
    assert "judge" not in json.loads(passed.folder(Stage.PACKAGE).read("model/provenance.json"))


def test_what_speaks_against_a_judge_is_said(tmp_path: Path) -> None:
    """The teacher's kin; a form for a verifier; a student that is liked and no better; scores that tell nothing."""

    class Kin(Study):
        """Its judge is of the teacher's family, and likes the student and whatever else."""

        def leave(self, stage: Stage, rows: object, **more: object) -> None:
            if stage is Stage.JUDGE:
                more["facts"] = {**more["facts"], "model": "teacher-7b"}
                for line in rows["judge.jsonl"]:
                    line["scores"] = {**line["scores"], "student": 1000, "base": 100}
                    line["answers"] = {name: [900] for name in line["answers"]}
            super().leave(stage, rows, **more)

    form = {"verifiers": [{"name": "form", "type": "Regex", "pattern": "is"}]}
    worse = Quality(student=(0.5, 0.5), base=(0.95, 0.9))
    report = Kin(tmp_path, worse, rows=420, evaluation=80, judge=JUDGE, workload=form).all().report("report.md")
    assert "Teacher and judge are of one family (teacher)" in report
    assert "the gate rests on their form" in report
    assert "it may hear the teacher's tone" in report
    assert "do not rest anything on its scores" in report
