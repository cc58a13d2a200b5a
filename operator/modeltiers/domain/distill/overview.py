"""A DistillJob's status as text that a person reads at a terminal, with what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modeltiers.domain.conditions import by_type
from modeltiers.domain.distill.reasons import COMPLETE
from modeltiers.domain.distill.report import count, percent, points
from modeltiers.domain.distill.stages import Stage
from modeltiers.domain.distill.verdict import shown, spent
from modeltiers.domain.distill.wishes import UNDER_WAY
from modeltiers.domain.views import instant

_SCORES: Final = ("student", "incumbent", "base", "teacher")
REPORT: Final = "report.html"


def overview(job: Mapping[str, Any]) -> str:
    """All of it."""
    status, metadata = job.get("status") or {}, job["metadata"]
    lines = [f"DistillJob {metadata.get('namespace', '')}/{metadata['name']}", *_where(status), ""]
    lines += [f"  {line}" for line in _stages(status)]
    for title, found in (
        ("Spend", _spend(status)),
        ("Gate", _gate(status)),
        ("Artifact", _artifact(status)),
        ("Promotion", _promotion(status)),
        ("Report", iter(filter(None, [report_address(job)]))),
        ("Next", next_commands(job)),
    ):
        told = list(found)
        if told:
            lines += ["", *(f"{title if not number else '':<11}{line}" for number, line in enumerate(told))]
    return "\n".join(map(_plain, lines))


def _plain(line: str) -> str:
    """A line whose characters move no cursor: messages quote what rows and servers say."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)


def _where(status: Mapping[str, Any]) -> Iterator[str]:
    said = by_type(status.get("conditions") or [])
    complete, ready = said.get(COMPLETE), said.get("Ready")
    if complete is None or ready is None:
        yield "  the operator has not looked at it yet: is it running?"
        return
    told = complete if complete["status"] == "True" else ready
    yield f"  {told['reason']}: {told.get('message', '')}"


def _stages(status: Mapping[str, Any]) -> Iterator[str]:
    known = [one for one in status.get("stages") or () if isinstance(one, Mapping)]
    if not known:
        yield "no stage has begun"
        return
    for one in known:
        more = shown(status.get("running")) if one.get("state") == "Running" else str(one.get("summary", ""))
        took = "found" if one.get("reused") else _took(one)
        tries = f"{one['attempts']} tries" if one.get("attempts", 0) > 1 else ""
        said = "; ".join(filter(None, (tries, more)))
        yield f"{one.get('name', ''):<18}{one.get('state', ''):<10}{took:>9}  {said}".rstrip()


def _took(one: Mapping[str, Any]) -> str:
    started, ended = instant(str(one.get("started", ""))), instant(str(one.get("ended", "")))
    if started is None or ended is None:
        return ""
    seconds = int((ended - started).total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _spend(status: Mapping[str, Any]) -> Iterator[str]:
    if spend := status.get("spend"):
        yield f"{spent(spend)}{_in_doubt(spend)}"
        if judge := spend.get("judge"):
            yield f"and for the judge {spent(judge)}{_in_doubt(judge)}"


def _in_doubt(spend: Mapping[str, Any]) -> str:
    doubt = spend.get("inDoubt", 0)
    return f", {count(doubt)} requests in doubt" if doubt else ""


def _gate(status: Mapping[str, Any]) -> Iterator[str]:
    gate = status.get("gate")
    if not gate:
        return
    yield f"{gate.get('decision')} on {count(gate.get('items'))} sealed items, {count(gate.get('needed'))} needed"
    scores = [f"{one} {percent(gate[f'{one}Permille'])}" for one in _SCORES if gate.get(f"{one}Permille") is not None]
    if scores:
        yield ", ".join(scores)
    if gate.get("differencePermille") is not None:
        lower = points(gate.get("lowerPermille"))
        yield f"difference {points(gate['differencePermille'])} points, lower bound {lower}"
    if gate.get("why"):
        yield str(gate["why"])


def _artifact(status: Mapping[str, Any]) -> Iterator[str]:
    if artifact := status.get("artifact"):
        limit = artifact.get("thresholdPermille")
        from_ = f", accepted from a confidence of {percent(limit)}" if limit is not None else ""
        yield f"{artifact.get('digest')}{from_}"
        if artifact.get("source"):
            yield str(artifact["source"])


def _promotion(status: Mapping[str, Any]) -> Iterator[str]:
    if promotion := status.get("promotion"):
        since = f" since {promotion['since']}" if promotion.get("since") else ""
        yield f"{promotion.get('state')}{since}, {percent(promotion.get('weightPermille', 0))} of conversations"
        if promotion.get("why"):
            yield str(promotion["why"])


def next_commands(job: Mapping[str, Any]) -> Iterator[str]:
    """What a person can do now."""
    status, metadata = job.get("status") or {}, job["metadata"]
    where = f"dj/{metadata['name']}" + (f" -n {metadata['namespace']}" if metadata.get("namespace") else "")
    digest, state = (status.get("artifact") or {}).get("digest"), (status.get("promotion") or {}).get("state")
    if (job.get("spec") or {}).get("suspend"):
        yield f"modeltiers resume {where}"
    if digest and state in ("AwaitingApproval", "RolledBack"):
        yield f"modeltiers approve {where} --digest {digest}"
    if digest and state in UNDER_WAY:
        yield f"modeltiers rollback {where} --digest {digest}"
    failed = [one for one in status.get("stages") or () if one.get("state") == "Failed"]
    if failed and by_type(status.get("conditions") or []).get(COMPLETE, {}).get("status") != "True":
        yield f"modeltiers retry {where}, when what the message names is corrected"


def report_path(status: Mapping[str, Any]) -> str | None:
    """The last report inside the store; None before there is a decision."""
    digests = {
        one.get("name"): one.get("digest") for one in status.get("stages") or () if one.get("state") == "Complete"
    }
    for stage in (Stage.PACKAGE, Stage.GATE):
        if digests.get(stage.value):
            return f"stages/{stage.value}/{digests[stage.value]}/{REPORT}"
    return None


def report_address(job: Mapping[str, Any]) -> str | None:
    """Where it lies in the store, as a tier would name it."""
    path, store = report_path(job.get("status") or {}), (job.get("spec") or {}).get("store") or {}
    if path is None:
        return None
    root = store.get("s3") or f"pvc://{store.get('claimName')}"
    return f"{root}/{path}"
