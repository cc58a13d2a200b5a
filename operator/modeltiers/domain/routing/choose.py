"""Chooses the tier that answers, before anything was generated. Pure and total: same policy, ask and load, same choice.

In this order: a refusal; what tiers can take; the floor; the lock of a tool loop; the client's override; a rule's tier;
the canary; the conversation's tier; the score or the mode. Then what is ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from modeltiers.domain.routing import revisions
from modeltiers.domain.routing.ask import Ask
from modeltiers.domain.routing.rules import WHAT, CompiledPolicy, abilities, compile_policy, needs
from modeltiers.domain.routing.see import DRAWS
from modeltiers.domain.routing.table import Rule, Tier

__all__ = [
    "DRAWS",
    "REASONS",
    "Choice",
    "CompiledPolicy",
    "Load",
    "Reason",
    "Skip",
    "choose",
    "compile_policy",
    "takes",
]

Reason = Literal[
    "Rule",
    "Risk",
    "Floor",
    "Capability",
    "ContextFit",
    "DataClass",
    "Embeddings",
    "ToolLoop",
    "Override",
    "Canary",
    "Sticky",
    "EntryTier",
    "ScoreLow",
    "ScoreHigh",
    "ScoreUnclear",
    "NSeveral",
    "EscalationCap",
    "Saturated",
    "NotReady",
    "Hop",
]
"""Why the first tier is the first. A closed set: a label of metrics, and the header x-modeltiers-reason."""
REASONS: Final[Mapping[Reason, str]] = {
    "Rule": "a rule names this tier, or refuses",
    "Risk": "the request's risk class demands at least this tier, or refuses",
    "Floor": "a rule's floor lifted the request to this tier",
    "Capability": "the tier that was wanted cannot take what the request needs",
    "ContextFit": "the request is too long for the tier that was wanted",
    "DataClass": "a rule keeps the request inside the cluster, and the tier that was wanted is outside",
    "Embeddings": "the lowest tier that answers embeddings; nothing else chooses among them",
    "ToolLoop": "a tool's result came back, and this tier called the tool",
    "Override": "the client asked for this tier by the header x-modeltiers-tier",
    "Canary": "the conversation's draw fell into the canary's share",
    "Sticky": "the conversation was given this tier before",
    "EntryTier": "nothing else decided: the lowest tier",
    "ScoreLow": "the score is below the threshold",
    "ScoreHigh": "the score is at or above the threshold",
    "ScoreUnclear": "the score is close to the threshold, so the entry tier's answer is judged",
    "NSeveral": "several answers, or the prompt's echo, were asked for, which no cascade judges: the score decided",
    "EscalationCap": "as many requests escalate as may, so the answer is not judged",
    "Saturated": "the tier that was wanted has as many requests in flight as it may",
    "NotReady": "the tier that was wanted has no address that takes requests",
    "Hop": "another router has chosen, and this one stands beside the tier",
}
Skip = Literal["BelowFloor", "Capability", "ContextFit", "Outside", "OtherModel", "NotReady", "Lower"]
"""Why a tier is not among those that are tried."""

RISKS: Final = ("Low", "Medium", "High")
DOUBT: Final = 2
"""Tokens are estimated. A request is refused for its length only if a tier lacks room for this part of the estimate;
between that and the estimate, the tier with the longest context gets it and counts."""


class Load(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What of the world the choice depends on; each tuple has an entry for each tier of the ladder."""

    ready: tuple[bool, ...]
    """It has at least one address that takes requests."""
    threshold_permille: float | None = None
    """The score's threshold as it is held online; the policy's when left out."""
    sticky: str | None = None
    """The tier that is remembered for the conversation."""
    escalated_share_permille: float = 0.0
    saturated: tuple[bool, ...] = ()
    """All its addresses have as many requests in flight as they may."""
    candidates: tuple[revisions.State, ...] = ()
    """Whether its candidate takes requests; left out where no tier has one."""


