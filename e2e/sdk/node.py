"""Asks by OpenAI's Node SDK: installs it once, from a lock file with hashes, and drives it over a pipe.

It lies in the user's cache, never in the project, and comes through npm with the user's own settings. Node itself is
the machine's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from e2e.cluster.report import HarnessError, say
from e2e.sdk.sdk import Asking, Fault, Seen

HERE: Final = Path(__file__).with_name("node")
PINS: Final = ("package.json", "package-lock.json")
OLDEST: Final = 20
MARKER: Final = "ready"


def location() -> Path:
    """Return where the SDK of today's pins is, or will be."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "modeltiers" / "node-sdk" / digest


def node() -> str:
    """Return Node; raises HarnessError when there is none, or an old one."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        raise HarnessError(
            f"the tests with OpenAI's Node SDK need node {OLDEST} or newer and npm on PATH; install both"
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    if int(said.removeprefix("v").split(".")[0]) < OLDEST:
        raise HarnessError(f"the tests with OpenAI's Node SDK need node {OLDEST} or newer; {found} is {said}")
    return found


def install() -> Path:
    """Return the folder with the SDK in its node_modules, installing it first if need be: 4 seconds and 28 MB."""
    home = location()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two processes that want it, one installs and the other waits
        if not (home / MARKER).exists():
            say("installing OpenAI's Node SDK: once a machine")
            for name in PINS:
                shutil.copyfile(HERE / name, home / name)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional", "--omit=peer"]
            done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                raise HarnessError(f"npm ci failed with {done.returncode} in {home}:\n{done.stderr[-2000:]}")
            (home / MARKER).touch()
    return home


class NodeSdk:
    """One Node process that puts one question after another."""

    name = "node"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [node(), str(HERE / "driver.cjs"), str(install())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=10)  # it ends with its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def ask(self, asking: Asking) -> Seen:
        """Put one question; fails when the driver dies of it or is silent."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asdict(asking)) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], asking.seconds + 30)
        if not ready:
            process.kill()
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the Node driver gave no answer: {process.stderr and process.stderr.read()[-3000:]}")
        return _seen(json.loads(line))


def _seen(said: dict[str, Any]) -> Seen:
    names = Fault.__dataclass_fields__
    fault = said.pop("fault", None)
    return Seen(**said, fault=Fault(**{name: fault.get(name) for name in names}) if fault else None)
