"""The spool on a real disk: bounds, restarts, torn lines, full disks, lost folders, several processes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeltiers.router import spool
from modeltiers.router.spool import Spool

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FLUSH", 0.01)
    monkeypatch.setattr(spool, "PAUSE", 0.02)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Make spools that are closed when the test ends."""
    found: list[Spool] = []

    def make(folder: Path = tmp_path / "spool", most: int = 2**20, **more: Any) -> Spool:
        found.append(Spool(folder, most, **more))
        return found[-1]

    yield make
    for one in found:
        one.close()
        assert not one._thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"), key=lambda path: path.name.partition("-")[2])


def size(folder: Path) -> int:
    """What a spool that is writing takes: a file that goes meanwhile takes nothing."""
    total = 0
    for path in segments(folder):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def read_records(folder: Path) -> list[Any]:
    """Every record, the oldest segment first; a line that is no JSON fails."""
    found = []
    for path in segments(folder):
        content = path.read_bytes()
        assert content.endswith(b"\n") or not content
        found += [json.loads(line) for line in content.splitlines()]
    return found


def line(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "pad": "x" * size}).encode()


def numbers(folder: Path) -> list[int]:
    return [record["n"] for record in read_records(folder)]


def test_lines_come_to_disk_in_order_and_for_us_alone(made: Any, tmp_path: Path) -> None:
    found = made()
    for number in range(1000):
        found.append(line(number))
    until(lambda: found.figures()["written"] == 1000)
    folder = tmp_path / "spool"
    assert numbers(folder) == list(range(1000))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    figures = found.figures()
    assert figures["bytes"] == sum(path.stat().st_size for path in segments(folder))
    assert not [name for name in figures if name.startswith("dropped") and figures[name]]


def test_what_was_given_before_the_close_is_written(made: Any, tmp_path: Path) -> None:
    found = made()
    for number in range(100):
        found.append(line(number))
    found.close()
    assert numbers(tmp_path / "spool") == list(range(100))


def test_the_bound_holds_and_the_oldest_goes_first_and_is_counted(made: Any, tmp_path: Path) -> None:
    found, folder, given = made(most=2**19), tmp_path / "spool", 2000
    for number in range(given):
        found.append(line(number, 1000))
        if number % 100:
            continue
        until(lambda: not found.figures()["waiting"])
        assert size(folder) <= 2**19
    until(lambda: found.figures()["written"] == given)
    kept = numbers(folder)
    assert kept == list(range(given - len(kept), given))
    assert found.figures()["dropped_old"] == given - len(kept)
    assert len(kept) > 400
    assert max(path.stat().st_size for path in segments(folder)) <= 2**16


def test_a_segment_ends_with_age_so_that_it_can_be_fetched(made: Any, tmp_path: Path) -> None:
    found = made(segment_seconds=0.05)
    found.append(line(1))
    until(lambda: found.figures()["written"] == 1)
    time.sleep(0.15)
    found.append(line(2))
    until(lambda: found.figures()["written"] == 2)
    assert len(segments(tmp_path / "spool")) == 2
    time.sleep(0.2)
    assert len(segments(tmp_path / "spool")) == 2  # nothing came: no empty ones
    assert numbers(tmp_path / "spool") == [1, 2]


def test_a_restart_goes_on_behind_what_is_there(made: Any, tmp_path: Path) -> None:
    for number in range(3):
        found = made()
        found.append(line(number))
        found.close()
    assert numbers(tmp_path / "spool") == [0, 1, 2]
    assert len(segments(tmp_path / "spool")) == 1


@pytest.mark.parametrize("torn", [b'{"n": 9', b"\0" * 100, b"x" * 200_000], ids=["half", "zeros", "long"])
def test_a_torn_last_line_is_cut_off(made: Any, tmp_path: Path, torn: bytes) -> None:
    found = made()
    found.append(line(1))
    found.close()
    (path,) = segments(tmp_path / "spool")
    with path.open("ab") as file:
        file.write(torn)
    again = made()
    again.append(line(2))
    until(lambda: again.figures()["written"] == 1)
    assert numbers(tmp_path / "spool") == [1, 2]
    assert again.figures()["torn"] == 1


def test_a_segment_that_is_one_torn_line_is_emptied(made: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "0-000000000001.jsonl").write_bytes(b'{"n"')
    found = made()
    found.append(line(1))
    until(lambda: found.figures()["written"] == 1)
    assert numbers(tmp_path / "spool") == [1]


