"""The routing table: what a policy asks of the router, as frozen types, and every way a table can be wrong.

A table stands alone: its policies name only its own tiers, so that one table's fault or change touches no other. Floats
do not occur: shares and probabilities are permille, times are milliseconds or seconds and say so in their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

FORMAT_VERSION: Final = 1
"""The format this router reads and writes. It reads N-1 too, from the day there is one."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Model = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$")]
Address = Annotated[str, Meta(max_length=300, pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]
HeaderName = Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Word = Annotated[str, Meta(min_length=1, max_length=100)]
Pattern = Annotated[str, Meta(min_length=1, max_length=500)]
Url = Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s?#]+$")]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2}$")]
Version = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Path = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^/")]
Permille = Annotated[int, Meta(ge=0, le=1000)]
Millis = Annotated[int, Meta(ge=1, le=3_600_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Micros = Annotated[int, Meta(ge=0, le=10**15)]


class Part(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True, omit_defaults=True):
    """A piece of a table: immutable, and a field that nobody knows is a fault."""


# --- tiers -----------------------------------------------------------------------------------------------------------


class Timeouts(Part, frozen=True, kw_only=True):
    """How long a step may take, in milliseconds; each is its own."""

    connect_ms: Annotated[Millis, Meta(description="To open a connection.")] = 2_000
    first_byte_ms: Annotated[Millis, Meta(description="From the request sent to the first byte of its reply.")] = (
        120_000
    )
    idle_ms: Annotated[Millis, Meta(description="Between two reads of a reply.")] = 60_000
    total_ms: Annotated[Millis, Meta(description="The whole attempt.")] = 600_000


class Health(Part, frozen=True, kw_only=True):
    """Active health of each address."""

    path: Annotated[Path, Meta(description="What is asked with GET.")] = "/health"
    interval_ms: Annotated[Millis, Meta(description="Between two questions.")] = 5_000
    timeout_ms: Annotated[Millis, Meta(description="How long an answer may take.")] = 2_000
    unhealthy_after: Annotated[int, Meta(ge=1, le=100, description="Failures in a row that take an address out.")] = 2


class Breaker(Part, frozen=True, kw_only=True):
    """When an address is left alone, and for how long."""

    failures: Annotated[int, Meta(ge=1, le=1000, description="Failures in a row that open it.")] = 5
    open_ms: Annotated[Millis, Meta(description="How long it stays open the first time; doubles up to ten times.")] = (
        5_000
    )


class Price(Part, frozen=True, kw_only=True):
    """What a tier's tokens cost, in millionths of the currency unit for a million tokens."""

    input_per_million_micros: Annotated[Micros, Meta(description="For prompt tokens.")] = 0
    output_per_million_micros: Annotated[Micros, Meta(description="For tokens of answers.")] = 0


class Capabilities(Part, frozen=True, kw_only=True):
    """What a tier can take; a request that needs what it cannot is never sent to it."""

    tools: Annotated[bool, Meta(description="Calls tools.")] = True
    images: Annotated[bool, Meta(description="Reads images.")] = False
    audio: Annotated[bool, Meta(description="Reads or speaks audio.")] = False
    json_schema: Annotated[bool, Meta(description="Keeps to a JSON schema.")] = True
    logprobs: Annotated[bool, Meta(description="Returns token logprobs.")] = True
    embeddings: Annotated[bool, Meta(description="Answers /v1/embeddings.")] = False


class External(Part, frozen=True, kw_only=True):
    """An OpenAI-compatible API outside the cluster."""

    base_url: Annotated[
        str,
        Meta(max_length=500, pattern=r"^https?://[^\s@?#]+$", description="Up to and including the version, as /v1."),
    ]
    api_key_file: Annotated[Path | None, Meta(description="A file with the key; read again when it changes.")] = None
    ca_bundle_file: Annotated[Path | None, Meta(description="Certificates to trust instead of the system's.")] = None
    proxy: Annotated[Url | None, Meta(description="A proxy to go through.")] = None
    private: Annotated[bool, Meta(description="Its name may resolve to a private address.")] = False
    headers: Annotated[
        tuple[HeaderName, ...], Meta(max_length=20, description="Headers of the client that are passed on.")
    ] = ()


class Candidate(Part, frozen=True, kw_only=True):
    """A second revision of a tier, beside the first and on addresses of its own, for a share of conversations."""

    revision: Annotated[Name, Meta(description="Names it in records, metrics and x-modeltiers-revision.")]
    beside: Annotated[Name, Meta(description="Names the revision at the tier's own address.")] = "r1"
    address: Annotated[Address, Meta(description="host:port, as the tier's own.")]
    share_permille: Annotated[
        Permille, Meta(description="How many of a thousand conversations it gets, by their draw, while it is ready.")
    ]
    hop: Annotated[bool, Meta(description="Its addresses are routers with this table, as the tier's.")] = False
    local: Annotated[bool, Meta(description="It, and not the first revision, is the engine beside this router.")] = (
        False
    )


class Tier(Part, frozen=True, kw_only=True):
    """A rung of the ladder: one model behind one name, on one or many addresses."""

    name: Annotated[Name, Meta(description="Names the tier in this table, in metrics and in x-modeltiers-tier.")]
    address: Annotated[
        Address | None, Meta(description="host:port; a name may stand for many addresses and is resolved again.")
    ] = None
    external: External | None = None
    candidate: Candidate | None = None
    model: Annotated[Model | None, Meta(description="The name it serves under; the client's when left out.")] = None
    local: Annotated[bool, Meta(description="The engine beside this router; at most one tier.")] = False
    hop: Annotated[bool, Meta(description="Its addresses are routers with this table: hops are signed.")] = False
    outside: Annotated[bool, Meta(description="What is sent to it leaves the cluster.")] = False
    context_tokens: Annotated[Count | None, Meta(description="The longest prompt and answer together.")] = None
    can: Capabilities = Capabilities()
    price: Price = Price()
    concurrency: Annotated[
        int, Meta(ge=1, le=100_000, description="Requests in flight to one address; more wait in the queue.")
    ] = 1024
    keep_alive_ms: Annotated[Millis, Meta(description="How long an idle connection is kept; below the server's.")] = (
        4_000
    )
    timeouts: Timeouts = Timeouts()
    health: Health = Health()
    breaker: Breaker = Breaker()


# --- policies: before the answer --------------------------------------------------------------------------------------


class HeaderMatch(Part, frozen=True, kw_only=True):
    """A header of the request, with one of these values."""

    name: Annotated[HeaderName, Meta(description="In lower case.")]
    values: Annotated[
        tuple[Word, ...], Meta(min_length=1, max_length=50, description="The header is one of these, in full.")
    ]


class MetadataMatch(Part, frozen=True, kw_only=True):
    """An entry of the request's `metadata` object, with one of these values."""

    key: Annotated[Word, Meta(description="Name of the entry.")]
    values: Annotated[
        tuple[Word, ...], Meta(min_length=1, max_length=50, description="The entry is one of these texts, in full.")
    ]


Task = Literal["Chat", "Code", "Math", "Reasoning", "Extraction", "Summary", "Translation", "Writing"]
Modality = Literal["Text", "Image", "Audio"]


class When(Part, frozen=True, kw_only=True):
    """What a rule looks for. Every field that is given must hold; within a list, one is enough."""

    keywords: Annotated[
        tuple[Word, ...], Meta(max_length=200, description="In the last user message, as whole words, case ignored.")
    ] = ()
    patterns: Annotated[
        tuple[Pattern, ...], Meta(max_length=20, description="RE2 patterns searched for in the last user message.")
    ] = ()
    headers: Annotated[tuple[HeaderMatch, ...], Meta(max_length=20)] = ()
    metadata: Annotated[tuple[MetadataMatch, ...], Meta(max_length=20)] = ()
    prompt_chars_at_least: Annotated[Count | None, Meta(description="Characters of all messages together.")] = None
    prompt_chars_at_most: Annotated[Count | None, Meta(description="The same, the most.")] = None
    tools: Annotated[bool | None, Meta(description="Whether the request offers tools.")] = None
    json_mode: Annotated[bool | None, Meta(description="Whether it asks for JSON.")] = None
    modalities: Annotated[
        tuple[Modality, ...], Meta(max_length=3, description="What the prompt holds, or the answer shall be.")
    ] = ()
    tasks: Annotated[tuple[Task, ...], Meta(max_length=8, description="The task type that the features show.")] = ()
    score_at_least_permille: Annotated[Permille | None, Meta(description="The difficulty score.")] = None
    score_at_most_permille: Annotated[Permille | None, Meta(description="The same, the most.")] = None


class Rule(Part, frozen=True, kw_only=True):
    """One line of a policy's rules. They are read in order; the first with `tier` or `Refuse` ends the reading."""

    name: Annotated[Name, Meta(description="Names the rule in records, and in what a refused client is told.")]
    when: When
    action: Annotated[Literal["Route", "Refuse"], Meta(description="Refuse answers 403 with the rule's name.")] = (
        "Route"
    )
    tier: Annotated[Name | None, Meta(description="Send it here and nowhere else but its fallbacks.")] = None
    floor: Annotated[Name | None, Meta(description="No tier below this one; the highest floor of all rules holds.")] = (
        None
    )
    risk: Annotated[
        Literal["Low", "Medium", "High"] | None, Meta(description="The risk class; the highest of all rules holds.")
    ] = None
    inside: Annotated[
        bool, Meta(description="No tier that is `outside`, also not by escalation or fallback; put such rules first.")
    ] = False


class RiskFloor(Part, frozen=True, kw_only=True):
    """What a risk class demands."""

    risk: Annotated[Literal["Medium", "High"], Meta(description="This class and those above it.")]
    floor: Annotated[Name | None, Meta(description="No tier below this one.")] = None
    action: Annotated[Literal["Route", "Refuse"], Meta(description="Refuse answers 403.")] = "Route"


class Score(Part, frozen=True, kw_only=True):
    """How the difficulty score chooses, in Upfront and Hybrid."""

    threshold_permille: Annotated[Permille, Meta(description="At or above it: the next tier up.")] = 500
    strong_share_permille: Annotated[
        Permille | None, Meta(description="Hold this share of traffic above the entry tier by moving the threshold.")
    ] = None
    unclear_permille: Annotated[
        Permille, Meta(description="Hybrid: this far to each side of the threshold the cascade decides.")
    ] = 150


class Canary(Part, frozen=True, kw_only=True):
    """A share of conversations that enters at another tier."""

    tier: Annotated[Name, Meta(description="Where they enter.")]
    share_permille: Annotated[Permille, Meta(description="How many of a thousand conversations, by their draw.")]


class Session(Part, frozen=True, kw_only=True):
    """Keep a conversation on the tier that it was given."""

    header: Annotated[HeaderName, Meta(description="Names the conversation; else the body's `user`.")] = "x-session-id"
    ttl_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="How long a conversation is remembered after its last request.")
    ] = 600
    lock_tool_loops: Annotated[
        bool, Meta(description="While tool results come back, stay on the tier that called the tools.")
    ] = True


class Override(Part, frozen=True, kw_only=True):
    """Tiers that a client may ask for by the header x-modeltiers-tier; never below a floor."""

    tiers: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=10, description="Those that may be asked for.")]


