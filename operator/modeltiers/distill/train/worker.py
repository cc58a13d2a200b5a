"""One of several training processes: `python -m modeltiers.distill.train.worker SCRATCH`, started by `launch`."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from modeltiers.distill.faults import COMPLETE, StageFault, TryAgain
from modeltiers.distill.train import launch
from modeltiers.distill.train.fit import Hooks, Step, Task, fit


def main(scratch: Path) -> int:
    """Train with the others; returns the exit code."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rank = int(os.environ["RANK"])
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print goes to the log
    sealed: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sealed,), daemon=True).start()

    def seal(step: int) -> None:
        out.write(json.dumps({"seal": step}).encode() + b"\n")
        sealed.get()

    def tell(step: Step) -> None:
        out.write(launch.step_line(step))

    task = Task.read(scratch / "task.json")
    try:
        model, _ = fit(task, Hooks(stop.is_set, seal, tell))
    except StageFault as fault:
        launch.write_fault(scratch, rank, fault)
        return fault.code
    if model is not None:
        model.save_pretrained(scratch / launch.STUDENT)
    return COMPLETE


def _listen(sealed: queue.Queue[str]) -> None:
    """Hear that a checkpoint is durable. When the stage is gone, nobody may go on writing into its folder."""
    for line in sys.stdin:
        sealed.put(line)
    os._exit(TryAgain.code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
