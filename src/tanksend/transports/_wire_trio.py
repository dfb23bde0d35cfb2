"""
The wire on trio: non-blocking sockets, and one cancel scope per request.

The sockets are the standard library's, so that it is known which byte has left for the kernel: trio's own streams only
say whether all of them have.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from typing import TYPE_CHECKING

import trio

from ._failures import LinkError, broken_off, no_answer, no_connection, no_connection_within, outcome_unknown
from ._link import Link
from ._pool import IdlePool, is_readable
from ._threads import no_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._http1 import Answer
    from ._link import Route
    from ._tls import Trust

__all__ = ["TrioPool"]

_READ_SIZE = 65_536
_PIECE = 262_144


class Connection:
    """
    One connection, for one request at a time.

    Args:
        pool: Whose it is.
        link: Its protocols.
        sock: Connected and non-blocking.
    """

    __slots__ = ("_handed_over", "_link", "_pool", "_socket", "idle_since")

    def __init__(self, pool: TrioPool, link: Link, sock: socket.socket) -> None:
        self._pool = pool
        self._link = link
        self._socket = sock
        self._handed_over = False
        self.idle_since = 0.0

    async def set_up(self) -> None:
        """
        Go through the handshakes.

        Raises:
            LinkError: One of them failed.
            OSError: As above.
        """
        link = self._link
        try:
            await self._write(link.start())
            while not link.ready:
                await self._read()
        except BaseException:
            self.close()
            raise

    async def exchange(self, request: bytes) -> Answer:
        """
        Write a request and wait for its answer. Whatever goes wrong, cancellation too, closes the connection.

        Raises:
            ConnectionFailedError: It was lost before the kernel had the whole request.
            OutcomeUnknownError: It was lost, or the time was over, after that.
        """
        link = self._link
        self._handed_over = False
        error: LinkError | OSError | None = None
        try:
            with trio.move_on_after(self._pool.read_timeout) as scope:
                # Who has been cancelled or is too late must not begin: nobody would know what became of it.
                await trio.lowlevel.checkpoint_if_cancelled()
                request = link.begin(request)
                if len(request) <= _PIECE:
                    await self._write(link.more(request))
                    self._handed_over = True
                else:
                    await self._write_large(memoryview(request), scope)
                while link.answer is None:
                    await self._read()
        except (LinkError, OSError) as caught:
            error = caught
            self.close()
        except BaseException:
            self.close()
            raise
        if link.answer is not None:
            return link.answer
        self.close()
        meaning = outcome_unknown if self._handed_over else broken_off
        raise meaning(error or no_answer(self._pool.read_timeout)) from None

    async def _write_large(self, request: memoryview, scope: trio.CancelScope) -> None:
        """Write it all, or as much as it takes until its answer is there."""
        try:
            await self._write_in_pieces(request, scope)
        except OSError:
            # Who refuses a request early says so and hangs up: the answer may be here already.
            await self._read_what_is_there()
            if self._link.answer is None:
                raise

    async def _write_in_pieces(self, view: memoryview, scope: trio.CancelScope) -> None:
        for start in range(0, len(view), _PIECE):
            await self._write(self._link.more(view[start : start + _PIECE]))
            # Before anything else is heard of the connection.
            self._handed_over = start + _PIECE >= len(view)
            # The time for the answer counts from the last byte of the request.
            scope.deadline = trio.current_time() + self._pool.read_timeout
            await self._read_what_is_there()
            if self._link.answer is not None:
                return

    async def _read_what_is_there(self) -> None:
        while self._link.answer is None and is_readable(self._socket.fileno()):
            await self._read()

    async def _write(self, data: bytes) -> None:
        if not data:
            return
        rest = memoryview(data)
        while True:
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._socket.send(rest) :]
            if not rest:
                return
            await trio.lowlevel.wait_writable(self._socket)

    async def _read(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)
        buffer = self._pool.buffer
        try:
            count = self._socket.recv_into(buffer)
        except BlockingIOError:  # pragma: no cover - the kernel may say so falsely.
            return
        if not count:
            self._link.eof()
        elif reply := self._link.feed(buffer[:count]):
            await self._write(reply)

    @property
    def reusable(self) -> bool:
        """Whether the last request has gone out whole and the other side goes on listening."""
        return self._handed_over and not self._link.over and self._socket.fileno() >= 0

    def usable(self) -> bool:
        return not is_readable(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()

    def drop(self) -> None:
        # Nobody else holds this socket, and closing it says nothing as long as the parent has it open.
        self._socket.close()


class TrioPool:
    """
    The connections of one trio run. Used in its thread only.

    Args:
        route: Where to.
        trust: Whom to trust.
        connect_timeout: Seconds for a new connection, its handshakes included.
        read_timeout: Seconds for an answer.
    """

    def __init__(self, route: Route, trust: Trust, connect_timeout: float, read_timeout: float) -> None:
        self.route = route
        self.read_timeout = read_timeout
        # Read and used up before anything else runs, so one buffer serves all connections.
        self.buffer = memoryview(bytearray(_READ_SIZE))
        self._token = weakref.ref(trio.lowlevel.current_trio_token())
        self._trust = trust
        self._connect_timeout = connect_timeout
        self._idle: IdlePool[Connection] = IdlePool()
        self._busy: set[Connection] = set()
        self._closings = 0

    async def exchange(self, request: bytes) -> Answer:
        """Send a request on an idle connection or a new one."""
        closings = self._closings
        connection = self._idle.take(trio.current_time()) or await self._open()
        self._busy.add(connection)
        try:
            answer = await connection.exchange(request)
        finally:
            self._busy.discard(connection)
        if answer.keep_alive and connection.reusable and closings == self._closings:
            self._idle.put(connection, trio.current_time())
        else:
            connection.close()
        return answer

    async def _open(self) -> Connection:
        name = self.route.name
        try:
            with trio.fail_after(self._connect_timeout):
                connection = Connection(self, Link(self.route, self._trust), await self._connect())
                await connection.set_up()
        except trio.TooSlowError:
            raise no_connection_within(name, self._connect_timeout) from None
        except (OSError, LinkError) as error:
            raise no_connection(name, _first(error)) from None
        except RuntimeError:  # for the look-up of the name
            raise no_thread() from None
        return connection

    async def _connect(self) -> socket.socket:
        stream = await trio.open_tcp_stream(*self.route.first)
        # The option is on: trio's stream has set it.
        sock = socket.socket(fileno=stream.socket.detach())  # pyright: ignore[reportAttributeAccessIssue]
        sock.settimeout(0.0)
        return sock

    def close(self) -> None:
        """Close what is idle, and what is on the wire as soon as it is done. In the run's thread."""
        self._closings += 1
        self._idle.close()

    def close_soon(self) -> None:
        """Do so from another thread."""
        if not self._call(self.close):
            self.drop()

    @property
    def gone(self) -> bool:
        """Whether its run is over."""
        return not self._call(_nothing)

    def _call(self, what: Callable[[], None]) -> bool:
        """Have its run call *what* soon; False if it is over."""
        token = self._token()
        try:
            if token is not None:
                token.run_sync_soon(what, idempotent=True)
        except trio.RunFinishedError:
            return False
        return token is not None

    def drop(self) -> None:
        """Let go of everything without a word: the run is over, or another process's."""
        for connection in (*self._idle, *self._busy):
            connection.drop()

    # When the run is over, nothing but this pool holds the sockets.
    __del__ = drop

    async def settle(self) -> None:
        """Nothing to wait for: sockets close at once."""
        await trio.lowlevel.checkpoint()


def _nothing() -> None:
    """Be called: that is the question."""


def _first(error: OSError | LinkError) -> OSError | LinkError:
    """What trio tells of several attempts, by the first of them."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error
