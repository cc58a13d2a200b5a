"""`python -m modeltiers.distill run STAGE` runs one stage of a DistillJob, `... all` the whole of one.

Exit codes: 0 complete, 75 try again, 78 data or configuration at fault, 79 budget used up. `--result` says the same
with words, as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from modeltiers import names
from modeltiers.distill import signature
from modeltiers.distill.faults import COMPLETE, BadData, StageFault
from modeltiers.distill.manifest import MOST, Manifest
from modeltiers.distill.run import run_all, run_stage
from modeltiers.distill.serve import serve
from modeltiers.distill.stage import Progress
from modeltiers.distill.store import Folder, open_store
from modeltiers.domain.distill.plan import Plan
from modeltiers.domain.distill.stages import Outcome, Stage

log = logging.getLogger("modeltiers.distill")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request is no news
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    progress = Progress()
    try:
        if args.command == "verify":
            signature.verify(args.model, args.signature, signature.keys_in(os.environ.get(names.PUBLIC_KEYS_ENV, "")))
            log.info("%s is what was signed", args.model)
            return COMPLETE
        plan = read_plan(args.plan)
        root = open_store(args.store)
        if args.command == "all":
            run_all(plan, root, stop=stop)
            return COMPLETE
        _report(args.result, _one(args, plan, root, progress, stop))
        return COMPLETE
    except StageFault as fault:
        log.error("%s: %s", fault.reason, fault)  # noqa: TRY400 - a fault with a way out needs no traceback
        _report(getattr(args, "result", None), _said(fault, progress))
        return fault.code


def _one(
    args: argparse.Namespace, plan: Plan, root: Folder, progress: Progress, stop: threading.Event
) -> dict[str, Any]:
    stage = Stage(args.stage)
    if args.port:
        serve(args.port, stage, progress)
    done: tuple[Manifest, bool] = run_stage(plan, root, stage, _outcomes(args.input), progress=progress, stop=stop)
    found, reused = done
    log.info("%s: %s", stage.value, found.body["summary"])
    return found.report(plan.job, reused=reused)


def read_plan(path: Path) -> Plan:
    """The plan in a file; BadData says what is wrong with it."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as fault:
        raise BadData(f"{path}: {fault.strerror}") from fault
    except ValidationError as fault:
        first = fault.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadData(f"{path}: {where}: {first['msg']}", reason="InvalidPlan", field=where) from None


def _outcomes(given: Sequence[str]) -> dict[Stage, Outcome]:
    """`STAGE=DIGEST:OUTPUT[:DECISION]`, one for each stage before."""
    found = {}
    for text in given:
        name, _, rest = text.partition("=")
        digest, output, *decision = rest.split(":")
        found[Stage(name)] = Outcome(digest, output, decision[0] if decision else None)
    return found


def _said(fault: StageFault, progress: Progress) -> dict[str, Any]:
    body = {"outcome": fault.reason, "code": fault.code, "message": str(fault)[:1500], "field": fault.field}
    return {**body, "spend": progress.facts.get("spend", {})}


def _report(path: Path | None, body: dict[str, Any]) -> None:
    if path is not None:
        path.write_bytes(json.dumps(body, ensure_ascii=False).encode()[:MOST])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modeltiers.distill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run one stage")
    one.add_argument("stage", choices=[stage.value for stage in Stage])
    one.add_argument("--input", action="append", default=[], metavar="STAGE=DIGEST:OUTPUT", help="a stage before")
    one.add_argument("--result", type=Path, help="file for what came of it, as JSON")
    one.add_argument("--port", type=int, default=0, help="port to tell progress at")
    every = commands.add_parser("all", help="run all stages in turn")
    check = commands.add_parser("verify", help="check a package's signature with the keys in MODELTIERS_PUBLIC_KEYS")
    check.add_argument("--model", type=Path, required=True, help="folder that was signed")
    check.add_argument("--signature", type=Path, required=True, help="file with the signature")
    check.add_argument("--result", type=Path, help="file for what came of it, as JSON")
    for command in (one, every):
        command.add_argument("--plan", type=Path, required=True, help="the plan, as JSON")
        command.add_argument("--store", required=True, help="path or s3:// address of the store")
    return parser


def _end(code: int) -> NoReturn:
    """End at once. All that matters is durable, and the threads of the S3 client now and then abort an interpreter that
    takes its time to end: the exit code would be another.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
