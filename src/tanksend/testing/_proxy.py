"""`TunnelProxy`: an HTTP proxy on the loopback that knows CONNECT and nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING

from ._loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_CHUNK = 65_536
_MAX_HEAD = 16_384


class TunnelProxy:
    """
    Opens tunnels for clients that must go through a proxy, and counts them.

    A context manager; it runs on a thread of its own.

    Args:
        username: With *password*, what Proxy-Authorization must say; None lets everybody in.
        password: See *username*.

    Attributes:
        tunnels: Tunnels opened.
        refused: CONNECTs without the right credentials.
        targets: Where the tunnels led, as ``host:port``, in order.
    """

    def __init__(self, *, username: str | None = None, password: str = "") -> None:
        self._expected: bytes | None = None
        self._userinfo = ""
        if username is not None:
            self._expected = b"basic " + base64.b64encode(f"{username}:{password}".encode())
            self._userinfo = f"{username}:{password}@"
        self.tunnels = 0
        self.refused = 0
        self.targets: list[str] = []
        self._port = 0
        self._thread: LoopThread | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        return f"<TunnelProxy tunnels={self.tunnels} refused={self.refused}>"

    @property
    def url(self) -> str:
        """For ``HTTPS_PROXY`` and the like, with the credentials in it."""
        return f"http://{self._userinfo}127.0.0.1:{self._port}"

    @property
    def bare_url(self) -> str:
        """The same without credentials."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen. Blocks until it does."""
        if self._thread is None:
            self._thread = LoopThread(self._serve, "tunnel-proxy")
            self._thread.start()

    def stop(self) -> None:
        """Close everything. Blocks until it is done, which is soon."""
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, listening: Callable[[], None], stop: asyncio.Event) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            task = asyncio.get_running_loop().create_task(self._client(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_MAX_HEAD)
        self._port = server.sockets[0].getsockname()[1]
        listening()
        await stop.wait()
        server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            await self._connect(head, reader, writer)
        self._drop(writer)

    async def _connect(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, *_ = head.split(b" ", 2)
        if method != b"CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        if self._expected is not None and _authorization(head) != self._expected:
            self.refused += 1
            challenge = b'Proxy-Authenticate: Basic realm="tunnels"\r\nContent-Length: 0\r\n\r\n'
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n" + challenge)
            return
        host, _, port = target.decode("latin-1").rpartition(":")
        try:
            there_reader, there = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        self._writers.add(there)
        self.tunnels += 1
        self.targets.append(target.decode("latin-1"))
        writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()


def _authorization(head: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"proxy-authorization":
            scheme, _, credentials = value.strip().partition(b" ")
            return scheme.lower() + b" " + credentials.strip()
    return b""
