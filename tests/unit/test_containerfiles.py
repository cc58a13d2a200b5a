"""Containerfiles and the quick local way make the same image: what users build is what the tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.cluster import recipes

ROOT = Path(__file__).parents[2]
NAMES = ("operator", "router", "distill")


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, without comments."""
    lines = (ROOT / f"images/{name}.Containerfile").read_text().splitlines()
    return [(word, rest) for line in lines if line and line[0] != "#" for word, _, rest in [line.partition(" ")]]


def of(name: str, word: str) -> list[str]:
    """What follows each instruction of a kind."""
    return [rest for kind, rest in instructions(name) if kind == word]


@pytest.mark.parametrize("name", NAMES)
class TestContainerfiles:
    """Facts that a recipe states, and a Containerfile too."""

    def test_entry_point_environment_and_user(self, name: str) -> None:
        """As kubelet sees them."""
        plan = recipes.program(name)
        assert json.loads(of(name, "ENTRYPOINT")[0]) == list(plan.entry)
        stated = dict(pair.split("=", 1) for pair in of(name, "ENV")[0].split())
        assert stated == {key: value for key, value in plan.env.items() if key != "PATH"}
        assert of(name, "USER") == [plan.user]

    def test_the_same_files_in_the_same_places(self, name: str) -> None:
        """The packages of its lock file and our code, and nothing else."""
        plan = recipes.program(name)
        copied = dict(line.split() for line in of(name, "COPY") if not line.startswith("--"))
        assert copied == {
            str(plan.lock.relative_to(ROOT)): "/requirements.txt",
            "operator/modeltiers": "/app/modeltiers",
        }
        assert of(name, "COPY")[-2:] == ["--from=build /site /site", "--from=build /app /app"]
        assert sorted(plan.env["PYTHONPATH"].split(":")) == ["/app", "/site"]

    def test_packages_are_checked_and_no_shell_is_asked(self, name: str) -> None:
        """Neither when the image is built nor when it runs."""
        install, compiled = map(json.loads, of(name, "RUN"))
        assert {"--require-hashes", "--only-binary", "--no-deps"} <= set(install)
        assert "unchecked-hash" in compiled

    def test_bases_may_be_named_by_digest(self, name: str) -> None:
        """Each stage begins with an argument that names a whole reference with a tag other than latest."""
        given = dict(line.split("=", 1) for line in of(name, "ARG"))
        assert of(name, "FROM") == ["${BUILD} AS build", "${BASE}"]
        assert all(
            re.fullmatch(r"[\w.-]+\.\w+/[\w/.-]+:[\w.-]+", one) and not one.endswith("latest") for one in given.values()
        )


def test_the_trainer_differs_from_the_other_stages_in_its_packages_alone() -> None:
    """torch's CUDA libraries have a lock file of their own, since the tests do without."""
    assert [line for line in of("train", "COPY") if line.startswith("requirements/")] == [
        "requirements/train.txt /requirements.txt",
        "requirements/train-cuda.txt /requirements-cuda.txt",
    ]
    mine, theirs = (json.loads(of(name, "RUN")[0]) for name in ("train", "distill"))
    assert mine == [*theirs, "--requirement", "/requirements-cuda.txt"]
    ours = [[one for one in instructions(name) if "requirements" not in one[1]] for name in ("train", "distill")]
    assert ours[0] == ours[1]


def test_only_what_images_are_made_of_is_sent_to_the_builder() -> None:
    """Neither .git nor a virtual environment."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line[:1] == "!"] == ["!requirements", "!operator/modeltiers"]
    assert "*" in lines
