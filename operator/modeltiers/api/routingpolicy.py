"""RoutingPolicy: how requests for one model name meet the tiers of this namespace, before and after an answer.

It says what the router's table says (domain/routing/table.py), in the forms of Kubernetes: durations are text, enum
values are words, its bounds are smaller where the table's largest would not fit into one object, and the table's `on`
and `n`, which YAML takes for booleans, have other names. The table is compiled from it by `domain/policy_table.py`.
Status models live in `routingpolicy_status`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from modeltiers.api.base import Model, Rule, cel, distinct, listed_by
from modeltiers.api.fields import Name, ObjectName
from modeltiers.api.routingpolicy_status import RoutingPolicyStatus

TierName = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
HeaderName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
HostName = Annotated[
    str,
    Field(max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
Word = Annotated[str, Field(min_length=1, max_length=64)]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Permille = Annotated[int, Field(ge=0, le=1000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Duration = Annotated[
    str,
    Field(
        min_length=2,
        max_length=9,
        pattern=r"^[1-9][0-9]{0,6}(ms|s|m|h)$",
        json_schema_extra=cel(Rule("duration(self) <= duration('1h')", "must be at most 1h")),
    ),
]
"""A whole number and one unit, up to an hour."""


class Timeouts(Model):
    """How long each step of an attempt at a tier may take."""

    connect: Duration = "2s"
    """To open a connection."""
    first_byte: Duration = "120s"
    """From the request sent to the first byte of its reply."""
    idle: Duration = "60s"
    """Between two reads of a reply."""
    total: Duration = "600s"
    """The whole attempt."""


class PolicyTier(Model):
    """A rung of this policy's ladder."""

    name: TierName
    """Name of a ModelTier of this namespace."""
    timeouts: Timeouts | None = None
    """How long its steps may take before the next tier is asked."""
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    """Requests in flight to one of its pods; more wait in the queue. 1024 when left out."""


class HeaderMatch(Model):
    """A header of the request, with one of these values."""

    name: HeaderName
    """Name of the header, in lower case."""
    values: list[Word] = Field(min_length=1, max_length=8, json_schema_extra=distinct())
    """The header is one of these, in full."""


class MetadataMatch(Model):
    """An entry of the request's `metadata` object, with one of these values."""

    key: Word
    """Name of the entry."""
    values: list[Word] = Field(min_length=1, max_length=8, json_schema_extra=distinct())
    """The entry is one of these texts, in full."""


def _said(*fields: str) -> str:
    """CEL: one of these fields is given; an empty list says nothing."""
    lists = ("keywords", "patterns", "headers", "metadata", "modalities", "tasks")
    return " || ".join(
        f"(has(self.{one}) && size(self.{one}) > 0)" if one in lists else f"has(self.{one})" for one in fields
    )


Task = Literal["Chat", "Code", "Math", "Reasoning", "Extraction", "Summary", "Translation", "Writing"]
Modality = Literal["Text", "Image", "Audio"]


