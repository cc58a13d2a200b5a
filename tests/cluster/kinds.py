"""The three resources as their CRD tests see them: legal objects, cases for each rule, fields, what does no harm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from modeltiers.api.crd import DISTILL_JOB, MODEL_TIER, ROUTING_POLICY, Resource, crd
from modeltiers.api.distilljob import IMMUTABLE, IMMUTABLE_MORE
from modeltiers.api.parse import Fault, parse, parse_distill, parse_policy
from modeltiers.api.schema import VALIDATIONS, Schema, nodes
from modeltiers.domain.policy_table import CompiledTable, TierView, compile_table
from tests.cluster.admission import HOSTILE, Body, at, find, illegal, patched, shown, steps, with_value

FIXTURES: Final = Path(__file__).parent / "fixtures"
LADDER: Final = {name: TierView(name, name, external=name == "frontier") for name in ("small", "large", "frontier")}
"""The tiers that the policies of the fixtures name."""
TEXT: Final = set(HOSTILE) - {"long"}
"""The hostile strings that free text may be."""
Place = tuple[str | int, ...]


class Case(NamedTuple):
    """One object for one rule; with `before`, what it is changed from."""

    at: str
    message: str
    body: Body
    accepted: bool
    before: Body | None = None

    def about(self, path: str, message: str) -> bool:
        """Whether it is about this rule."""
        return self.at == path and message.startswith(self.message)

    def __str__(self) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", self.message[:40].lower())
        return f"{self.at or 'object'}-{words}-{'accepted' if self.accepted else 'rejected'}"


def accepted(kind: str) -> dict[str, Body]:
    """The legal objects of a kind by name, the fullest first. YAML aliases become objects of their own."""
    files = sorted((FIXTURES / kind.lower() / "accepted").glob("*.yaml"))
    found = {path.stem: json.loads(json.dumps(yaml.safe_load(path.read_text()))) for path in files}
    return dict(sorted(found.items(), key=lambda one: -len(json.dumps(one[1]))))


def rules(kind: str) -> list[dict[str, Any]]:
    """The table of what each rule accepts and refuses."""
    found: list[dict[str, Any]] = yaml.safe_load((FIXTURES / kind.lower() / "rules.yaml").read_text())
    return found


def cases(table: Iterable[Mapping[str, Any]], objects: Mapping[str, Body]) -> Iterator[Case]:
    """The cases of such a table, whose bases are objects or their names."""
    for rule in table:
        base = objects[rule["base"]] if isinstance(rule["base"], str) else rule["base"]
        before = patched(base, rule["before"]) if "before" in rule else None
        for verdict in ("accepted", "rejected"):
            for patch in rule[verdict]:
                yield Case(rule["at"], rule["message"], patched(base, patch), verdict == "accepted", before)


def fields(resource: Resource) -> dict[str, Schema]:
    """The schema of every field by path."""
    return dict(nodes(crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def messages(resource: Resource) -> set[tuple[str, str]]:
    """Every CEL rule: the field it stands at, and what it says."""
    return {(path, rule["message"]) for path, node in fields(resource).items() for rule in node.get(VALIDATIONS, ())}


@dataclass(frozen=True, eq=False)
class Kind:
    """One resource, its legal objects by name, and what of it is its own."""

    resource: Resource
    accepted: Mapping[str, Body]
    """Its legal objects by name, the fullest first."""
    read: Callable[[Body], Any]
    """An object as our code understands it; it must be able to."""
    cases: Iterable[Case]
    """For each rule, what it accepts and what it refuses."""
    columns: tuple[str, str]
    """What `kubectl get` shows, and with `-o wide`."""
    explained: str
    """A field whose own fields `kubectl explain` must describe."""
    typing_error: str
    status: Mapping[str, Any]
    """What an author would like to write there."""
    harmless: Mapping[str, set[str]] = field(default_factory=dict)
    """What the API server lets through on purpose, by field, and why it does no harm."""
    immutable: tuple[str, ...] = ()
    """Fields of the spec whose every change is refused; the kind's own tests change each."""

    @cached_property
    def nodes(self) -> dict[str, Schema]:
        """Every field's schema by path, status too."""
        return fields(self.resource)

    @cached_property
    def spec(self) -> dict[str, Schema]:
        """The same of the spec."""
        return {path: node for path, node in self.nodes.items() if path.startswith("spec")}

    @cached_property
    def messages(self) -> set[tuple[str, str]]:
        """Every CEL rule: the field it stands at, and what it says."""
        return messages(self.resource)

    def places(self, path: str) -> Iterator[tuple[Body, Place]]:
        """The first place of a schema path in the fixtures, with its object."""
        for body in self.accepted.values():
            for place in find(body, steps(path)):
                yield body, place
                return

    def beyond(self, path: str) -> Iterator[tuple[str, str, Body]]:
        """For each bound of a field: where, which bound, and an object one step beyond it."""
        for body, place in self.places(path):
            for word, value in illegal(self.spec[path], at(body, place)):
                where = place[:-1] if path.endswith(".*") else place  # a map's refusals name the map
                yield shown(where), word, with_value(body, place, value)


