"""
The wire on asyncio: one `asyncio.BufferedProtocol` per connection, one timer per pool.

A request costs one future and one system call each way: no task, no stream and no cancel scope of its own. Two things
are watched closely:

- whether the last byte of a request has left for the kernel. The transport's buffer limit is zero, so it calls
  `Connection.pause_writing` as soon as it holds any byte back and `Connection.resume_writing` when it holds none;
- time limits. The pool's timer goes off at the earliest deadline among the requests on the wire; mostly they are
  answered long before, and the timer finds nothing to do.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import TYPE_CHECKING, cast

from ._dial_asyncio import dial
from ._failures import LinkError, broken_off, in_words, no_answer, no_connection, no_connection_within, outcome_unknown
from ._link import Link
from ._pool import IdlePool, drop_unspoken, inode, is_readable
from ._threads import no_thread

if TYPE_CHECKING:
    from .._http1 import Answer
    from ..exceptions import ConnectionFailedError, OutcomeUnknownError
    from ._link import Route
    from ._tls import Trust

__all__ = ["AsyncioPool"]

_READ_SIZE = 65_536
_UNSENT = 16_384  # Bytes that the kernel may keep unsent; trio has the same figure.
# Requests above this are written piece by piece, so that a large one neither stops the loop nor is held twice.
_PIECE = 262_144


class Connection(asyncio.BufferedProtocol):
    """
    One connection, for one request at a time.

    Args:
        pool: Whose it is.
        link: Its protocols.
    """

    __slots__ = (
        "_cause",
        "_fd",
        "_handed_over",
        "_held_back",
        "_inode",
        "_link",
        "_loop",
        "_lost",
        "_pool",
        "_room",
        "_setting_up",
        "_transport",
        "_waiter",
        "deadline",
        "idle_since",
    )

    def __init__(self, pool: AsyncioPool, link: Link) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._link = link
        self._transport: asyncio.Transport
        self._fd = -1
        self._inode = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._setting_up = True
        self._held_back = False
        self._handed_over = False
        self._lost = False
        self._cause: BaseException | None = None
        self.deadline = math.inf
        self.idle_since = 0.0

    # --- what the pool does with it

    async def set_up(self) -> None:
        """
        Go through the handshakes.

        Raises:
            ConnectionFailedError: One of them failed.
        """
        try:
            if not (self._link.ready or self._lost):
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            self.close()
            raise
        if self._lost:
            raise self._meaning(self._cause)
        self._setting_up = False

    async def exchange(self, request: bytes) -> Answer:
        """
        Write a request and wait for its answer. Whatever goes wrong, cancellation too, closes the connection.

        Raises:
            ConnectionFailedError: It was lost before the kernel had the whole request.
            OutcomeUnknownError: It was lost, or the time was over, after that.
        """
        pool, link = self._pool, self._link
        self._handed_over = False
        try:
            request = link.begin(request)
            if len(request) <= _PIECE:
                self._transport.write(link.more(request))
                # A write that fails at once closes the transport and says so later. As long as the transport holds
                # something back, this alone means nothing: see `_meaning`.
                self._handed_over = not self._transport.is_closing()
            else:
                await self._write_in_pieces(memoryview(request))
            if link.answer is None:
                await self._wait_for_answer()
        except BaseException:
            self.close()
            raise
        finally:
            pool.busy.discard(self)
        answer = link.answer
        assert answer is not None  # noqa: S101 - the wait ends well only with one.
        return answer

    async def _wait_for_answer(self) -> None:
        if self._lost:
            raise self._meaning(self._cause)
        self._waiter = waiter = self._loop.create_future()
        self._pool.watch(self)
        await waiter

    async def _write_in_pieces(self, view: memoryview) -> None:
        """Write a large request, ending early when its answer does not wait for the rest."""
        for start in range(0, len(view), _PIECE):
            self._transport.write(self._link.more(view[start : start + _PIECE]))
            if self._transport.is_closing():
                return
            self._handed_over = start + _PIECE >= len(view)
            if self._held_back:
                self._room = self._loop.create_future()
                self._pool.watch(self)
                await self._room
            if self._link.answer is not None or self._lost:
                return

    @property
    def reusable(self) -> bool:
        """Whether the last request has gone out whole and the other side goes on listening."""
        return self._handed_over and not (self._held_back or self._lost or self._link.over)

    def usable(self) -> bool:
        return not (self._lost or self._link.over or self._transport.is_closing() or is_readable(self._fd))

    def close(self) -> None:
        if not self._lost:
            self._lost = True
            self._transport.abort()

    def drop(self) -> None:
        if not self._lost:
            self._lost = True
            drop_unspoken(self._fd, self._inode)

    def expire(self) -> None:
        """Its time is over."""
        self._end(no_answer(self._pool.read_timeout))

    # --- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not registered as such.
        self._transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Bytes that the network does not take yet stay here, where it is known that they have not left.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self._fd = sock.fileno()
        self._inode = inode(self._fd)
        try:
            # Before anything that comes is looked at.
            self._write(self._link.start())
        except LinkError as error:
            self._end(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        link = self._link
        try:
            reply = link.feed(self._pool.buffer[:nbytes])
        except LinkError as error:
            self._end(error)
            return
        self._write(reply)
        if link.answer is not None or (self._setting_up and link.ready):
            self._wake()

    def eof_received(self) -> None:
        try:
            self._link.eof()
        except LinkError as error:
            self._end(error)
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def pause_writing(self) -> None:
        self._held_back = True

    def resume_writing(self) -> None:
        self._held_back = False
        # The time for the answer counts from the last byte of the request.
        self.deadline = self._loop.time() + self._pool.read_timeout
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _write(self, data: bytes) -> None:
        if data:
            self._transport.write(data)

    def _wake(self) -> None:
        for future in (self._waiter, self._room):
            if future is not None and not future.done():
                future.set_result(None)

    def _end(self, error: BaseException | None) -> None:
        """It is over: tell whoever waits."""
        if self._link.answer is not None:
            self._wake()
        self._cause = self._cause or error
        for future in (self._waiter, self._room):
            if future is not None and not future.done():
                future.set_exception(self._meaning(error))
        self.close()

    def _meaning(self, error: BaseException | None) -> ConnectionFailedError | OutcomeUnknownError:
        if self._setting_up:
            return no_connection(self._pool.route.name, in_words(error))
        if self._handed_over and not self._held_back:
            return outcome_unknown(error)
        return broken_off(error)


class AsyncioPool:
    """
    The connections of one asyncio event loop. Used in its thread only.

    Args:
        route: Where to.
        trust: Whom to trust.
        connect_timeout: Seconds for a new connection, its handshakes included.
        read_timeout: Seconds for an answer.
    """

    def __init__(self, route: Route, trust: Trust, connect_timeout: float, read_timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.route = route
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        # Read and used up before the loop does anything else, so one buffer serves all connections.
        self.buffer = memoryview(bytearray(_READ_SIZE))
        self.busy: set[Connection] = set()
        self._trust = trust
        self._idle: IdlePool[Connection] = IdlePool()
        self._closings = 0
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request on an idle connection or a new one."""
        closings = self._closings
        connection = self._idle.take(self.loop.time()) or await self._open()
        answer = await connection.exchange(request)
        if answer.keep_alive and connection.reusable and closings == self._closings:
            self._idle.put(connection, self.loop.time())
        else:
            connection.close()
        return answer

    async def _open(self) -> Connection:
        name = self.route.name
        try:
            async with asyncio.timeout(self.connect_timeout):
                connection = await dial(*self.route.first, self._connection)
                await connection.set_up()
        except TimeoutError:
            raise no_connection_within(name, self.connect_timeout) from None
        except OSError as error:
            raise no_connection(name, error) from None
        except RuntimeError:  # for the look-up of the name
            raise no_thread() from None
        return connection

    def _connection(self) -> Connection:
        return Connection(self, Link(self.route, self._trust))

    def watch(self, connection: Connection) -> None:
        """End *connection* unless its request is done within the time limit."""
        connection.deadline = deadline = self.loop.time() + self.read_timeout
        self.busy.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        late = [connection for connection in self.busy if connection.deadline <= now]
        for connection in late:
            self.busy.discard(connection)
            connection.expire()
        self._timer = None
        if self.busy:
            self._timer = self.loop.call_at(min(each.deadline for each in self.busy), self._look)

    def close(self) -> None:
        """Close what is idle, and what is on the wire as soon as it is done. In the loop's thread."""
        self._closings += 1
        self._idle.close()

    def close_soon(self) -> None:
        """Do so from another thread."""
        try:
            self.loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # The loop is closed.
            self.drop()

    def drop(self) -> None:
        """Let go of everything without a word: the loop is closed, or another process's."""
        for connection in (*self._idle, *self.busy):
            connection.drop()

    @property
    def gone(self) -> bool:
        """Whether its loop is closed."""
        return self.loop.is_closed()

    async def settle(self) -> None:
        """Let the loop finish closing."""
        await asyncio.sleep(0)
