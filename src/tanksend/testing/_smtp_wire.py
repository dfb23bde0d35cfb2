"""One SMTP connection of the loopback server: bytes in, steps of the session out, TLS in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Protocol, cast

from ._smtp import Account, Session, Step

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)
_TIMEOUT = b"451 Timeout waiting for data from client\r\n"


class Behaviour(Account, Protocol):
    """What a connection needs to know of the server it belongs to."""

    mail_connections: set[MailConnection]
    idle_timeout: float | None
    close_after_requests: int | None
    slow_step: float

    def opened(self) -> None:
        """Count a connection."""
        ...

    def delay(self) -> float:
        """Seconds until the next answer is written."""
        ...


class MailConnection(asyncio.Protocol):
    """
    Carries out what a session says.

    Args:
        server: The server it belongs to.
        context: For STARTTLS; None does not offer it.
        secured: TLS is spoken from the first byte.
    """

    def __init__(self, server: Behaviour, context: ssl.SSLContext | None, *, secured: bool) -> None:
        self._server = server
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._session = Session(server, secured=secured, can_secure=context is not None)
        self._transport: asyncio.Transport | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._waiting = b""
        self._busy = False
        self._deaf = False
        self._judged = 0
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.mail_connections.add(self)
        self._server.opened()
        self._transport.write(self._session.greeting())
        self._watch_idle()

    def data_received(self, data: bytes) -> None:
        """Take what came, or keep it until the last reply is written."""
        if self._deaf:
            return
        self._stop_watch()
        if self._busy:
            self._waiting += data
            return
        for step in self._session.feed(data):
            delay = self._server.delay() if step.judged else 0.0
            if delay > 0 or step.then == "trickle":
                self._busy = True
                self._loop.call_later(delay, self._perform, step)
                return
            self._perform(step)
        self._watch_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._deaf = True
        self._stop_watch()
        self._transport = None
        self._server.mail_connections.discard(self)

    # --- steps

    def _perform(self, step: Step) -> None:
        if self._transport is None or self._deaf:
            return
        if step.then == "trickle":
            self._trickle(step, 0)
            return
        self._transport.write(step.reply)
        self._count(step)
        _THEN[step.then](self)
        if step.then != "start TLS":
            self._go_on()

    def _count(self, step: Step) -> None:
        self._judged += step.judged
        if step.judged and self._judged == self._server.close_after_requests:
            self._close()

    def _go_on(self) -> None:
        """Take what came while a reply was on its way."""
        if self._busy:
            self._busy, waiting, self._waiting = False, self._waiting, b""
            self.data_received(waiting)

    def _trickle(self, step: Step, position: int) -> None:
        if self._transport is None or self._deaf:
            return
        self._transport.write(step.reply[position : position + 1])
        if position + 1 < len(step.reply):
            self._loop.call_later(self._server.slow_step, self._trickle, step, position + 1)
        else:
            self._count(step)
            self._go_on()

    def _stay(self) -> None:
        """Nothing more."""

    def _start_tls(self) -> None:
        """
        Go on through TLS.

        The task takes over the socket before anything more is read from it. What comes through TLS before the task
        knows the new transport waits, for it must not be answered on the old one.
        """
        self._busy = True
        self._handshake = self._loop.create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        transport, context = self._transport, self._context
        if transport is None or context is None:
            return
        with contextlib.suppress(OSError):  # The client did not like us: it has gone, or goes now.
            self._transport = await self._loop.start_tls(transport, self, context, server_side=True)
            self._go_on()
            return
        transport.abort()

    def _close(self) -> None:
        """Close cleanly: everything that came has been read, so the peer sees an end and no reset."""
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    def _reset(self) -> None:
        """Close with a reset: a socket that lingers for zero seconds drops everything. Source: socket(7)."""
        self._deaf = True
        if self._transport is not None:
            with contextlib.suppress(OSError):  # The peer may have gone first.
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _fall_silent(self) -> None:
        self._deaf = True

    def drop(self) -> None:
        """Close at once, when the server ends."""
        self._deaf = True
        if self._handshake is not None:
            self._handshake.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- idleness

    def _watch_idle(self) -> None:
        if self._server.idle_timeout is not None and not self._deaf:
            self._stop_watch()
            self._timer = self._loop.call_later(self._server.idle_timeout, self._time_out)

    def _time_out(self) -> None:
        if self._transport is not None and not self._deaf:
            self._transport.write(_TIMEOUT)
            self._close()

    def _stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_THEN: dict[str, Callable[[MailConnection], None]] = {
    "go on": MailConnection._stay,  # noqa: SLF001  (of this module)
    "start TLS": MailConnection._start_tls,  # noqa: SLF001
    "close": MailConnection._close,  # noqa: SLF001
    "reset": MailConnection._reset,  # noqa: SLF001
    "fall silent": MailConnection._fall_silent,  # noqa: SLF001
}
