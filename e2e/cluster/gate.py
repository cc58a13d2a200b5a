"""Carry connections from the host's loopback into the network of a sandbox, which the host has no route to.

A socket keeps the network it was made in: the listeners are the host's, what is dialled is the sandbox's. Runs as a
program of its own (`python gate.py NETWORK TIE FD=HOST:PORT …`), standard library only; it looks into no byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from e2e.cluster.supervisor import LIBC, UNTIED
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from supervisor import LIBC, UNTIED

HERE = "-"
CLONE_NET = 0x40000000
CHUNK = 1 << 16


class Gate:
    """A port of the host's loopback that leads into a sandbox, as long as this object's process lives."""

    def __init__(self, process: int, target: str, port: int = 0) -> None:
        """Lead to `target` (host:port) as the process `process` would reach it; `port` 0 is any free one."""
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.port: int = listener.getsockname()[1]
            argv = command(f"/proc/{process}/ns/net", "0", {listener.fileno(): target})
            self._carrier = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(listener.fileno(),), cwd="/"
            )

    @property
    def address(self) -> str:
        """Host and port to dial."""
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Cut every connection and free the port."""
        if self._carrier.stdin:
            self._carrier.stdin.close()
        self._carrier.wait(10)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def command(network: str, tie: str, targets: dict[int, str]) -> tuple[str, ...]:
    """Return the command line of a carrier between inherited listeners and what they lead to."""
    pairs = (f"{listener}={target}" for listener, target in targets.items())
    return (sys.executable, "-I", "-S", __file__, network, tie, *pairs)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction to its end, and tell the other side of the end."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return
    _reset(writer)  # a reset is passed on as one: a truncated answer must not look whole


def _reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection so that the other side hears of it; closing alone would look like the end of the answer."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _carry(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = target.rpartition(":")
    try:
        back, forth = await asyncio.open_connection(host, int(port))
    except OSError:
        _reset(writer)
        return
    for end in (writer, forth):
        end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.gather(_pour(reader, forth), _pour(back, writer))
    for end in (writer, forth):
        end.close()


async def _serve(tie: str, pairs: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for pair in pairs:
        listener, _, target = pair.partition("=")

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str = target) -> None:
            await _carry(target, reader, writer)

        await asyncio.start_server(carry, sock=socket.socket(fileno=int(listener)), limit=CHUNK)
    if tie == UNTIED:
        await asyncio.Event().wait()
    end = asyncio.Event()
    loop.add_reader(int(tie), end.set)  # end of file: whoever started us is gone
    await end.wait()
    os._exit(0)  # what is in flight is cut


def main() -> None:
    """Enter the network, then carry until the tie breaks."""
    network, tie, *pairs = sys.argv[1:]
    if network != HERE:
        handle = os.open(network, os.O_RDONLY)
        if LIBC.setns(handle, CLONE_NET):
            sys.exit(f"cannot enter {network}; only root may")
        os.close(handle)
    asyncio.run(_serve(tie, pairs))


if __name__ == "__main__":
    main()
