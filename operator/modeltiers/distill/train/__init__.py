"""The stage Train: a student from a base and the teacher's rows, with transformers, TRL and PEFT.

torch and what rests on it are imported here alone, and only when the stage runs: it has an image of its own.
"""

from __future__ import annotations

import os

from modeltiers.distill.stage import Result, Work


def run(work: Work) -> Result:
    """Train the student; goes on from the newest whole checkpoint where there is one."""
    # Before torch is loaded. Several threads on shared cores are slower than one, and sums in another order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may sum in another order each time
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if work.root.local is not None:  # a pod's own root is read-only; and what was downloaded is there after a kill
        os.environ.setdefault("HF_HOME", str(work.root.local / ".hub"))
    from modeltiers.distill.train.stage import train  # torch takes seconds to load

    return train(work)
