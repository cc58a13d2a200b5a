"""Rows from a Hub dataset: the program and the Hub's own client, against a server that speaks as the Hub does.

The server holds one public dataset; what it says of others is what the Hub says.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modeltiers.domain.distill.stages import Stage
from tests.distill.kit import Job

COMMIT = "c0ffee" + "0" * 34
REVISIONS = ("main", "v1", COMMIT)
ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{one}?"}], "expected": one}) + "\n" for one in range(20)
).encode()


class Hub(BaseHTTPRequestHandler):
    """One dataset, team/sums, with one file, data/rows.jsonl; team/closed is gated."""

    protocol_version = "HTTP/1.1"
    broken = False

    def do_HEAD(self) -> None:
        """Say what a file is."""
        self._serve(body=False)

    def do_GET(self) -> None:
        """Give a file."""
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        found = self.path.removeprefix("/datasets/").partition("/resolve/")
        revision, _, file = found[2].partition("/")
        if self.broken:
            self._say(503, {})
        elif found[0] == "team/closed":
            self._say(403, {"X-Error-Code": "GatedRepo"})
        elif found[0] != "team/sums":
            self._say(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in REVISIONS:
            self._say(404, {"X-Error-Code": "RevisionNotFound"})
        elif file != "data/rows.jsonl":
            self._say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            headers = {"ETag": f'"{hashlib.sha1(ROWS, usedforsecurity=False).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._say(200, headers, ROWS, body=body)

    def _say(self, status: int, headers: dict[str, str], content: bytes = b"", *, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
        """Keep still."""


@pytest.fixture
def hub(job: Job, tmp_path: Path) -> Iterator[type[Hub]]:
    """The server, and a job whose program asks it."""
    handler = type("Own", (Hub,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job.env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hub")}
        yield handler
        server.shutdown()


def snapshot(job: Job, tmp_path: Path, address: str) -> tuple[int, dict[str, Any]]:
    """Run the program; its exit code and what it reported."""
    job.plan_more = {"sources": {"rows": address}}
    code = job.start(tmp_path, Stage.SNAPSHOT).wait(60)
    return code, json.loads((tmp_path / "result.json").read_text())


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_rows_come_from_a_dataset(job: Job, tmp_path: Path, revision: str) -> None:
    code, said = snapshot(job, tmp_path, f"hf://datasets/team/sums{revision}/data/rows.jsonl")
    assert (code, said["facts"]["rows"]) == (0, 20)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("team/sums/data/none.jsonl", "has no file data/none.jsonl at main"),
        ("team/sums@v9/data/rows.jsonl", "shows nobody a dataset team/sums at v9"),
        ("team/none/rows.jsonl", "shows nobody a dataset team/none at main"),
        ("team/closed/rows.jsonl", "copy one that is not public to a volume or to S3"),
    ],
)
def test_what_the_hub_has_not_is_said_with_the_field(job: Job, tmp_path: Path, address: str, named: str) -> None:
    code, said = snapshot(job, tmp_path, f"hf://datasets/{address}")
    assert code == 78
    assert named in said["message"]
    assert said["field"] == "spec.data.sources[rows].hf"


@pytest.mark.slow  # the client of the Hub waits 20 s each before it gives up
def test_a_hub_that_fails_or_is_away_is_tried_again(job: Job, hub: type[Hub], tmp_path: Path) -> None:
    hub.broken = True
    code, said = snapshot(job, tmp_path, "hf://datasets/team/sums/data/rows.jsonl")
    assert code == 75, said
    hub.broken = False
    job.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    code, said = snapshot(job, tmp_path, "hf://datasets/team/sums/data/rows.jsonl")
    assert code == 75
    assert "could not be had from the Hub" in said["message"]
