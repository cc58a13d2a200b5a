"""A real S3 server over a folder of this machine, on loopback."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from obstore.fsspec import FsspecStore

from e2e.cluster import binaries
from e2e.cluster.process import wait_until
from e2e.cluster.supervisor import end_with
from modeltiers.distill.store import Folder, open_store
from tests.distill.kit import Job, TeacherProcess
from tests.distill.kit import teacher as teacher_process

BUCKET = "runs"


@dataclass
class S3:
    """The server; it can be ended and started again over the same objects."""

    home: Path
    port: int
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """How a client reaches it."""
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": "us-east-1"}
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", **keys}

    def start(self) -> None:
        """Serve."""
        for folder in ("buckets", "about", f"buckets/{BUCKET}"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        binary = binaries.s3_server()
        argv = [str(binary), "--port", f"127.0.0.1:{self.port}", "--quiet", "posix"]
        argv += ["--sidecar", str(self.home / "about"), str(self.home / "buckets")]
        env = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": "tester", "ROOT_SECRET_KEY": self.secret}
        self.process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 - no orphan after kill -9, and no thread here yet
        )
        wait_until(self._answers, "the S3 server to answer", 20, poll=0.05)

    def _answers(self) -> bool:
        try:
            httpx.get(self.env["AWS_ENDPOINT_URL"], timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One server for all tests."""
    made = S3(tmp_path_factory.mktemp("s3"), _free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture
def s3(running: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with its key in the environment."""
    for name, value in running.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(FsspecStore, "cachable", False)  # each with the key of its time
    if running.process is None:
        running.start()
    return running


@pytest.fixture
def store(s3: S3) -> Folder:
    """A store in a bucket, with nothing in it."""
    return open_store(f"s3://{BUCKET}/{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeacherProcess]:
    """A teacher in a process of its own."""
    with teacher_process(tmp_path_factory.mktemp("teacher") / "asked.jsonl") as found:
        yield found


@pytest.fixture
def teacher(answering: TeacherProcess) -> TeacherProcess:
    """The teacher, which was asked nothing yet."""
    answering.forget()
    return answering


@pytest.fixture
def job(store: Folder, s3: S3, teacher: TeacherProcess) -> Job:
    """A job in the bucket, with the teacher to ask."""
    return Job(store, teacher, env=s3.env)
