"""The report's first half: the decision, what to do next, scores, comparisons, calibration, examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modeltiers.domain.distill.charts import Axis, Mark, intervals, reliability
from modeltiers.domain.distill.report import (
    ATTACKS,
    Evidence,
    Plot,
    Section,
    Step,
    Table,
    count,
    percent,
    points,
)
from modeltiers.domain.distill.scores import Score, by_slice, score, wilson
from modeltiers.domain.distill.stages import Stage

SLICES: Final = 12
"""Most slices that are shown."""
_HOW: Final = (
    "Intervals are Wilson's at 95 %, on the number of items that stand alone: items of one cluster (a conversation, or"
    " near-duplicates) count for less. They are for reading; the gate decides by the paired comparisons below, which"
    " are sharper, since the models met the same items."
)


def meaning(of: Evidence) -> str:
    """The decision in a sentence."""
    said = of.decision["comparisons"]
    names = ", ".join(one["name"] for one in said if one["outcome"] == of.decision["decision"])
    match of.decision["decision"]:
        case "Pass":
            return f"The student is good enough: it passes all {len(said)} comparisons."
        case "Fail":
            return f"The student is not good enough{f' ({names})' if names else ''}, and nothing is promoted."
        case _:
            return "Too little is known to say whether the student is good enough, and nothing is promoted."


def reasons(of: Evidence) -> tuple[str, ...]:
    """What decided: of a Pass the first comparison, of anything else all that stand in the way."""
    outcome = of.decision["decision"]
    found = [one["why"] for one in of.decision["comparisons"] if one["outcome"] == outcome]
    if outcome == "Pass":
        return tuple(found[:1])
    found += [f"{one['reason']}: {one['message']}" for one in of.decision["findings"] if one["outcome"] == outcome]
    return tuple(found) or (str(of.decision["why"]),)


_ANEW: Final = (
    "That is another DistillJob; what it has in common with this one in the same store is neither done nor paid for"
    " again."
)

# --- what to do next --------------------------------------------------------------------------------------------------


def next_steps(of: Evidence) -> tuple[Step, ...]:
    """What a reader can do now."""
    match of.decision["decision"]:
        case "Pass":
            return tuple(_passed(of))
        case "Inconclusive":
            return tuple(_undecided(of))
        case _:
            return (
                Step("Nothing has to be done: what the tier serves stays."),
                Step(
                    "Read the comparisons that failed and the wrong answers below. Then train again with more or better"
                    f" rows, another base or other settings. {_ANEW}"
                ),
            )


def _passed(of: Evidence) -> Iterator[Step]:
    job, promotion = of.plan.job, of.plan.spec.promotion
    if of.artifact is None:
        yield Step(
            "The student is packaged next. The report beside the package has the digest to approve, and the calibrated"
            " threshold where one is asked for."
        )
        return
    if promotion is None or promotion.tier_ref is None:
        yield Step(f"The job promotes nothing: its artifact {of.artifact} is packaged and goes nowhere by itself.")
        return
    tier = promotion.tier_ref.name
    if promotion.approval == "Manual":
        yield Step(
            f"If you agree, approve exactly this artifact; it then goes live in ModelTier {tier}"
            f" ({'by canary' if promotion.strategy == 'Canary' else 'in one step'}). Anybody who may change the"
            " DistillJob can: who approved is not proved.",
            f"modeltiers approve dj/{job} --digest {of.artifact}",
        )
    else:
        yield Step(
            f"It goes live in ModelTier {tier} without anybody's approval"
            f" ({'by canary' if promotion.strategy == 'Canary' else 'in one step'}): spec.promotion.approval is None."
        )
    yield Step("To take it back later:", f"modeltiers rollback dj/{job} --digest {of.artifact}")


def _undecided(of: Evidence) -> Iterator[Step]:
    missing = [one for one in of.decision["comparisons"] if one["outcome"] == "Inconclusive" and one["more"]]
    if of.decision.get("alpha") is None:
        yield Step(f"This sealed set is used up: seal rows that no student was tested on. {_ANEW}")
        return
    if not missing:
        yield Step(
            "More items would not help here. docs/gate.md says what each reason above means, and what to do about it."
        )
        return
    all_of = max((one["more"] for one in missing if _of_all(one["name"])), default=0)
    wanted = [f"{count(one['more'])} more {_kind(one['name'])}" for one in missing if not _of_all(one["name"])]
    if all_of:
        whole = of.decision["items"] + all_of
        wanted.insert(0, f"{count(all_of)} more items (data.split.evaluation of {count(whole)})")
    yield Step(
        f"Test on a larger sealed part: {'; '.join(wanted)}. These are estimates: 15 % above them is safer. {_ANEW}"
    )
    yield Step("Or accept a wider margin (spec.gate), if you would have accepted it before you saw this report.")


def _of_all(name: str) -> bool:
    return name != "redTeam" and not name.startswith("slice ")


def _kind(name: str) -> str:
    return "rows in sources with part RedTeam" if name == "redTeam" else f"items of {name}"


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(of: Evidence) -> Section:
    """Every model on the sealed items, overall and by slice."""
    evaluation = [row for row in of.items if row["part"] == "evaluation"]
    attacks = [row for row in of.items if row["part"] == "redTeam"]
    slices, left_out = by_slice(evaluation, SLICES)
    groups = {"all": evaluation, **slices, **({ATTACKS: attacks} if attacks else {})}
    found = {name: {one: score(rows, one) for one in of.models} for name, rows in groups.items()}
    notes = [_HOW]
    if left_out:
        notes.append(f"{left_out} smaller slices are not shown.")
    says = f"Share of right answers on {count(len(evaluation))} sealed items that no training row resembles."
    return Section(
        "How they scored",
        plots=(Plot(_plotted(of, found), says),),
        tables=(_table(of, found, {name: len(rows) for name, rows in groups.items()}),),
        notes=tuple(notes),
    )


def _plotted(of: Evidence, found: Mapping[str, Mapping[str, Score | None]]) -> str:
    groups = [
        (
            name,
            [
                Mark(of.called(model), model, 100 * one.mean, 100 * one.low, 100 * one.high, _said(one))
                for model, one in models.items()
                if one is not None
            ],
        )
        for name, models in found.items()
    ]
    known = [mark for _, marks in groups for mark in marks]
    axis = Axis.over(min(mark.low for mark in known), max(mark.high for mark in known), "right, in %")
    return intervals(groups, axis, "Scores by model and slice, with intervals")


def _said(one: Score) -> str:
    return f"{100 * one.mean:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _table(of: Evidence, found: Mapping[str, Mapping[str, Score | None]], items: Mapping[str, int]) -> Table:
    head = ("items of", "items", *(of.called(model) for model in of.models))
    rows = tuple(
        (name, count(items[name]), *(_said(one) if one else "–" for one in models.values()))
        for name, models in found.items()
    )
    return Table(head, rows)


# --- comparisons ------------------------------------------------------------------------------------------------------


def comparisons(of: Evidence) -> Section:
    """Each comparison of the student with another model, and what it decided."""
    said = of.decision["comparisons"]
    alpha = of.decision.get("alpha")
    texts = ["All must pass. One that fails fails the student; else one that is inconclusive leaves it so."]
    notes = []
    if alpha is not None:
        notes.append(
            f"Bounds are one-sided at {100 * alpha:.2f} % each, which is this look's share of the alpha"
            f" (look {of.decision['looks']} at this sealed set). Those of slices hold together (Holm)."
        )
        notes.append(
            "Needed is how many items the wanted power takes; against the base, how many would show a gain worth"
            " seeing: a gain that is shown passes on fewer. docs/gate.md says how each is tested and what it promises."
        )
    findings = tuple(f"{one['reason']} ({one['outcome']}): {one['message']}" for one in of.decision["findings"])
    if not said:
        return Section("What was compared", (f"Nothing was: {of.decision['why']}",))
    rows = tuple(
        (
            one["name"],
            one["outcome"],
            points(one.get("differencePermille")),
            _bounds(one),
            f"{one['marginPermille'] / 10:g}",
            count(one["items"]),
            count(one["needed"]),
            count(one["more"]) if one["more"] else "–",
        )
        for one in said
    )
    head = ("student against", "outcome", "difference", "bounds", "margin", "items", "needed", "missing")
    table = Table(head, rows, "Differences, bounds and margins in points (hundredths of the score).")
    plots = (Plot(drawn, _FOREST),) if (drawn := _forest(said)) else ()
    return Section("What was compared", (*texts, *findings), plots, (table,), notes=tuple(notes))


_FOREST: Final = (
    "Student less the other, in points. The red bar is the margin: Pass wants the whole line right of it, Fail is the"
    " whole line left of it."
)


def _bounds(one: Mapping[str, Any]) -> str:
    return (
        f"{points(one.get('lowerPermille'))} to {points(one.get('upperPermille'))}" if "lowerPermille" in one else "–"
    )


def _forest(said: list[Mapping[str, Any]]) -> str:
    marks = [
        Mark(
            one["name"],
            one["outcome"],
            one["differencePermille"] / 10,
            one["lowerPermille"] / 10,
            one["upperPermille"] / 10,
            f"{one['outcome']}: {points(one['differencePermille'])}",
            limit=-one["marginPermille"] / 10,
        )
        for one in said
        if "differencePermille" in one
    ]
    if not marks:
        return ""
    low = min(min(mark.low, mark.limit or 0.0) for mark in marks)
    axis = Axis.over(min(low, 0.0), max(0.0, *(mark.high for mark in marks)), "points", signed=True)
    return intervals([("", marks)], axis, "Differences with bounds and margins")


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration(of: Evidence) -> Section | None:
    """The threshold that goes live with the student; None before it is calibrated."""
    facts = of.facts.get(Stage.CALIBRATE)
    if facts is None:
        return None
    threshold, promised = facts.get("thresholdPermille"), percent(facts["maxWrongPermille"])
    sure = percent(facts["confidencePermille"])
    if threshold is None:
        text = (
            f"No threshold keeps the promise (at most {promised} wrong among the accepted, {sure} sure) on"
            f" {count(facts['answers'])} answers: routes accept nothing from this student by itself."
        )
    else:
        text = (
            f"From a confidence of {percent(threshold)} on a route may accept its answers: that were"
            f" {count(facts['accepted'])} of {count(facts['answers'])}"
            f" ({percent(1000 * facts['accepted'] / facts['answers'])}), {count(facts['wrong'])} of them wrong. With"
            f" {sure} confidence at most {percent(facts['upperPermille'])} of what it accepts are wrong; promised were"
            f" {promised}."
        )
    texts = [text]
    if facts.get("withoutLogprobs"):
        texts.append(f"{count(facts['withoutLogprobs'])} answers came without logprobs and are not in this.")
    marks = [_bin(one) for one in of.bins if one.answers]
    says = "How sure the student was of its answers, and how often they were right, a tenth of them a point, with"
    says += " Wilson's intervals at 95 %. On the thin line the two agree; below it the student is too sure."
    plots = (Plot(reliability(marks, None if threshold is None else threshold / 10, says), says),) if marks else ()
    return Section("Calibration", tuple(texts), plots)


def _bin(one: Any) -> Mark:
    share = one.right / one.answers
    low, high = wilson(share, one.answers)
    return Mark(f"{one.sure / 10:g}", "student", 100 * share, 100 * low, 100 * high, count(one.answers))


# --- examples ---------------------------------------------------------------------------------------------------------


def examples(of: Evidence) -> Section | None:
    """Some answers to look at."""
    if not of.examples:
        return None
    text = (
        f"{len(of.examples)} of {count(of.differing)} items that the student or the teacher got wrong; the student's"
        " wrong answers first, to the red team before all."
    )
    note = (
        "These texts come from the data and from the models' answers, cut where they are long: whoever can read this"
        " report can read them. They are sealed items; a student that is trained on them cannot be tested by them."
    )
    return Section("Some answers", (text,), examples=tuple(of.examples), notes=(note,))
