"""A stage's own account of itself over HTTP, for the operator: `/status` and `/healthz`; nothing secret."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from modeltiers.distill.stage import Progress
from modeltiers.domain.distill.stages import Stage


def serve(port: int, stage: Stage, progress: Progress, host: str = "") -> ThreadingHTTPServer:
    """Answer on a port, of all addresses unless one is named, in a thread of its own, until the program ends."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            if self.path == "/status":
                self._say(200, {"stage": stage.value, "progress": progress.shown()})
            elif self.path == "/healthz":
                self._say(200, {"stage": stage.value})
            else:
                self._say(404, {"error": "not found"})

        def _say(self, code: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Polls are no news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
