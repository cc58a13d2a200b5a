"""`modeltiers route`: where a request would go, and why, by the very functions that the router calls.

It asks nobody: every tier counts as ready unless the command line says otherwise. `--record` decides again what a
router decided, from its record alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import msgspec
import yaml

from modeltiers.cli import tables
from modeltiers.cli.show import columns
from modeltiers.cli.tables import TableFile
from modeltiers.domain.routing import features
from modeltiers.domain.routing.accept import judge
from modeltiers.domain.routing.ask import Ask, BadRequest, Endpoint, read_request
from modeltiers.domain.routing.choose import REASONS, Choice, Load, choose, ends_reading, holding, lack
from modeltiers.domain.routing.clamp import clamp
from modeltiers.domain.routing.record import Attempt, BadRecord, DecisionRecord, decide, decode, verify_line
from modeltiers.domain.routing.rules import CompiledPolicy
from modeltiers.domain.routing.see import see
from modeltiers.router.wire import BadBody, Body

_PROMPTS: Final[tuple[tuple[str, Endpoint], ...]] = (
    ("messages", "chat"),
    ("prompt", "completions"),
    ("input", "embeddings"),
)
_LINE: Final = 16 * 2**20
_HELP: Final = """Say which tier a request would go to, and why. Needs no router and no cluster.

\b
Exit codes, for CI:
  0  a tier is chosen; with --verify: every record holds
  1  the policy refuses the request, or no tier can take it; with --verify: a record differs
  2  some input is bad: a table, a request, a record or an option

\b
Examples:
  modeltiers route --table table.yaml --ask "Prove that 7 is prime."
  modeltiers route --table table.yaml --request body.json --header "x-team: legal" --not-ready small
  modeltiers route --table table.yaml --record spool.jsonl --verify
"""


class Bad(Exception):
    """Input that cannot be used; says what and where."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with all that led to it."""

    policy: CompiledPolicy
    ask: Ask
    load: Load
    choice: Choice
    changes: Mapping[str, bytes]
    """Fields that the policy's clamp lowers or sets."""
    attempts: tuple[Attempt, ...] = ()
    """What became of it, when it was read from a record."""


