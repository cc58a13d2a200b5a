"""Writes the report beside a decision and beside a package: report.html, one file with nothing from elsewhere, and
report.md.

It is no output of its stage: it tells what was spent, and nothing that was spent changes what came out. Texts are
rendered by jinja2 in a sandbox with our own templates, and every value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any, Final

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from modeltiers import __version__
from modeltiers.distill import manifest
from modeltiers.distill.stage import Work
from modeltiers.distill.store import Folder
from modeltiers.domain.distill import report_judge, report_origin, report_results
from modeltiers.domain.distill.calibration import Bin
from modeltiers.domain.distill.report import Evidence, Example, Loss, Report
from modeltiers.domain.distill.rows import texts
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import written
from modeltiers.domain.gate.items import FULL

HTML, MARKDOWN = "report.html", "report.md"
TEMPLATES: Final = {HTML: "report.html.j2", MARKDOWN: "report.md.j2"}
EXAMPLES: Final = 12
OF_A_KIND: Final = 3
"""Of them, so many wrong answers to the red team come first, and so many that only the teacher got wrong last."""
LONGEST: Final = 600
"""Characters of a text that are shown."""
_POINTS: Final = 500
"""Points of the loss that are drawn."""


def write_report(work: Work, gate: Folder, artifact: str | None = None) -> dict[str, str]:
    """Write the report; returns the hash of each file, for a manifest's notes."""
    report = report_of(gathered(work, gate, artifact))
    for name in TEMPLATES:
        work.folder.write(name, rendered(report, name).encode())
    return {name: work.folder.facts(name).sha256 for name in TEMPLATES}


def report_of(of: Evidence) -> Report:
    """Every section that there is something to say in."""
    sections = (
        report_results.scores(of),
        report_results.comparisons(of),
        report_judge.judged(of),
        report_results.calibration(of),
        report_results.examples(of),
        report_origin.data(of),
        report_origin.training(of),
        report_origin.spend(of),
        report_origin.provenance(of),
    )
    about = of.plan.spec.workload.description or "A student distilled for one workload."
    return Report(
        of.plan.job,
        about,
        str(of.decision["decision"]),
        report_results.meaning(of),
        report_results.reasons(of),
        report_results.next_steps(of),
        tuple(one for one in sections if one is not None),
        of.program,
    )


# --- gathering --------------------------------------------------------------------------------------------------------


def gathered(work: Work, gate: Folder, artifact: str | None) -> Evidence:
    """What the report is made from, out of the folders that the stage reads."""
    known = {stage: one for stage, lies in work.inputs.items() if (one := manifest.read(lies)) is not None}
    evidence = Evidence(
        plan=work.plan,
        program=f"modeltiers {__version__}",
        decision=json.loads(gate.read("decision.json")),
        items=list(gate.rows("items.jsonl")),
        facts={stage: one.facts for stage, one in known.items()},
        outcomes={stage: one.outcome for stage, one in known.items()},
        spend={stage: one.body["spend"] for stage, one in known.items() if one.body["job"] == work.plan.job},
        others=tuple(sorted({one.body["job"] for one in known.values() if one.body["spend"]} - {work.plan.job})),
        loss=_loss(work.inputs.get(Stage.TRAIN)),
        bins=_bins(work.inputs.get(Stage.CALIBRATE)),
        judged=list(work.inputs[Stage.JUDGE].rows("judge.jsonl")) if Stage.JUDGE in work.inputs else (),
        artifact=artifact,
    )
    chosen, differing = _chosen(work)
    return replace(evidence, examples=tuple(_examples(work, chosen)), differing=differing)


