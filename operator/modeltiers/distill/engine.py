"""Waits for the engine beside this program, which serves the weights under test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from modeltiers.distill.asking import stopped_by
from modeltiers.distill.client import Asked, Client
from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.stage import Work
from modeltiers.domain.distill.replies import Answer, Call, Failure, Kind
from modeltiers.domain.distill.requests import Sampling, requests_of

ENGINE_SECONDS: Final = 1800.0
"""Seconds that an engine may take to load its weights."""
TRY_SECONDS: Final = 60.0
"""Seconds for one question."""
EVERY: Final = 0.5
"""Seconds between two."""


def ready(work: Work, asked: Asked, seconds: float) -> None:
    """Wait until the engine serves the model that is meant, and has made one token with it.

    TryAgain when that takes too long; BadData when it serves something else, or will not answer.
    """
    asyncio.run(_ready(work, asked, seconds))


async def _ready(work: Work, asked: Asked, seconds: float) -> None:
    until, last = time.monotonic() + seconds, "no time"
    async with Client(asked, min(TRY_SECONDS, seconds), 1).opened() as client:
        while time.monotonic() < until:
            work.check()
            failure = await _look(client)
            if failure is None:
                return
            last = failure.why
            await asyncio.sleep(EVERY)
    raise TryAgain(f"the engine for {asked.who} was not ready after {seconds:g} s: {last}", reason="EngineNotReady")


async def _look(client: Client) -> Failure | None:
    """Why it is not ready yet; None: it is."""
    asked = client.asked
    models = await client.models()
    if isinstance(models, Failure):
        return models
    _serves(asked, {str(model["id"]): model.get("root") for model in models})
    one = {"id": "probe", "messages": [{"role": "user", "content": "1"}]}
    found = await client.ask(requests_of(asked.target.model, one, Sampling(0, 1), 1)[0].body)
    if isinstance(found, Answer):
        return None
    if found.call is Call.DROP:
        raise BadData(f"{asked.who}: {found.why}: look at {asked.field}", reason="EngineRefuses", field=asked.field)
    if found.call is Call.STOP and found.kind is not Kind.MODEL:  # which may still be loading
        raise stopped_by(asked, found)
    return found


def _serves(asked: Asked, roots: Mapping[str, Any]) -> None:
    name, root = asked.target.model, asked.target.root
    if root is not None and roots.get(name) not in (None, root):
        raise BadData(
            f"the engine for {asked.who} serves what lies at {roots[name]}, not at {root}: these are not the weights to"
            " test",
            reason="WrongModel",
            field=asked.field,
        )
    if name not in roots:
        shown = ", ".join([*roots][:5]) or "nothing"
        raise BadData(
            f"the engine for {asked.who} serves {shown}, not {asked.target.model}: these are not the weights to test",
            reason="WrongModel",
            field=asked.field,
        )
