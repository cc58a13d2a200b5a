"""The report's second half: data, training, spend and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modeltiers.domain.distill.charts import Bar, bars
from modeltiers.domain.distill.curve import drawn
from modeltiers.domain.distill.report import Evidence, Plot, Section, Table, count, filled, percent
from modeltiers.domain.distill.stages import Stage

PARTS: Final = {"train": "training", "evaluation": "evaluation", "calibration": "calibration", "redTeam": "red team"}


# --- data -------------------------------------------------------------------------------------------------------------


def data(of: Evidence) -> Section:
    """Rows by part and slice, what was kept and dropped, and what overlapped."""
    texts, tables, plots = [], [], []
    if (snapshot := of.facts.get(Stage.SNAPSHOT)) and "rows" in snapshot:
        texts.append(
            f"{count(snapshot['rows'])} rows came from the sources, {count(snapshot.get('expected'))} with an expected"
            f" answer; {count(snapshot.get('repeated'))} repeated ones were left out."
        )
    if split := of.facts.get(Stage.SPLIT):
        tables.append(_parts(split))
    if generated := of.facts.get(Stage.GENERATE):
        texts.append(_asked(generated))
    if kept := of.facts.get(Stage.FILTER):
        texts.append(
            f"The filters kept {count(kept.get('kept'))} of {count(kept.get('answers'))} answers"
            f" ({percent(kept.get('keptPermille'))})."
        )
        plots.append(_kept(kept))
        if kept.get("reasons"):
            rows = sorted(kept["reasons"].items(), key=lambda item: (-item[1], item[0]))
            tables.append(Table(("dropped by the filters", "answers"), tuple((name, count(n)) for name, n in rows)))
        if judged := kept.get("judge"):
            texts.append(_judged(of, judged))
            tables.append(Table(("the judge's score", "answers"), _given(judged)))
    if clean := of.facts.get(Stage.DECONTAMINATE):
        kinds = ", ".join(f"{count(n)} {name}" for name, n in clean.get("kinds", {}).items())
        taken = f"{count(clean['dropped'])} training rows overlapped" if clean.get("dropped") else "No row overlapped"
        out = f" and were taken out ({kinds})" if kinds else ""
        texts.append(f"{taken} with sealed ones{out}; {count(clean.get('rows'))} are left to train on.")
    if Stage.TRAIN not in of.facts:
        texts.append(
            "The student was trained elsewhere: what it learnt from is not known here, nor whether sealed items were"
            " among it."
        )
    return Section("Data", tuple(texts), tuple(plots), tuple(tables))


def _asked(facts: Mapping[str, Any]) -> str:
    """What the teacher was asked, and what of it was of use."""
    lost = [f"{count(facts[name])} {word}" for name, word in _LOST.items() if facts.get(name)]
    more = f" ({', '.join(lost)})" if lost else ""
    return (
        f"The teacher gave {count(facts.get('answered'))} whole answers to {count(facts.get('asked'))} requests{more}."
    )


def _judged(of: Evidence, facts: Mapping[str, Any]) -> str:
    """What the judge of training rows made of what the other filters kept."""
    judge = of.plan.spec.judge
    wanted = percent(judge.min_score_permille if judge else None)
    lost = f", {count(facts['notScored'])} without a score among those dropped" if facts["notScored"] else ""
    return f"Of what verifiers and filters kept, {facts['model']} had to give {wanted} or more as a judge{lost}."


def _given(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple((percent(int(score)), count(number)) for score, number in facts["given"].items())


_LOST: Final = {"truncated": "cut off", "refused": "refused"}


def _parts(facts: Mapping[str, Any]) -> Table:
    slices = facts.get("slices") or {}
    names = sorted({name for found in slices.values() for name in found})
    head = ("part", "rows", *names)
    rows = tuple(
        (shown, count(facts.get(part)), *(count(slices.get(part, {}).get(name, 0)) for name in names))
        for part, shown in PARTS.items()
        if facts.get(part)
    )
    return Table(head, rows, f"{count(facts.get('clusters'))} clusters; none is in two parts.")


def _kept(facts: Mapping[str, Any]) -> Plot:
    answers, kept = facts.get("slices") or {}, facts.get("keptSlices") or {}
    rows = [("all", facts.get("answers") or 0, facts.get("kept") or 0)]
    rows += [(name, number, kept.get(name, 0)) for name, number in answers.items()]
    shown = [
        Bar(name, some / number, f"{percent(1000 * some / number)}, {count(some)} of {count(number)}")
        for name, number, some in rows
        if number
    ]
    return Plot(
        bars(shown, "Share of answers that was kept"), "Share of the teacher's answers that was kept, by slice."
    )


# --- training ---------------------------------------------------------------------------------------------------------


def training(of: Evidence) -> Section | None:
    """How the student was trained; None where that was elsewhere."""
    facts = of.facts.get(Stage.TRAIN)
    if facts is None:
        return None
    plots = (Plot(drawn(of.loss, ""), "The loss over the steps of training."),) if of.loss else ()
    return Section("Training", (), plots, (Table(("", ""), filled(_trained(facts))),))


def _trained(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    why = facts.get("why")
    yield "method", f"{facts.get('method')}{f': {why}' if why else ''}"
    yield "rows", _known(facts, "rows")
    yield "left out as too long", count(facts["rowsTooLong"]) if facts.get("rowsTooLong") else None
    yield "with soft targets", count(facts["rowsWithSoftTargets"]) if facts.get("rowsWithSoftTargets") else None
    yield "steps", _known(facts, "steps")
    yield "low rank", facts.get("lowRank") or "no: all weights"
    yield "loss at the end", _milli(facts.get("lossMilli"))
    yield "cross-entropy, first and last step", f"{_milli(facts.get('firstCeMilli'))} to {_milli(facts.get('ceMilli'))}"
    yield "seed", facts.get("seed")
    yield "device", f"{facts.get('worldSize', 1)} × {facts['device']}" if facts.get("device") else None
    yield "versions", ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())


def _known(facts: Mapping[str, Any], name: str) -> str | None:
    return count(facts[name]) if name in facts else None


def _milli(value: Any) -> str:
    return f"{value / 1000:.3f}" if isinstance(value, int) else "–"


# --- spend ------------------------------------------------------------------------------------------------------------


def spend(of: Evidence) -> Section:
    """What was paid for: teacher and judge apart."""
    found = f"Some of what was asked was in the store already: {', '.join(of.others)} paid for it."
    texts = (found,) if of.others else ()
    asked = [_asked_of(of, who) for who in ("teacher", "judge") if who == "teacher" or of.plan.spec.judge]
    known = [one for one in asked if one is not None]
    if not known:
        return Section("Spend", texts or ("The teacher was asked for nothing.",))
    note = "As the answers themselves counted it, for this job. Training and the student's own answers are not in it."
    plots = tuple(plot for one in known for plot in one[0])
    return Section("Spend", texts, plots, tuple(table for _, table in known), notes=(note,))


def _asked_of(of: Evidence, who: str) -> tuple[list[Plot], Table] | None:
    """What one of them was asked for. Each stage that asks tells all that the job spent until then."""
    told = [(stage, said) for stage in _DONE[who] if (said := _told(of.spend.get(stage) or {}, who))]
    if not told:
        return None
    before, shares = 0, []
    for stage, said in told:
        shares.append((stage, max(0, _tokens(said) - before)))
        before = max(before, _tokens(said))
    whole = sum(taken for _, taken in shares)
    drawn = [Bar(_DONE[who][stage], taken / (whole or 1), f"{count(taken)} tokens") for stage, taken in shares]
    says = f"Tokens that the {who} was asked for and answered, by what they were for."
    last = max((said for _, said in told), key=_tokens)
    return ([Plot(bars(drawn, says), says)] if whole else []), Table((f"the {who}", ""), filled(_spent(last)))


def _told(said: Mapping[str, Any], who: str) -> Mapping[str, Any]:
    return (said.get("judge") or {}) if who == "judge" else said


_DONE: Final[Mapping[str, Mapping[Stage, str]]] = {
    "teacher": {Stage.GENERATE: "training rows", Stage.EVALUATE_TEACHER: "sealed items"},
    "judge": {Stage.FILTER: "training rows", Stage.JUDGE: "sealed items"},
}


def _tokens(said: Mapping[str, Any]) -> int:
    return int(said.get("promptTokens") or 0) + int(said.get("answerTokens") or 0)


def _spent(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "tokens of prompts", count(said.get("promptTokens"))
    yield "tokens of answers", count(said.get("answerTokens"))
    cost = said.get("costMicros")
    yield (
        "cost",
        f"{cost / 1_000_000:,.4f} {said.get('currency') or ''}".strip() if isinstance(cost, int) else "unknown",
    )
    yield (
        "requests in doubt",
        f"{count(said.get('inDoubt'))} (each may have been paid for)" if said.get("inDoubt") else "0",
    )


# --- provenance -------------------------------------------------------------------------------------------------------


def provenance(of: Evidence) -> Section:
    """Where all of it comes from: enough to make it again, and to find it by what went into it."""
    stages = tuple((stage.value, one.digest, one.output) for stage, one in of.outcomes.items())
    text = (
        "Each stage is known by the hash of all that it rests on; its folder in the store is stages/STAGE/DIGEST. Equal"
        " digests mean the same inputs, and equal outcomes the same files."
    )
    tables = (Table(("", ""), filled(_origin(of))), Table(("stage", "digest", "outcome"), stages))
    return Section("Provenance", (text,), tables=tables)


def _origin(of: Evidence) -> Iterator[tuple[str, Any]]:
    plan, spec = of.plan, of.plan.spec
    yield "artifact", of.artifact
    base = spec.student.base
    yield "student's base", f"{base.source}{f' at {base.revision}' if base.revision else ''}"
    yield "student trained elsewhere", spec.student.trained.source if spec.student.trained else None
    yield "teacher asked for", plan.teacher.model if plan.teacher else None
    yield "teacher served, by its own answers", (of.facts.get(Stage.EVALUATE_TEACHER) or {}).get("model")
    if spec.teacher.tier_ref:
        yield "teacher's ModelTier", spec.teacher.tier_ref.name
    if spec.teacher.endpoint:
        yield "teacher's API", spec.teacher.endpoint.base_url
    yield "terms of an external teacher", _terms(of)
    yield from _judge(of)
    yield "right is", ", ".join(f"{one.name} ({one.type})" for one in spec.workload.verifiers)
    yield "sealed items", (of.facts.get(Stage.SPLIT) or {}).get("sealed")
    yield "split's seed", spec.data.split.seed
    yield "program", of.program


def _judge(of: Evidence) -> Iterator[tuple[str, Any]]:
    """Who judged, and by what."""
    judge = of.plan.spec.judge
    if judge is None:
        return
    served = [(of.facts.get(stage) or {}) for stage in (Stage.JUDGE, Stage.FILTER)]
    yield "judge asked for", of.plan.judge.model if of.plan.judge else None
    yield "judge served, by its own replies", served[0].get("model") or (served[1].get("judge") or {}).get("model")
    yield "judge's ModelTier", judge.tier_ref.name if judge.tier_ref else None
    yield "judge's API", judge.endpoint.base_url if judge.endpoint else None
    yield (
        "terms of an external judge",
        "acknowledged in spec.judge.termsAcknowledged" if judge.terms_acknowledged else None,
    )
    yield "rubric", judge.rubric


def _terms(of: Evidence) -> str | None:
    external = bool(of.plan.teacher and of.plan.teacher.external) or of.plan.spec.teacher.endpoint is not None
    if of.plan.spec.teacher.terms_acknowledged:
        return "acknowledged in spec.teacher.termsAcknowledged"
    return "not acknowledged" if external else None
