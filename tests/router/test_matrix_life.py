"""The router's own life: overload, ends, reloads, secrets and clocks: rows P15 to P18 and P22."""

from __future__ import annotations

import ast
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.canaries import ANSWER, KEY, PROMPT
from tests.router.kit import vllm
from tests.router.kit.client import Cut, Reply, Wire, ask, chat, chat_body, get, request
from tests.router.kit.router import ROOT, Router, table
from tests.router.kit.setup import ladder, patched
from tests.router.kit.upstream import Upstream, answer, fails, forever, hang, response, says, streams

PATIENT = {"connectMs": 5_000, "firstByteMs": 30_000, "idleMs": 30_000, "totalMs": 60_000}
STREAMED = request(chat_body(stream=True))
ENDS_LATE = ("--drain-seconds", "10", "--settle-seconds", "0.1")


def told_to_wait(reply: Reply) -> bool:
    """Whether this was shed: a 429 in OpenAI's shape that says when."""
    if reply.status != 429:
        return False
    assert reply.error["type"] == "rate_limit_error"
    assert int(reply.header("retry-after") or 0) >= 1
    return True


class Crowd:
    """Clients that ask again and again, each on a connection of its own."""

    def __init__(self, port: int, count: int, data: Callable[[int], bytes] = lambda _: request(chat_body())) -> None:
        self.replies = [list[Reply]() for _ in range(count)]
        self.faults = list[str]()
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(port, place, data(place)), daemon=True) for place in range(count)
        ]

    def _ask(self, port: int, place: int, data: bytes) -> None:
        while not self._ends.is_set():
            try:
                with Wire(port) as wire:
                    while not self._ends.is_set():
                        reply = wire.send(data).reply()
                        self.replies[place].append(reply)
                        if reply.status != 200:
                            self._ends.wait(
                                0.02
                            )  # one that is shed asks again, ten times as often as it would be served
                        if reply.header("connection") == "close":
                            break
            except (Cut, OSError) as error:
                self.faults.append(repr(error))
                self._ends.wait(0.05)

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(15)

    def statuses(self) -> Counter[int]:
        return Counter(reply.status for replies in self.replies for reply in replies)


# -- P15: overload ----------------------------------------------------------------------------------------------------

SLOW = 0.05
ROOM = 4


def limits(**more: Any) -> dict[str, Any]:
    return {"limits": {"concurrency": ROOM, "queue": 8, "queueMs": 400, **more}}


def peak(router: Router) -> float:
    """Answers a second when no more ask than are served: what a busy machine leaves of ROOM / SLOW."""
    with Crowd(router.port, ROOM) as crowd:
        time.sleep(1)
    return crowd.statuses()[200]


def test_p15_at_ten_times_the_load_nine_tenths_of_the_peak_are_served() -> None:
    with ladder(answer("x", first=SLOW), policy=limits(), timeouts=PATIENT) as (router, (tier,)):
        before = peak(router)
        with Crowd(router.port, ROOM * 10) as crowd:
            time.sleep(2.5)
        seen = crowd.statuses()
        assert crowd.faults == []
        assert set(seen) == {200, 429}
        assert seen[200] >= 0.9 * min(before, peak(router)) * 2.5
        assert all(told_to_wait(one) or one.status == 200 for replies in crowd.replies for one in replies)
        assert max(_overlap(tier)) <= ROOM


def _overlap(tier: Upstream) -> list[int]:
    """Return how many requests were being answered when each began."""
    spans = [(one.at, one.answered or one.at) for one in tier.requests]
    return [sum(begin <= at < end for begin, end in spans) for at, _ in spans]


def test_p15_what_does_not_fit_is_refused_at_once() -> None:
    with ladder(hang, policy=limits(queue=0), timeouts=PATIENT) as (router, (tier,)):
        wires = [Wire(router.port) for _ in range(ROOM)]
        try:
            for wire in wires:
                wire.send(request(chat_body()))
            tier.wait(lambda: len(tier.requests) == ROOM)
            reply = chat(router.port)
            assert told_to_wait(reply)
            assert reply.seconds < 0.1
        finally:
            for wire in wires:
                wire.close()
        router.idle()


