"""Vocabulary of a DistillJob's conditions: which there are, in which order, and every reason with its way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modeltiers.domain import conditions
from modeltiers.domain.conditions import Reason
from modeltiers.domain.distill.job import BUDGET

COMPLETE: Final = "Complete"
AWAITING_APPROVAL: Final = "AwaitingApproval"
ELSEWHERE: Final = "StageElsewhere"

ORDER: Final = (
    conditions.ACCEPTED,
    COMPLETE,
    AWAITING_APPROVAL,
    conditions.READY,
    conditions.RECONCILING,
    conditions.STALLED,
)
_WAIT: Final = "Nothing to do: it passes."
_RETRY: Final = "Correct what the message names, then set the annotation `modeltiers.dev/retry` to another value."
_ANOTHER: Final = "Create another DistillJob with what the message names; what is in the store is not done again."
# What a stage's program may say stands in its way, by the reason it gives; others are told as StageFailed.
STAGE_REASONS: Final[tuple[Reason, ...]] = (
    Reason("BadData", conditions.STALLED, "Data or configuration is at fault.", _RETRY),
    Reason("InvalidPlan", conditions.STALLED, "The program cannot read the plan: it is of another version.", _RETRY),
    Reason("StoreChanged", conditions.STALLED, "The store does not hold what an earlier stage left there.", _RETRY),
    Reason(
        "Contaminated",
        conditions.STALLED,
        "Training rows overlap with sealed ones.",
        "Take them out of the sources, or raise decontamination.dropAtMost in another DistillJob.",
    ),
    Reason(
        "TeacherChanged",
        conditions.STALLED,
        "The teacher is not the one that answered before.",
        "Bring it back, or create another DistillJob.",
    ),
    Reason(
        "JudgeChanged",
        conditions.STALLED,
        "The judge is not the one that gave scores before.",
        "Bring it back, or create another DistillJob.",
    ),
    Reason("KeyRefused", conditions.STALLED, "The key to ask with is missing, malformed or refused.", _RETRY),
    Reason("ModelUnknown", conditions.STALLED, "The API that is asked does not know the model or the path.", _RETRY),
    Reason("TeacherMoved", conditions.STALLED, "The API redirects, which is not followed.", _ANOTHER),
    Reason("JudgeMoved", conditions.STALLED, "The judge's API redirects, which is not followed.", _ANOTHER),
    Reason("AccountExhausted", conditions.STALLED, "The API's account may not spend more.", _RETRY),
    Reason("CertificateUntrusted", conditions.STALLED, "The API's certificate is signed by nobody known.", _RETRY),
    Reason("NothingAnswered", conditions.STALLED, "No request had an answer of use; the message quotes why.", _RETRY),
    Reason("LedgerDamaged", conditions.STALLED, "The record of what was paid for is not as it was written.", _RETRY),
    Reason(
        "PriceUnknown",
        conditions.STALLED,
        "The budget is in money, and what the teacher or the judge costs is not known in one currency.",
        _RETRY,
    ),
    Reason(
        "ScrubberFault",
        conditions.STALLED,
        "The program that scrubs texts does not answer as it must.",
        "Have its administrator look at docs/data.md; then retry.",
    ),
    Reason("WrongModel", conditions.STALLED, "The engine serves other weights than are to be tested.", _RETRY),
    Reason("EngineRefuses", conditions.STALLED, "The engine will not answer; the message quotes why.", _RETRY),
)
REASONS: Final[tuple[Reason, ...]] = (
    Reason("Valid", conditions.ACCEPTED, "The spec is valid and allowed."),
    Reason(
        "InvalidSpec",
        conditions.ACCEPTED,
        "The stored object is not one that this version understands.",
        "Correct the field that is named.",
    ),
    Reason(
        "NotAllowed",
        conditions.ACCEPTED,
        "The spec asks for something that is not to be had here.",
        "Change the field that is named, or have an administrator change the settings.",
    ),
    Reason("InProgress", COMPLETE, "A stage runs or is about to.", _WAIT),
    Reason("NotStarted", COMPLETE, "The spec is not accepted.", "See the condition Accepted."),
    Reason("Stopped", COMPLETE, "Something stands in the way.", "See the condition Stalled."),
    Reason("Packaged", COMPLETE, "The student passed and is packaged; no tier is named."),
    Reason("Promoted", COMPLETE, "The student passed and is live."),
    Reason("Rejected", COMPLETE, "The gate was not passed; the message says which comparison decided."),
    Reason(
        "Inconclusive",
        COMPLETE,
        "There are too few sealed items to say.",
        "Create another DistillJob with more evaluation items; what was generated and trained is found in the store.",
    ),
    Reason("RolledBack", COMPLETE, "The student was taken back; the message says why."),
    Reason(
        BUDGET,
        COMPLETE,
        "The budget is used up; everything paid for is kept.",
        "Raise spec.budget: it goes on where it stopped.",
    ),
    Reason(
        "ApprovalWanted",
        AWAITING_APPROVAL,
        "The student is packaged and waits for a person.",
        "Read its report, then `modeltiers approve`, or delete the DistillJob.",
    ),
    Reason("NotWanted", AWAITING_APPROVAL, "Nobody has to approve, or not yet."),
    Reason("Done", conditions.READY, "The job is at its end; Complete says how it ended."),
    Reason("StageRunning", conditions.RECONCILING, "A stage runs; the message says how far it is.", _WAIT),
    Reason(
        "StageQueued",
        conditions.RECONCILING,
        "The stage's Job is suspended: its queue has not admitted it.",
        "Look at the queue's workload.",
    ),
    Reason("StageStarting", conditions.RECONCILING, "The stage's pod is on the way.", _WAIT),
    Reason(
        "ReportMissing",
        conditions.RECONCILING,
        "The stage's Job is complete, and no pod of it is left that says what came of it.",
        "It is run again and finds what it stored. If it comes back: look for what removes pods or changes them.",
    ),
    Reason("Suspended", conditions.RECONCILING, "spec.suspend is true: nothing runs.", "Set it to false."),
    Reason(ELSEWHERE, conditions.RECONCILING, "Another DistillJob does the same stage in the same store.", _WAIT),
    Reason(
        "TierNotReady",
        conditions.RECONCILING,
        "A ModelTier that is to be asked does not serve yet.",
        "Look at the ModelTier that is named: `kubectl get mt`.",
    ),
    Reason(
        "TierNotFound",
        conditions.STALLED,
        "A ModelTier that the spec names does not exist.",
        "Create it, or name another in a new DistillJob.",
    ),
    Reason(
        "TierNotAdmitting",
        conditions.STALLED,
        "A ModelTier that is to be asked answers policies only.",
        "Set its spec.access.mode to Open, or to Keys with a key in `keyRef`.",
    ),
    Reason(
        "TermsNotAcknowledged",
        conditions.STALLED,
        "The teacher, or a judge of training rows, is an external model, whose terms may forbid training on answers.",
        "Read them, and create the job with termsAcknowledged: true there.",
    ),
    Reason(
        "VolumeClaimNotFound",
        conditions.STALLED,
        "The claim of spec.store does not exist.",
        "Create it; the job goes on within a minute.",
    ),
    Reason(
        "VolumeClaimNotShared",
        conditions.STALLED,
        "The claim of spec.store can be mounted by one node only, and the promotion needs more.",
        "Use a ReadWriteMany claim in another DistillJob, or one replica with promotion.strategy Replace.",
    ),
    Reason(
        "TierIsExternal",
        conditions.STALLED,
        "A ModelTier that should serve the student is an external API.",
        "Name one that this cluster serves.",
    ),
    Reason(
        "TeacherIsStudent",
        conditions.STALLED,
        "The teacher's tier serves what this job makes.",
        "Set its spec.model.source to the teacher's own weights.",
    ),
    Reason(
        "JudgeIsStudent",
        conditions.STALLED,
        "The judge's tier serves what this job makes.",
        "Set its spec.model.source to the judge's own weights, or name another tier in another DistillJob.",
    ),
    Reason(
        "PaybackTooLong",
        conditions.STALLED,
        "By the estimate in the message the student earns its cost too late; nothing is trained.",
        "Raise budget.maxPaybackDays, or lower the cost that the message names.",
    ),
    Reason(
        "PaybackUnknown",
        conditions.STALLED,
        "budget.maxPaybackDays is set, and a price that the estimate needs is not known; nothing is trained.",
        "Set the price that the message names, or remove budget.maxPaybackDays.",
    ),
    Reason("CanaryRunning", conditions.RECONCILING, "Both models serve; the message has the shares.", _WAIT),
    Reason("SettlingRunning", conditions.RECONCILING, "The tier takes the student over.", _WAIT),
    Reason(
        "TierNotFollowing",
        conditions.STALLED,
        "The tier of spec.promotion.tierRef serves another model.",
        "Set its spec.model.source to `distill://NAME` of this job.",
    ),
    Reason(
        "CanaryDoesNotFit",
        conditions.STALLED,
        "There is no room for the student's pods beside the incumbent's.",
        "Free some, or set promotion.strategy to Replace: the tier then rolls over at once, and back in the time that"
        " an engine takes to start.",
    ),
    Reason(
        "NotServable",
        conditions.STALLED,
        "The package lies where no pod can mount it.",
        "Use a store with a claimName in another DistillJob, or leave promotion out.",
    ),
    Reason("DoesNotFit", conditions.STALLED, "The engine for the test cannot be sized.", "See the message."),
    Reason(
        "StageFailed",
        conditions.STALLED,
        "The stage failed more often than scheduling.retries allows; the message has its last words.",
        _RETRY,
    ),
    *STAGE_REASONS,
    Reason(
        "NotWritten",
        conditions.STALLED,
        "An object could not be written.",
        "Grant the right, free the name, or correct what the message says.",
    ),
    Reason("ApiUnavailable", conditions.RECONCILING, "An object could not be written for a moment.", _WAIT),
    Reason("Settled", conditions.RECONCILING, "Nothing is left to do."),
    Reason("NotStalled", conditions.STALLED, "Nothing stands in the way."),
)

QUESTIONS: Final[Mapping[str, str]] = {
    conditions.ACCEPTED: "Is the spec valid and allowed?",
    COMPLETE: "Is the job at its end, and how did it end?",
    AWAITING_APPROVAL: "Does a person have to say yes?",
    conditions.READY: "Is the job at its end with nothing in the way? Unknown until then.",
    conditions.RECONCILING: "What is the operator waiting for?",
    conditions.STALLED: "What stands in the way, and what lifts it?"
    " Also the reasons of pods and of the cluster in [reasons](reasons.md).",
}
