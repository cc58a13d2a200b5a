"""The recorded replies are whole: every one that the recorder names, and nothing else."""

from __future__ import annotations

import json

import pytest

from e2e.cluster.report import HarnessError
from e2e.engine import record

NAMED = record.SCRIPTED | record.REASONING | record.RANDOM | record.POOLED


@pytest.mark.parametrize("name", NAMED)
def test_a_capture_is_what_its_name_says(name: str) -> None:
    _, body = NAMED[name]
    raw = (record.CAPTURES / f"{name}.http").read_bytes()
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert (b" 200 OK" in head.splitlines()[0]) != name.startswith("error-")
    chunked = b"transfer-encoding: chunked" in head.lower()
    (content,) = [
        record.CAPTURES / f"{name}.{kind}"
        for kind in (*record.KINDS.values(), "json")
        if (record.CAPTURES / f"{name}.{kind}").exists()
    ]
    assert content.read_bytes() == (record.unchunked(rest) if chunked else rest)
    assert (content.suffix == ".sse") == (isinstance(body, dict) and body.get("stream") is True and chunked)
    if isinstance(body, dict):
        asked = json.loads((record.CAPTURES / f"{name}.request.json").read_text())
        assert asked == body, f"the recorder asks something else now; `python -m e2e.engine record {name}`"


def test_nothing_else_lies_there() -> None:
    found = {path.name.split(".")[0] for path in record.CAPTURES.iterdir()} - {"ENGINE"}
    assert found == set(NAMED) == set(json.loads((record.CAPTURES / "ENGINE.json").read_text())["started with"])


def test_a_name_that_the_recorder_does_not_know_is_refused() -> None:
    with pytest.raises(HarnessError, match="no capture nobody"):
        record.main(["nobody"])


def test_a_body_in_chunks_is_put_together_and_half_of_one_is_refused() -> None:
    assert record.unchunked(b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n") == b"abcde"
    with pytest.raises(ValueError, match="without its end"):
        record.unchunked(b"3\r\nabc\r\n")
