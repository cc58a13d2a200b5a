"""An environment counts as made only when it is whole, and pins that change make another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e2e.cluster.report import HarnessError
from e2e.engine import environment


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_killed_installation_is_no_environment() -> None:
    (environment.location() / "bin").mkdir(parents=True)
    assert not environment.ready()
    (environment.location() / environment.MARKER).write_text("{}")
    assert environment.ready()


def test_other_pins_are_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment.location()
    changed = tmp_path / "requirements.txt"
    changed.write_text(environment.REQUIREMENTS.read_text() + "\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", changed)
    assert environment.location() != first
    assert environment.location().parent == first.parent == tmp_path / "modeltiers" / "engine"


def test_clean_deletes_what_other_pins_made_and_keeps_the_rest() -> None:
    other = environment.root() / "000000000000"
    for home in (other, environment.location()):
        home.mkdir(parents=True)
    assert environment.clean() == [other]
    assert environment.location().exists()
    assert environment.clean(everything=True) == [environment.location()]
    assert environment.clean() == []


def test_a_disk_that_is_too_full_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "DISK_GIB", 10**6)
    with pytest.raises(HarnessError, match=r"e2e\.engine clean"):
        environment.install()


def test_a_machine_that_cannot_run_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(HarnessError, match="aarch64"):
        environment.install()


def test_every_pin_has_a_hash_and_none_an_address() -> None:
    for file in (environment.REQUIREMENTS, environment.CUDA):
        text = file.read_text()
        pins = re.findall(r"^([a-z0-9._-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 10
        assert "://" not in text and "--index" not in text and "--find-links" not in text
    assert not re.findall(r"^(nvidia|cuda)-", environment.REQUIREMENTS.read_text(), re.MULTILINE)
