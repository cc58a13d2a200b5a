"""What the demo says before it does anything: what it leaves out and why, and what it is about to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import preflight
from e2e.demo import __main__ as demo
from e2e.engine import environment


@pytest.fixture(autouse=True)
def nothing_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "lacks", lambda state: [])
    monkeypatch.setattr(environment, "lacks", list)
    monkeypatch.setattr(demo, "_no_memory", list)


def test_a_machine_that_cannot_run_a_node_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "lacks", lambda state: ["you are not root: run it with sudo"])
    monkeypatch.setattr(environment, "lacks", lambda: ["vLLM's CPU build needs a processor with AVX2"])
    assert demo._node(tmp_path) is None
    said = capsys.readouterr().out
    assert demo.NOT_SHOWN in said
    assert "- you are not root" in said
    assert "- vLLM's CPU build" in said


def test_an_installation_of_minutes_is_announced_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []

    def install() -> Path:
        said.append(capsys.readouterr().out)
        return tmp_path

    monkeypatch.setattr(environment, "ready", lambda: False)
    monkeypatch.setattr(environment, "install", install)
    assert demo._node(tmp_path) is not None
    assert "5.5 GB" in said[0]
    assert "FAKE=1" in said[0]


def test_what_is_there_is_not_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "ready", lambda: True)
    assert demo._node(tmp_path) is not None
    assert "5.5 GB" not in capsys.readouterr().out