def test_p15_one_that_waits_is_served_when_there_is_room_and_refused_when_there_is_none() -> None:
    with ladder(answer("x", first=0.3), policy=limits(concurrency=1, queue=1), timeouts=PATIENT) as (router, _):
        with Wire(router.port) as one, Wire(router.port) as two:
            one.send(request(chat_body()))
            time.sleep(0.05)
            two.send(request(chat_body()))
            time.sleep(0.05)
            assert told_to_wait(chat(router.port))
            assert (one.reply().status, two.reply().status) == (200, 200)
    with ladder(answer("x", first=2), policy=limits(concurrency=1), timeouts=PATIENT) as (router, _):
        with Wire(router.port) as one:
            one.send(request(chat_body()))
            time.sleep(0.05)
            reply = chat(router.port)
            assert told_to_wait(reply)
            assert 0.3 < reply.seconds < 1.2


def test_p15_one_that_leaves_the_queue_takes_no_place_and_asks_nobody() -> None:
    with ladder(answer("x", first=0.4), policy=limits(concurrency=1, queueMs=5000), timeouts=PATIENT) as (
        router,
        (tier,),
    ):
        with Wire(router.port) as one:
            one.send(request(chat_body()))
            time.sleep(0.05)
            for _ in range(20):
                with Wire(router.port) as gone:
                    gone.send(request(chat_body()))
                    time.sleep(0.01)
            assert one.reply().status == 200
        assert chat(router.port).status == 200
        router.idle()
        assert len(tier.requests) == 2


def test_p15_a_key_that_asks_much_leaves_room_for_one_that_asks_little() -> None:
    keys = {"greedy": "sk-greedy", "modest": "sk-modest"}
    file = {"keys": [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in keys.items()]}
    policy = {**limits(queue=16, queueMs=2000), "access": {"mode": "Keys"}}

    def data(place: int) -> bytes:
        return request(chat_body(), f"authorization: Bearer {keys['modest' if place == 0 else 'greedy']}")

    with ladder(answer("x", first=SLOW), policy=policy, keys=file, timeouts=PATIENT) as (router, _):
        with Crowd(router.port, 30, data) as crowd:
            time.sleep(2.5)
        modest = Counter(reply.status for reply in crowd.replies[0])
        assert modest[429] == 0, modest
        assert modest[200] >= 15, modest


def test_p15_more_than_a_tier_takes_at_once_waits_or_is_told_to() -> None:
    with ladder(answer("x", first=SLOW), tier={"concurrency": ROOM}, timeouts=PATIENT) as (router, (tier,)):
        before = peak(router)
        with Crowd(router.port, ROOM * 5) as crowd:
            time.sleep(1.5)
        seen = crowd.statuses()
        assert set(seen) <= {200, 429, 503}
        assert seen[200] >= 0.9 * min(before, peak(router)) * 1.5
        assert max(_overlap(tier)) <= ROOM


def test_p15_requests_and_tokens_per_minute_are_counted_and_refused_early() -> None:
    with ladder(answer("one two three"), policy={"limits": {"requestsPerMinute": 5}}) as (router, (tier,)):
        said = [chat(router.port) for _ in range(10)]
        assert [one.status for one in said[:5]] == [200] * 5
        assert all(map(told_to_wait, said[6:]))
        assert len(tier.requests) <= 6


# -- P16: ends --------------------------------------------------------------------------------------------------------


def test_p16_a_stream_that_ends_in_time_ends_well_and_the_exit_is_clean() -> None:
    with ladder(answer("a b c d e", between=0.2), flags=ENDS_LATE, timeouts=PATIENT) as (router, _):
        with Wire(router.port) as wire:
            wire.send(STREAMED)
            assert wire.some()
            router.terminate()
            reply = Reply(200, (), wire.until_closed(8), b"")
        assert b"[DONE]" in reply.body
        assert b'"error"' not in reply.body
        assert router.ended(5) == 0


