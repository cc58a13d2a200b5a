"""What is doubtful about a table that is valid: parts that do nothing, never happen, or always do.

Every finding names a path and a way out. It refuses nothing: `read_table` does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from modeltiers.domain.routing.lint_rules import Finding, lint_pattern, lint_rules
from modeltiers.domain.routing.rules import EMBEDDINGS, WHAT, abilities
from modeltiers.domain.routing.table import Accept, Policy, Table, Tier

__all__ = ["Finding", "lint"]

_ENDLESS: Final = 10**12


def lint(table: Table) -> list[Finding]:
    """Return what is doubtful about a valid table, in the order of the table."""
    by_name = {tier.name: tier for tier in table.tiers}
    used = {name for policy in table.policies for name in policy.tiers}
    found = [
        Finding(f"$.tiers[{index}]", f"{tier.name} is on no policy's ladder; add it to one, or leave it out")
        for index, tier in enumerate(table.tiers)
        if tier.name not in used
    ]
    for index, policy in enumerate(table.policies):
        path, ladder = f"$.policies[{index}]", tuple(by_name[name] for name in policy.tiers)
        found += _ladder(path, ladder)
        found += _reach(path, policy, ladder)
        found += _mode(path, policy)
        found += lint_rules(path, policy, ladder)
        found += _risks(path, policy)
        found += _score(path, policy)
        found += _canary(path, policy)
        found += _accept(path, policy, ladder)
    return found


def _ladder(path: str, ladder: tuple[Tier, ...]) -> Iterator[Finding]:
    """Yield where a higher tier is less than a lower one."""
    for place, (lower, higher) in enumerate(pairwise(ladder), 1):
        here = f"{path}.tiers[{place}]"
        if higher.context_tokens is not None and higher.context_tokens < (lower.context_tokens or _ENDLESS):
            least = lower.context_tokens or "any number of"
            problem = f"{higher.name} holds {higher.context_tokens} tokens, {lower.name} below it {least}"
            yield Finding(
                here, f"{problem}: long requests cannot escalate; raise its contextTokens or reorder the ladder"
            )
        missing = abilities(lower) & ~abilities(higher)
        if missing:
            what = ", ".join(word for bit, word in WHAT.items() if bit & missing)
            problem = f"{higher.name} does not take {what}, {lower.name} below it does: such requests cannot escalate"
            yield Finding(here, f"{problem}; say so in its `can`, or reorder the ladder")
        mine, its = _price(higher), _price(lower)
        if 0 < mine < its:
            yield Finding(here, f"{higher.name} is cheaper than {lower.name} below it; the ladder goes cheapest first")
    models = {tier.model for tier in ladder if abilities(tier) & EMBEDDINGS}
    if len(models) > 1:
        problem = "tiers with embeddings serve different models, whose vectors do not compare: they are no fallback"
        yield Finding(f"{path}.tiers", f"{problem} for each other; give each model a policy of its own")


def _price(tier: Tier) -> int:
    return tier.price.input_per_million_micros + tier.price.output_per_million_micros


def _reach(path: str, policy: Policy, ladder: tuple[Tier, ...]) -> Iterator[Finding]:
    """Yield tiers that nothing leads to."""
    escalates = policy.mode != "Upfront" and policy.escalation.max_calls > 1 and policy.escalation.max_share_permille
    if policy.fallback.on or escalates or policy.score is not None or policy.mode == "Hybrid":
        return
    named = {rule.tier for rule in policy.rules} | {rule.floor for rule in policy.rules}
    named |= {demand.floor for demand in policy.risks}
    named |= {policy.canary.tier} if policy.canary else set()
    named |= set(policy.override.tiers) if policy.override else set()
    for place, tier in enumerate(ladder[1:], 1):
        below = ladder[:place]
        more = any(abilities(tier) & ~abilities(one) or one.context_tokens is not None for one in below)
        if tier.name not in named and not more:
            problem = f"nothing leads to {tier.name}: no rule, score, canary, override or fallback; add one"
            yield Finding(f"{path}.tiers[{place}]", problem)


def _mode(path: str, policy: Policy) -> Iterator[Finding]:
    """Yield what the mode makes useless."""
    judged = policy.accept.validators or policy.accept.confidence is not None
    if policy.mode == "Upfront":
        if judged:
            yield Finding(
                f"{path}.accept", "no answer is judged in mode Upfront; use Cascade or Hybrid, or leave it out"
            )
        return
    if len(policy.tiers) == 1:
        yield Finding(f"{path}.mode", f"{policy.mode} needs a tier to escalate to; add one, or use Upfront")
    if policy.escalation.max_share_permille == 0:
        problem = "is 0: nothing escalates and no answer is judged; raise it, or use mode Upfront"
        yield Finding(f"{path}.escalation.maxSharePermille", problem)
    if policy.escalation.max_calls == 1:
        problem = "is 1, the first call: nothing escalates and no answer is judged; raise it, or use mode Upfront"
        yield Finding(f"{path}.escalation.maxCalls", problem)
    if policy.mode == "Cascade" and policy.score is not None:
        yield Finding(
            f"{path}.score", "is used in mode Cascade for requests with n > 1 only; leave it out, or use Hybrid"
        )


def _risks(path: str, policy: Policy) -> Iterator[Finding]:
    given = {rule.risk for rule in policy.rules}
    for index, demand in enumerate(policy.risks):
        here = f"{path}.risks[{index}]"
        if demand.floor is None and demand.action == "Route":
            yield Finding(here, f"demands nothing of risk {demand.risk}; give floor, or action: Refuse")
        if not given & ({"Medium", "High"} if demand.risk == "Medium" else {"High"}):
            yield Finding(here, f"no rule gives the risk {demand.risk}; add one, or leave it out")
        if any(other.risk == demand.risk for other in policy.risks[:index]):
            yield Finding(here, f"risk {demand.risk} is listed already; put both demands in one entry")


def _score(path: str, policy: Policy) -> Iterator[Finding]:
    score = policy.score
    if score is None:
        return
    here, held = f"{path}.score", score.strong_share_permille
    if policy.mode == "Upfront" and len(policy.tiers) > 1 and held is None and score.threshold_permille in (0, 1000):
        side = "above" if score.threshold_permille == 0 else "at"
        problem = f"{score.threshold_permille}: every request goes {side} the entry tier; choose a threshold between"
        yield Finding(f"{here}.thresholdPermille", problem)
    if held in (0, 1000):
        problem = f"{held} is no share to hold; use thresholdPermille, or a floor"
        yield Finding(f"{here}.strongSharePermille", problem)
    if policy.mode == "Hybrid" and score.unclear_permille == 0:
        problem = "is 0: no score is unclear, so no answer is judged; raise it, or use mode Upfront"
        yield Finding(f"{here}.unclearPermille", problem)
    low, high = score.threshold_permille - score.unclear_permille, score.threshold_permille + score.unclear_permille
    if policy.mode == "Hybrid" and low <= 0 and high >= 1000:
        yield Finding(f"{here}.unclearPermille", "every score is unclear; lower it, or use mode Cascade")


def _canary(path: str, policy: Policy) -> Iterator[Finding]:
    canary = policy.canary
    if canary is None:
        return
    # Where a score decides, a canary may well be a share of hard requests that the entry tier is given to try.
    scored = policy.mode == "Hybrid" or (policy.mode == "Upfront" and policy.score is not None)
    if canary.tier == policy.tiers[0] and not scored:
        yield Finding(f"{path}.canary.tier", f"{canary.tier} is the entry tier already; name another, or leave it out")
    if canary.share_permille == 0:
        yield Finding(f"{path}.canary.sharePermille", "is 0: nothing goes to the canary; raise it, or leave it out")


# --- after the answer -------------------------------------------------------------------------------------------------


def _accept(path: str, policy: Policy, ladder: tuple[Tier, ...]) -> Iterator[Finding]:
    """Yield a judgement that always ends the same."""
    accept = policy.accept
    for index, check in enumerate(accept.validators):
        for number, pattern in enumerate(check.patterns):
            yield from lint_pattern(f"{path}.accept.validators[{index}].patterns[{number}]", pattern)
        if not check.required and check.weight_permille == 0:
            here = f"{path}.accept.validators[{index}].weightPermille"
            yield Finding(here, f"is 0: nothing follows when {check.name} fails; raise it, or say required: true")
    if policy.mode == "Upfront" or len(ladder) == 1:
        return
    here = f"{path}.accept"
    confidence = accept.confidence
    if confidence is None:
        yield from _without_confidence(here, accept)
    elif confidence.missing == "Escalate":
        for tier in ladder[:-1]:
            if not tier.can.logprobs:
                problem = f"{tier.name} returns no logprobs, so each of its answers escalates; use missing: Ignore"
                yield Finding(f"{here}.confidence", problem)


def _without_confidence(here: str, accept: Accept) -> Iterator[Finding]:
    """Yield a threshold that the validators cannot cross: a failure only ever lowers the probability."""
    prior, threshold = accept.prior_permille, accept.threshold_permille
    if prior < threshold:
        problem = f"the prior {prior} is below it and nothing raises it, so every answer escalates"
        yield Finding(f"{here}.thresholdPermille", f"{problem}; add confidence, or lower it")
        return
    if any(check.required for check in accept.validators):
        return
    odds = prior / (1000 - prior)
    for check in accept.validators:
        odds *= 1 - check.weight_permille / 1000
    if 1000 * odds / (1 + odds) >= threshold:
        what = "there are no validators and no confidence" if not accept.validators else "all validators may fail"
        problem = f"{what}, and the answer is still good enough: all are accepted"
        yield Finding(here, f"{problem}; add validators or confidence, or raise thresholdPermille")
