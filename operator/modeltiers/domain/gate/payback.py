"""Whether a student would earn what it costs to make, before anything is spent.

Whole numbers in, exact fractions inside, whole days out; with the formula and every number in it. What has no price
makes the estimate unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from modeltiers.domain.gate.items import GateError

FORMULA: Final = (
    "days = cost / (before - after), rounded up; never where after >= before. before = requests x (small price now +"
    " (1000 - shareNow) / 1000 x large price) a day, after = requests x (student's price + (1000 - shareThen) / 1000 x"
    " large price). Every request is asked of the small tier first, what that does not answer of the large one too."
    " Price of a request: (promptTokens x inputPrice + answerTokens x outputPrice) / 1000000; or, of accelerators that"
    " follow the load, (promptTokens + answerTokens) x gpuHourPrice / tokensPerGpuHour. Accelerators kept for the tier"
    " cost 24 x gpus x gpuHourPrice a day, whatever the requests."
)


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What an API charges for a million tokens, in millionths of the currency."""

    input_micros: int
    output_micros: int
    currency: str


@dataclass(frozen=True, slots=True)
class SharedGpus:
    """Accelerators that are scaled with the load: fewer requests, fewer of them."""

    gpu_hour_micros: int
    tokens_per_gpu_hour: int
    """Prompts and answers together, as measured, idle time included."""
    currency: str


@dataclass(frozen=True, slots=True)
class OwnGpus:
    """Accelerators that the tier keeps whatever its load: replicas x GPUs of one."""

    gpu_hour_micros: int
    gpus: int
    currency: str


Price = TokenPrice | SharedGpus | OwnGpus


@dataclass(frozen=True, slots=True)
class Prices:
    """What each tier charges; None where that is not known."""

    large: Price | None
    student: Price | None
    small_now: Price | None = None
    """The tier that the student would replace; left out where there is none (`share_now` is 0)."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is expected of a day."""

    requests: int
    prompt_tokens: int
    """Mean of one request; `answer_tokens` likewise."""
    answer_tokens: int
    share_then: int
    """Permille of the requests that the student would answer itself."""
    share_now: int = 0
    """Permille that the small tier answers today."""


@dataclass(frozen=True, slots=True)
class Payback:
    """The estimate: days, or never, or unknown."""

    days: int | None
    """None: never, or unknown."""
    unknown: str | None
    """What is missing, with the way out; None where it is known."""
    saved_per_day_micros: int | None
    """Negative where the student costs more than it saves."""
    inputs: tuple[tuple[str, str], ...]
    """Every number in the formula, with its unit."""
    formula: str = FORMULA

    @property
    def never(self) -> bool:
        """Whether it is known never to pay."""
        return self.days is None and self.unknown is None


def payback(prices: Prices, traffic: Traffic, cost_micros: int, currency: str) -> Payback:
    """Estimate after how many days a student has paid for `cost_micros`: teacher, GPUs and evaluation together.

    Raises GateError for numbers below zero and shares above 1000.
    """
    _check(traffic, cost_micros)
    tiers = {"large": prices.large, "student": prices.student}
    if traffic.share_now:
        tiers["smallNow"] = prices.small_now
    inputs = tuple(_inputs(tiers, traffic, cost_micros, currency))
    if missing := _unknown(tiers, currency):
        return Payback(None, missing, None, inputs)
    large = _daily(tiers["large"], traffic, 1000 - traffic.share_now)
    before = _daily(tiers.get("smallNow"), traffic, 1000) + large
    after = _daily(tiers["student"], traffic, 1000) + _daily(tiers["large"], traffic, 1000 - traffic.share_then)
    saved = before - after
    days = ceil(cost_micros / saved) if saved > 0 else None
    return Payback(days, None, round(saved), inputs)


def _daily(price: Price | None, traffic: Traffic, permille: int) -> Fraction:
    """Cost of a day of so many thousandths of the requests, in millionths."""
    asked = Fraction(traffic.requests * permille, 1000)
    match price:
        case TokenPrice():
            tokens = traffic.prompt_tokens * price.input_micros + traffic.answer_tokens * price.output_micros
            return asked * Fraction(tokens, 1_000_000)
        case SharedGpus():
            tokens = traffic.prompt_tokens + traffic.answer_tokens
            return asked * tokens * Fraction(price.gpu_hour_micros, price.tokens_per_gpu_hour)
        case OwnGpus():
            return Fraction(24 * price.gpus * price.gpu_hour_micros)
    return Fraction()


def _unknown(tiers: dict[str, Price | None], currency: str) -> str | None:
    for name, price in tiers.items():
        if price is None:
            return f"the {name} tier has no price; set its spec.price, or spec.external.price"
        if isinstance(price, SharedGpus) and price.tokens_per_gpu_hour <= 0:
            return f"what a GPU hour serves at the {name} tier is not measured; let it serve, or price its GPUs as kept"
        if price.currency != currency:
            return f"the {name} tier charges in {price.currency}, the cost is in {currency}; give all one currency"
    return None


def _check(traffic: Traffic, cost_micros: int) -> None:
    numbers = {
        "requests": traffic.requests,
        "promptTokens": traffic.prompt_tokens,
        "answerTokens": traffic.answer_tokens,
        "cost": cost_micros,
    }
    for name, value in numbers.items():
        if value < 0:
            raise GateError(f"{name} is {value}; it must not be below 0")
    for name, value in {"shareThen": traffic.share_then, "shareNow": traffic.share_now}.items():
        if not 0 <= value <= 1000:
            raise GateError(f"{name} is {value}; give permille, 0 to 1000")


def _inputs(
    tiers: dict[str, Price | None], traffic: Traffic, cost_micros: int, currency: str
) -> Iterator[tuple[str, str]]:
    yield "cost", f"{cost_micros} millionths of {currency}"
    yield "requests", f"{traffic.requests} requests a day"
    yield "promptTokens", f"{traffic.prompt_tokens} tokens a request"
    yield "answerTokens", f"{traffic.answer_tokens} tokens a request"
    yield "shareNow", f"{traffic.share_now} permille"
    yield "shareThen", f"{traffic.share_then} permille"
    for name, price in tiers.items():
        match price:
            case TokenPrice():
                yield f"{name}.inputPrice", f"{price.input_micros} millionths of {price.currency} a million tokens"
                yield f"{name}.outputPrice", f"{price.output_micros} millionths of {price.currency} a million tokens"
            case SharedGpus():
                yield f"{name}.gpuHourPrice", f"{price.gpu_hour_micros} millionths of {price.currency} an hour"
                yield f"{name}.tokensPerGpuHour", f"{price.tokens_per_gpu_hour} tokens an hour of one accelerator"
            case OwnGpus():
                yield f"{name}.gpuHourPrice", f"{price.gpu_hour_micros} millionths of {price.currency} an hour"
                yield f"{name}.gpus", f"{price.gpus} accelerators"