def _loss(folder: Folder | None) -> list[Loss]:
    if folder is None or not folder.has("loss.jsonl"):
        return []
    told = [Loss(int(row["step"]), float(row["ce"]), float(row["soft"])) for row in folder.rows("loss.jsonl")]
    every = -(-len(told) // _POINTS) or 1
    return [one for number, one in enumerate(told, 1) if number % every == 0 or number in (1, len(told))]


def _bins(folder: Folder | None) -> list[Bin]:
    if folder is None or not folder.has("reliability.json"):
        return []
    return [Bin(one["sure"], one["answers"], one["right"]) for one in json.loads(folder.read("reliability.json"))]


def _chosen(work: Work) -> tuple[list[tuple[Mapping[str, Any], Mapping[str, Any]]], int]:
    """Items that student or teacher got wrong, as both answered: some of them, and how many there are."""
    teacher = {row["item"]: row for row in work.inputs[Stage.EVALUATE_TEACHER].rows("items.jsonl")}
    kinds: dict[str, list[Any]] = {"attacked": [], "taught": [], "both": [], "learnt": []}
    for row in work.inputs[Stage.EVALUATE_STUDENT].rows("items.jsonl"):
        other = teacher.get(row["item"])
        if other is None or min(row["score"], other["score"]) == FULL:
            continue
        kinds[_kind(row, other)].append((row, other))
    attacked, learnt = kinds["attacked"], kinds["learnt"]
    wrong = [*attacked[:OF_A_KIND], *kinds["taught"], *kinds["both"], *attacked[OF_A_KIND:]]
    wrong = wrong[: EXAMPLES - min(OF_A_KIND, len(learnt))]
    return [*wrong, *learnt[: EXAMPLES - len(wrong)]], sum(map(len, kinds.values()))


def _kind(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    if student["score"] == FULL:
        return "learnt"
    if student["part"] == "redTeam":
        return "attacked"
    return "both" if teacher["score"] < FULL else "taught"


def _examples(work: Work, chosen: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Iterator[Example]:
    wanted = {student["item"] for student, _ in chosen}
    rows = {
        row["id"]: row
        for name in ("evaluation.jsonl", "redTeam.jsonl")
        for row in work.inputs[Stage.SPLIT].rows(name)
        if row["id"] in wanted
    }
    for student, teacher in chosen:
        row = rows.get(student["item"], {})
        asked = "\n".join(texts(row.get("messages", [])))
        yield Example(
            _titled(student, teacher),
            f"…{asked[-LONGEST:]}" if len(asked) > LONGEST else asked,
            _cut(written(row.get("expected"))),
            _cut(_answer(student)),
            _cut(_answer(teacher)),
            right=student["score"] == FULL,
        )


def _titled(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    where = "red team" if student["part"] == "redTeam" else f"slice {student['slice']}" if student["slice"] else ""
    said = f"student {_judged(student)}, teacher {_judged(teacher)}"
    return ", ".join(filter(None, [said, where, f"item {student['item']}"]))


def _judged(row: Mapping[str, Any]) -> str:
    failed = next((one for one in row["failed"] if one), None)
    return "right" if row["score"] == FULL else f"wrong ({failed})" if failed else "wrong"


def _answer(row: Mapping[str, Any]) -> str:
    """The answer that failed, or else the first."""
    answers = list(zip(row["answers"], row["failed"], strict=True))
    return str(next((text for text, failed in answers if failed), answers[0][0] if answers else ""))


def _cut(text: str) -> str:
    return f"{text[:LONGEST]}…" if len(text) > LONGEST else text


# --- rendering --------------------------------------------------------------------------------------------------------


def rendered(report: Report, name: str) -> str:
    """The report as a file of this name."""
    return _templates().get_template(TEMPLATES[name]).render(report=report)


@lru_cache
def _templates() -> ImmutableSandboxedEnvironment:
    """Our templates. In the HTML one every value is escaped; the Markdown one escapes by the filter `md`."""
    found = ImmutableSandboxedEnvironment(
        loader=PackageLoader("modeltiers.distill"),
        autoescape=lambda name: name is not None and ".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["md"] = in_markdown
    found.filters["quoted"] = quoted
    found.filters["svg"] = Markup  # our own pictures, whose texts are escaped where they are drawn
    return found


_MARKED: Final = {ord(one): f"\\{one}" for one in "\\`*_[]|#~"}


def in_markdown(text: str) -> str:
    """A text in a line of Markdown, so that nothing in it is markup, HTML or another cell."""
    return escape(" ".join(text.split()), quote=False).translate(_MARKED)


def quoted(text: str) -> str:
    """A text of many lines as an indented block, in which nothing is markup."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
