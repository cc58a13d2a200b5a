"""`curl`, as the documents show it: words as they come, and nothing left behind when it is interrupted."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import time

import pytest

from e2e.engine import ladder
from e2e.engine.pytest_plugin import Pair
from e2e.router.figures import ENDLESS, eventually, figures
from tests.router.kit import setup
from tests.router.kit.client import data_of
from tests.router.kit.router import Router
from tests.router.kit.upstream import answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def command(router: Router, **fields: object) -> list[str]:
    body = {"model": "support", "messages": [{"role": "user", "content": "six times seven?"}], **fields}
    line = ["curl", "--silent", "--show-error", "--noproxy", "*", "-N", "--max-time", "20"]
    return [*line, f"{router.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)]


def test_a_whole_answer(upfront: Router) -> None:
    done = subprocess.run(command(upfront), capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == ladder.SMALL[-1].text


def test_a_stream(upfront: Router) -> None:
    done = subprocess.run(command(upfront, stream=True), capture_output=True, check=True, timeout=30)
    *events, last = data_of(done.stdout)
    said = [choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"]]
    assert "".join(said) == ladder.SMALL[-1].text
    assert last == b"[DONE]"


def test_words_come_as_the_tier_says_them() -> None:
    with setup.ladder(answer("one two three four five", between=0.2)) as (router, _):
        began, came = time.monotonic(), list[float]()
        with subprocess.Popen(command(router, stream=True), stdout=subprocess.PIPE) as curl:
            assert curl.stdout is not None
            came.extend(time.monotonic() - began for line in curl.stdout if line.startswith(b"data: {"))
        assert curl.returncode == 0
    gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
    assert len(came) == 6
    assert min(gaps) > 0.1  # nothing was held back and sent together


def test_an_interrupt_ends_the_engine_s_work(upfront: Router, real_tiers: Pair) -> None:
    small, _ = real_tiers
    before = figures(small)
    with subprocess.Popen(command(upfront, stream=True, **ENDLESS), stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline()
        eventually(lambda: figures(small).running == 1)
        curl.send_signal(signal.SIGINT)
        curl.wait(5)
        assert eventually(lambda: figures(small).running == 0) < 1.0
    assert figures(small).since(before).finished == 0
