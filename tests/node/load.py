"""Clients that ask a policy without a pause, by OpenAI's SDK, and write down what each of them saw.

They try nothing twice, so that every failure shows. What is truth for a stream: it ended with a finish reason, or an
error was raised; one that ends without either claims to be whole and is not.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import openai

from e2e.engine import ladder
from e2e.team import MODEL

EASY, HARD = "six times seven?", "a hard one"
TEXTS = {"small": ladder.SMALL[-1].text, "large": ladder.LARGE[-1].text}
SAYS = {
    "small": (TEXTS["small"], *(answer.text for answer in ladder.SMALL if answer.asked == "hard")),
    "large": (TEXTS["large"],),
}
PACE = 0.25
"""Seconds between two questions of one client at least: two engines share what cores there are."""
LONG = {"ignore_eos": True}
"""A scripted model then says its last sentence again and again, up to max_tokens."""


@dataclass(frozen=True)
class Asked:
    """One question and what came of it; times are of the monotonic clock."""

    stream: bool
    began: float
    ended: float
    tier: str = ""
    decision: str = ""
    fault: str = ""
    lie: str = ""
    """Why what came cannot be called the truth."""


@dataclass
class Load:
    """Some clients that ask whole answers, and some that ask long streams, until the end of the block."""

    url: str
    plain: int = 3
    streams: int = 1
    question: str = EASY
    tokens: int = 60
    asked: list[Asked] = field(default_factory=list)
    began: float = 0.0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(90)

    async def _run(self) -> None:
        async with openai.AsyncOpenAI(api_key="unused", base_url=f"{self.url}/v1", max_retries=0, timeout=60) as client:
            plain = [self._again(False, lambda: self._whole(client)) for _ in range(self.plain)]
            streams = [self._again(True, lambda: self._stream(client)) for _ in range(self.streams)]
            await asyncio.gather(*plain, *streams)

    async def _again(self, stream: bool, ask: Callable[[], Awaitable[dict[str, str]]]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                found = await ask()
            except openai.APIError as fault:
                status = getattr(fault, "status_code", None)
                cause = repr(fault.__cause__) if fault.__cause__ else fault.message
                found = {"fault": f"{type(fault).__name__} {status or ''} {cause}"[:300]}
            ended = time.monotonic()
            self.asked.append(Asked(stream, began, ended, **found))
            await asyncio.sleep(max(0.0, began + PACE - ended))

    async def _whole(self, client: openai.AsyncOpenAI) -> dict[str, str]:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": self.question}]
        )
        text, tier = raw.parse().choices[0].message.content or "", raw.headers["x-modeltiers-tier"]
        return {**_headers(raw.headers), "lie": "" if text in SAYS[tier] else f"tier {tier} said {text!r}"}

    async def _stream(self, client: openai.AsyncOpenAI) -> dict[str, str]:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": self.question}],
            stream=True,
            max_tokens=self.tokens,
            extra_body=LONG,
        )
        tier, text, finish = raw.headers["x-modeltiers-tier"], "", None
        async for chunk in raw.parse():
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        lie = "" if finish else "ended without a finish reason and without an error"
        if not text.startswith(SAYS[tier]):
            lie = f"tier {tier} said {text[:80]!r}"
        return {**_headers(raw.headers), "lie": lie}

    # -- what was seen ---------------------------------------------------------------------------------------------

    def since(self, moment: float, *, stream: bool = False) -> list[Asked]:
        """The questions that were put after a moment and have come to an end."""
        return [one for one in list(self.asked) if one.stream is stream and one.began >= moment]

    def faults(self, *, stream: bool = False) -> list[str]:
        """What went wrong, with the seconds since the start."""
        return [
            f"{one.began - self.began:.1f} s: {one.fault or one.lie}"
            for one in list(self.asked)
            if one.stream is stream and (one.fault or one.lie)
        ]

    def lies(self) -> list[str]:
        """Streams and answers that were not what they claimed to be."""
        return [one.lie for one in list(self.asked) if one.lie]

    def tiers(self, moment: float = 0.0) -> Counter[str]:
        """Who answered the whole answers."""
        return Counter(one.tier for one in self.since(moment) if not one.fault)

    def gap_ms(self, moment: float = 0.0) -> float:
        """The longest time without a whole answer coming to an end, in milliseconds."""
        ends = sorted(one.ended for one in list(self.asked) if not one.stream and not one.fault and one.ended >= moment)
        return 1000 * max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def told(self) -> str:
        """One line for a person."""
        plain, streams = ([one for one in list(self.asked) if one.stream is kind] for kind in (False, True))
        took = [1000 * (one.ended - one.began) for one in plain if not one.fault]
        said = f"{len(plain)} whole answers, {len(self.faults())} failed, p50 {percentile(took, 50):.0f} ms, "
        said += f"p99 {percentile(took, 99):.0f} ms, longest gap {self.gap_ms():.0f} ms"
        return f"{said}; {len(streams)} streams, {len(self.faults(stream=True))} failed, {len(self.lies())} untrue"


def _headers(headers: object) -> dict[str, str]:
    return {name: headers[f"x-modeltiers-{name}"] for name in ("tier", "decision")}  # type: ignore[index]  # httpx's


def percentile(values: Sequence[float], part: int) -> float:
    """The smallest value that so many per cent are not above; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * part // 100) - 1)] if ordered else 0.0
