"""Snapshot with an administrator's program that scrubs: a real server beside it, well-behaved and not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modeltiers.distill import snapshot
from modeltiers.distill.faults import BadData, StageFault, TryAgain
from modeltiers.distill.hook import Hook
from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job
from tests.unit.test_distill_stages import SPEC

SECRET = "Rosa Park"
ROWS = [
    {"messages": [{"role": "user", "content": f"{SECRET} asks {one}"}], "expected": f"{one} {SECRET}", "group": SECRET}
    for one in range(200)
]


@dataclass
class Program:
    """How the program behaves, and what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes | None = None
    asked: list[int] = field(default_factory=list)


@pytest.fixture
def program() -> Iterator[Program]:
    """Replaces one name."""
    how = Program()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
            how.asked.append(len(texts))
            said = json.dumps({"texts": [one.replace(SECRET, "[PERSON]") for one in texts]}).encode()
            body = said if how.body is None else how.body
            self.send_response(how.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
            """Keep still."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        how.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield how
        server.shutdown()


@pytest.fixture
def hooked(job: Job, program: Program, tmp_path: Path) -> Job:
    """A job whose rows go through it."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    job.spec["data"] = {**SPEC["data"], "scrub": {"kinds": ["Email"], "hook": "people"}}
    job.plan_more = {"sources": {"rows": str(rows)}, "scrubber": program.url}
    return job


def test_every_text_goes_through_it_before_anything_is_stored(hooked: Job, program: Program) -> None:
    result = snapshot.run(hooked.work(Stage.SNAPSHOT))
    assert result.facts["scrubbed"] == {"hook": 400}
    rows = hooked.rows("rows.jsonl", Stage.SNAPSHOT)
    assert len(rows) == 200
    assert SECRET not in json.dumps(rows)
    assert rows[3]["messages"][0]["content"] == "[PERSON] asks 3"
    assert rows[3]["expected"] == "3 [PERSON]"
    assert len({one["group"] for one in rows}) == 1, "still one customer, whoever it is"
    assert len(program.asked) == 1 + 4, "once to see whether it listens, then in batches"


def test_rows_that_are_equal_afterwards_are_one(hooked: Job, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{who} asks"}]}) + "\n"
            for who in (SECRET, "[PERSON]", SECRET)
        )
    )
    facts = snapshot.run(hooked.work(Stage.SNAPSHOT)).facts
    assert (facts["rows"], facts["repeated"]) == (1, 2)


@pytest.mark.parametrize(
    ("status", "body", "fault", "said"),
    [
        (200, b'{"texts": ["one"]}', BadData, "texts were given, and 1 came back"),
        (200, b'{"texts": [1]}', BadData, "none came back"),
        (200, b"[]", BadData, "none came back"),
        (200, b"not json", BadData, "none came back"),
        (404, b"", BadData, "it answered 404"),
        (302, b"", BadData, "it answered 302"),
        (500, b"", TryAgain, "answered 500"),
    ],
)
def test_a_program_that_does_not_answer_as_it_must_is_said(
    hooked: Job, program: Program, status: int, body: bytes, fault: type[StageFault], said: str
) -> None:
    """And what it was given is not in the message."""
    program.status, program.body = status, body
    with pytest.raises(fault, match=said) as caught:
        snapshot.run(hooked.work(Stage.SNAPSHOT))
    assert SECRET not in str(caught.value)
    if fault is BadData:
        assert caught.value.field == "spec.data.scrub.hook"


def test_a_program_that_never_listens_is_tried_again(hooked: Job) -> None:
    with Hook("http://127.0.0.1:9/") as hook, pytest.raises(TryAgain) as caught:
        hook.wait(hooked.work(Stage.SNAPSHOT), 0.5)
    assert caught.value.reason == "ScrubberNotReady"