# --- policies: after the answer ---------------------------------------------------------------------------------------


class Confidence(Part, frozen=True, kw_only=True):
    """Token logprobs of the answer, as features. Absent: not looked at and not asked for."""

    quantile_permille: Annotated[Permille, Meta(description="Which quantile of the token logprobs counts.")] = 100
    top: Annotated[int, Meta(ge=0, le=5, description="Alternatives asked for at each token: margin and entropy.")] = 2
    thinking: Annotated[bool, Meta(description="Whether the thinking part counts too.")] = False
    missing: Annotated[
        Literal["Escalate", "Ignore"], Meta(description="When the tier returned none: a condition, never a zero.")
    ] = "Escalate"


class Validator(Part, frozen=True, kw_only=True):
    """One check of the answer. `required` ones must pass; the others lower the probability by their weight."""

    name: Annotated[Name, Meta(description="Names the check in records.")]
    kind: Annotated[
        Literal[
            "JSONSchema", "ToolArguments", "Pattern", "NumericAnswer", "Form", "Language", "Length", "Refusal", "Finish"
        ],
        Meta(description="What is checked."),
    ]
    required: Annotated[bool, Meta(description="A failure refuses the answer, whatever its probability.")] = False
    weight_permille: Annotated[Permille, Meta(description="How much of the odds a failure takes.")] = 500
    patterns: Annotated[
        tuple[Pattern, ...], Meta(max_length=20, description="Pattern: one must be found in the answer.")
    ] = ()
    absent: Annotated[bool, Meta(description="Pattern: none may be found instead.")] = False
    form: Annotated[
        Literal["JSON", "List", "Table", "Code", "YesNo", "Choice", "Number"] | None,
        Meta(description="Form: what the answer must be or hold."),
    ] = None
    language: Annotated[Language | None, Meta(description="ISO 639-1; the prompt's when left out.")] = None
    min_chars: Annotated[Count | None, Meta(description="Length: the shortest answer.")] = None
    max_chars: Annotated[Count | None, Meta(description="Length: the longest answer.")] = None
    schema: Annotated[
        dict[str, Any] | None, Meta(description="JSONSchema: this schema; the request's response_format when left out.")
    ] = None
    deadline_ms: Annotated[int, Meta(ge=1, le=5_000, description="For a check in a worker process.")] = 250