class When(Model):
    """What a rule looks for. Every field that is given must hold; within a list, one entry is enough."""

    keywords: list[Word] = Field(default=[], max_length=50, json_schema_extra=distinct())
    """Words or phrases in the last user message, as whole words, case ignored."""
    patterns: list[Pattern] = Field(default=[], max_length=6, json_schema_extra=distinct())
    """RE2 patterns searched for in the last user message."""
    headers: list[HeaderMatch] = Field(default=[], max_length=4, json_schema_extra=listed_by("name"))
    """Headers of the request; all of them must match."""
    metadata: list[MetadataMatch] = Field(default=[], max_length=4, json_schema_extra=listed_by("key"))
    """Entries of the request's `metadata`; all of them must match."""
    prompt_chars_at_least: Count | None = None
    """Fewest characters of all messages together."""
    prompt_chars_at_most: Count | None = None
    """Most characters of all messages together."""
    tools: bool | None = None
    """Whether the request offers tools."""
    json_mode: bool | None = None
    """Whether it asks for JSON."""
    modalities: list[Modality] = Field(default=[], max_length=3, json_schema_extra=distinct())
    """What the prompt holds, or the answer shall be."""
    tasks: list[Task] = Field(default=[], max_length=8, json_schema_extra=distinct())
    """The task type that the features show."""
    score_at_least_permille: Permille | None = None
    """Lowest difficulty score."""
    score_at_most_permille: Permille | None = None
    """Highest difficulty score."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            _said(
                *("keywords", "patterns", "headers", "metadata", "modalities", "tasks", "tools", "jsonMode"),
                *("promptCharsAtLeast", "promptCharsAtMost", "scoreAtLeastPermille", "scoreAtMostPermille"),
            ),
            "when matches every request: say at least one thing that the rule looks for",
        ),
        Rule(
            "!has(self.promptCharsAtLeast) || !has(self.promptCharsAtMost)"
            " || self.promptCharsAtLeast <= self.promptCharsAtMost",
            "promptCharsAtLeast is above promptCharsAtMost, which no prompt can be: swap or remove one",
        ),
        Rule(
            "!has(self.scoreAtLeastPermille) || !has(self.scoreAtMostPermille)"
            " || self.scoreAtLeastPermille <= self.scoreAtMostPermille",
            "scoreAtLeastPermille is above scoreAtMostPermille, which no score can be: swap or remove one",
        ),
    )


class Classifier(Model):
    """One rule. Rules are read in order; the first that holds with `tier` or `action: Refuse` ends the reading."""

    name: Name
    """Names the rule in records, and in what a refused client is told."""
    when: When
    """What it looks for."""
    action: Literal["Route", "Refuse"] = "Route"
    """Refuse answers 403 with the rule's name."""
    tier: TierName | None = None
    """Send it to this tier and nowhere else but its fallbacks."""
    floor: TierName | None = None
    """No tier below this one; the highest floor of all rules holds."""
    risk: Literal["Low", "Medium", "High"] | None = None
    """The risk class; the highest of all rules holds."""
    data_class: Literal["NeverLeavesCluster"] | None = None
    """The request goes to no tier outside this cluster, also when it escalates or falls back. Such rules are read
    before all others."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.action) || self.action != 'Refuse' || !(has(self.tier) || has(self.floor))",
            "a rule with action Refuse has no tier and no floor: remove them, or use action Route",
        ),
        Rule(
            "(has(self.action) && self.action == 'Refuse') || has(self.tier) || has(self.floor) || has(self.risk)"
            " || has(self.dataClass)",
            "the rule does nothing: give tier, floor, risk or dataClass, or action: Refuse",
        ),
        Rule(
            "!has(self.dataClass) || !(has(self.tier) || (has(self.action) && self.action == 'Refuse'))",
            "a rule with dataClass is read before all others and must not end the reading: say tier or Refuse in"
            " another rule",
        ),
    )


class RiskDemand(Model):
    """What a risk class demands."""

    risk: Literal["Medium", "High"]
    """This class and those above it."""
    floor: TierName | None = None
    """No tier below this one."""
    action: Literal["Route", "Refuse"] = "Route"
    """Refuse answers 403."""


class Score(Model):
    """How the difficulty score chooses, in modes Upfront and Hybrid."""

    threshold_permille: Permille = 500
    """At or above it: the next tier up."""
    strong_share_permille: Permille | None = None
    """Hold this share of traffic above the entry tier by moving the threshold."""
    unclear_permille: Permille = 150
    """Hybrid: this far to each side of the threshold the cascade decides."""


class Canary(Model):
    """A share of conversations that enters at another tier."""

    tier: TierName
    """Where they enter."""
    share_permille: Permille
    """How many of a thousand conversations."""


class Session(Model):
    """Keep a conversation on the tier that it was given."""

    header: HeaderName = "x-session-id"
    """Header that names the conversation; without it the body's `user` does."""
    ttl: str = Field(
        default="10m",
        min_length=2,
        max_length=9,
        pattern=r"^[1-9][0-9]{0,5}(s|m|h)$",
        json_schema_extra=cel(Rule("duration(self) <= duration('24h')", "must be at most 24h")),
    )
    """How long a conversation is remembered after its last request."""
    lock_tool_loops: bool = True
    """While tool results come back, stay on the tier that called the tools."""


class Override(Model):
    """Tiers that a client may ask for by the header x-modeltiers-tier; never below a floor."""

    tiers: list[TierName] = Field(min_length=1, max_length=10, json_schema_extra=distinct())
    """Those that may be asked for."""