def test_p16_no_plain_request_that_was_taken_is_lost_while_it_ends() -> None:
    with ladder(
        answer("x", first=0.05), flags=("--drain-seconds", "2", "--settle-seconds", "0.6"), timeouts=PATIENT
    ) as (
        router,
        (tier,),
    ):
        with Crowd(router.port, 8) as crowd:
            time.sleep(0.5)
            router.terminate()
            router.ended(8)
            time.sleep(0.1)
        assert crowd.statuses().keys() <= {200, 503}
        assert sum(one.answered is not None for one in tier.requests) == crowd.statuses()[200]
        # Once it is gone new connections are refused, and the system resets those that it had not handed over when the
        # listener closed: one of each client at the most. What the router had taken must not be cut.
        reset = [fault for fault in crowd.faults if "reset" in fault.lower() or "came: b''" in fault]
        assert len(reset) <= 8
        assert all(fault in reset or "refused" in fault.lower() for fault in crowd.faults), crowd.faults[:5]
        assert len(tier.requests) == crowd.statuses()[200]


def test_p16_readiness_goes_off_first_and_liveness_stays() -> None:
    with ladder(forever(), flags=ENDS_LATE, timeouts=PATIENT) as (router, _), Wire(router.port) as wire:
        wire.send(STREAMED)
        assert wire.some()
        assert get(router.admin, "/readyz").status == 200
        router.terminate()
        router.until(lambda status: status["draining"])
        assert get(router.admin, "/readyz").status == 503
        assert get(router.admin, "/healthz").status == 200
        reply = chat(router.port)
        assert reply.header("connection") == "close"


def test_p16_a_stream_that_does_not_end_in_time_ends_with_an_error_and_no_done() -> None:
    flags = ("--drain-seconds", "0.5", "--settle-seconds", "0.1")
    with ladder(forever(), flags=flags, timeouts=PATIENT) as (router, (tier,)), Wire(router.port) as wire:
        wire.send(STREAMED)
        assert wire.some()
        router.terminate()
        began = time.monotonic()
        said = wire.until_closed(5)
        assert time.monotonic() - began < 3
        assert b"[DONE]" not in said
        last = said.replace(b"0\r\n\r\n", b"").rstrip().rsplit(b"data: ", 1)[-1]
        assert set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
        assert router.ended(5) == 0
        tier.cancelled(seconds=1)


def test_p16_a_plain_request_that_does_not_end_in_time_is_a_503() -> None:
    flags = ("--drain-seconds", "0.4", "--settle-seconds", "0.1")
    with ladder(hang, flags=flags, timeouts=PATIENT) as (router, (tier,)), Wire(router.port) as wire:
        wire.send(request(chat_body()))
        tier.wait(lambda: tier.requests)
        router.terminate()
        reply = wire.reply(4)
        assert reply.status == 503
        assert reply.error
        assert int(reply.header("retry-after") or 0) >= 1
        assert router.ended(5) == 0


def test_p16_a_drain_returns_when_nothing_is_in_flight_and_says_so() -> None:
    with ladder(answer("a b c d", between=0.2), flags=ENDS_LATE, timeouts=PATIENT) as (router, _):
        with Wire(router.port) as wire:
            wire.send(STREAMED)
            assert wire.some()
            began = time.monotonic()
            reply = get(router.admin, "/drain?seconds=8")
            assert reply.json == {"drained": True, "inFlight": 0}
            assert 0.5 < time.monotonic() - began < 4
            assert b"[DONE]" in wire.until_closed(3)
        assert get(router.admin, "/readyz").status == 503
        router.terminate()
        assert router.ended(3) == 0


def test_p16_a_drain_that_runs_out_of_time_says_what_is_left() -> None:
    with ladder(forever(), flags=ENDS_LATE, timeouts=PATIENT) as (router, _), Wire(router.port) as wire:
        wire.send(STREAMED)
        assert wire.some()
        assert ask(router.admin, request(path="/drain?seconds=0.3", method="POST")).json == {
            "drained": False,
            "inFlight": 1,
        }
        assert wire.some(1)