class Accept(Part, frozen=True, kw_only=True):
    """When the answer of a tier below the top is good enough."""

    threshold_permille: Annotated[Permille, Meta(description="The least probability that it is good enough.")] = 600
    prior_permille: Annotated[
        Annotated[int, Meta(ge=1, le=999)], Meta(description="The probability before anything is seen.")
    ] = 800
    confidence: Confidence | None = None
    validators: Annotated[tuple[Validator, ...], Meta(max_length=20)] = ()


class Stream(Part, frozen=True, kw_only=True):
    """What a streaming client sees while the answer is still being judged. After the commit nothing switches."""

    hold: Annotated[
        Literal["Window", "Whole", "Flag"],
        Meta(description="Window: hold some tokens; Whole: hold the answer; Flag: commit at once, say it afterwards."),
    ] = "Window"
    window_tokens: Annotated[int, Meta(ge=1, le=4096, description="How many tokens are held with Window.")] = 24
    window_ms: Annotated[Millis, Meta(description="The longest a token is held with Window.")] = 1_500
    max_hold_bytes: Annotated[int, Meta(ge=1024, le=16_777_216, description="The most of an answer that is held.")] = (
        1_048_576
    )


class Escalation(Part, frozen=True, kw_only=True):
    """How much may go up the ladder after an answer was found wanting; beyond it, the answer at hand is given."""

    max_share_permille: Annotated[
        Permille, Meta(description="Of all requests of late; at or above it none is judged.")
    ] = 500
    max_calls: Annotated[int, Meta(ge=1, le=10, description="Calls to tiers for one request, the first included.")] = 3