@click.command(help=_HELP)
@click.option("-t", "--table", "table", required=True, metavar="FILE", help="A routing table, or a folder of them.")
@click.option("-p", "--policy", help="The policy; else the one for the request's model, or the only one.")
@click.option("--ask", "text", help="A user's message.")
@click.option("--request", "request_file", metavar="FILE", help="The JSON body of a request; - for standard input.")
@click.option("--record", "record_file", metavar="FILE", help="Decision records as JSON lines; - for standard input.")
@click.option("--verify", is_flag=True, help="With --record: compute each again and say what differs.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request.")
@click.option("--request-id", default="modeltiers-route", show_default=True, help="Stands for an unnamed conversation.")
@click.option("--not-ready", multiple=True, metavar="TIER", help="A tier with no address that takes requests.")
@click.option("--saturated", multiple=True, metavar="TIER", help="A tier with as much in flight as it may have.")
@click.option("--sticky", metavar="TIER", help="The tier that the conversation was given before.")
@click.option(
    "--threshold-permille", type=float, help="The threshold as a router holds it; the policy's when left out."
)
@click.option("--escalated-share-permille", type=float, default=0.0, help="How much has escalated of late.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def route(ctx: click.Context, /, **options: Any) -> None:
    """Say where a request would go."""
    given = [name for name in ("text", "request_file", "record_file") if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --ask, --request and --record")
    if options["verify"] and given != ["record_file"]:
        raise click.UsageError("--verify goes with --record")
    try:
        files = _tables(options["table"])
        if options["verify"]:
            ctx.exit(_verify(files, options))
        decided = list(_again(files, options)) if given == ["record_file"] else [_decide(files, options)]
    except Bad as error:
        click.echo(f"error: {error}", err=True)
        ctx.exit(2)
    click.echo(_render(decided, options["output"]), nl=False)
    ctx.exit(1 if any(one.choice.refused for one in decided) else 0)


# --- reading ----------------------------------------------------------------------------------------------------------


def _tables(path: str) -> list[TableFile]:
    faults: list[str] = []
    found = tables.read((path,), faults)
    if faults:
        raise Bad("\nerror: ".join(faults))
    return found


def _policy(files: Sequence[TableFile], name: str | None, model: str | None) -> CompiledPolicy:
    """Return the policy that is named, that routes the model, or that is the only one."""
    every = [policy for file in files for policy in file.policies]
    found = [one for one in every if name in (None, one.policy.name) and model in (None, one.policy.model)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.policy.name} (model {one.policy.model})" for one in every)
    if not found:
        what = " and ".join([f"policy {name!r}"] * bool(name) + [f"model {model!r}"] * bool(model))
        raise Bad(f"no policy matches {what}; there is {known}")
    raise Bad(f"the table has more than one policy; name one with --policy: {known}")


def _decide(files: Sequence[TableFile], options: Mapping[str, Any]) -> Decided:
    endpoint, body = _body(options)
    try:
        request = read_request(endpoint, body)
        policy = _policy(files, options["policy"], request.model)
        changes = clamp(policy.policy.clamp, request)
    except BadRequest as error:
        raise Bad(f"the request: {error.message}") from None
    ask = see(policy, request, dict(map(_header, options["headers"])), options["request_id"])
    load = _load(policy, options)
    return Decided(policy, ask, load, choose(policy, ask, load), changes)


def _body(options: Mapping[str, Any]) -> tuple[Endpoint, bytes]:
    """Return the request's body, and the endpoint that its prompt belongs to."""
    if options["text"] is not None:
        text = options["text"].encode("utf-8", "replace").decode()
        return "chat", msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    with _open(options["request_file"]) as file:
        body = file.read(_LINE + 1)
    if len(body) > _LINE:
        raise Bad(f"the request is longer than {_LINE} bytes")
    try:
        fields = Body(body).fields
    except BadBody as error:
        raise Bad(f"the request: {error}") from None
    for name, endpoint in _PROMPTS:
        if name in fields:
            return endpoint, body
    raise Bad("the request has no prompt; give messages, prompt or input")


def _open(path: str) -> AbstractContextManager[BinaryIO]:
    if path == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise Bad(f"{path}: cannot be read: {error}") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Bad(f"--header {text!r}: write 'name: value'")
    return name.strip().lower(), value.strip()


def _load(policy: CompiledPolicy, options: Mapping[str, Any]) -> Load:
    named = {*options["not_ready"], *options["saturated"]} | ({options["sticky"]} - {None})
    if unknown := sorted(named - set(policy.names)):
        raise Bad(f"the ladder has no tier {', '.join(unknown)}; it has {', '.join(policy.names)}")
    threshold, share = options["threshold_permille"], options["escalated_share_permille"]
    if threshold is not None and not abs(threshold) <= 2_000:
        raise Bad("--threshold-permille lies about between 0 and 1000")
    if not 0 <= share <= 1_000:
        raise Bad("--escalated-share-permille lies between 0 and 1000")
    return Load(
        ready=tuple(name not in options["not_ready"] for name in policy.names),
        threshold_permille=threshold,
        sticky=options["sticky"],
        escalated_share_permille=share,
        saturated=tuple(name in options["saturated"] for name in policy.names) if options["saturated"] else (),
    )


# --- records ----------------------------------------------------------------------------------------------------------


def _records(path: str, policy: str | None) -> Iterator[tuple[int, bytes, DecisionRecord]]:
    """Yield the lines of a spool with their numbers and what they say; only those of a policy, if one is named."""
    number = found = 0
    with _open(path) as file:
        while line := file.readline(_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                record = decode(line)
            except BadRecord as error:
                raise Bad(f"{path}, line {number}: {error}") from None
            if policy in (None, record.policy):
                found += 1
                yield number, line, record
    if not found:
        raise Bad(f"{path}: holds no record" + (f" of the policy {policy!r}" if policy else ""))


def _again(files: Sequence[TableFile], options: Mapping[str, Any]) -> Iterator[Decided]:
    """Yield the decisions of records, computed again."""
    for _, _, record in _records(options["record_file"], options["policy"]):
        policy = _policy([_table_of(files, record)], record.policy, None)
        choice = decide(policy, record)
        yield Decided(policy, record.ask, record.load, choice, {}, record.attempts)


def _verify(files: Sequence[TableFile], options: Mapping[str, Any]) -> int:
    """Compute records again and print what differs; returns the exit code."""
    held, differing, output = 0, list[dict[str, Any]](), options["output"]
    for number, line, record in _records(options["record_file"], options["policy"]):
        file = _table_of(files, record)
        said = verify_line(line, file.table, file.version, judge)
        if said:
            differing.append({"line": number, "id": record.id, "differences": said})
        held += not said
    summary = {"records": held + len(differing), "hold": held, "differ": len(differing)}
    if output == "table":
        for one in differing:
            click.echo(f"line {one['line']}, record {one['id']}:")
            click.echo("\n".join(f"  {text}" for text in one["differences"]))
        click.echo(f"{held} of {summary['records']} records hold, {len(differing)} differ")
    else:
        click.echo(_dump({**summary, "differing": differing}, output), nl=False)
    return 1 if differing else 0


def _table_of(files: Sequence[TableFile], record: DecisionRecord) -> TableFile:
    """Return the table of a record's version that has its policy; else one that has it; else any."""
    fitting = [file for file in files if any(one.policy.name == record.policy for one in file.policies)]
    exact = (file for file in fitting if file.version == record.table)
    return next(exact, (fitting or files)[0])


# --- printing ---------------------------------------------------------------------------------------------------------


def _render(decided: Sequence[Decided], output: str) -> str:
    if output == "table":
        return "\n".join("\n".join(_explain(one)) + "\n" for one in decided)
    bodies = [_built(one) for one in decided]
    return _dump(bodies[0] if len(bodies) == 1 else bodies, output)


def _dump(body: Any, output: str) -> str:
    if output == "json":
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(body, sort_keys=False, width=120, allow_unicode=True)


def _built(one: Decided) -> dict[str, Any]:
    return {
        "policy": one.policy.policy.name,
        "choice": msgspec.to_builtins(one.choice),
        "why": REASONS[one.choice.reason],
        "ask": msgspec.to_builtins(one.ask),
        "load": msgspec.to_builtins(one.load),
        "changes": {name: msgspec.json.decode(value) for name, value in one.changes.items()},
        "attempts": msgspec.to_builtins(one.attempts),
        "features": [
            {"name": name, "count": count, "weight": weight, "part": round(part, 3)}
            for name, count, weight, part, _ in _features(one.ask)
        ],
        "rules": [{"name": name, "state": state} for name, state in _rules(one)],
        "ladder": [{"tier": name, "verdict": verdict} for name, verdict in _ladder(one)],
    }


def _explain(one: Decided) -> Iterator[str]:
    choice, ask = one.choice, one.ask
    name = one.policy.policy.name
    if choice.refused is not None:
        yield f"{name}: refused with status {choice.status}: {choice.refused}"
    else:
        judged = "; its answer is judged" if choice.cascade else ""
        yield f"{name}: {choice.tiers[0]}{judged}"
    yield from columns(list(_facts(one)), indent="  ")
    if one.policy.rules:
        yield "\n  Rules, in order"
        yield from columns([("RULE", "STATE"), *_rules(one)], indent="  ")
    if ask.features:
        yield f"\n  Score, {features.BIAS} before anything is seen"
        rows = [
            (each, f"{count}", f"{weight:.2f}", f"{part:+.3f}", why)
            for each, count, weight, part, why in _features(ask)
            if count
        ]
        total = features.BIAS + sum(features.parts(ask.features))
        last = ("sum", "", "", f"{total:+.3f}", f"score {ask.score:.3f}, by the logistic function")
        yield from columns([("FEATURE", "COUNT", "WEIGHT", "PART", "WHY"), *rows, last], right={1, 2, 3}, indent="  ")
    yield "\n  Ladder"
    yield from columns([("TIER", "VERDICT"), *_ladder(one)], indent="  ")
    if one.attempts:
        yield "\n  Attempts, as recorded"
        yield from columns([("TIER", "OUTCOME", "MS", "WHY"), *map(_attempt, one.attempts)], right={2}, indent="  ")


def _facts(one: Decided) -> Iterator[tuple[str, str]]:
    choice, ask = one.choice, one.ask
    yield "reason", f"{choice.reason}: {REASONS[choice.reason]}"
    if choice.displaced is not None:
        yield "instead of", f"{choice.displaced}: {REASONS[choice.displaced]}"
    for label, value in (("rule", choice.rule), ("risk", choice.risk), ("floor", choice.floor)):
        if value is not None:
            yield label, value
    if ask.score is not None:
        held = one.load.threshold_permille
        threshold = one.policy.score.threshold_permille if held is None else held
        yield "score", f"{ask.score:.3f}, threshold {threshold / 1000:.3f}"
        yield "task", str(ask.task)
    answer = f", at most {ask.max_tokens} to answer" if ask.max_tokens else ""
    count = f"{ask.messages} message" + "s" * (ask.messages != 1)
    yield "prompt", f"{ask.prompt_chars} characters in {count}, about {ask.prompt_tokens} tokens{answer}"
    if wants := [*_wants(ask)]:
        yield "asks for", ", ".join(wants)
    if one.changes:
        yield "clamped", ", ".join(f"{name} to {value.decode()}" for name, value in one.changes.items())


def _attempt(attempt: Attempt) -> tuple[str, str, str, str]:
    why = [attempt.reason or ""]
    if attempt.verdict is not None:
        why.append(f"probability {attempt.verdict.probability:.3f}")
    return attempt.tier, attempt.outcome, f"{attempt.ms}", ", ".join(filter(None, why))


def _wants(ask: Ask) -> Iterator[str]:
    yield from (kind.lower() for kind in ask.modalities if kind != "Text")
    yield from (word for word, holds in (("tools", ask.tools), ("JSON", ask.json_mode)) if holds)
    yield from (word for word, holds in (("logprobs", ask.logprobs), ("a stream", ask.stream)) if holds)
    if ask.n > 1:
        yield f"{ask.n} answers"
    if ask.override is not None:
        yield f"tier {ask.override}"


def _features(ask: Ask) -> list[tuple[str, int, float, float, str]]:
    if not ask.features:
        return []
    rows = zip(features.FEATURES, ask.features, features.parts(ask.features), strict=True)
    return [(feature.name, count, feature.weight, part, feature.why) for feature, count, part in rows]


def _rules(one: Decided) -> Iterator[tuple[str, str]]:
    """Yield what became of each rule."""
    held = {rule.name for rule in holding(one.policy, one.ask)}
    ended = None
    for rule, _, _ in one.policy.rules:
        if ended is not None:
            yield rule.name, f"not read: {ended} ended the reading"
        elif rule.name not in held:
            yield rule.name, "does not hold"
        else:
            what = [f"tier {rule.tier}"] * bool(rule.tier) + [f"floor {rule.floor}"] * bool(rule.floor)
            what += [f"risk {rule.risk}"] * bool(rule.risk) + ["refuse"] * (rule.action == "Refuse")
            yield rule.name, f"holds: {', '.join(what)}"
            ended = rule.name if ends_reading(rule) else None


def _ladder(one: Decided) -> Iterator[tuple[str, str]]:
    """Yield each tier's part in the decision."""
    choice, skipped = one.choice, dict(one.choice.skipped)
    floor = one.policy.place(choice.floor) if choice.floor else 0
    for place, tier in enumerate(one.policy.ladder):
        if tier.name in choice.tiers:
            at = choice.tiers.index(tier.name)
            yield tier.name, _part(at, choice)
        elif tier.name in skipped:
            yield tier.name, _SKIPPED[skipped[tier.name]].format(floor=choice.floor, lack=lack(tier, one.ask))
        elif choice.status == 403 or choice.refused is None:
            yield tier.name, "not asked"
        else:
            yield tier.name, lack(tier, one.ask) or (f"is below the floor {choice.floor}" if place < floor else "")


_SKIPPED: Final = {
    "BelowFloor": "is below the floor {floor}",
    "Outside": "is outside the cluster, and a rule keeps the request inside",
    "Capability": "{lack}",
    "ContextFit": "{lack}",
    "OtherModel": "serves another model, whose vectors do not compare",
    "NotReady": "is not ready",
    "Lower": "is below the chosen one, and the policy does not fall back down",
}


def _part(at: int, choice: Choice) -> str:
    if at == 0:
        return "answers first, and is judged" if choice.cascade else "answers"
    if choice.cascade and at < choice.up:
        return "answers if the one before is found wanting or fails"
    return f"fallback {at}"