@pytest.mark.parametrize(
    "query", ["?seconds=", "?seconds=x", "?seconds=-5", "?seconds=nan", "?seconds=1e999", "?x=1", "?%ff"]
)
def test_p16_a_drain_that_makes_no_sense_is_refused_or_bounded(query: str) -> None:
    with ladder(answer("x"), flags=("--drain-seconds", "0.2")) as (router, _):
        reply = get(router.admin, f"/drain{query}", seconds=5)
        assert reply.status in (200, 400)


def test_p16_two_signals_and_a_drain_at_once_end_it_once() -> None:
    with ladder(answer("a b c", between=0.2), flags=ENDS_LATE, timeouts=PATIENT) as (router, _):
        with Wire(router.port) as wire, Wire(router.admin) as admin:
            wire.send(STREAMED)
            assert wire.some()
            admin.send(request(path="/drain?seconds=5", method="GET"))
            router.terminate()
            time.sleep(0.05)
            router.terminate()
            assert b"[DONE]" in wire.until_closed(5)
            assert router.ended(5) == 0


def test_p16_idle_connections_do_not_hold_up_the_end() -> None:
    with ladder(answer("x"), flags=ENDS_LATE) as (router, _):
        wires = [Wire(router.port) for _ in range(20)]
        try:
            for wire in wires[:10]:
                assert wire.send(request(chat_body())).reply().status == 200
            wires[15].send(b"POST /v1/chat")
            began = time.monotonic()
            router.terminate()
            assert router.ended(5) == 0
            assert time.monotonic() - began < 2
        finally:
            for wire in wires:
                wire.close()


# -- P17: reloads -----------------------------------------------------------------------------------------------------


def version(router: Router) -> str:
    return str(router.status()["tables"]["table.json"]["version"])


def test_p17_a_hundred_reloads_under_load_drop_nothing() -> None:
    with Upstream(answer("a b", between=0.01)) as one, Upstream(answer("a b", between=0.01)) as two:
        shapes = [table(one.port, two.port), table(two.port, one.port)]

        def data(place: int) -> bytes:
            return request(chat_body(stream=place % 2 == 0))

        with Router(shapes[0] | {"version": "v0"}) as router, Crowd(router.port, 8, data) as crowd:
            for number in range(1, 101):
                router.reload(shapes[number % 2] | {"version": f"v{number}"})
                time.sleep(0.03)
            router.until(lambda status: status["tables"]["table.json"]["version"] == "v100")
        assert crowd.faults == []
        assert set(crowd.statuses()) == {200}
        texts = {reply.text for replies in crowd.replies for reply in replies}
        assert texts == {"a b"}
        assert one.requests
        assert two.requests


def test_p17_a_request_that_is_being_answered_ends_on_the_old_table() -> None:
    with Upstream(answer("a b c d", between=0.2)) as old, Upstream(answer("new")) as new:
        with Router(table(old.port) | {"version": "old"}) as router, Wire(router.port) as wire:
            wire.send(STREAMED)
            assert wire.some()
            router.reload(table(new.port) | {"version": "new"})
            router.until(lambda status: status["tables"]["table.json"]["version"] == "new")
            assert chat(router.port).text == "new"
            rest = wire.until_quiet(1.0)
            assert b"[DONE]" in rest


BAD_TABLES = {
    "empty": "",
    "cut": '{"formatVersion": 1, "tiers": [',
    "no JSON": "{{{{",
    "no YAML": "a: b: c",
    "a list": "[]",
    "null": "null",
    "another format": '{"formatVersion": 2, "tiers": [], "policies": []}',
    "no tiers": '{"formatVersion": 1, "tiers": [], "policies": []}',
    "an unknown field": json.dumps(table(1) | {"colour": "red"}),
    "an unknown tier": json.dumps(table(1, policy={"tiers": ["nobody"]})),
    "a pattern that RE2 does not take": json.dumps(
        table(1, policy={"rules": [{"name": "x", "when": {"patterns": ["(?=x)"]}, "tier": "t0"}]})
    ),
    "a bomb of aliases": "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n",
    "a tag": "!!python/object/apply:os.system ['true']",
    "bottomless": "[" * 100_000,
    "bottomless YAML": "- " * 5_000,
    "2 MiB": " " * 2**21,
    "NUL": "\0",
    "numbers that overflow": json.dumps(table(1)).replace('"firstByteMs": 2000', '"firstByteMs": 1e999'),
    "a port of 0": json.dumps(table("127.0.0.1:0")),
}