class Choice(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Where a request goes, in order, and why; or why it goes nowhere."""

    tiers: tuple[str, ...]
    """In the order of attempts: the chosen one, then where it may fall back."""
    reason: Reason
    cascade: bool = False
    """Judge the first answer and escalate along `tiers`, as far as `up` says."""
    up: int = 0
    """How many of `tiers`, from the first on, each stand above the one before: escalation goes no further."""
    displaced: Reason | None = None
    """The reason that would have held, had `reason` not moved the request to another tier."""
    rule: str | None = None
    risk: str | None = None
    floor: str | None = None
    score: float | None = None
    skipped: tuple[tuple[str, Skip], ...] = ()
    """Tiers of the ladder that are not tried."""
    refused: str | None = None
    status: int = 200
    candidates: tuple[str, ...] = ()
    """Those of `tiers` whose second revision gets the request."""


class Verdict(Struct, gc=False):
    """What the rules of a policy say of a request."""

    refusing: Rule | None = None
    rule: Rule | None = None
    """The one that names a tier."""
    floor: int = 0
    floored_by: str | None = None
    risk: str | None = None
    risk_rule: str | None = None
    risky: bool = False
    """The floor is the risk class's."""
    refused_risk: bool = False
    inside: str | None = None
    """The rule that keeps the request inside the cluster."""


class Wish(Struct, gc=False):
    """Where a request would go if every tier could take it and were ready."""

    place: int
    reason: Reason
    cascade: bool = False
    rule: str | None = None


def choose(policy: CompiledPolicy, ask: Ask, load: Load) -> Choice:
    """Return where a request goes. It never raises, and with nothing ready it still names the tiers.

    Tiers that cannot take the request or lie below its floor are never named. A tier that is not ready is passed over
    while another one is.
    """
    verdict = judge(policy, ask)
    floor = policy.names[verdict.floor] if verdict.floor else None
    if verdict.refusing is not None or verdict.refused_risk:
        return _refused(verdict, floor, ask)
    fits = takes(policy, ask)
    if verdict.inside is not None:
        fits = [lacks or ("Outside" if tier.outside else None) for tier, lacks in zip(policy.ladder, fits, strict=True)]
    able = policy.places
    if verdict.floor or fits is not policy.fits_all:
        able = [place for place, lack in enumerate(fits) if lack is None and place >= verdict.floor]
    if not able:
        return _unable(policy, ask, verdict, fits, floor)
    wish = _wish(policy, ask, load, verdict, able)
    place, reason = wish.place, wish.reason
    displaced: Reason | None = None
    if place not in able:
        displaced, reason = reason, _moved(place, verdict, fits)
        place = next((one for one in able if one > place), able[-1])
    order, why = _order(policy, place, able, load, ask)
    if why is not None:
        displaced, reason = displaced or reason, why
    up = _rising(order)
    skipped = _skipped(policy, order, verdict.floor, fits, load) if len(order) < len(fits) else ()
    return Choice(  # by place: msgspec looks for each name among all
        tuple(map(policy.names.__getitem__, order)),
        reason,
        wish.cascade and up > 1,
        up,
        displaced,
        wish.rule or _ruled(reason, verdict),
        verdict.risk,
        floor,
        ask.score,
        skipped,
        None,
        200,
        _candidates(policy, order, ask, load) if load.candidates else (),
    )


def _candidates(policy: CompiledPolicy, order: list[int], ask: Ask, load: Load) -> tuple[str, ...]:
    states = [*zip(policy.ladder, load.candidates, strict=False)]
    among = [one for one in order if one < len(states)]
    return tuple(
        [policy.names[one] for one in among if revisions.chosen(states[one][0], one, ask.draw, states[one][1])]
    )


def _ruled(reason: Reason, verdict: Verdict) -> str | None:
    """Return the rule behind a floor or a risk."""
    if reason == "Floor":
        return verdict.floored_by
    if reason == "Risk":
        return verdict.risk_rule
    return verdict.inside if reason == "DataClass" else None


# --- rules ------------------------------------------------------------------------------------------------------------


def holding(policy: CompiledPolicy, ask: Ask) -> Iterator[Rule]:
    """Yield the rules that hold for a request, in order; whoever reads stops at one that ends the reading."""
    for rule, private, tests in policy.rules if ask.matched else policy.open_rules:
        if not private or rule.name in ask.matched:
            for test in tests:
                if not test(ask):
                    break
            else:
                yield rule


def ends_reading(rule: Rule) -> bool:
    """Whether no rule behind this one is read once it holds."""
    return rule.action == "Refuse" or rule.tier is not None


def judge(policy: CompiledPolicy, ask: Ask) -> Verdict:
    """Read the rules in order, up to the first that names a tier or refuses; then what their risk class demands."""
    found = Verdict()
    risk = -1
    for rule in holding(policy, ask):
        if rule.risk is not None and (risk < 0 or RISKS.index(rule.risk) > risk):
            risk, found.risk, found.risk_rule = RISKS.index(rule.risk), rule.risk, rule.name
        if rule.floor is not None and policy.place(rule.floor) > found.floor:
            found.floor, found.floored_by = policy.place(rule.floor), rule.name
        if rule.inside and found.inside is None:
            found.inside = rule.name
        if rule.action == "Refuse":
            found.refusing = rule
            break
        if rule.tier is not None:
            found.rule = rule
            break
    for demand in policy.policy.risks if risk > 0 else ():
        if RISKS.index(demand.risk) > risk:
            continue
        found.refused_risk |= demand.action == "Refuse"
        if demand.floor is not None and policy.place(demand.floor) > found.floor:
            found.floor, found.risky = policy.place(demand.floor), True
    return found


def _refused(verdict: Verdict, floor: str | None, ask: Ask) -> Choice:
    rule = verdict.refusing
    if rule is not None:
        said = f"the rule {rule.name} of this model's policy refuses the request"
        return Choice(
            (), "Rule", rule=rule.name, risk=verdict.risk, floor=floor, score=ask.score, refused=said, status=403
        )
    said = f"requests of {(verdict.risk or '').lower()} risk are refused; the rule {verdict.risk_rule} says it is one"
    return Choice(
        (), "Risk", rule=verdict.risk_rule, risk=verdict.risk, floor=floor, score=ask.score, refused=said, status=403
    )


# --- what tiers can take ----------------------------------------------------------------------------------------------


def takes(policy: CompiledPolicy, ask: Ask) -> Sequence[Skip | None]:
    """Return for each tier of the ladder what it lacks for a request, None where it can take it."""
    wanted = needs(ask)
    size = ask.prompt_tokens + ask.max_tokens
    if not wanted & ~policy.shared and (policy.shortest is None or size <= policy.shortest):
        return policy.fits_all
    found: list[Skip | None] = []
    doubtful = True
    for tier, has in zip(policy.ladder, policy.has, strict=True):
        if wanted & ~has:
            found.append("Capability")
        elif tier.context_tokens is not None and size > tier.context_tokens:
            found.append("ContextFit")
        else:
            found.append(None)
            doubtful = False
    if doubtful and "ContextFit" in found:
        _admit(policy, ask, found)
    return found


def _admit(policy: CompiledPolicy, ask: Ask, found: list[Skip | None]) -> None:
    """Let the tiers with the longest context have a request that only an estimate keeps out."""
    room = [policy.ladder[place].context_tokens or 0 for place, lack in enumerate(found) if lack == "ContextFit"]
    longest = max(room)
    if ask.prompt_tokens // DOUBT + ask.max_tokens > longest:
        return
    for place, lack in enumerate(found):
        if lack == "ContextFit" and policy.ladder[place].context_tokens == longest:
            found[place] = None


def _moved(place: int, verdict: Verdict, fits: Sequence[Skip | None]) -> Reason:
    """Return why the tier that was wished for is not taken."""
    if place < verdict.floor:
        return "Risk" if verdict.risky else "Floor"
    if fits[place] == "Outside":
        return "DataClass"
    return "ContextFit" if fits[place] == "ContextFit" else "Capability"


def _unable(
    policy: CompiledPolicy, ask: Ask, verdict: Verdict, fits: Sequence[Skip | None], floor: str | None
) -> Choice:
    """Refuse what no tier can take, and say of each what it lacks."""
    kept = f"is outside the cluster, and the rule {verdict.inside} keeps the request inside"
    said = [
        f"{tier.name} {lack(tier, ask) or (kept if lacks == 'Outside' else f'is below the floor {floor}')}"
        for tier, lacks in zip(policy.ladder, fits, strict=True)
    ]
    above = fits[verdict.floor :]
    return Choice(
        (),
        "DataClass" if "Outside" in above else "ContextFit" if "ContextFit" in above else "Capability",
        rule=verdict.floored_by,
        risk=verdict.risk,
        floor=floor,
        score=ask.score,
        refused=f"no tier can take the request: {'; '.join(said)}",
        status=400,
    )


def lack(tier: Tier, ask: Ask) -> str | None:
    """Return in words what a tier lacks for a request, None where it can take it."""
    missing = needs(ask) & ~abilities(tier)
    if missing:
        return "does not take " + ", ".join(word for bit, word in WHAT.items() if bit & missing)
    size = ask.prompt_tokens + ask.max_tokens
    if tier.context_tokens is not None and size > tier.context_tokens:
        asked = f" and {ask.max_tokens} asked for" if ask.max_tokens else ""
        return f"has a context of {tier.context_tokens} tokens, the prompt has about {ask.prompt_tokens}{asked}"
    return None


# --- the wish ---------------------------------------------------------------------------------------------------------


def _wish(policy: CompiledPolicy, ask: Ask, load: Load, verdict: Verdict, able: list[int]) -> Wish:
    """Return the tier that shall answer, by what counts first."""
    spec, names, session = policy.policy, policy.names, policy.policy.session
    sticky = names.index(load.sticky) if session is not None and load.sticky in names else None
    if session is not None and sticky in able and ask.tool_loop and session.lock_tool_loops:
        return Wish(sticky, "ToolLoop")
    if ask.override is not None and spec.override is not None and ask.override in spec.override.tiers:
        return Wish(names.index(ask.override), "Override")
    if verdict.rule is not None:
        return Wish(policy.place(verdict.rule.tier or names[0]), "Rule", rule=verdict.rule.name)
    if ask.endpoint == "embeddings":
        # Vectors of different models do not compare: neither score nor draw may mix them.
        return Wish(able[0], "Embeddings")
    entry = _by_mode(policy, ask, load)
    if spec.canary is not None and ask.draw * 1000 < spec.canary.share_permille * DRAWS:
        return Wish(names.index(spec.canary.tier), "Canary", entry.cascade)
    if sticky is not None and sticky in able:
        return Wish(sticky, "Sticky", entry.cascade)
    return entry


def _by_mode(policy: CompiledPolicy, ask: Ask, load: Load) -> Wish:
    """Return the tier that the mode gives, and whether its answer is judged."""
    spec, top = policy.policy, len(policy.names) - 1
    if spec.mode == "Upfront":
        return _by_score(policy, ask, load, 0) if spec.score is not None and top else Wish(0, "EntryTier")
    most = spec.escalation.max_share_permille
    capped = spec.escalation.max_calls < 2 or (most < 1000 and load.escalated_share_permille >= most)
    entry = Wish(0, "EntryTier", cascade=True)
    if spec.mode == "Hybrid":
        clear = _by_score(policy, ask, load, policy.score.unclear_permille)
        if clear.reason != "ScoreUnclear":
            return clear
        entry = clear
    if not top:
        return entry
    if ask.n > 1 or ask.echo:
        return Wish(_by_score(policy, ask, load, 0).place, "NSeveral")
    if capped:
        place = 0 if spec.mode == "Cascade" else _by_score(policy, ask, load, 0).place
        return Wish(place, "EscalationCap")
    return entry


def _by_score(policy: CompiledPolicy, ask: Ask, load: Load, unclear_permille: int) -> Wish:
    """Compare the score with the threshold; above it, the rest of the scale is shared evenly by the upper tiers."""
    held = load.threshold_permille
    threshold = policy.score.threshold_permille if held is None else held
    value = (ask.score or 0.0) * 1000
    if unclear_permille and abs(value - threshold) < unclear_permille:
        return Wish(0, "ScoreUnclear", cascade=True)
    if value < threshold:
        return Wish(0, "ScoreLow")
    begin = min(max(threshold + unclear_permille, 0.0), 1000.0)
    steps, rest = len(policy.names) - 1, 1000.0 - begin
    step = int((value - begin) / rest * steps) if rest > 0 else 0
    return Wish(min(1 + max(step, 0), steps), "ScoreHigh")


# --- the order of attempts --------------------------------------------------------------------------------------------


def _order(
    policy: CompiledPolicy, place: int, able: list[int], load: Load, ask: Ask
) -> tuple[list[int], Reason | None]:
    """Return the tiers to try: the wanted one, those above, those below if the policy says so; and what changed it."""
    order = able[able.index(place) :]
    if policy.policy.fallback.down:
        order += [one for one in reversed(able) if one < place]
    if ask.endpoint == "embeddings":
        model = policy.ladder[place].model
        order = [one for one in order if one == place or policy.ladder[one].model == model]
    ready = [one for one in order if load.ready[one : one + 1] != (False,)] if False in load.ready else order
    if not ready:
        return order, "NotReady"
    if ready[0] != place:
        return ready, "NotReady"
    if True in load.saturated and "429" in policy.policy.fallback.on:
        free = [one for one in ready if load.saturated[one : one + 1] != (True,)]
        if free and free[0] != place:
            return free + [one for one in ready if one not in free], "Saturated"
    return ready, None


def _rising(order: list[int]) -> int:
    """Return how many tiers, from the first on, each stand above the one before."""
    count = 1
    while count < len(order) and order[count] > order[count - 1]:
        count += 1
    return count


def _skipped(
    policy: CompiledPolicy, order: list[int], floor: int, fits: Sequence[Skip | None], load: Load
) -> tuple[tuple[str, Skip], ...]:
    found: list[tuple[str, Skip]] = []
    for place, lacking in enumerate(fits):
        if place in order:
            continue
        why: Skip = "Lower"
        if place < floor:
            why = "BelowFloor"
        elif lacking is not None:
            why = lacking
        elif load.ready[place : place + 1] == (False,):
            why = "NotReady"
        elif place > order[0]:
            why = "OtherModel"
        found.append((policy.names[place], why))
    return tuple(found)
