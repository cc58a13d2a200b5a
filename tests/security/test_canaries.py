"""The look for planted words finds them, and the suites plant them and look."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import pytest

from tests import canaries

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("word", canaries.ALL)
def test_a_planted_word_is_found_wherever_it_was_written(word: str) -> None:
    for before in ("", "a", "ab", "abc"):
        encoded = base64.b64encode(f"{before}{word}, and more".encode()).decode()
        for text in (f"level=info {before}{word}.", f'{{"a": "{encoded}"}}'):
            assert canaries.found(text) == [word]
    assert canaries.found(word[:-1] + "x") == []
    with tempfile.TemporaryDirectory() as folder:  # where no suite looks
        top, below = Path(folder), Path(folder) / "a" / "b"
        below.mkdir(parents=True)
        (below / "x.log").write_text(f"once {word}")
        (top / "its-own").write_text(word)
        assert canaries.in_files(top, but=[top / "its-own"]) == [f"{word} in {below / 'x.log'}"]
        assert canaries.in_files(top, names="*.json") == []
    with pytest.raises(AssertionError, match="the log shows"):
        canaries.look("the log", word)


@pytest.mark.parametrize(
    "place", ["router/kit/router.py", "router/conftest.py", "cluster/conftest.py", "distill/conftest.py"]
)
def test_every_suite_that_runs_our_programs_looks(place: str) -> None:
    assert "canaries." in (ROOT / "tests" / place).read_text()
