"""Package: the student with what a reader and a verifier want beside it: model card, provenance, and its digest."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from modeltiers import __version__, names
from modeltiers.distill import manifest
from modeltiers.distill.faults import BadData
from modeltiers.distill.report import write_report
from modeltiers.distill.signature import sign
from modeltiers.distill.stage import Result, Work
from modeltiers.distill.store import BLOCK, Folder, open_store
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Stage, hash_of

MODEL: Final = "model"
CARD: Final = f"{MODEL}/README.md"
PROVENANCE: Final = f"{MODEL}/provenance.json"
"""Inside, so that it is signed with the weights."""


def run(work: Work) -> Result:
    """Copy the weights, describe them, and take their digest."""
    files = list(_copied(work))
    work.folder.write(CARD, _card(work).encode())
    files.append(CARD)
    facts = {name: work.folder.facts(name) for name in files}
    digest = hash_of({name: one.sha256 for name, one in facts.items()})
    work.folder.write(PROVENANCE, json.dumps(_provenance(work, digest, facts), indent=1, ensure_ascii=False).encode())
    signed = _signed(work)
    threshold = _said(work, Stage.CALIBRATE).get("thresholdPermille")
    size = sum(one.bytes for one in facts.values())
    summary = f"{digest[:12]}: {len(files)} files, {size / 1e6:.1f} MB"
    told = {"digest": digest, "thresholdPermille": threshold, "files": len(files), "bytes": size, "signed": signed}
    notes = {"report": write_report(work, work.inputs[Stage.GATE], digest)}
    return Result((*files, PROVENANCE), f"{summary}, {'signed' if signed else 'not signed'}", told, notes=notes)


def _signed(work: Work) -> bool:
    """Sign the package where the administrator has a key for it. A signature is another each time, and no outcome."""
    key = work.plan.signing_key_file
    if key is None:
        return False
    with local_copy(work.folder.sub(MODEL)) as folder, tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / names.PACKAGE_SIGNATURE
        sign(folder, made, Path(key))
        work.folder.write(names.PACKAGE_SIGNATURE, made.read_bytes())
    return True


@contextlib.contextmanager
def local_copy(folder: Folder) -> Iterator[Path]:
    """A folder of the store on this machine's file system: itself, or a copy for as long as the block runs."""
    if (here := folder.local) is not None:
        yield here
        return
    with tempfile.TemporaryDirectory(prefix="modeltiers-package-") as made:
        for name in folder.names():
            target = Path(made) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with folder.reading(name) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, BLOCK)
        yield Path(made)


def _copied(work: Work) -> Iterator[str]:
    """Copy the student's files, each whole or not at all; yields their names."""
    source, names = _student(work)
    for number, name in enumerate(names, 1):
        work.check()
        target = f"{MODEL}/{name}"
        with source.reading(name) as read, work.folder.writing(target) as out:
            while block := read.read(BLOCK):
                out.write(block)
        work.progress.at(number, len(names), "files")
        if target not in (CARD, PROVENANCE):
            yield target


def _student(work: Work) -> tuple[Folder, list[str]]:
    """Where the student's weights are, and their files."""
    if Stage.TRAIN in work.inputs:
        folder = work.inputs[Stage.TRAIN].sub(MODEL)
    else:
        path = work.plan.models.get("trained", "")
        if not path or path.startswith("hf://") or not Path(path).is_dir():
            raise BadData(
                "the weights are not on a volume that can be mounted: copy them to one and name it as pvc://CLAIM/PATH",
                field="spec.student.trained.source",
            )
        folder = open_store(path)
    names = folder.names()
    if not any(name.endswith(".safetensors") for name in names):
        raise BadData(f"{folder.path} has no *.safetensors: only these are served", field="spec.student.trained.source")
    return folder, names


def _said(work: Work, stage: Stage) -> Mapping[str, Any]:
    found = manifest.read(work.inputs[stage]) if stage in work.inputs else None
    return found.facts if found else {}


def _provenance(work: Work, digest: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Where the artifact comes from: enough to make it again, and to find it by what went into it."""
    plan = work.plan
    teacher = plan.teacher
    stages = {
        stage.value: {"digest": found.outcome.digest, "output": found.outcome.output, "facts": found.facts}
        for stage, lies in work.inputs.items()
        if (found := manifest.read(lies)) is not None
    }
    return {
        "formatVersion": 1,
        "program": f"modeltiers {__version__}",
        "job": plan.job,
        "artifact": {
            "digest": digest,
            "files": {name: {"sha256": one.sha256, "bytes": one.bytes} for name, one in facts.items()},
        },
        "teacher": {
            "model": teacher.model if teacher else None,
            "external": bool(teacher and teacher.external),
            "termsAcknowledged": plan.spec.teacher.terms_acknowledged,
        },
        **({"judge": _judge(plan)} if plan.spec.judge else {}),
        "student": plan.spec.student.model_dump(mode="json", by_alias=True, exclude_none=True),
        "training": plan.spec.training.model_dump(mode="json", by_alias=True) if plan.spec.training else {},
        "workload": plan.spec.workload.model_dump(mode="json", by_alias=True, exclude_none=True),
        "stages": stages,
    }


def _judge(plan: Plan) -> dict[str, Any]:
    """Who judged, by what, and whether it chose training rows."""
    judge = plan.spec.judge
    assert judge is not None, "the caller looks"
    return {
        "model": plan.judge.model if plan.judge else None,
        "external": bool(plan.judge and plan.judge.external),
        "termsAcknowledged": judge.terms_acknowledged,
        "rubric": judge.rubric,
        "minScorePermille": judge.min_score_permille,
    }


def _card(work: Work) -> str:
    """The model card: what it is for, how it was made, how it did."""
    plan, gate, threshold = work.plan, _said(work, Stage.GATE), _said(work, Stage.CALIBRATE)
    teacher = plan.teacher.model if plan.teacher else "unknown"
    scores = "\n".join(
        f"| {who} | {gate[f'{who}Permille'] / 10:.1f} % |"
        for who in ("student", "incumbent", "base", "teacher")
        if gate.get(f"{who}Permille") is not None
    )
    limit = threshold.get("thresholdPermille")
    routed = f"A route may accept its answers from a confidence of {limit} ‰.\n" if limit is not None else ""
    return f"""# {plan.job}

{plan.spec.workload.description or "A student distilled for one workload."}

Distilled from `{teacher}` into `{plan.spec.student.base.source}`. It is tested for this workload only.

| model | right on {gate.get("items", "?")} sealed items |
| --- | --- |
{scores}

Gate: {gate.get("decision", "?")}. {gate.get("why", "")}
{routed}"""