class ThresholdFrom(Model):
    """Where the acceptance threshold comes from."""

    distill_job: Name
    """DistillJob of this namespace: what it calibrated for its student counts while the student serves, else
    `thresholdPermille`."""


class Confidence(Model):
    """Token logprobs of the answer, as features."""

    quantile_permille: Permille = 100
    """Which quantile of the token logprobs counts."""
    top: int = Field(default=2, ge=0, le=5)
    """Alternatives asked for at each token, for margin and entropy."""
    thinking: bool = False
    """Whether the thinking part counts too."""
    missing: Literal["Escalate", "Ignore"] = "Escalate"
    """What to do when the tier returned none."""
    threshold_from: ThresholdFrom | None = None
    """Take the threshold that goes live, and back, with a student. Only with the default quantilePermille, top,
    thinking and priorPermille, which it was calibrated with."""


class Validator(Model):
    """One check of an answer. Required ones must pass; the others lower the probability by their weight."""

    name: Name
    """Names the check in records."""
    kind: Literal[
        "JSONSchema", "ToolArguments", "Pattern", "NumericAnswer", "Form", "Language", "Length", "Refusal", "Finish"
    ]
    """What is checked."""
    required: bool = False
    """A failure refuses the answer, whatever its probability."""
    weight_permille: Permille = 500
    """How much of the odds a failure takes."""
    patterns: list[Pattern] = Field(default=[], max_length=6, json_schema_extra=distinct())
    """Pattern: one must be found in the answer. RE2."""
    absent: bool = False
    """Pattern: none may be found instead."""
    form: Literal["JSON", "List", "Table", "Code", "YesNo", "Choice", "Number"] | None = None
    """Form: what the answer must be or hold."""
    language: str | None = Field(default=None, min_length=2, max_length=2, pattern=r"^[a-z]{2}$")
    """Language: ISO 639-1 code; the prompt's language when left out."""
    min_chars: Count | None = None
    """Length: the shortest answer."""
    max_chars: Count | None = None
    """Length: the longest answer."""
    json_schema: str | None = Field(default=None, min_length=2, max_length=8192)
    """JSONSchema: the schema as JSON text; the request's response_format when left out."""
    deadline: str = Field(
        default="250ms",
        min_length=2,
        max_length=6,
        pattern=r"^[1-9][0-9]{0,3}(ms|s)$",
        json_schema_extra=cel(Rule("duration(self) <= duration('5s')", "must be at most 5s")),
    )
    """How long a check in a worker process may take."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.kind == 'Pattern') == (has(self.patterns) && size(self.patterns) > 0)",
            "kind Pattern needs patterns, and no other kind has them",
        ),
        Rule("(self.kind == 'Form') == has(self.form)", "kind Form needs form, and no other kind has it"),
        Rule(
            "self.kind != 'Length' || has(self.minChars) || has(self.maxChars)",
            "kind Length needs minChars or maxChars",
        ),
        Rule(
            "!has(self.minChars) || !has(self.maxChars) || self.minChars <= self.maxChars",
            "minChars is above maxChars, which no answer can be: swap or remove one",
        ),
        Rule("!has(self.jsonSchema) || self.kind == 'JSONSchema'", "only kind JSONSchema has jsonSchema: remove it"),
    )


class Accept(Model):
    """When the answer of a tier below the top is good enough, in modes Cascade and Hybrid."""

    threshold_permille: Permille = 600
    """The least probability that it is good enough."""
    prior_permille: int = Field(default=800, ge=1, le=999)
    """The probability before anything is seen."""
    confidence: Confidence | None = None
    """Look at token logprobs. Left out: they are not looked at and not asked for."""
    validators: list[Validator] = Field(default=[], max_length=16, json_schema_extra=listed_by("name"))
    """Checks of the answer."""


class Stream(Model):
    """What a streaming client sees while the answer is still being judged. After the first byte nothing switches."""

    hold: Literal["Window", "Whole", "Flag"] = "Window"
    """Window holds some tokens, Whole holds the answer, Flag sends at once and says it afterwards."""
    window_tokens: int = Field(default=24, ge=1, le=4096)
    """How many tokens are held with Window."""
    window: Duration = "1500ms"
    """The longest a token is held with Window."""
    max_hold_bytes: int = Field(default=1_048_576, ge=1024, le=16_777_216)
    """The most of an answer that is held."""


class Escalation(Model):
    """How much may go up the ladder after an answer was found wanting; beyond it, the answer at hand is given."""

    max_share_permille: Permille = 500
    """Share of all requests of late; at or above it no answer is judged."""
    max_calls: int = Field(default=3, ge=1, le=10)
    """Calls to tiers for one request, the first included."""


Failure = Literal["Connect", "Timeout", "Status429", "Status500", "Status502", "Status503", "Status504", "Broken"]


class Fallback(Model):
    """What happens when a tier cannot answer, before the first byte of an answer."""

    failures: list[Failure] | None = Field(default=None, max_length=8, json_schema_extra=distinct())
    """Failures after which the next tier is asked. Left out: all of them; an empty list: none."""
    down: bool = False
    """Also to a lower tier, when no higher one is left."""
    retry_share_permille: Permille = 100
    """Retries on the same tier, as a share of its requests."""


class RequestLimits(Model):
    """What a policy or a key may use; a limit left out is none."""

    requests_per_minute: Count | None = None
    """Requests that are taken in a minute."""
    tokens_per_minute: Count | None = None
    """Tokens of prompts and answers together, in a minute."""
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    """Requests in flight; more wait."""
    queue: int = Field(default=256, ge=0, le=100_000)
    """How many may wait; 429 beyond it."""
    queue_time: Duration = "10s"
    """The longest wait; 429 after it."""


class Clamp(Model):
    """The most a request may ask for. More is lowered, or refused where lowering would change its meaning."""

    choices: int = Field(default=8, ge=1, le=128)
    """Answers to one request: `n` or `best_of`, times the prompts of a list. More is refused."""
    max_tokens: Count | None = None
    """Longest answer in tokens. Also set when the request leaves it open."""
    logprobs: int = Field(default=20, ge=0, le=20)
    """Alternatives at each token, of the answer or the prompt."""
    stop: int = Field(default=16, ge=0, le=64)
    """Entries in `stop`."""
    action: Literal["Lower", "Refuse"] = "Lower"
    """What is done with a number that can be lowered."""


class Access(Model):
    """Who may ask."""

    mode: Literal["Open", "Keys"] = "Open"
    """Keys: only with a key of the namespace's Secret of client keys."""
    keys: list[Name] = Field(default=[], max_length=200, json_schema_extra=distinct())
    """Names of keys in that Secret; every key of it when left out."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.keys) || size(self.keys) == 0 || self.mode == 'Keys'",
            "keys are named but everybody may ask: set mode: Keys, or remove keys",
        ),
    )


class Gateway(Model):
    """How many routers a policy with placement Gateway has."""

    min_replicas: int = Field(default=2, ge=1, le=100)
    """Fewest routers."""
    max_replicas: int = Field(default=6, ge=1, le=100)
    """Most routers."""
    cpu_percent: int = Field(default=70, ge=10, le=100)
    """CPU use, in percent of the request, that the autoscaler aims at."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas is above maxReplicas: raise maxReplicas"),
    )


