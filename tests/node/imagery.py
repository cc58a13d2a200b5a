"""What must hold of every image of ours: what is in it, and that its bill of materials says so."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from e2e.cluster.recipes import Made
from e2e.containerfile import bases, bom, build, rootfs

VERSION = "0.0.0"
FOREIGN = {
    *("sh", "bash", "dash", "busybox", "perl", "apt", "apt-get", "dpkg", "su", "sudo", "mount", "curl", "wget"),
    *("pip", "pip3", "uv", "gcc", "g++", "cc", "c++", "cpp", "clang", "ld", "as", "make", "cmake", "git"),
}
"""Programs that whoever gets into a container would look for, and that none of ours needs."""
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2", "implementation_name": "cpython"}
ENVIRONMENT = {**LINUX, **PYTHON, "platform_python_implementation": "CPython", "extra": ""}


def described(name: str, image: rootfs.Image) -> str:
    """A line with an image's sizes, as the guide has them."""
    return f"{name}: {image.compressed / 1e6:.0f} MB compressed, {image.size / 1e6:.0f} MB of files"


def faults_of(image: rootfs.Image) -> list[str]:
    """What must not be in an image: a file that its user may change, a program that it does not need, leftovers."""
    found = []
    for path, entry in image.files.items():
        name = path.rpartition("/")[2]
        if (entry.uid, entry.gid) != (0, 0):
            found.append(f"{path} belongs to {entry.uid}:{entry.gid}")
        if not entry.issym() and entry.mode & 0o022 and not entry.mode & 0o1000 and path != "var/local":
            found.append(f"{path} can be written by others: {entry.mode:o}")
        if entry.isreg() and entry.mode & 0o6000:
            found.append(f"{path} runs as another: {entry.mode:o}")
        if path.startswith(("site", "app")) and not entry.issym() and not entry.mode & 0o004:
            found.append(f"{path} cannot be read: {entry.mode:o}")
        if name in FOREIGN and entry.mode & 0o111 and not entry.isdir():
            found.append(f"{path} is a program that nothing needs")
        if re.search(r"(^|/)(\.cache/|\.git/|requirements[\w-]*\.txt$|wheels/)|(^|/)tmp/.|\.whl$", path):
            found.append(f"{path} was left over")
    return found


def without_bytecode(image: rootfs.Image) -> list[str]:
    """Our modules that would be compiled again at every start."""
    ours = [path for path in image.files if path.startswith("app/") and path.endswith(".py")]
    compiled = {
        re.sub(r"__pycache__/(.+)\.cpython-311\.pyc$", r"\1.py", path) for path in image.files if "cache" in path
    }
    assert len(ours) > 100
    return [path for path in ours if path not in compiled]


def check_bill(name: str, made: Made, out: Path) -> dict[str, Any]:
    """Write the bill of an image and compare it with the schema, the lock files and the base; returns it."""
    bill: dict[str, Any] = json.loads(bom.write(made, VERSION, out).read_text())
    schema().validate(bill)
    component = bill["metadata"]["component"]
    assert (component["name"], component["version"]) == (made.reference.rpartition(":")[0], VERSION)
    listed = {(canonicalize_name(one["name"]), one["version"]): one for one in packages(bill, "pkg:pypi/")}
    assert set(locked(name).items()) <= set(listed)
    more = [one for key, one in listed.items() if key not in locked(name).items()]
    assert [one["name"] for one in more if not _brought_along(one)] == []
    assert {one["name"] for one in packages(bill, "pkg:deb/")} == set(bases.PACKAGES)
    return bill


def packages(bill: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The packages of a kind that a bill lists."""
    return [one for one in bill["components"] if one.get("purl", "").startswith(kind)]


def _brought_along(component: Mapping[str, Any]) -> bool:
    """Whether a package lies inside another, as setuptools has some: no lock file names those."""
    where = [one["value"] for one in component["properties"] if re.fullmatch(r"syft:location:\d+:path", one["name"])]
    return bool(where) and all("/_vendor/" in path for path in where)


def locked(name: str) -> dict[str, str]:
    """The packages that an image's lock files pin for its platform, with their versions."""
    found: dict[str, str] = {}
    for lock in build.locks(name):
        for line in re.findall(r"^[a-z0-9].*?(?= \\$)", lock.read_text(), re.MULTILINE):
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate(ENVIRONMENT):
                found[canonicalize_name(one.name)] = str(one.specifier).removeprefix("==")
    return found


def schema() -> jsonschema_rs.Draft7Validator:
    """The published schema of CycloneDX, with the two that it refers to."""
    folder = files("cyclonedx.schema") / "_res"

    def read(name: str) -> Any:
        return json.loads(
            (folder / name.rpartition("/")[2].replace(".schema.json", ".SNAPSHOT.schema.json")).read_text()
        )

    def retrieve(uri: str) -> Any:
        return read(uri.replace(".SNAPSHOT", ""))

    return jsonschema_rs.Draft7Validator(read("bom-1.6.schema.json"), validate_formats=True, retriever=retrieve)
