"""`modeltiers images`: the list for a network without the world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from modeltiers import __version__
from modeltiers.cli.images import images

DIGEST = "sha256:" + "0" * 64


def listed(tmp_path: Path, *texts: str, output: str = "name") -> str:
    """What is printed for these values files."""
    arguments = ["-o", output]
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        arguments += ["-f", str(path)]
    done = CliRunner().invoke(images, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_defaults(tmp_path: Path) -> None:
    assert listed(tmp_path).splitlines() == [
        *(f"localhost/modeltiers/{name}:{__version__}" for name in ("operator", "router", "distill", "train")),
        "docker.io/vllm/vllm-openai:v0.32.0",
    ]


def test_later_files_win_and_profiles_are_listed(tmp_path: Path) -> None:
    first = "images: {registry: r.example, router: {tag: a}}\nsettings: {engineProfiles: {p: {image: r.example/p:1}}}"
    found = json.loads(listed(tmp_path, first, "images: {router: {tag: b}}", output="json"))
    assert found["router"] == "r.example/modeltiers/router:b"
    assert found["profile p"] == "r.example/p:1"


def test_settings_win_and_an_image_is_listed_once(tmp_path: Path) -> None:
    block = {"images": {"distill": {"digest": DIGEST}}}
    settings = {"settings": {"distill": {"trainImage": "a:1"}, "engine": {"image": "a:1"}}}
    found = listed(tmp_path, json.dumps(block), json.dumps(settings)).splitlines()
    assert found[2:] == [f"localhost/modeltiers/distill@{DIGEST}", "a:1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("imags: {}", "imags"), ("images: {router: {tag: 1}}", "images.router.tag"), ("- a", "map"), ("a: [", "YAML")],
)
def test_values_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    done = CliRunner().invoke(images, ["-f", str(path)])
    assert done.exit_code == 1
    assert words in done.output