@pytest.fixture(scope="module")
def steady() -> Iterator[Router]:
    with Upstream(answer("as before")) as tier, Router(table(tier.port) | {"version": "good"}) as router:
        yield router


@pytest.mark.parametrize("case", BAD_TABLES)
def test_p17_a_bad_table_is_refused_with_its_place_and_the_good_one_serves_on(steady: Router, case: str) -> None:
    good = steady.table.read_text()
    before = steady.metrics().value("table_reloads_total", outcome="Refused")
    steady.reload(BAD_TABLES[case])
    try:
        status = steady.until(lambda found: found["refusedTables"])
        assert len(status["refusedTables"]["table.json"]) > 5
        assert status["tables"]["table.json"]["version"] == "good"
        assert chat(steady.port).text == "as before"
        assert steady.metrics().value("table_reloads_total", outcome="Refused") == before + 1
    finally:
        steady.reload(good)
        steady.until(lambda found: not found["refusedTables"])


def test_p17_a_table_that_vanishes_or_cannot_be_read_leaves_the_good_one(steady: Router) -> None:
    good = steady.table.read_text()
    steady.table.unlink()
    time.sleep(0.6)
    assert chat(steady.port).text == "as before"
    steady.table.mkdir()
    time.sleep(0.6)
    assert chat(steady.port).text == "as before"
    steady.table.rmdir()
    steady.reload(good)
    steady.until(lambda found: not found["refusedTables"])
    assert chat(steady.port).text == "as before"


def test_p17_a_table_that_flaps_ends_on_its_last_word() -> None:
    with Upstream(answer("one")) as one, Upstream(answer("two")) as two, Router(table(one.port)) as router:
        shapes = [table(one.port), table(two.port)]
        for number in range(300):
            router.reload("{" if number % 3 == 0 else shapes[number % 2] | {"version": f"v{number}"})
        router.reload(shapes[1] | {"version": "last"})
        router.until(lambda status: status["tables"]["table.json"]["version"] == "last")
        assert chat(router.port).text == "two"
        assert router.status()["refusedTables"] == {}


def test_p17_the_version_in_force_shows_in_status_and_metrics(steady: Router) -> None:
    assert version(steady) == "good"
    assert steady.metrics().value("table_reloads_total", outcome="Loaded") >= 1
    assert 'version="good"' in steady.metrics().text


def test_p17_tiers_that_a_new_table_leaves_keep_their_connections_and_those_gone_close_theirs() -> None:
    with Upstream(answer("kept")) as kept, Upstream(answer("gone")) as gone:
        first = table(kept.port, gone.port, alone=True)
        with Router(first) as router:
            assert chat(router.port, model="t0").text == "kept"
            assert chat(router.port, model="t1").text == "gone"
            router.reload(table(kept.port) | {"version": "second"})
            router.until(lambda status: "version" in status["tables"]["table.json"] and version(router) == "second")
            assert chat(router.port).text == "kept"
            assert kept.requests[0].connection is kept.requests[1].connection
            gone.wait(lambda: gone.requests[0].connection.closed, 2)


# -- P18: secrets -----------------------------------------------------------------------------------------------------

CANARIES = (PROMPT, ANSWER, KEY)
AUTHORIZED = f"authorization: Bearer {KEY}"