class Fallback(Part, frozen=True, kw_only=True):
    """What happens when a tier cannot answer, before the first byte of an answer."""

    on: Annotated[
        tuple[Literal["Connect", "Timeout", "429", "500", "502", "503", "504", "Broken"], ...],
        Meta(max_length=8, description="Failures after which the next tier is asked."),
    ] = ("Connect", "Timeout", "429", "500", "502", "503", "504", "Broken")
    down: Annotated[bool, Meta(description="Also to a lower tier, when no higher one is left.")] = False
    retry_share_permille: Annotated[
        Permille, Meta(description="Retries on the same tier, as a share of its requests.")
    ] = 100


class Limits(Part, frozen=True, kw_only=True):
    """What a policy or a key may use; a limit left out is none."""

    requests_per_minute: Annotated[Count | None, Meta(description="Requests that are taken.")] = None
    tokens_per_minute: Annotated[Count | None, Meta(description="Tokens of prompts and answers together.")] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None, Meta(description="Requests in flight; more wait.")
    ] = None
    queue: Annotated[int, Meta(ge=0, le=100_000, description="How many may wait; 429 beyond it.")] = 256
    queue_ms: Annotated[Millis, Meta(description="The longest wait; 429 after it.")] = 10_000


class Clamp(Part, frozen=True, kw_only=True):
    """The most a request may ask for. More is lowered, or refused where lowering would change its meaning."""

    n: Annotated[
        int,
        Meta(
            ge=1,
            le=128,
            description="Answers to one request: `n` or `best_of`, times the prompts of a list. More is refused.",
        ),
    ] = 8
    max_tokens: Annotated[Count, Meta(description="Also set when the request leaves it open.")] | None = None
    logprobs: Annotated[
        int, Meta(ge=0, le=20, description="Alternatives at each token, of the answer or the prompt.")
    ] = 20
    stop: Annotated[int, Meta(ge=0, le=64, description="Entries in `stop`.")] = 16
    action: Annotated[
        Literal["Lower", "Refuse"], Meta(description="What is done with a number that can be lowered.")
    ] = "Lower"


