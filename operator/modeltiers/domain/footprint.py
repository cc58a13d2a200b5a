"""What an engine pod needs besides accelerators: CPU, memory, shared memory, disk and time to start.

Worked out from the bytes of the weights and the layout, so that nobody has to guess. All figures are requests to be
on the safe side of, not measurements; each rule says where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GIB: Final = 1024**3

# One rank: a Python process with torch and CUDA libraries mapped. The API server is one more. (2 to 3 GiB seen each)
_RANK_MEMORY: Final = 3 * GIB
_BASE_MEMORY: Final = 4 * GIB
# The loader streams the checkpoint through host memory: a quarter of it is asked for, the whole of it is allowed.
_LOADING_PART: Final = 4
# Shared-memory rings carry messages between ranks (ten chunks of 16 to 24 MiB each) and NCCL uses it too.
_SHM_ONE: Final = 1 * GIB
_SHM_PER_GPU: Final = 2 * GIB
# Start-up: process, imports, compile and graph capture, plus download and load at a pace a slow network keeps up with.
_START_BASE: Final = 600
_START_PER_GIB: Final = 20
_START_MOST: Final = 4 * 3600


@dataclass(frozen=True, slots=True)
class Footprint:
    """Requests of one engine pod; bytes and seconds."""

    cpu_millis: int
    memory_request: int
    memory_limit: int
    shm: int
    disk: int
    startup_seconds: int


def of(weights: int, gpus: int, startup_seconds: int | None = None) -> Footprint:
    """Footprint of an engine with this many bytes of weights over this many accelerators."""
    shm = _SHM_ONE if gpus == 1 else _SHM_PER_GPU * gpus
    working = shm + _BASE_MEMORY + _RANK_MEMORY * gpus
    gib = -(-weights // GIB)
    return Footprint(
        cpu_millis=2000 + 2000 * gpus,
        memory_request=_whole(working + weights // _LOADING_PART),
        memory_limit=_whole(working + weights),
        shm=shm,
        disk=_whole(weights + weights // 10 + 10 * GIB),
        startup_seconds=startup_seconds or min(_START_MOST, _START_BASE + _START_PER_GIB * gib),
    )


def _whole(amount: int) -> int:
    """Round up to whole GiB: a request that a person reads."""
    return -(-amount // GIB) * GIB
