"""Every state of every object of a kind, over outages of the API server too."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from tests.cluster.kit import decoded


class Recorder:
    """Watches one kind until it is ended. Each break of the watch begins a file: what was on its way is cut short."""

    def __init__(self, cluster: Cluster, plural: str, folder: Path) -> None:
        self._cluster, self._plural, self._folder = cluster, plural, folder
        self._ended = threading.Event()
        self._running: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()
        while self._thread.is_alive():
            if self._running is not None:
                self._running.terminate()
            self._thread.join(1)

    def files(self) -> list[Path]:
        """What was written."""
        return sorted(self._folder.glob(f"{self._plural}-*"))

    def saw(self, text: bytes) -> bool:
        """Whether this was written since the last break."""
        return text in self.files()[-1].read_bytes()

    def states(self) -> Iterator[dict[str, Any]]:
        """What was seen. After a break the objects that there are come again."""
        for file in self.files():
            yield from decoded(file.read_text())

    def _run(self) -> None:
        while not self._ended.wait(0.3):
            with (self._folder / f"{self._plural}-{len(self.files()):05}").open("w") as out:
                self._running = self._cluster.as_admin.watch(self._plural, "--all-namespaces", out=out)
                self._running.wait()