def _provoke(router: Router, first: Upstream) -> None:
    """Everything that can go well or wrong, with a canary in each place that a client or a tier can fill."""
    events = vllm.chat_events(f"{ANSWER} b c", logprobs=-0.1)
    broken = vllm.error(500, f"tensor {PROMPT} {ANSWER}")
    scripts = [
        answer(ANSWER),
        answer(ANSWER, logprobs=None, usage=False),
        fails(500, message=f"{PROMPT} {ANSWER}"),
        says(response("500 Failed", broken)),
        says(response("200 OK", broken)),
        says(response("400 Bad", vllm.error(400, f"bad prompt {PROMPT}"))),
        says(response("400 Bad", f'{{"detail":"{ANSWER}"}}'.encode())),
        says(response("200 OK", vllm.chat(ANSWER))[:-9], then="fin"),
        says(f"HTTP/1.1 200 {ANSWER}\r\nx-{ANSWER}: {ANSWER}\r\nbad\r\n\r\n".encode()),
        streams(events[:2], then="reset", last=False),
        streams([*events[:2], vllm.event({"error": {"message": f"{PROMPT} {ANSWER}"}}), vllm.DONE]),
        streams([f"data: {ANSWER} no json\n\n".encode(), f"{ANSWER}: x\n\n".encode(), vllm.DONE]),
        says(response("200 OK", f'{{"{ANSWER}": '.encode())),
        hang,
    ]
    for script in scripts:
        for stream in (False, True):
            first.script = script
            chat(router.port, PROMPT, AUTHORIZED, stream=stream, user=PROMPT, metadata={"k": PROMPT})
    first.script = answer(ANSWER)
    with Wire(router.port) as wire:
        wire.send(request(chat_body(PROMPT, stream=True), AUTHORIZED))
        wire.some()
        wire.reset()
    for data in _bad_requests():
        with Wire(router.port) as wire:
            wire.try_send(data)
            wire.until_quiet(0.1, 2)


def _bad_requests() -> list[bytes]:
    part = {"type": "image_url", "image_url": {"url": f"http://{PROMPT}.test/{PROMPT}"}}
    return [
        request(chat_body(PROMPT), f"authorization: Bearer {KEY}-wrong"),
        request(chat_body(PROMPT), f"authorization: {KEY}"),
        request(chat_body(PROMPT), AUTHORIZED, f"{KEY}: {PROMPT}", f"expect: {PROMPT}"),
        request(chat_body(PROMPT), AUTHORIZED, AUTHORIZED),
        request(chat_body(PROMPT, model=PROMPT), AUTHORIZED),
        request(chat_body(PROMPT, n=-1, stop={PROMPT: PROMPT}), AUTHORIZED),
        request(chat_body(PROMPT, tools=PROMPT, **{PROMPT: PROMPT}), AUTHORIZED),
        request(chat_body(messages=[{"role": "user", "content": [part]}]), AUTHORIZED),
        request(chat_body(messages=PROMPT), AUTHORIZED),
        request(chat_body(PROMPT)[:-5], AUTHORIZED),
        request(f'{{"{PROMPT}": "{PROMPT}", "{PROMPT}": 1}}'.encode(), AUTHORIZED),
        request(chat_body(PROMPT), AUTHORIZED, path=f"/v1/{PROMPT}?key={KEY}"),
        request(chat_body(PROMPT), AUTHORIZED, path=f"/v1/chat/completions?key={KEY}"),
        request(chat_body(PROMPT), AUTHORIZED, method=PROMPT.replace("-", "")),
        request(chat_body(PROMPT), AUTHORIZED, host=PROMPT),
        f"{PROMPT} {KEY} nonsense\r\n\r\n".encode(),
        request(chat_body(PROMPT), AUTHORIZED, f"x-modeltiers-tier: {PROMPT}", f"x-session-id: {PROMPT}"),
        request(chat_body(PROMPT), AUTHORIZED, f"content-type: {PROMPT}", kind=None),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n" + PROMPT.encode(),
    ]