class EndpointPicker(Model):
    """Who picks a pod for each request: an endpoint picker of Gateway API's Inference Extension, which you run."""

    name: ObjectName
    """Name of its Service, in this namespace."""
    port: int = Field(default=9002, ge=1, le=65_535)
    """Port at which it is asked."""


class Export(Model):
    """How clients outside the cluster reach the policy: an HTTPRoute of Gateway API."""

    gateway: Name
    """One of the gateways that the administrator's settings name."""
    hostnames: list[HostName] = Field(min_length=1, max_length=16, json_schema_extra=distinct())
    """Host names that lead to this policy, `*.` for every name below a domain. No two policies share one."""
    endpoint_picker: EndpointPicker | None = None
    """Lead the route to an InferencePool of the routers where requests enter, whose pods this one picks by their load.
    Left out: to the policy's Service."""


def _on_the_ladder(where: str, path: str) -> Rule:
    """A rule over the spec: `where`, true when every name it sees is on the ladder; `path` is for the message."""
    return Rule(where, f"{path} names a tier that is not in spec.tiers: add it there, or name one of them")


class RoutingPolicySpec(Model):
    """What you want: a model name, the ladder of tiers behind it, and how requests go up."""

    model: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")
    """The name that clients ask for. One policy of a namespace has it: with two, the older one keeps it."""
    tiers: list[PolicyTier] = Field(min_length=1, max_length=10, json_schema_extra=listed_by("name"))
    """The ladder, cheapest first. The first is where requests enter."""
    mode: Literal["Upfront", "Cascade", "Hybrid"] = "Upfront"
    """When the tier is chosen: before the answer, after one was judged, or after one where the score is unclear."""
    placement: Literal["Sidecar", "Gateway"] = "Sidecar"
    """Sidecar: the routers in the pods of the entry tier take the requests. Gateway: routers of the policy's own do,
    which a ladder that begins at an external tier needs."""
    gateway: Gateway | None = None
    """How many routers a Gateway has."""
    access: Access | None = None
    """Who may ask; everybody when left out."""
    classify: list[Classifier] = Field(default=[], max_length=64, json_schema_extra=listed_by("name"))
    """Rules about requests, in order."""
    risks: list[RiskDemand] = Field(default=[], max_length=2, json_schema_extra=listed_by("risk"))
    """What risk classes demand."""
    data_class: Literal["Any", "NeverLeavesCluster"] = "Any"
    """NeverLeavesCluster: no tier of the ladder may be outside this cluster."""
    score: Score | None = None
    """Let the difficulty score choose."""
    canary: Canary | None = None
    """Let a share of conversations enter at another tier."""
    session: Session | None = None
    """Keep conversations on the tier that they were given."""
    override: Override | None = None
    """Let clients ask for a tier."""
    accept: Accept | None = None
    """When an answer is good enough."""
    stream: Stream | None = None
    """What streaming clients see of an answer that is judged."""
    escalation: Escalation | None = None
    """How much may go up the ladder."""
    fallback: Fallback | None = None
    """What happens when a tier cannot answer."""
    limits: RequestLimits | None = None
    """What all clients together may use, for each router by itself."""
    key_limits: RequestLimits | None = None
    """What each key may use, for each router by itself."""
    clamp: Clamp | None = None
    """What one request may ask for."""
    media_hosts: list[Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]] = Field(
        default=[], max_length=50, json_schema_extra=distinct()
    )
    """Hosts that media URLs in prompts may name; data URLs always may."""

    export: Export | None = None
    """Let clients outside the cluster reach the policy through a gateway."""

    __cel__: ClassVar[tuple[Rule, ...]] = (
        _on_the_ladder(
            "!has(self.classify) || self.classify.all(rule, !has(rule.tier)"
            " || self.tiers.exists(tier, tier.name == rule.tier))",
            "tier of a rule in spec.classify",
        ),
        _on_the_ladder(
            "!has(self.classify) || self.classify.all(rule, !has(rule.floor)"
            " || self.tiers.exists(tier, tier.name == rule.floor))",
            "floor of a rule in spec.classify",
        ),
        _on_the_ladder(
            "!has(self.risks) || self.risks.all(risk, !has(risk.floor)"
            " || self.tiers.exists(tier, tier.name == risk.floor))",
            "floor in spec.risks",
        ),
        _on_the_ladder(
            "!has(self.canary) || self.tiers.exists(tier, tier.name == self.canary.tier)", "spec.canary.tier"
        ),
        _on_the_ladder(
            "!has(self.override) || self.override.tiers.all(name, self.tiers.exists(tier, tier.name == name))",
            "spec.override.tiers",
        ),
        Rule(
            "!has(self.gateway) || self.placement == 'Gateway'",
            "gateway needs placement: Gateway, which has routers of its own: set it, or remove gateway",
        ),
    )


class RoutingPolicy(Model):
    """How requests for one model name meet tiers: which answers, whose answer is judged, what happens on failure."""

    api_version: Literal["modeltiers.dev/v1alpha1"]
    kind: Literal["RoutingPolicy"]
    metadata: dict[str, Any]
    spec: RoutingPolicySpec
    status: RoutingPolicyStatus | None = None

    __cel__: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be at most 50 lower-case letters, digits and '-', beginning with a letter:"
            " Services and labels are named after it",
        ),
        Rule(
            "!self.metadata.name.startsWith('direct-')",
            "metadata.name must not begin with 'direct-': tables of tiers that answer without a policy are named so",
        ),
    )
