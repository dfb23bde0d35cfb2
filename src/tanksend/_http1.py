"""
HTTP/1.1 answers, read from bytes: no socket, no clock.

One `ResponseReader` lives as long as its connection. It is strict where being lenient would cost a mail: an answer
counts only when it is whole, one that nobody asked for breaks the connection, and whatever follows an answer in the
same breath means that the connection is not used again. The parser is httptools (llhttp), loaded on first use.

Source: RFC 9112 (messages, connections), RFC 9110 sections 9.3.6 (CONNECT) and 15.2 (1xx).
"""

from __future__ import annotations

import re
from typing import Final

import attrs

MAX_BODY: Final = 1_048_576
"""Bytes of an answer's body. SES's answers have a few hundred; its longest lists stay well below."""
MAX_HEAD: Final = 65_536
"""Bytes of an answer's head, and of everything a proxy says before the tunnel is open."""

_REMEMBERED: Final = 32  # Names of headers.

_CONTINUE, _SWITCHING, _OK, _NOT_OPEN = 100, 101, 200, 300
# These never have a body, whatever their headers say (RFC 9112 section 6.3).
_BODILESS = frozenset({204, 304})
_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")


class BadAnswerError(Exception):
    """What came is not a whole HTTP answer to the request; the text says why and repeats nothing of it."""


@attrs.frozen(repr=False)
class Answer:
    """
    A whole answer.

    Attributes:
        status: The status code.
        headers: Values by lower-case name; repeated ones joined by a comma.
        body: The whole body.
        keep_alive: Another request may follow on this connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    def __repr__(self) -> str:
        return f"<Answer {self.status} {len(self.body)} bytes>"


class ResponseReader:
    """The answers on one connection, one after the other. `expect` before each request."""

    def __init__(self) -> None:
        from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

        self._errors = (HttpParserError, HttpParserUpgrade)
        self._parser = HttpResponseParser(self)
        self._keys: dict[bytes, str] = {}
        self._expecting = False
        self._begin()

    def expect(self) -> None:
        """A request is about to be written: the next answer is for it."""
        self._begin()
        self._expecting = True

    def _begin(self) -> None:
        self._room = MAX_HEAD + MAX_BODY
        self._answer: Answer | None = None
        self._surplus = False
        self._until_close = False
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def feed(self, data: bytes | bytearray | memoryview) -> Answer | None:
        """
        Take what came. Gives the answer when it is whole.

        Raises:
            BadAnswerError: It is no HTTP, too large, or nobody asked. The connection cannot be used again.
        """
        if not self._expecting:
            raise BadAnswerError("something came that nobody had asked for")
        self._room -= len(data)
        if self._room < 0:
            raise BadAnswerError(f"the answer is larger than {MAX_BODY} bytes")
        broken = None
        try:
            self._parser.feed_data(data)
        except self._errors as error:
            broken = type(error).__name__
        answer = self._answer
        if answer is None:
            if broken:
                raise BadAnswerError(f"the answer is not HTTP ({broken})")
            return None
        self._expecting = False
        # Whatever came behind it, the answer itself is whole and good.
        return attrs.evolve(answer, keep_alive=False) if broken or self._surplus else answer

    def eof(self) -> Answer:
        """
        The other side has closed. Gives the answer if only this ends it.

        Raises:
            BadAnswerError: The answer is missing or cut off.
        """
        if not self._until_close:
            raise BadAnswerError("the connection was closed before the whole answer came")
        self._expecting = False
        return Answer(self._parser.get_status_code(), self._headers, b"".join(self._body), keep_alive=False)

    # What the parser calls. They never raise: it would lose the reason.

    def on_message_begin(self) -> None:
        self._surplus = self._answer is not None

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self._keys.get(name) or self._key(name)
        text = value.decode("latin-1")
        headers = self._headers
        headers[key] = text if key not in headers else f"{headers[key]}, {text}"

    def _key(self, name: bytes) -> str:
        """Decode a header's name, and remember the few that come with every answer."""
        key = name.decode("latin-1").lower()
        if len(self._keys) < _REMEMBERED:
            self._keys[name] = key
        return key

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        framed = "content-length" in headers or "transfer-encoding" in headers
        self._until_close = not framed and status >= _OK and status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if _CONTINUE <= status < _OK and status != _SWITCHING:
            self._headers = {}
        elif self._answer is None:
            self._answer = Answer(status, self._headers, b"".join(self._body), self._parser.should_keep_alive())
            self._headers = {}


def connect_request(host: str, port: int, authorization: str | None = None) -> bytes:
    """
    Ask a proxy for a tunnel.

    Args:
        host: A name or an address, without brackets.
        port: TCP port.
        authorization: The Proxy-Authorization header's value.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if authorization is not None:
        lines.append(f"Proxy-Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class ConnectReader:
    """A proxy's answer to CONNECT. Unlike any other answer it ends with its head: what follows is the tunnel."""

    def __init__(self) -> None:
        self._head = b""

    def feed(self, data: bytes | bytearray | memoryview) -> int | None:
        """
        Take what came. Gives the status when the head is whole.

        Raises:
            BadAnswerError: It is no HTTP or too long, or something came through the tunnel before we spoke.
        """
        self._head += data
        if len(self._head) > MAX_HEAD:
            raise BadAnswerError("the proxy's answer is too long")
        status, rest = _CONTINUE, b""
        while status < _OK:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return None
            found = _PROXY_STATUS.match(head + b"\r\n")
            if not found:
                raise BadAnswerError("the proxy's answer is not HTTP")
            status, self._head = int(found[1]), rest
        if rest and status < _NOT_OPEN:
            raise BadAnswerError("something came through the proxy before the tunnel was open")
        return status