class Access(Part, frozen=True, kw_only=True):
    """Who may ask."""

    mode: Annotated[Literal["Open", "Keys"], Meta(description="Keys: only with a key of the key file.")] = "Open"
    keys: Annotated[
        tuple[Name, ...], Meta(max_length=1000, description="Names of keys in the key file; every key when left out.")
    ] = ()


class Policy(Part, frozen=True, kw_only=True):
    """How requests for one model name meet the tiers."""

    name: Annotated[Name, Meta(description="Names the policy in metrics and records.")]
    model: Annotated[Model, Meta(description="The name that clients ask for; unique among all tables.")]
    tiers: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=10, description="The ladder, cheapest first.")]
    mode: Annotated[
        Literal["Upfront", "Cascade", "Hybrid"],
        Meta(description="When it chooses: before, after an answer, or after one where the score is unclear."),
    ] = "Upfront"
    access: Access = Access()
    rules: Annotated[tuple[Rule, ...], Meta(max_length=100)] = ()
    risks: Annotated[tuple[RiskFloor, ...], Meta(max_length=2)] = ()
    score: Score | None = None
    canary: Canary | None = None
    session: Session | None = None
    override: Override | None = None
    accept: Accept = Accept()
    stream: Stream = Stream()
    escalation: Escalation = Escalation()
    fallback: Fallback = Fallback()
    limits: Limits = Limits()
    key_limits: Annotated[Limits, Meta(description="For each key by itself.")] = Limits()
    clamp: Clamp = Clamp()
    media_hosts: Annotated[
        tuple[Word, ...],
        Meta(max_length=50, description="Hosts that media URLs in prompts may name; data URLs always may."),
    ] = ()


class Table(Part, frozen=True, kw_only=True):
    """One table file."""

    format_version: Annotated[Literal[1], Meta(description="The format of this table.")]
    tiers: Annotated[tuple[Tier, ...], Meta(min_length=1, max_length=50)]
    policies: Annotated[tuple[Policy, ...], Meta(min_length=1, max_length=50)]
    version: Annotated[Version | None, Meta(description="The hash of the content when left out.")] = None


# --- reading and judging a table --------------------------------------------------------------------------------------


class Fault(Struct, frozen=True):
    """What is wrong in a table, where, and the way out."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class InvalidTable(ValueError):
    """A table that cannot be used; says every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def read_table(document: Any) -> Table:
    """Return the table in a decoded YAML or JSON document; raises InvalidTable."""
    if isinstance(document, dict) and document.get("formatVersion") != FORMAT_VERSION:
        said = document.get("formatVersion", "nothing")
        raise InvalidTable([Fault("$.formatVersion", f"this router reads {FORMAT_VERSION}, the table says {said!r}")])
    try:
        table = msgspec.convert(document, Table)
    except msgspec.ValidationError as error:
        problem, where, path = str(error).rpartition(" - at `")
        raise InvalidTable([Fault(path.rstrip("`") if where else "$", problem or str(error))]) from None
    if found := faults(table):
        raise InvalidTable(found)
    return table


def faults(table: Table) -> list[Fault]:
    """Return what is wrong beyond the types: names that lead nowhere, unions, duplicates."""
    names = [tier.name for tier in table.tiers]
    found = _repeated("$.tiers", names) + _repeated("$.policies", [policy.name for policy in table.policies])
    found += _repeated("$.policies", [policy.model for policy in table.policies], "model")
    if sum(tier.local for tier in table.tiers) > 1:
        found.append(Fault("$.tiers", "more than one tier is local; a router stands beside one engine"))
    for index, tier in enumerate(table.tiers):
        found += _tier_faults(f"$.tiers[{index}]", tier)
    for index, policy in enumerate(table.policies):
        found += _policy_faults(f"$.policies[{index}]", policy, set(names))
    return found


def _repeated(path: str, values: Sequence[str], field: str = "name") -> list[Fault]:
    twice = sorted({value for value in values if values.count(value) > 1})
    return [Fault(path, f"{field} {value!r} is given more than once; each needs its own") for value in twice]