# --- ModelTier --------------------------------------------------------------------------------------------------------

TIERS: Final = accepted("ModelTier")
TIER_RULES: Final = rules("ModelTier")


def beside(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule of a tier's model as that of its candidate's, with the same cases."""
    base = TIERS[rule["base"]]
    candidate = {"weightPermille": 100, "model": {**base["spec"]["model"], "servedName": None}}
    moved = {
        verdict: [{"spec": {"candidate": one["spec"]}} for one in rule[verdict]] for verdict in ("accepted", "rejected")
    }
    place = rule["at"].replace("spec.model", "spec.candidate.model")
    return {"at": place, "message": rule["message"], "base": patched(base, {"spec": {"candidate": candidate}}), **moved}


def of_candidates() -> Iterator[dict[str, Any]]:
    """A candidate's model keeps the rules of the tier's, but for those that are about following a DistillJob."""
    for rule in TIER_RULES:
        if rule["at"].startswith("spec.model") and "before" not in rule and rule.get("candidate", True):
            yield beside(rule)


def read_tier(body: Body) -> Any:
    """A tier as the operator reads it."""
    return understood(parse(body))


def understood(found: Any) -> Any:
    """What was read, which must not be a fault."""
    assert not isinstance(found, Fault), found
    return found


TIER: Final = Kind(
    MODEL_TIER,
    TIERS,
    read_tier,
    list(cases([*TIER_RULES, *of_candidates()], TIERS)),
    ("NAME READY STATUS MODEL GPUS TP AGE", "NAME READY STATUS MODEL GPUS TP ENDPOINT IMAGE ACCELERATOR AGE"),
    explained="spec.model",
    typing_error="spec.sizing.concurency",
    status={"endpoint": "http://evil.example.com"},
    harmless={
        # Never more than the value of one variable: rendered as data, with $( doubled (render/modeltier.py).
        "spec.serving.env[].value": set(HOSTILE) - {"NUL", "escape", "long"},
        # An argument of its own; which flags pass is the allow-list's business (domain/engine_args.py).
        "spec.serving.args[]": {"flag"},
        # Keys of Secrets, which may begin so; rendered as references, never as arguments.
        "spec.model.tokenSecretRef.key": {"flag"},
        "spec.candidate.model.tokenSecretRef.key": {"flag"},
        "spec.external.apiKeySecretRef.key": {"flag"},
        "spec.serving.env[].secretKeyRef.key": {"flag"},
    },
)

# --- RoutingPolicy ----------------------------------------------------------------------------------------------------

POLICIES: Final = accepted("RoutingPolicy")


def read_policy(body: Body) -> CompiledTable:
    """A policy's table, as routers will get it."""
    found = compile_table(body["metadata"]["name"], understood(parse_policy(body)).spec, LADDER, "demo")
    assert isinstance(found, CompiledTable), [str(one) for one in found]
    return found


POLICY: Final = Kind(
    ROUTING_POLICY,
    POLICIES,
    read_policy,
    list(cases(rules("RoutingPolicy"), POLICIES)),
    (
        "NAME MODEL MODE TIERS LIVE ESCALATED READY AGE",
        "NAME MODEL MODE TIERS LIVE ESCALATED READY REASON PLACEMENT TABLE URL AGE",
    ),
    explained="spec.accept",
    typing_error="spec.accept.tresholdPermille",
    status={"url": "http://evil"},
    harmless={
        # Values in a table, compared with what a request has; the names in it are of closed sets.
        "spec.classify[].when.keywords[]": TEXT,
        "spec.classify[].when.headers[].values[]": TEXT,
        "spec.classify[].when.metadata[].key": TEXT,
        "spec.classify[].when.metadata[].values[]": TEXT,
        # Compiled by RE2 or read as JSON when the table is; what cannot be is the policy's condition, with the field.
        "spec.classify[].when.patterns[]": TEXT,
        "spec.accept.validators[].patterns[]": TEXT,
        "spec.accept.validators[].jsonSchema": TEXT,
    },
)

# --- DistillJob -------------------------------------------------------------------------------------------------------

JOBS: Final = accepted("DistillJob")
SHARED: Final = (
    ("spec.model", "spec.student.base"),
    ("spec.model", "spec.student.trained"),
    ("spec.model", "spec.promotion.incumbent"),
    ("spec.scheduling.tolerations", "spec.scheduling.tolerations"),
    ("spec.scheduling.nodeSelector", "spec.scheduling.nodeSelector"),
)
"""Where a ModelTier has what a DistillJob has too, under the same rules."""


def borrowed() -> Iterator[Case]:
    """The cases of a ModelTier's rules, with the part that they are about moved into a job."""
    known = messages(DISTILL_JOB)
    for theirs, mine in SHARED:
        for rule in TIER_RULES:
            place = rule["at"].replace(theirs, mine, 1)
            here = any(path == place and message.startswith(rule["message"]) for path, message in known)
            if not here or not rule["at"].startswith(theirs) or "before" in rule:
                continue
            for case in cases([rule], TIERS):
                part = at(case.body, steps(theirs))
                if isinstance(part, dict):
                    part.pop("servedName", None)
                    if mine == "spec.student.trained" and "architecture" not in part and case.accepted:
                        continue  # more is asked of it
                emptied = patched(JOBS["elsewhere"], nested(mine, None))
                yield case._replace(at=place, body=patched(emptied, nested(mine, part)))


def nested(path: str, value: Any) -> Any:
    """A patch that sets one field."""
    for step in reversed(steps(path)):
        value = {step: value}
    return value


def read_job(body: Body) -> Any:
    """A job as the operator reads it."""
    return understood(parse_distill(body))


JOB: Final = Kind(
    DISTILL_JOB,
    JOBS,
    read_job,
    [*cases(rules("DistillJob"), JOBS), *borrowed()],
    ("NAME STAGE PROGRESS DECISION SPEND AGE", "NAME STAGE PROGRESS DECISION SPEND REASON ARTIFACT AGE"),
    explained="spec.training",
    typing_error="spec.training.learningRate",
    status={"gate": {"decision": "Pass", "items": 1}},  # nobody applies a gate that was passed
    harmless={
        # Words of a report and of prompts: in the plan they are JSON values, in a page they are escaped.
        "spec.workload.description": TEXT,
        "spec.generation.system": TEXT,
        "spec.judge.rubric": TEXT,
        # Compiled by RE2 or read as JSON in the stage's program; what it cannot read is BadData with the field.
        "spec.workload.verifiers[].pattern": TEXT,
        "spec.workload.verifiers[].schemaText": TEXT | {"long"},
        "spec.data.scrub.patterns[].pattern": TEXT,
        # Keys of Secrets and ConfigMaps, which may begin so; rendered as references, never as arguments.
        "spec.data.sources[].configMap.key": {"flag"},
        "spec.teacher.keyRef.key": {"flag"},
        "spec.judge.keyRef.key": {"flag"},
        "spec.store.s3AccessKeyIdRef.key": {"flag"},
        "spec.store.s3SecretAccessKeyRef.key": {"flag"},
        "spec.student.base.tokenSecretRef.key": {"flag"},
        "spec.student.trained.tokenSecretRef.key": {"flag"},
        "spec.promotion.incumbent.tokenSecretRef.key": {"flag"},
    },
    immutable=(*IMMUTABLE, *IMMUTABLE_MORE),
)
KINDS: Final = (TIER, POLICY, JOB)