def test_p18_no_prompt_answer_or_key_is_anywhere_but_on_the_wire(tmp_path: Path) -> None:
    file = {"keys": [{"name": "team", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}
    spool = tmp_path / "spool"
    spool.mkdir()
    flags = ["--spool", str(spool)] if _knows("--spool") else []
    policy = {"access": {"mode": "Keys"}}
    with Upstream() as first, Upstream(answer(ANSWER)) as second:
        shape = table(first.port, second.port, policy=policy, tier={"breaker": {"failures": 1000}})
        with Router(shape, *flags, "--body-seconds", "0.3", keys=file) as router:
            _provoke(router, first)
            router.keys.write_text(json.dumps({"keys": [{"name": "team", "sha256": KEY}]}))
            router.until(lambda status: status["refusedKeys"])
            admin = [router.get(path) for path in ("/metrics", "/status", "/healthz", "/readyz", f"/{KEY}")]
            router.terminate()
            router.ended()
            time.sleep(0.1)
            said = router.output() + "".join((one.raw + one.body).decode() for one in admin)
        assert any(PROMPT in one.body.decode() for one in first.requests), "the canary never flew"
    said += "".join(one.read_text() for one in spool.rglob("*") if one.is_file())
    assert [canary for canary in CANARIES if canary in said] == []
    assert KEY not in "".join(one.head.decode("latin-1") + one.body.decode() for one in first.requests)


def _knows(flag: str) -> bool:
    """Whether the router has a flag, from its source: a process only to ask would cost more."""
    return flag in (ROOT / "operator/modeltiers/router/__main__.py").read_text()


def test_p18_a_crash_shows_no_secret_either() -> None:
    """A fault inside the router must not print what it had in hand: it is provoked from outside, in a real process."""
    patch = """
    import modeltiers.router.router as router
    def broken(self, *_):
        raise RuntimeError("a fault of the router")
    router.Router._judge = broken
    """
    with patched(patch) as path, Upstream() as tier:
        router = Router(table(tier.port), python_path=[path])
        with pytest.raises(AssertionError, match="standard error"), router:
            with Wire(router.port) as wire:
                wire.send(request(chat_body(PROMPT), AUTHORIZED))
                said = wire.until_quiet(0.5, 3)
            assert get(router.admin, "/healthz").status == 200
            time.sleep(0.1)
            output = router.output()
        assert "a fault of the router" in output
        assert not any(canary in output for canary in CANARIES)
        assert said == b"" or b" 500 " in said


# -- P22: clocks ------------------------------------------------------------------------------------------------------

JUMP = """
import datetime, os, time
real, real_ns = time.time, time.time_ns
path = os.environ["CLOCK_FILE"]
def offset():
    try:
        with open(path) as file:
            return float(file.read() or 0)
    except (OSError, ValueError):
        return 0.0
time.time = lambda: real() + offset()
time.time_ns = lambda: real_ns() + int(offset() * 10**9)
"""


@pytest.mark.parametrize(
    "jump",
    [-86_400 * 365, 86_400 * 365, pytest.param(-60, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow)],
)
def test_p22_a_wall_clock_that_jumps_changes_no_time_out(tmp_path: Path, jump: int) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    times = {**PATIENT, "firstByteMs": 800, "idleMs": 800}
    with patched(JUMP) as path, Upstream(hang) as silent, Upstream(answer("a b c d", between=0.3)) as steady:
        shape = table(silent.port, steady.port, alone=True, timeouts=times)
        env = {"CLOCK_FILE": str(clock)}
        with Router(shape, "--idle-seconds", "3", env=env, python_path=[path]) as router:
            with Wire(router.port) as waits, Wire(router.port) as streams_, Wire(router.port) as idle:
                assert idle.send(request(chat_body(model="t1"))).reply().status == 200
                waits.send(request(chat_body(model="t0")))
                streams_.send(request(chat_body(model="t1", stream=True)))
                time.sleep(0.3)
                clock.write_text(str(jump))
                late = waits.reply()
                assert late.status == 504
                assert 0.6 < late.seconds < 2
                assert streams_.reply().text == "a b c d"
                assert idle.send(request(chat_body(model="t1"))).reply().status == 200
            assert router.status()["ready"]


def test_p22_no_code_of_the_data_plane_measures_with_the_wall_clock() -> None:
    """`time.time` may date a record; differences come from monotonic clocks, and naive dates from nowhere."""
    found = []
    for path in sorted((ROOT / "operator/modeltiers/router").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
                text = ast.unparse(node)
                if "time.time(" in text or "time_ns(" in text or "datetime" in text:
                    found.append(f"{path.name}:{node.lineno}: {text}")
    assert found == []
