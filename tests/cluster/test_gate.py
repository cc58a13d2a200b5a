"""The gate between the host's loopback and a sandbox, on one network: what it does to the bytes it carries."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from e2e.cluster import gate
from e2e.cluster.process import wait_until


@contextlib.contextmanager
def carried(behind: Callable[[socket.socket], None]) -> Iterator[Callable[[], socket.socket]]:
    """Put a gate before a server that treats each connection so; give what dials the gate."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        behind(connection)

        threading.Thread(target=serve, daemon=True).start()
        theirs, ours = os.pipe()
        target = f"127.0.0.1:{server.getsockname()[1]}"
        argv = gate.command(gate.HERE, str(theirs), {listener.fileno(): target})
        carrier = subprocess.Popen(argv, pass_fds=(theirs, listener.fileno()))
        os.close(theirs)
        address = listener.getsockname()
        listener.close()
        try:
            yield lambda: socket.create_connection(address, timeout=10)
        finally:
            os.close(ours)
            carrier.wait(10)
            server.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: carrier.returncode is not None, "the gate to end with its tie", timeout=10)


def echo_after_the_end(connection: socket.socket) -> None:
    """Read to the end of the stream, then send it all back."""
    connection.settimeout(10)
    whole = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.sendall(whole)


def test_every_byte_goes_through_and_so_does_the_end_of_a_stream() -> None:
    """A client that has said all still hears the answer."""
    said = secrets.token_bytes(3_000_000)
    with carried(echo_after_the_end) as dial, dial() as wire:

        def say() -> None:
            wire.sendall(said)
            wire.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=say)
        sender.start()
        assert b"".join(iter(lambda: wire.recv(65536), b"")) == said
        sender.join(10)


def test_a_reset_stays_a_reset() -> None:
    """A truncated answer must not look like a whole one."""

    def reset(connection: socket.socket) -> None:
        connection.sendall(b"half")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with carried(reset) as dial, dial() as wire, pytest.raises(ConnectionResetError):
        while wire.recv(65536):
            pass


def test_nobody_behind_the_gate_is_a_cut_connection() -> None:
    """A connection refused is one cut, not one that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs, ours = os.pipe()
        argv = gate.command(gate.HERE, str(theirs), {listener.fileno(): nobody})
        with subprocess.Popen(argv, pass_fds=(theirs, listener.fileno())):
            os.close(theirs)
            with socket.create_connection(listener.getsockname(), timeout=10) as wire:
                with pytest.raises(ConnectionResetError):
                    wire.recv(1)
            os.close(ours)