def test_a_process_that_is_killed_leaves_whole_lines(made: Any, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from modeltiers.router import spool\n"
        "spool.FLUSH = 0.001\n"
        "found = spool.Spool(pathlib.Path(sys.argv[1]), 2**24)\n"
        "number = 0\n"
        "while True:\n"
        "    for _ in range(200):\n"
        '        found.append(b\'{"n": %d, "pad": "%b"}\' % (number, b\'x\' * (number % 3000)))\n'
        "        number += 1\n"
        "    print(found.figures()['written'], flush=True)\n"
    )
    folder, total = tmp_path / "spool", 0
    for _ in range(3):
        command = [sys.executable, "-c", program, str(folder)]
        env = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < 500:
                pass
            process.send_signal(signal.SIGKILL)
    found = made(most=2**24)
    found.append(line(-1))
    until(lambda: found.figures()["written"] == 1)
    kept = numbers(folder)
    assert kept[-1] == -1
    assert kept.count(0) == 3
    for number, before in zip(kept[1:], kept[:-1], strict=True):
        assert number == before + 1 or number in (0, -1)
        total += 1
    assert total > 1500


def test_more_than_memory_may_hold_is_dropped_and_counted(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PENDING", 100_000)
    found = made()
    gate = threading.Event()
    write = found._disk.write

    def slow(lines: list[bytes]) -> None:
        gate.wait(5)
        write(lines)

    monkeypatch.setattr(found._disk, "write", slow)
    for number in range(1000):
        found.append(line(number, 1000))
    figures = found.figures()
    assert figures["dropped_full"] > 800
    assert figures["waiting"] <= 110
    gate.set()
    until(lambda: found.figures()["written"] + found.figures()["dropped_full"] == 1000)
    found.append(line(1))
    until(lambda: found.figures()["written"] + found.figures()["dropped_full"] == 1001)


def test_a_line_that_is_none_is_dropped_and_the_others_are_not(made: Any, tmp_path: Path) -> None:
    found = made()
    for one in (line(1), b'{"n":\n2}', line(3, 2**20), line(4)):
        found.append(one)
    until(lambda: found.figures()["written"] == 2)
    assert numbers(tmp_path / "spool") == [1, 4]
    assert found.figures()["dropped_long"] == 2


# -- disks that fail --------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_lines_and_nothing_else(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a write still fits, then none: the half is taken back, and with room again it goes on."""
    found, room, write = made(), [150], os.write

    def full(number: int, data: Any) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= (taken := write(number, bytes(data)[: room[0]]))
        return taken

    monkeypatch.setattr(os, "write", full)
    for number in range(10):
        found.append(line(number, 20))
    until(lambda: found.figures()["dropped_disk"] > 0)
    assert found.error == "No space left on device"
    assert all(path.read_bytes().endswith(b"\n") or not path.stat().st_size for path in segments(tmp_path / "spool"))
    room[0] = 10**9
    time.sleep(0.1)
    found.append(line(10))
    until(lambda: found.figures()["written"] >= 1 and not found.figures()["waiting"])
    figures = found.figures()
    assert figures["written"] + figures["dropped_disk"] == 11
    assert found.error is None
    assert figures["errors"] >= 1
    assert len(numbers(tmp_path / "spool")) == figures["written"]


def test_a_limit_of_the_system_is_a_full_disk(tmp_path: Path) -> None:
    """A real one: the kernel writes a part and then refuses."""
    program = (
        "import json, pathlib, resource, sys, time\n"
        "from modeltiers.router import spool\n"
        "spool.FLUSH, spool.PAUSE = 0.005, 0.01\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "found = spool.Spool(pathlib.Path(sys.argv[1]), 2**24)\n"
        "for number in range(200):\n"
        '    found.append(b\'{"n": %d, "pad": "%b"}\' % (number, b\'x\' * 990))\n'
        "    time.sleep(0.001)\n"
        "found.close()\n"
        "print(json.dumps(found.figures()))\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    command = [sys.executable, "-c", program, str(tmp_path / "spool")]
    done = subprocess.run(command, capture_output=True, env=env, timeout=20, check=True)
    assert done.stderr == b""
    figures = json.loads(done.stdout)
    kept = numbers(tmp_path / "spool")
    assert figures["written"] == len(kept) > 0
    assert figures["dropped_disk"] == 200 - len(kept) > 0
    assert all(path.stat().st_size <= 30_000 for path in segments(tmp_path / "spool"))


def test_a_folder_that_vanishes_is_made_again(made: Any, tmp_path: Path) -> None:
    found, folder = made(), tmp_path / "spool"
    found.append(line(1))
    until(lambda: found.figures()["written"] == 1)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    found.append(line(2))
    until(lambda: found.figures()["written"] == 2)
    assert numbers(folder) == [2]
    assert found.figures()["bytes"] == sum(path.stat().st_size for path in segments(folder))


@pytest.mark.parametrize("way", ["a file", "no parent"])
def test_a_folder_that_cannot_be_is_counted_and_tried_again(made: Any, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "parent" / "spool"
    if way == "a file":
        folder.parent.mkdir()
        folder.write_text("in the way")
    found = made(folder)
    found.append(line(1))
    until(lambda: found.figures()["dropped_disk"] == 1)
    assert found.error
    folder.unlink(missing_ok=True)
    folder.parent.mkdir(exist_ok=True)
    time.sleep(0.1)
    found.append(line(2))
    until(lambda: found.figures()["written"] == 1)
    assert found.error is None


def test_a_link_in_place_of_a_segment_is_not_followed(made: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "else").write_bytes(b"precious\n")
    (tmp_path / "spool" / "0.lock").symlink_to(tmp_path / "else")
    found = made()
    found.append(line(1))
    until(lambda: found.figures()["dropped_disk"] == 1)
    assert (tmp_path / "else").read_bytes() == b"precious\n"


# -- several ----------------------------------------------------------------------------------------------------------


def test_each_process_has_files_of_its_own(made: Any, tmp_path: Path) -> None:
    several = [made() for _ in range(4)]
    for number in range(100):
        for one in several:
            one.append(line(number))
    for one in several:
        until(lambda one=one: one.figures()["written"] == 100)  # type: ignore[misc]  # mypy does not infer a lambda's default
    assert {path.name.partition("-")[0] for path in segments(tmp_path / "spool")} == {"0", "1", "2", "3"}
    assert sorted(numbers(tmp_path / "spool")) == sorted(list(range(100)) * 4)


def test_what_a_process_left_that_is_no_more_is_within_the_bound_too(made: Any, tmp_path: Path) -> None:
    first, second = made(), made()
    for one in (first, second):
        one.append(line(0, 100))
        until(lambda one=one: one.figures()["written"] == 1)  # type: ignore[misc]  # mypy does not infer a lambda's default
    for number in range(200):
        second.append(line(number, 1000))
    first.close()
    second.close()
    left = sum(path.stat().st_size for path in segments(tmp_path / "spool"))
    again = made(most=2**18)
    again.append(line(1))
    until(lambda: again.figures()["written"] == 1)
    for number in range(100):
        again.append(line(number, 1000))
    until(lambda: again.figures()["written"] == 101)
    assert left + 100_000 > 2**18
    assert sum(path.stat().st_size for path in segments(tmp_path / "spool")) <= 2**18
    assert again.figures()["dropped_old"] > 0


def test_segments_of_a_process_that_lives_are_left_alone(made: Any, tmp_path: Path) -> None:
    other, found = made(), made(most=2**18)
    for number in range(200):
        other.append(line(number, 1000))
    until(lambda: other.figures()["written"] == 200)
    for number in range(400):
        found.append(line(number, 1000))
    until(lambda: found.figures()["written"] == 400)
    mine = [path.read_bytes().count(b"\n") for path in segments(tmp_path / "spool") if path.name[0] == "0"]
    assert sum(mine) == 200


def test_a_segment_that_was_fetched_is_not_missed(made: Any, tmp_path: Path) -> None:
    found, folder, fetched = made(most=2**18), tmp_path / "spool", 0
    for number in range(2000):
        found.append(line(number, 1000))
        if number % 100 == 99:
            until(lambda: not found.figures()["waiting"])
            for path in segments(folder)[:-1]:
                fetched += len(path.read_bytes().splitlines())
                path.unlink()
    until(lambda: found.figures()["written"] == 2000)
    assert fetched + len(read_records(folder)) == 2000
    assert found.figures()["dropped_old"] == 0


def test_a_line_costs_a_request_almost_nothing(made: Any) -> None:
    found, one, best = made(most=2**26), line(1, 1000), 1.0
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(2000):
            found.append(one)
        best = min(best, time.perf_counter() - began)
        time.sleep(0.02)
    assert best / 500 < 5e-6
