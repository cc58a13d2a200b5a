"""Containerfiles and the quick local way make the same image: what users build is what the tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.cluster import recipes
from e2e.cluster.report import HarnessError
from e2e.containerfile import build
from e2e.containerfile.__main__ import main

ROOT = Path(__file__).parents[2]
NAMES = ("operator", "router", "distill")


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, without comments."""
    lines = (ROOT / f"images/{name}.Containerfile").read_text().splitlines()
    return [(word, rest) for line in lines if line and line[0] != "#" for word, _, rest in [line.partition(" ")]]


def unpinned(text: str) -> list[str]:
    """What stages of a Containerfile begin with that is neither an earlier stage nor named by digest."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    given = dict(words[1].split("=", 1) for words in lines if words[0] == "ARG" and "=" in words[1])
    stages: set[str] = set()
    found = []
    for words in lines:
        sources = [word.partition("=")[2] for word in words if word.startswith("--from=")]
        if words[0] == "FROM":
            sources = [re.sub(r"\$\{?(\w+)\}?", lambda one: given.get(one[1], ""), words[1])]
            stages |= {words[3]} if len(words) > 3 else set()
        found += [one for one in sources if one not in stages and not re.search(r"@sha256:[0-9a-f]{64}$", one)]
    return found


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
        copied = dict(line.removeprefix("--chmod=0755 ").split() for line in of(name, "COPY")[:-2])
        assert copied == {
            str(plan.lock.relative_to(ROOT)): "/requirements.txt",
            "operator/modeltiers": "/app/modeltiers",
        }
        assert of(name, "COPY")[-2:] == ["--from=build /site /site", "--from=build /app /app"]
        assert sorted(plan.env["PYTHONPATH"].split(":")) == ["/app", "/site"]

    def test_packages_are_checked_and_no_shell_is_asked(self, name: str) -> None:
        """Neither when the image is built nor when it runs."""
        install, *compiled = map(json.loads, of(name, "RUN"))
        assert {"--require-hashes", "--only-binary", "--no-deps", "--no-cache-dir"} <= set(install)
        assert [one[-1] for one in compiled] == ["/site", "/app"]
        assert all("unchecked-hash" in one for one in compiled)


@pytest.mark.parametrize("name", build.NAMES)
class TestEveryContainerfile:
    """The trainer's too, which the tests otherwise do without."""

    def test_bases_are_pinned_by_digest(self, name: str) -> None:
        """A build next year is on the same bases; a newer one is a change that somebody reviews."""
        assert unpinned((ROOT / f"images/{name}.Containerfile").read_text()) == []
        assert of(name, "FROM") == ["${BUILD} AS build", "${BASE}"]
        assert of(name, "ARG") == of("router", "ARG")

    def test_our_code_comes_after_the_packages(self, name: str) -> None:
        """A change of code makes one small layer anew, in the build and in a registry."""
        order = [rest for word, rest in instructions(name) if word in ("COPY", "RUN", "FROM")]
        code = order.index("--chmod=0755 operator/modeltiers /app/modeltiers")
        before = [one for one in order[:code] if "operator/" in one]
        assert before == []
        assert json.loads(order[code - 1])[-1] == "/site"
        assert order[code + 2 :] == ["${BASE}", "--from=build /site /site", "--from=build /app /app"]

    def test_the_packages_are_those_of_its_lock_files(self, name: str) -> None:
        """As whoever fetches them for a build without network has it."""
        copied = [one.split()[0] for one in of(name, "COPY") if one.startswith("requirements/")]
        assert copied == [str(lock.relative_to(ROOT)) for lock in build.locks(name)]

    def test_it_runs_as_nobody_by_number(self, name: str) -> None:
        """Kubelet cannot tell whether a name is root's."""
        assert of(name, "USER") == ["10001:10001"]
        assert not {"ADD", "HEALTHCHECK", "VOLUME", "CMD", "SHELL"} & {word for word, _ in instructions(name)}


@pytest.mark.parametrize(
    "text",
    [
        "FROM docker.io/library/python:3.11",
        "FROM docker.io/library/python@sha256:abc",
        "ARG BASE=docker.io/library/python:3.11\nFROM ${BASE}",
        "ARG BASE\nFROM $BASE",
        "FROM scratch AS build\nFROM build",
        f"FROM a@sha256:{'0' * 64} AS build\nCOPY --from=docker.io/library/busybox:1 /bin /bin",
    ],
)
def test_a_base_that_is_not_pinned_is_found(text: str) -> None:
    """A tag is no pin, and no half of a digest either."""
    assert len(unpinned(text)) == 1


def test_the_trainer_differs_from_the_other_stages_in_its_packages_alone() -> None:
    """torch's CUDA libraries have a lock file of their own, since the tests do without."""
    mine, theirs = ([json.loads(one) for one in of(name, "RUN")] for name in ("train", "distill"))
    assert mine[0] == [*theirs[0], "--requirement", "/requirements-cuda.txt"]
    assert [one for one in mine[1] if one not in ("-x", "py312_intrinsics")] == theirs[1]
    ours = [
        [one for one in instructions(name) if "requirements" not in one[1] and '"/site"' not in one[1]]
        for name in ("train", "distill")
    ]
    assert ours[0] == ours[1]


def test_only_what_images_are_made_of_is_sent_to_the_builder() -> None:
    """Neither .git nor a virtual environment."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if line[:1] == "!"] == ["!requirements", "!operator/modeltiers"]
    assert "*" in lines


def test_an_image_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is built."""
    assert main(["router", "rooter"]) == 2
    said = capsys.readouterr()
    assert "rooter" in said.out + said.err
    assert "operator, router, distill, train" in said.out + said.err


def test_a_build_without_room_says_so(tmp_path: Path) -> None:
    """Nothing is begun that cannot be ended."""
    with pytest.raises(HarnessError, match=r"needs 1000000 GiB"):
        build.refuse_a_full_disk(tmp_path, 1e6)
