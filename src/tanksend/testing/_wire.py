"""One HTTP/1.1 connection of the loopback server: llhttp in, bytes out, and the faults that only a socket can show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from ._answers import Answer, Request
from ._simulator import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

# A longer body is not waited for before a reset: its sender is to notice in the middle of writing.
_RESET_AT_ONCE = 65_536
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_BAD = Answer(400, b'{"message":null}', (("x-amzn-ErrorType", "MalformedHttpRequestException"),), "400")
_RESET = struct.pack("ii", 1, 0)


class Behaviour(Protocol):
    """What a connection needs to know of the server it belongs to."""

    connections: set[Connection]
    idle_timeout: float | None
    close_after_requests: int | None
    slow_step: float

    def opened(self) -> None:
        """Count a connection."""
        ...

    def draw_fault(self, method: str, path: str) -> str | None:
        """The fault for a request whose head is there."""
        ...

    def cut(self, fault: str, path: str) -> None:
        """Note a request that was cut off unread."""
        ...

    def exchange(self, request: Request, fault: str | None = None) -> Exchange:
        """Take a request."""
        ...

    def delay(self) -> float:
        """Seconds until the next answer is written."""
        ...


def encode(answer: Answer) -> bytes:
    """An answer as it goes on the wire."""
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines.append(f"Content-Length: {len(answer.body)}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1") + answer.body


class Connection(asyncio.Protocol):
    """Reads requests one after the other and carries out what the account says."""

    def __init__(self, server: Behaviour) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._fault: str | None = None
        self._answered = 0
        self._keep_alive = True
        self._busy = False
        self._deaf = False
        self._waiting: deque[tuple[Request, str | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._server.opened()
        self._watch_idle()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless a fault has made this connection deaf."""
        if self._deaf:
            return
        self._stop_watch()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._deaf:
                self._perform(Exchange(_BAD))
                self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._deaf = True
        self._stop_watch()
        self._transport = None
        self._server.connections.discard(self)

    # --- httptools ---

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Its target, perhaps in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there: now is the moment to cut it off."""
        path = self._target.partition(b"?")[0].decode("latin-1")
        self._fault = self._server.draw_fault(self._parser.get_method().decode(), path)
        length = self._headers.get("content-length", "0")
        if self._fault == "reset-before" and length.isdecimal() and int(length) > _RESET_AT_ONCE:
            self._server.cut(self._fault, path)
            self._reset()
        elif self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole request is there."""
        if self._deaf:
            return
        path, _, query = self._target.decode("latin-1").partition("?")
        self._keep_alive = self._parser.should_keep_alive()
        request = Request(
            self._parser.get_method().decode(),
            path,
            query,
            self._headers,
            b"".join(self._body),
            time.monotonic(),
            time.time(),
        )
        if self._busy:
            self._waiting.append((request, self._fault))
        else:
            self._take(request, self._fault)

    # --- answers ---

    def _take(self, request: Request, fault: str | None) -> None:
        exchange = self._server.exchange(request, fault)
        delay = self._server.delay()
        if delay > 0:
            self._busy = True
            self._loop.call_later(delay, self._perform, exchange)
        else:
            self._perform(exchange)

    def _perform(self, exchange: Exchange) -> None:
        if self._transport is None or self._deaf:
            return
        if exchange.answer is None:
            _WITHOUT_ANSWER[exchange.wire](self)
        elif exchange.wire == "slow":
            self._busy = True
            self._trickle(encode(exchange.answer), 0)
        else:
            if self._is_last():
                self._cork()
            self._transport.write(encode(exchange.answer))
            self._answer_written()

    def _is_last(self) -> bool:
        """Whether the connection is closed after this answer."""
        return not self._keep_alive or self._answered + 1 == self._server.close_after_requests

    def _cork(self) -> None:
        """Let the answer and the end leave as one: between the two, a fast client would send in vain."""
        tcp: socket.socket | None = self._transport.get_extra_info("socket") if self._transport is not None else None
        option = getattr(socket, "TCP_CORK", None)  # Linux only; elsewhere the client has to be lucky
        if tcp is not None and option is not None:
            tcp.setsockopt(socket.IPPROTO_TCP, option, 1)
            self._loop.call_soon(self._uncork, tcp, option)

    def _uncork(self, tcp: socket.socket, option: int) -> None:
        with contextlib.suppress(OSError):  # closed already, which has flushed it
            tcp.setsockopt(socket.IPPROTO_TCP, option, 0)

    def _answer_written(self) -> None:
        self._busy = False
        last = self._is_last()
        self._answered += 1
        if last:
            self._close()
        elif self._waiting:
            self._take(*self._waiting.popleft())
        else:
            self._watch_idle()

    def _trickle(self, data: bytes, position: int) -> None:
        if self._transport is None or self._deaf:
            return
        self._transport.write(data[position : position + 1])
        if position + 1 < len(data):
            self._loop.call_later(self._server.slow_step, self._trickle, data, position + 1)
        else:
            self._answer_written()

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
        if self._transport is not None:
            self._transport.abort()

    # --- idleness ---

    def _watch_idle(self) -> None:
        if self._server.idle_timeout is not None:
            self._timer = self._loop.call_later(self._server.idle_timeout, self._close)

    def _stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_WITHOUT_ANSWER: dict[str, Callable[[Connection], None]] = {
    "reset": Connection._reset,  # noqa: SLF001  (of this module)
    "close": Connection._close,  # noqa: SLF001
    "silent": Connection._fall_silent,  # noqa: SLF001
}
