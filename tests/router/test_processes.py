"""Several router processes behind one port: what they share, what they add up, what one's death costs the other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modeltiers.domain.routing.accept import judge
from modeltiers.domain.routing.record import decode, verify_line, version_of
from modeltiers.domain.routing.table import read_table
from modeltiers.router.processes import add_up
from tests.router.kit.client import Cut, Reply, Wire, ask, chat, chat_body, get, request
from tests.router.kit.router import ENDS_SOON, ROOT, Refused, Router, spooled, table
from tests.router.kit.setup import ladder
from tests.router.kit.upstream import Upstream, answer, forever, hang

TWO = ("--processes", "2")
PATIENT = {"connectMs": 2_000, "firstByteMs": 20_000, "idleMs": 20_000, "totalMs": 30_000}


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    found = []
    for one in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = one.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(one.parent.name))
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it never came to hold within {seconds} s"
        time.sleep(0.02)


def models(process: dict[str, Any]) -> Any:
    """Return the models that one process of a status knows."""
    return process["tables"]["table.json"]["models"]


def idle(router: Router) -> None:
    until(lambda: not router.status()["inFlight"])


def each_asked(router: Router) -> list[float]:
    """Return how many requests each process has ended, by its spool of figures in /status."""
    return [one["spool"]["written"] for one in router.status()["processes"]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Router, Upstream, Path]]:
    spool = tmp_path_factory.mktemp("spool")
    flags = (*TWO, "--spool", str(spool), "--log-requests", "all")
    with ladder(answer("one"), answer("two"), flags=flags, timeouts=PATIENT) as (router, (first, _)):
        yield router, first, spool


# -- one port, one account --------------------------------------------------------------------------------------------


def test_both_serve_on_one_port_and_what_they_say_adds_up(pair: tuple[Router, Upstream, Path]) -> None:
    router, tier, _ = pair
    before, asked = router.metrics(), len(tier.requests)
    assert len(children(router.pid)) == 2
    replies = [chat(router.port) for _ in range(60)]
    assert {reply.status for reply in replies} == {200}
    assert len(tier.requests) - asked == 60
    idle(router)
    after = router.metrics()
    assert after.value("requests_total") - before.value("requests_total") == 60
    assert after.value("requests_total", outcome="Answered") - before.value("requests_total", outcome="Answered") == 60
    for name in ("attempts_total", "time_to_first_token_seconds_count", "upstream_seconds_count"):
        assert after.value(name) - before.value(name) == 60
    assert after.value("tokens_total", kind="prompt") - before.value("tokens_total", kind="prompt") == 300
    assert after.value("overhead_seconds_count") - before.value("overhead_seconds_count") == 60
    assert after.value("processes") == 2
    assert after.value("in_flight") == 0
    prefixes = {(reply.header("x-modeltiers-record") or "").partition("-")[0] for reply in replies}
    assert len(prefixes) == 2  # each process names its records: both have served
    until(lambda: min(each_asked(router)) > 0)


def test_the_status_has_each_process(pair: tuple[Router, Upstream, Path]) -> None:
    router, tier, _ = pair
    status = router.status()
    assert status["ready"]
    assert not status["draining"]
    assert len(status["processes"]) == 2
    for one in status["processes"]:
        assert one["ready"]
        assert models(one) == ["support"]
    tier.next(*[answer("slow", first=0.4)] * 6)
    wires = [Wire(router.port) for _ in range(6)]
    for wire in wires:
        wire.send(request(chat_body()))
    until(lambda: router.status()["inFlight"] == 6)
    assert router.metrics().value("in_flight") == 6
    for wire in wires:
        assert wire.reply().text == "slow"
        wire.close()
    idle(router)


def test_probes_speak_for_both(pair: tuple[Router, Upstream, Path]) -> None:
    router, _, _ = pair
    assert router.get("/healthz").status == router.get("/readyz").status == 200
    assert router.get("/engine/health").status == 503  # no tier of this table is local
    assert router.get("/none").error["message"]
    assert router.get("/none").status == 404
    assert ask(router.admin, request(b"", path="/metrics")).status == 405


def test_both_spool_and_every_record_holds(pair: tuple[Router, Upstream, Path]) -> None:
    router, _, spool = pair
    ids = {chat(router.port).header("x-modeltiers-record") for _ in range(20)}
    found: list[bytes] = []

    def come() -> bool:
        found[:] = spooled(spool)
        return ids <= {decode(line).id for line in found}

    until(come)
    assert len({path.name.partition("-")[0] for path in spool.glob("*.jsonl")}) == 2
    content = router.table.read_bytes()
    made = read_table(json.loads(content))
    assert [fault for line in found for fault in verify_line(line, made, version_of(made, content), judge)] == []
    assert len({decode(line).id for line in found}) == len(found)
    written = sum(one["spool"]["written"] for one in router.status()["processes"])
    assert written == router.metrics().value("spool", figure="written") == len(found)


def test_logs_of_both_are_whole_lines(pair: tuple[Router, Upstream, Path]) -> None:
    router, _, _ = pair
    ids = {chat(router.port).header("x-modeltiers-record") for _ in range(20)}
    until(lambda: ids <= {one.get("id") for one in router.log()})
    assert sum(one.get("event") == "listening" for one in router.log()) == 1


def test_a_new_table_reaches_both(pair: tuple[Router, Upstream, Path]) -> None:
    router, _, _ = pair
    made = json.loads(router.table.read_text())
    made["policies"][0]["model"] = "renamed"
    old = router.table.read_text()
    router.reload(made)
    try:
        until(lambda: all(models(one) == ["renamed"] for one in router.status()["processes"]))
        assert {chat(router.port, model="renamed").status for _ in range(12)} == {200}
        assert {chat(router.port).status for _ in range(12)} == {404}
    finally:
        router.reload(old)
    until(lambda: {chat(router.port).status for _ in range(6)} == {200})


# -- limits are divided -----------------------------------------------------------------------------------------------


def test_limits_are_divided_and_the_error_is_no_more_than_one_for_each_process() -> None:
    limits = {
        "many": {"requestsPerMinute": 20, "queue": 0},
        "one": {"requestsPerMinute": 20, "queue": 0},
        "held": {"concurrency": 4, "queue": 0},
        "least": {"concurrency": 1, "queue": 0},
    }
    with Upstream(answer("one")) as tier:
        made = table(tier.port, timeouts=PATIENT)
        made["policies"] = [
            {"name": name, "model": name, "tiers": ["t0"], "limits": one} for name, one in limits.items()
        ]
        with Router(made, *TWO) as router:
            # 20 a minute are ten each. Over many connections there are all of them, and what comes back meanwhile.
            found = Counter(chat(router.port, model="many").status for _ in range(80))
            assert set(found) == {200, 429}
            assert found[200] in (20, 21, 22)
            assert router.metrics().value("limited_total", policy="many", cause="Requests") == found[429]
            # One connection is one process, which has half of them.
            with Wire(router.port) as wire:
                statuses = Counter(wire.send(request(chat_body(model="one"))).reply().status for _ in range(30))
            assert statuses[200] in (10, 11)
            # Four in flight are two each; of one there is one each, so two together: that is the error.
            tier.script = hang
            for model, most in (("held", 4), ("least", 2)):
                tier.requests.clear()
                wires = [Wire(router.port).send(request(chat_body(model=model))) for _ in range(30)]
                until(lambda most=most: router.status()["inFlight"] == most)  # type: ignore[misc]  # mypy does not infer a lambda's default
                time.sleep(0.1)
                assert len(tier.requests) == most
                for wire in wires:
                    wire.close()
                idle(router)


# -- one dies ---------------------------------------------------------------------------------------------------------


def test_a_process_that_is_killed_is_started_again_and_clients_of_the_other_do_not_notice() -> None:
    with ladder(forever(0.01), flags=TWO, timeouts=PATIENT) as (router, (tier,)):
        wires = [Wire(router.port).send(request(chat_body(stream=True))) for _ in range(12)]
        for wire in wires:
            wire.some(5)
        victim, other = children(router.pid)
        per_process = [one["inFlight"] for one in router.status()["processes"]]
        assert sum(per_process) == 12
        assert min(per_process) >= 1
        os.kill(victim, signal.SIGKILL)
        until(lambda: any(one is None for one in router.status()["processes"]) or victim not in children(router.pid))
        time.sleep(0.1)
        ended = 0
        for wire in wires:
            got = wire.until_quiet(0.03, 0.05)
            ended += wire.closed
            assert b"[DONE]" not in got
            if not wire.closed:
                assert wire.some(1)  # it goes on
        assert ended in per_process
        assert ended < 12
        until(lambda: len(children(router.pid)) == 2 and router.get("/readyz").status == 200)
        assert other in children(router.pid)
        assert router.metrics().value("process_restarts_total") == 1
        assert [one["event"] for one in router.log()].count("process_died") == 1
        tier.script = answer("again")
        assert {chat(router.port).text for _ in range(20)} == {"again"}
        for wire in wires:
            wire.close()
        idle(router)


def test_no_request_is_refused_while_a_process_is_started_again(pair: tuple[Router, Upstream, Path]) -> None:
    router, _, _ = pair
    faults, ends = list[tuple[float, str]](), threading.Event()

    def crowd() -> None:
        while not ends.is_set():
            began = time.monotonic()
            try:
                if (reply := chat(router.port)).status != 200:
                    faults.append((began, str(reply.status)))
            except (Cut, OSError) as error:
                faults.append((began, repr(error)))

    thread = threading.Thread(target=crowd)
    thread.start()
    time.sleep(0.1)
    victim = children(router.pid)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in children(router.pid))
    gone = time.monotonic()
    until(lambda: len(children(router.pid)) == 2)
    until(lambda: router.get("/readyz").status == 200)
    ends.set()
    thread.join(10)
    # What was in the dead process's hands is lost, and nothing of later. The kernel closes its connections before its
    # listener: a client whose request was cut, and who comes again at once, is taken by that listener and cut again.
    assert len(faults) <= 2, faults
    assert all(began < gone for began, _ in faults), faults


@pytest.mark.slow
def test_a_process_that_hangs_makes_the_whole_unready() -> None:
    with ladder(answer("one"), flags=TWO) as (router, _):
        victim = children(router.pid)[0]
        os.kill(victim, signal.SIGSTOP)  # alive, and answers nobody
        try:
            began = time.monotonic()
            assert get(router.admin, "/readyz", seconds=9).status == 503
            assert time.monotonic() - began < 7
        finally:
            os.kill(victim, signal.SIGCONT)
        until(lambda: router.get("/readyz").status == 200)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_drain_drains_both_and_says_what_is_left() -> None:
    with ladder(answer("slow", first=0.5), flags=TWO, timeouts=PATIENT) as (router, (tier, *_)):
        wires = [Wire(router.port).send(request(chat_body())) for _ in range(10)]
        until(lambda: router.status()["inFlight"] == 10)
        began = time.monotonic()
        said = ask(router.admin, request(b"", path="/drain?seconds=5")).json
        assert said == {"drained": True, "inFlight": 0}
        assert 0.1 < time.monotonic() - began < 3
        assert {wire.reply().text for wire in wires} == {"slow"}
        for wire in wires:
            wire.close()
        assert router.status()["draining"]
        assert router.get("/readyz").status == 503
        assert router.get("/healthz").status == 200
        assert {chat(router.port).status for _ in range(12)} == {503}
        assert len(tier.requests) == 10


def test_a_drain_that_runs_out_of_time_adds_up_what_is_left() -> None:
    with ladder(forever(), flags=TWO, timeouts=PATIENT) as (router, _):
        wires = [Wire(router.port).send(request(chat_body(stream=True))) for _ in range(8)]
        until(lambda: router.status()["inFlight"] == 8)
        assert router.get("/drain?seconds=0.2").json == {"drained": False, "inFlight": 8}
        assert router.get("/drain?seconds=soon").status == 400
        for wire in wires:
            wire.close()


def test_a_signal_ends_all_in_good_order_and_leaves_nobody() -> None:
    flags = (*TWO, "--drain-seconds", "5", "--settle-seconds", "0.05")
    with ladder(answer("slow", first=0.4), flags=flags, timeouts=PATIENT) as (router, _):
        family = children(router.pid)
        wires = [Wire(router.port).send(request(chat_body())) for _ in range(8)]
        until(lambda: router.status()["inFlight"] == 8)
        router.terminate()
        assert {wire.reply().text for wire in wires} == {"slow"}
        assert router.ended(5) == 0
        assert not any(map(alive, family))
        with pytest.raises(ConnectionRefusedError):
            Wire(router.port)
        for wire in wires:
            wire.close()


def test_a_signal_just_after_a_death_ends_all_too() -> None:
    # The one that is to be started again must not be, or must be told to end.
    with ladder(answer("one"), flags=TWO) as (router, _):
        for victim in children(router.pid):
            os.kill(victim, signal.SIGKILL)
        time.sleep(0.03)
        router.terminate()
        try:
            assert router.ended(5) == 0
        finally:
            left = children(router.pid)
            for one in left:
                os.kill(one, signal.SIGKILL)
        assert left == []


@pytest.mark.parametrize("delay", [0.14])
def test_a_signal_while_one_is_started_ends_all_too(delay: float) -> None:
    with ladder(answer("one"), flags=TWO) as (router, _):
        os.kill(children(router.pid)[0], signal.SIGKILL)
        time.sleep(delay)
        router.terminate()
        try:
            assert router.ended(5) == 0
        finally:
            left = children(router.pid)
            for one in left:
                os.kill(one, signal.SIGKILL)
        assert left == []


# -- the beginning ----------------------------------------------------------------------------------------------------


def test_a_bad_table_at_the_start_is_refused_by_both_and_mended_later() -> None:
    with Upstream(answer("one")) as tier:
        with Router("formatVersion: 2\n", *TWO, expect_table=False) as router:
            assert router.get("/readyz").status == 503
            assert router.get("/healthz").status == 200
            assert {chat(router.port).status for _ in range(8)} == {404}
            refused = [one["refusedTables"] for one in router.status()["processes"]]
            assert all("formatVersion" in str(one) for one in refused)
            assert sum(one["event"] == "table_refused" for one in router.log()) == 2
            assert router.metrics().value("table_reloads_total", outcome="Refused") == 2
            router.reload(table(tier.port))
            until(lambda: router.get("/readyz").status == 200)
            assert {chat(router.port).text for _ in range(8)} == {"one"}


def test_a_port_that_is_taken_is_named_and_ends_it() -> None:
    with socket.socket() as taken, Upstream() as tier:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=r"(?i)in use"):
            with Router(table(tier.port), *TWO, "--listen", f"127.0.0.1:{port}"):
                pass


def start_on(made: Any, folder: Path, *flags: str) -> subprocess.Popen[str]:
    path = folder / "table.json"
    path.write_text(json.dumps(made))
    command = [sys.executable, "-m", "modeltiers.router", "--table", str(path), *ENDS_SOON, *flags]
    env = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


@contextmanager
def on_six(made: Any, folder: Path, *flags: str) -> Iterator[tuple[int, int]]:
    process = start_on(made, folder, "--listen", "[::1]:0", "--admin", "[::1]:0", *flags)
    try:
        assert process.stdout is not None
        said: dict[str, Any] = {}
        while said.get("event") != "listening":
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said = json.loads(line)
        assert said["serving"][0] == said["admin"][0] == "::1"
        yield said["serving"][1], said["admin"][1]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
        assert errors == ""
        assert process.returncode == 0


@pytest.mark.parametrize("count", ["1", "2"])
def test_it_listens_on_the_sixth_protocol(count: str, tmp_path: Path) -> None:
    def over_six(port: int, data: bytes) -> Reply:
        with Wire(port, "::1") as wire:
            return wire.send(data).reply()

    with Upstream(answer("six"), host="::1") as tier:
        with on_six(table(tier.address), tmp_path, "--processes", count) as (port, admin):
            assert {over_six(port, request(chat_body())).text for _ in range(8)} == {"six"}
            status = over_six(admin, request(path="/status", method="GET")).json
            assert len(status.get("processes", [0])) == int(count)
            metrics = over_six(admin, request(path="/metrics", method="GET")).body.decode()
            assert "modeltiers_router_requests_total" in metrics


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_processes_that_makes_no_sense_is_refused(count: str, tmp_path: Path) -> None:
    process = start_on(table(1), tmp_path, "--processes", count, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    try:
        _, errors = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("it began to serve") from None
    assert process.returncode == 2
    assert "--processes" in errors
    assert "Traceback" not in errors


def test_what_a_dead_process_counted_is_not_taken_back() -> None:
    figures = '# TYPE a counter\na_total{{x="1"}} {}\n# TYPE g gauge\ng {}\n'
    both = add_up([figures.format(3.0, 2.0)], [figures.format(4.0, 5.0)])
    assert 'a_total{x="1"} 7.0' in both
    assert "g 2.0" in both
