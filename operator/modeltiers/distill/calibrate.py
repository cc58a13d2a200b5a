"""Calibrate: the acceptance threshold that goes live with the student, from its answers to a part of their own."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from modeltiers.api.distilljob import Calibration, Promotion
from modeltiers.distill.faults import BadData
from modeltiers.distill.stage import Result, Work
from modeltiers.domain.distill.calibration import STEP, Calibrated, Judged, calibrate, probability_of, reliability
from modeltiers.domain.distill.stages import Stage

ANSWERS: Final = "calibration.jsonl"
FOUND: Final = "threshold.json"
RELIABILITY: Final = "reliability.json"


def run(work: Work) -> Result:
    """Read the student's answers, choose the threshold, write it."""
    judged: list[Judged] = []
    without = 0
    for row in work.inputs[Stage.EVALUATE_STUDENT].rows(ANSWERS):
        sure = probability_of(row["answer"], row.get("logprobs")) if "answer" in row else None
        if sure is None:
            without += 1
        else:
            judged.append(Judged(sure, bool(row["right"])))
    if not judged:
        raise BadData(
            "the engine returned no logprobs for any answer: nothing can be calibrated. Set data.split.calibration to"
            " 0, or serve the student with an engine that returns them",
            field="spec.data.split.calibration",
        )
    wanted = (work.plan.spec.promotion or Promotion()).calibration or Calibration()
    found = calibrate(judged, wanted.max_wrong_permille, wanted.confidence_permille)
    facts = {
        "thresholdPermille": found.threshold,
        "answers": found.answers,
        "accepted": found.accepted,
        "wrong": found.wrong,
        "upperPermille": found.upper,
        "maxWrongPermille": wanted.max_wrong_permille,
        "confidencePermille": wanted.confidence_permille,
        "withoutLogprobs": without,
        "stepPermille": STEP,
    }
    work.folder.write(FOUND, json.dumps(facts, indent=1).encode())
    bins = [asdict(one) for one in reliability(judged)]
    work.folder.write(RELIABILITY, json.dumps(bins, indent=1).encode())
    return Result((FOUND, RELIABILITY), _summary(found, wanted), facts)


def _summary(found: Calibrated, wanted: Calibration) -> str:
    if found.threshold is None:
        return (
            f"no threshold keeps the promise of at most {wanted.max_wrong_permille} ‰ wrong on {found.answers} answers:"
            " routes accept nothing from this student by itself"
        )
    share = 1000 * found.accepted // found.answers
    return (
        f"threshold {found.threshold} ‰: {found.accepted} of {found.answers} answers ({share} ‰) accepted,"
        f" {found.wrong} of them wrong, at most {found.upper} ‰ with {wanted.confidence_permille} ‰ confidence"
    )
