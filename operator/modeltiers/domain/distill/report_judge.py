"""The report's section about the judge: its scores, and whether they can be trusted. It decides nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from modeltiers.domain.distill.charts import Axis, Mark, intervals
from modeltiers.domain.distill.judgement import Row, Trust, trust
from modeltiers.domain.distill.kinship import alike
from modeltiers.domain.distill.report import ATTACKS, Evidence, Plot, Section, Table, count, percent
from modeltiers.domain.distill.scores import Score, score
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verify import needing

_HOW: Final = (
    "The judge read the rubric, the conversation and the answer, and neither what is expected nor whose answer it is."
    " Intervals are Wilson's at 95 % on the number of items that stand alone; a mean of scores varies less than a share"
    " does, so for it they are wider than they had to be."
)


def judged(of: Evidence) -> Section | None:
    """What the judge gave each model beside what the verifiers say; None without a judge."""
    facts = of.facts.get(Stage.JUDGE)
    if facts is None:
        return None
    judge = of.plan.spec.judge
    found = trust(of.judged, judge.min_score_permille if judge else None)
    texts = [
        (
            f"{facts['model']} scored {count(facts['scored'])} answers. The gate does not look at these scores; they"
            " stand beside what the verifiers say."
        )
    ]
    if facts["notScored"]:
        texts.append(
            f"To {count(facts['notScored'])} answers it gave no score that could be read; they are not counted."
        )
    texts += [*_trusted(found), *_warnings(of, facts)]
    groups = {"all": _of(of.judged, "evaluation"), ATTACKS: _of(of.judged, "redTeam")}
    means = {
        name: {model: one for model in of.models if (one := score(rows, model)) is not None}
        for name, rows in groups.items()
        if rows
    }
    tables = (_means(of, means), _shares(found))
    return Section("What the judge says", tuple(texts), tuple(_plots(of, means)), tables, notes=(_HOW,))


def _of(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def _trusted(found: Trust) -> Iterator[str]:
    if found.tells is None:
        yield (
            "Whether it can be trusted cannot be said: among the answers that it scored the verifiers do not find both"
            " right and wrong ones."
        )
    elif found.tells:
        yield "It tells right answers from wrong ones better than chance would; the shares below say how well."
    else:
        yield (
            "It is not shown to tell right answers from wrong ones better than chance would: do not rest anything on"
            " its scores."
        )


def _warnings(of: Evidence, facts: Mapping[str, Any]) -> Iterator[str]:
    teacher = (of.facts.get(Stage.EVALUATE_TEACHER) or {}).get("model")
    if teacher and (kin := alike(str(teacher), str(facts["model"]))):
        yield f"Teacher and judge are {kin}: it may like answers for sounding like its own."
    if _form_alone(of):
        yield (
            "The verifiers of this job look at the form of answers alone. So the gate rests on their form, whatever"
            " they say, and that the judge agrees with it says nothing of what is in them."
        )
    if (style := _liked(of)) is not None:
        yield style


def _form_alone(of: Evidence) -> bool:
    verifiers = of.plan.spec.workload.verifiers
    expected = (of.facts.get(Stage.SNAPSHOT) or {}).get("expected")
    return needing(verifiers) is None and (expected == 0 or all(one.type == "Regex" for one in verifiers))


def _liked(of: Evidence) -> str | None:
    """Whether the judge likes the student better than its base where the verifiers do not."""
    judged = _of(of.judged, "evaluation")
    right = [row for row in of.items if row["part"] == "evaluation"]
    liked, verified = ([score(rows, model) for model in ("student", "base")] for rows in (judged, right))
    if None in (*liked, *verified):
        return None
    (student, base), (well, before) = liked, verified
    assert student and base and well and before
    if student.mean <= base.mean or well.mean > before.mean:
        return None
    return (
        f"It gives the student more than the untrained base ({_said(student)} and {_said(base)}), while the verifiers"
        f" find it no better ({_said(well)} and {_said(before)}): it may hear the teacher's tone."
    )


def _said(one: Score) -> str:
    return f"{100 * one.mean:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _means(of: Evidence, means: Mapping[str, Mapping[str, Score]]) -> Table:
    rows = []
    for name, part in (("all", "evaluation"), (ATTACKS, "redTeam")):
        for model, one in means.get(name, {}).items():
            right = score([row for row in of.items if row["part"] == part], model)
            rows.append((f"{of.called(model)}, {name}", count(one.items), _said(one), _said(right) if right else "–"))
    return Table(("items of", "items with a score", "the judge's mean", "right, by the verifiers"), tuple(rows))


def _shares(found: Trust) -> Table:
    told = (
        ("answers on which both say the same", found.agreement),
        ("of the right answers, liked by the judge", found.passed),
        ("of the wrong answers, not liked by it", found.caught),
    )
    rows = tuple((name, count(one.items) if one else "0", _said(one) if one else "–") for name, one in told)
    says = (
        f"Judge and verifiers over single answers, of all models and parts. Liked is a score of {percent(found.mark)}"
        " and more. Where nearly all answers are right a judge that likes everything agrees nearly always: look at the"
        " last line."
    )
    return Table(("", "answers", "share"), rows, says)


def _plots(of: Evidence, means: Mapping[str, Mapping[str, Score]]) -> Iterator[Plot]:
    groups = [
        (
            name,
            [
                Mark(of.called(model), model, 100 * one.mean, 100 * one.low, 100 * one.high, _said(one))
                for model, one in models.items()
            ],
        )
        for name, models in means.items()
    ]
    known = [mark for _, marks in groups for mark in marks]
    if known:
        axis = Axis.over(min(mark.low for mark in known), max(mark.high for mark in known), "score, in %")
        yield Plot(
            intervals(groups, axis, "The judge's mean scores, with intervals"), "The judge's mean score of each model."
        )