def _tier_faults(path: str, tier: Tier) -> list[Fault]:
    found = []
    if (tier.address is None) == (tier.external is None):
        found.append(Fault(path, "give either address or external, one of them"))
    if tier.address and not 0 < int(tier.address.rpartition(":")[2]) < 65_536:
        found.append(Fault(f"{path}.address", "the port lies between 1 and 65535"))
    if tier.candidate and tier.external:
        found.append(Fault(f"{path}.candidate", "an external tier has no revisions; drop it"))
    if tier.candidate and tier.candidate.revision == tier.candidate.beside:
        found.append(Fault(f"{path}.candidate.revision", "both revisions have one name; give each its own"))
    if tier.candidate and not 0 < int(tier.candidate.address.rpartition(":")[2]) < 65_536:
        found.append(Fault(f"{path}.candidate.address", "the port lies between 1 and 65535"))
    if tier.external and (tier.local or tier.hop):
        found.append(Fault(path, "an external tier is neither local nor hop; drop them"))
    return found


def _policy_faults(path: str, policy: Policy, names: set[str]) -> list[Fault]:
    found = _repeated(f"{path}.tiers", policy.tiers)
    found += [
        Fault(f"{path}.tiers[{i}]", f"there is no tier {n!r}; the table has {', '.join(sorted(names))}")
        for i, n in enumerate(policy.tiers)
        if n not in names
    ]
    found += _repeated(f"{path}.rules", [rule.name for rule in policy.rules])
    found += _repeated(f"{path}.accept.validators", [check.name for check in policy.accept.validators])
    for where, name in _named_tiers(policy):
        if name is not None and name not in policy.tiers:
            known = ", ".join(policy.tiers)
            found.append(Fault(f"{path}.{where}", f"{name!r} is not on this policy's ladder ({known})"))
    for index, rule in enumerate(policy.rules):
        found += _rule_faults(f"{path}.rules[{index}]", rule)
    for index, check in enumerate(policy.accept.validators):
        found += _validator_faults(f"{path}.accept.validators[{index}]", check)
    if policy.access.keys and policy.access.mode == "Open":
        found.append(Fault(f"{path}.access.keys", "keys are named but the mode is Open; say mode: Keys"))
    return found


def _named_tiers(policy: Policy) -> list[tuple[str, str | None]]:
    """Return every place of a policy that names a tier of its ladder."""
    places: list[tuple[str, str | None]] = []
    for index, rule in enumerate(policy.rules):
        places += [(f"rules[{index}].tier", rule.tier), (f"rules[{index}].floor", rule.floor)]
    places += [(f"risks[{index}].floor", risk.floor) for index, risk in enumerate(policy.risks)]
    if policy.canary:
        places.append(("canary.tier", policy.canary.tier))
    if policy.override:
        places += [(f"override.tiers[{index}]", name) for index, name in enumerate(policy.override.tiers)]
    return places


def _rule_faults(path: str, rule: Rule) -> list[Fault]:
    found = []
    if rule.when == When():
        found.append(Fault(f"{path}.when", "matches every request; say at least one thing it looks for"))
    if rule.action == "Refuse" and (rule.tier or rule.floor):
        found.append(Fault(path, "a rule that refuses has no tier and no floor"))
    if rule.action == "Route" and not (rule.tier or rule.floor or rule.risk or rule.inside):
        found.append(Fault(path, "does nothing; give tier, floor, risk or inside, or action: Refuse"))
    low, high = rule.when.prompt_chars_at_least, rule.when.prompt_chars_at_most
    if low is not None and high is not None and low > high:
        found.append(Fault(f"{path}.when", f"no prompt has at least {low} and at most {high} characters"))
    least, most = rule.when.score_at_least_permille, rule.when.score_at_most_permille
    if least is not None and most is not None and least > most:
        found.append(Fault(f"{path}.when", f"no score is at least {least} and at most {most} permille"))
    return found


def _validator_faults(path: str, check: Validator) -> list[Fault]:
    found = []
    if (check.kind == "Pattern") != bool(check.patterns):
        found.append(Fault(f"{path}.patterns", "kind Pattern needs patterns, and no other kind has them"))
    if (check.kind == "Form") != (check.form is not None):
        found.append(Fault(f"{path}.form", "kind Form needs form, and no other kind has it"))
    if check.kind == "Length" and check.min_chars is None and check.max_chars is None:
        found.append(Fault(path, "kind Length needs minChars or maxChars"))
    if check.schema is not None and check.kind != "JSONSchema":
        found.append(Fault(f"{path}.schema", "only kind JSONSchema has a schema"))
    return found
