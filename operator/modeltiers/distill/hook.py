"""The administrator's program beside Snapshot that scrubs: `POST /` of `{"texts": [...]}` gives as many texts back."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final

import httpx

from modeltiers.distill.faults import BadData, TryAgain
from modeltiers.distill.stage import Work

FIELD: Final = "spec.data.scrub.hook"
START_SECONDS: Final = 300.0
"""Seconds that it may take to listen: it may load a model."""
ASK_SECONDS: Final = 120.0
"""Seconds for one batch of texts."""


class Hook:
    """A connection to it. What it is given and gives is never in a message: these are texts with personal data."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=ASK_SECONDS, trust_env=False, follow_redirects=False)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def wait(self, work: Work, seconds: float = START_SECONDS) -> None:
        """Wait until it listens; raises TryAgain."""
        until = time.monotonic() + seconds
        while True:
            work.check()
            try:
                self._client.post(self._url, json={"texts": []}, timeout=5.0)
            except httpx.TransportError as fault:
                if time.monotonic() > until:
                    said = f"the scrubber did not listen within {seconds:g} s: {fault}"
                    raise TryAgain(said, reason="ScrubberNotReady") from fault
                time.sleep(0.2)
            else:
                return

    def scrubbed(self, texts: list[str]) -> list[str]:
        """Texts as it gives them back; raises TryAgain, BadData."""
        try:
            reply = self._client.post(self._url, json={"texts": texts})
        except httpx.TransportError as fault:
            said = f"the scrubber broke off: {type(fault).__name__}"
            raise TryAgain(said, reason="ScrubberFailed") from fault
        if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise TryAgain(f"the scrubber answered {reply.status_code}", reason="ScrubberFailed")
        if reply.status_code != httpx.codes.OK:
            raise self._wrong(f"it answered {reply.status_code}")
        found = _texts(reply)
        if found is None or len(found) != len(texts):
            count = "none" if found is None else str(len(found))
            raise self._wrong(f"{len(texts)} texts were given, and {count} came back: it must give as many as it takes")
        return found

    def _wrong(self, what: str) -> BadData:
        return BadData(f"the scrubber does not keep to docs/data.md: {what}", reason="ScrubberFault", field=FIELD)


def _texts(reply: httpx.Response) -> list[str] | None:
    try:
        body: Any = reply.json()
    except ValueError:
        return None
    found = body.get("texts") if isinstance(body, dict) else None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None
