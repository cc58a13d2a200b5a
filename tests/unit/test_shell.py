"""Settings, health, watches: the thin parts around the reconcilers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from modeltiers.controllers import health, metrics
from modeltiers.controllers.config import BadSettings, load
from modeltiers.controllers.doorbell import OURS, Watches, settings
from modeltiers.controllers.program import STALE_WATCH

ROOT = Path(__file__).parents[2]


def test_no_file_means_defaults() -> None:
    assert load(None).engine.run_as_user == 2000


def test_the_example_is_valid() -> None:
    assert load(ROOT / "examples/settings.yaml").engine_profiles.keys() == {"corporate-ca"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("engine: {imag: x}", "engine.imag"),
        ("limits: {maxReplicas: 0}", "limits.maxReplicas"),
        ("externalHosts: [{host: 'http://x'}]", "externalHosts.0.host"),
        ("a: [", "YAML"),
        ("- just\n- a list", "YAML"),
    ],
)
def test_bad_settings_name_the_field_and_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(BadSettings) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="no such file"):
        load(tmp_path / "none.yaml")


async def test_health_names_what_is_wrong() -> None:
    problem: str | None = None
    live = [health.Check("loop", lambda: None), health.Check("queue", lambda: problem)]
    runner = await health.serve("127.0.0.1", 0, live, live[:1])
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "[+] loop\n[+] queue\n")
            problem = "stuck"
            async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                assert (answer.status, await answer.text()) == (503, "[+] loop\n[-] queue: stuck\n")
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert metrics.SECONDS._name in await answer.text()
    finally:
        await runner.cleanup()


async def test_a_watch_is_heard_when_it_begins_and_a_second_list_is_noticed() -> None:
    now = 50.0
    relisted: list[str] = []
    watches = Watches(clock=lambda: now, on_relist=relisted.append)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"items": []}')

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1"
    try:
        async with aiohttp.ClientSession(trace_configs=[watches.trace()]) as session:
            urls = ["pods?limit=5", "pods?watch=true", "pods?limit=5&continue=x", "pods?limit=5"]
            urls += ["namespaces/a/pods?watch=true", "namespaces/a/pods?limit=5", "namespaces/b/pods?limit=5"]
            for url in urls:
                async with session.get(f"{base}/{url}") as response:
                    await response.read()
    finally:
        await runner.cleanup()
    now = 57.5
    assert watches.ages() == {"pods": 7.5, "a/pods": 7.5}
    assert relisted == ["pods"]


async def test_the_lag_of_a_blocked_loop_is_seen() -> None:
    lag = health.Lag(period=0.01)
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    assert lag.now() < 0.01
    time.sleep(0.05)  # noqa: ASYNC251 - blocking the loop is the point
    assert lag.now() > 0.02
    task.cancel()


def test_kopf_watches_only_what_is_ours() -> None:
    chosen = settings()
    assert set(chosen.watching.label_selectors.values()) == {OURS}
    assert len(chosen.watching.label_selectors) == 8
    assert not chosen.posting.enabled
    # A watch that falls silent just before its end is still heard of before it counts as stale.
    assert (chosen.watching.server_timeout or 0) + chosen.watching.inactivity_timeout < STALE_WATCH
    assert chosen.scanning.disabled
