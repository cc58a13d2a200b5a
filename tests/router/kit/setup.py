"""Scripted tiers with a router in front, in one line of a test: fresh for one test, or shared by many.

A shared one is for tests that only ask: starting a process costs more than they do. It must be left as it was found.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.router.kit import client
from tests.router.kit.router import Metrics, Router, table
from tests.router.kit.upstream import Script, Upstream, answer

NEVER_OPENS = {"breaker": {"failures": 1000}}


@contextmanager
def ladder(
    *scripts: Script,
    flags: tuple[str, ...] = (),
    keys: Mapping[str, Any] | None = None,
    **shape: Any,
) -> Iterator[tuple[Router, list[Upstream]]]:
    """Start one tier a script and a router over them; `shape` is what `router.table` takes."""
    with ExitStack() as stack:
        tiers = [stack.enter_context(Upstream(script)) for script in scripts]
        made = table(*(tier.port for tier in tiers), **shape)
        yield stack.enter_context(Router(made, *flags, keys=keys)), tiers


class Shared:
    """Two tiers and a router that many tests use: model "support" has both, "t0" and "t1" are each tier alone."""

    def __init__(self, router: Router, first: Upstream, second: Upstream) -> None:
        self.router, self.first, self.second = router, first, second
        self._said = ""
        self._before = Metrics("")

    @property
    def port(self) -> int:
        return self.router.port

    def count(self, name: str, **labels: str) -> float:
        """Return how much a figure has grown in this test."""
        return self.router.metrics().value(name, **labels) - self._before.value(name, **labels)

    def begin(self, first: Script | None = None, second: Script | None = None) -> None:
        """Forget what the test before asked and set."""
        self.first.script = first or answer("first")
        self.second.script = second or answer("second")
        for tier in (self.first, self.second):
            tier.requests.clear()
            tier.drop()  # what a test before did to a connection is not this one's
        self.router.idle(2)
        self._said = self.router.stderr()
        self._before = self.router.metrics()

    def end(self) -> None:
        """Fail when the test left something behind."""
        assert self.router.code is None, self.router.output()
        assert self.router.stderr() == self._said, self.router.stderr()
        self.router.idle(2)

    def still_serves(self) -> None:
        """Fail unless another client is served, cleanly."""
        for tier in (self.first, self.second):
            tier.script = answer("still here")
        assert client.chat(self.port).text == "still here"


@contextmanager
def shared(*flags: str, keys: Mapping[str, Any] | None = None, **shape: Any) -> Iterator[Shared]:
    """Start what many tests share."""
    shape = {"tier": NEVER_OPENS, "alone": True} | shape
    with ladder(answer("first"), answer("second"), flags=flags, keys=keys, **shape) as (router, (first, second)):
        yield Shared(router, first, second)


@contextmanager
def patched(source: str) -> Iterator[Path]:
    """Yield a folder that makes a router run this first, for `python_path`."""
    with tempfile.TemporaryDirectory(prefix="patch-") as name:
        folder = Path(name)
        # Once its own modules are wanted: at start-up of the interpreter the path is not complete yet.
        (folder / "sitecustomize.py").write_text("import patch_router\n")
        (folder / "patch_router.py").write_text(textwrap.dedent(source))
        yield folder
