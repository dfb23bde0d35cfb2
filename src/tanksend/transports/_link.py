"""
Everything between a socket's bytes and HTTP answers on one connection: proxy, TLS, HTTP. No socket, no clock.

A `Link` is set up by a short conversation (`start`, then `feed` until `ready`), which may go through TLS to a proxy,
the proxy's CONNECT and TLS to the endpoint. Then `begin` and `more` say which bytes to write, and `feed` takes what
comes until `answer` is there. The drivers for asyncio and trio only move bytes, wait and keep the time.

Source: RFC 9112 section 3.2.2 (absolute-form), RFC 9110 section 9.3.6 (CONNECT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .._http1 import Answer, BadAnswerError, ConnectReader, ResponseReader, connect_request
from ._failures import LinkError, in_words, refused_by_proxy
from ._tls import TlsPipe

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._settings import Endpoint, Proxy
    from ._tls import Trust

__all__ = ["Link", "Route"]

_Bytes = bytes | memoryview


@attrs.frozen
class Route:
    """
    How to get to the endpoint.

    Args:
        endpoint: Where to.
        proxy: Through this one; ``None`` for straight there.
    """

    endpoint: Endpoint
    proxy: Proxy | None = None

    @property
    def first(self) -> tuple[str, int]:
        """Host and port of whom the socket connects to."""
        hop = self.proxy or self.endpoint
        return hop.host, hop.port

    @property
    def name(self) -> str:
        """Where it leads, for a text."""
        through = f" through the proxy {self.proxy.host}" if self.proxy else ""
        return self.endpoint.host + through

    @property
    def secured(self) -> bool:
        """Whether there is any TLS on it."""
        return self.endpoint.tls or (self.proxy is not None and self.proxy.scheme == "https")

    def in_absolute_form(self, request: bytes) -> bytes:
        """Rewrite a request for a proxy that is to pass it on by itself."""
        method, _, rest = request.partition(b" ")
        target, _, rest = rest.partition(b" ")
        version, _, rest = rest.partition(b"\r\n")
        host = self.endpoint.host_header.encode()
        wanted = self.proxy.authorization if self.proxy else None
        header = f"Proxy-Authorization: {wanted}\r\n".encode() if wanted else b""
        return b"%b http://%b%b %b\r\n%b%b" % (method, host, target, version, header, rest)


class Link:
    """
    The protocols of one connection.

    Attributes:
        ready: It is set up; requests may go.
        answer: The answer to the last request, once it is whole.
        over: The other side has ended it; there can be no further request.

    Args:
        route: Where it leads.
        trust: Whom to trust.
    """

    __slots__ = ("_absolute", "_outer", "_reader", "_route", "_setting_up", "_tls", "_trust", "answer", "over", "ready")

    def __init__(self, route: Route, trust: Trust) -> None:
        self._route = route
        self._trust = trust
        self._absolute = route.proxy is not None and not route.endpoint.tls
        self._outer: TlsPipe | None = None
        self._tls: TlsPipe | None = None
        self._reader = ResponseReader()
        self._setting_up = self._set_up()
        self.ready = False
        self.over = False
        self.answer: Answer | None = None

    # --- setting up

    def start(self) -> bytes:
        """
        Begin; gives what to write.

        Raises:
            LinkError: As `feed`.
        """
        return self._converse(None)

    def _converse(self, data: _Bytes | None) -> bytes:
        try:
            return self._setting_up.send(data)  # type: ignore[arg-type]  # None starts a generator.
        except StopIteration as end:
            self.ready = True
            last: bytes = end.value
            return last
        except (OSError, BadAnswerError) as error:
            raise _over(error) from None

    def _set_up(self) -> Generator[bytes, _Bytes, bytes]:
        """The conversation: yields what to write, is sent what came, returns the last thing to write."""
        endpoint, proxy, last = self._route.endpoint, self._route.proxy, b""
        if proxy is not None and proxy.scheme == "https":
            outer = TlsPipe(self._trust.context(proxy=True), proxy.host)
            last = yield from self._shake_hands(outer, b"")
            self._tls = outer
        if endpoint.tls:
            if proxy is not None:
                yield from self._open_tunnel(endpoint, proxy, last)
                last = b""
            self._outer, self._tls = self._tls, None
            tls = TlsPipe(self._trust.context(), endpoint.host)
            last = yield from self._shake_hands(tls, last)
            self._tls = tls
        return last

    def _shake_hands(self, tls: TlsPipe, last: bytes) -> Generator[bytes, _Bytes, bytes]:
        done = tls.handshake(b"")
        while not done:
            data = yield last + self._through_outer(tls.take())
            last = b""
            done = tls.handshake(data if self._outer is None else self._outer.decrypt(data))
        return self._through_outer(tls.take())

    def _open_tunnel(self, endpoint: Endpoint, proxy: Proxy, last: bytes) -> Generator[bytes, _Bytes, None]:
        """Runs before the endpoint's own TLS, so `_tls` is still the proxy's, if it has any."""
        reader = ConnectReader()
        data = yield last + self.more(connect_request(endpoint.host, endpoint.port, proxy.authorization))
        while (status := reader.feed(data if self._tls is None else self._tls.decrypt(data))) is None:
            data = yield b""
        if not 200 <= status < 300:
            raise refused_by_proxy(status)

    # --- requests

    def begin(self, request: bytes) -> bytes:
        """Expect the answer to *request*; gives its bytes as they are to go through `more`."""
        self.answer = None
        self._reader.expect()
        return self._route.in_absolute_form(request) if self._absolute else request

    def more(self, data: _Bytes) -> bytes:
        """Give what to write for some bytes of a request."""
        return bytes(data) if self._tls is None else self._through_outer(self._tls.encrypt(data))

    def _through_outer(self, data: bytes) -> bytes:
        return data if self._outer is None or not data else self._outer.encrypt(data)

    def feed(self, data: _Bytes) -> bytes:
        """
        Take what came; gives what to write back, mostly nothing.

        Raises:
            LinkError: The connection cannot be used any more. An answer that was whole before stays in `answer`.
        """
        if not self.ready:
            return self._converse(data)
        try:
            return self._take(data)
        except (OSError, BadAnswerError) as error:
            raise _over(error) from None

    def _take(self, data: _Bytes) -> bytes:
        tls = self._tls
        if tls is None:
            self.answer = self._reader.feed(data) or self.answer
            return b""
        if self._outer is not None:
            data = self._outer.decrypt(data)
        plain = tls.decrypt(data)
        if plain:
            self.answer = self._reader.feed(plain) or self.answer
        if tls.closed or (self._outer is not None and self._outer.closed):
            self.eof()
        return self._through_outer(tls.take())

    def eof(self) -> None:
        """
        Take note that the other side has closed. Sets `answer` if that is how it ends.

        Raises:
            LinkError: There is no whole answer.
        """
        self.over = True
        if not self.ready:
            raise in_words(None)
        try:
            self.answer = self.answer or self._reader.eof()
        except BadAnswerError as error:
            raise _over(error) from None


def _over(error: OSError | BadAnswerError) -> LinkError:
    return LinkError(str(error), error) if isinstance(error, BadAnswerError) else in_words(error)
