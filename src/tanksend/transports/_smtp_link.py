"""
One connection to an SMTP server: `smtplib`'s, with TLS always and with its errors told apart.

Blocking: it lives in worker threads, in one at a time. `kill`, `drop` and `part` may be called from another.

What matters is on which side of the content's last byte a connection was lost. If writing the content fails, its last
TLS record was not handed over whole, and an incomplete record cannot even be decrypted (RFC 8446 section 5.2): nobody
has the message. Once it has succeeded, only a reply that can be read, to its end, tells.

`smtplib` gives each piece that comes the whole time limit anew, so that a reply that trickles in may last for ever, and
one limit to all that goes out, so that a large mail never gets through a thin line. Reading and writing are done here.

A reply of 4yz or 5yz after the content is certain, unlike most of HTTP's: "the requested mail action was not taken"
(RFC 5321 section 4.2.1).
"""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import attrs

from .._classify import classify_smtp
from ..exceptions import AccessDeniedError, CredentialsError, Scope
from ._failures import (
    LinkError,
    broken_off,
    in_words,
    no_answer,
    no_connection,
    no_connection_within,
    outcome_unknown,
)
from ._pool import drop_unspoken, inode, is_readable
from ._threads import no_thread

if TYPE_CHECKING:
    from .._classify import Phase
    from ..exceptions import SendError
    from ._smtp_mail import Mail

__all__ = ["Link", "Login", "Server", "StaleError"]

_NO_STARTTLS = (
    "Nothing was sent: without TLS neither the password nor the mail would be protected. Use a port and a server that "
    "offer it (465 or 2465 for TLS from the first byte), and look for a firewall or proxy that takes STARTTLS out"
)
_NOT_SMTP = "Check host and port: 25, 587 and 2587 are for STARTTLS, 465 and 2465 for TLS from the first byte"
_SHORTEST = 0.001  # Seconds; zero would mean "do not block".
_PIECE = 65_536  # Bytes for which the network gets the whole time limit.
_LONGEST_LINE = 8_192  # smtplib's figure; RFC 5321 section 4.5.3.1.5 wants 512.
_MOST_LINES = 256

_Address: TypeAlias = tuple[Any, Any, int, str, Any]  # as `socket.getaddrinfo` gives it


class StaleError(Exception):
    """A connection that was used before is over, and this message has not touched it: take another."""


@attrs.frozen(repr=False)
class Login:
    """User name and password."""

    username: str
    password: str


@attrs.frozen
class Server:
    """
    Whom to speak to.

    Args:
        host: Its name, which its certificate has to bear.
        port: Its port.
        implicit_tls: TLS from the first byte; otherwise STARTTLS.
        context: Whom to trust.
        connect_timeout: Seconds until the connection is ready for a message.
        read_timeout: Seconds for each reply, and for the network to take each piece of the content.
    """

    host: str
    port: int
    implicit_tls: bool
    context: ssl.SSLContext = attrs.field(repr=False)
    connect_timeout: float
    read_timeout: float


class Link(smtplib.SMTP):
    """
    A connection, opened by `open`, that carries one message after the other.

    Attributes:
        spent: It cannot carry another message.
        used: How many it has carried.
        idle_since: ``time.monotonic()`` of its last reply.
        generation: The pool's, when it was opened.

    Args:
        server: Whom to speak to.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(local_hostname="localhost", timeout=server.connect_timeout)
        self._server = server
        self._deadline: float | None = None
        self._found: SimpleQueue[list[_Address] | Exception] = SimpleQueue()
        self._came = bytearray()
        self._fd, self._inode = -1, 0
        self._killed = False
        self._unclean = False
        self._sender = ""
        self.spent = False
        self.used = 0
        self.idle_since = 0.0
        self.generation = 0

    def __repr__(self) -> str:
        return f"<Link to {self._server.host} used={self.used}>"

    # --- opening

    def open(self, login: Login | None) -> None:
        """
        Connect, secure and log in.

        Raises:
            SendError: Nothing was sent; the class says why.
        """
        server = self._server
        self._deadline = time.monotonic() + server.connect_timeout
        try:
            self._connect()
            self._set_up(login)
        except (OSError, LinkError) as error:
            self._fail(error)
        self._deadline = None

    def _fail(self, error: Exception) -> NoReturn:
        cause = _behind(error)
        if isinstance(cause, TimeoutError):
            raise no_connection_within(self._server.host, self._server.connect_timeout) from None
        raise no_connection(self._server.host, in_words(cause)) from None

    def _connect(self) -> None:
        """As `socket.create_connection`, except that `kill` knows the socket and one limit holds for all addresses."""
        found = self._look_up()
        failure: OSError = OSError("no address")
        for number, (family, kind, protocol, _, address) in enumerate(found):
            self.sock = socket.socket(family, kind, protocol)
            self._fd = self.sock.fileno()
            self._inode = inode(self._fd)
            try:
                self._limit(self._left() / (len(found) - number))
                self.sock.connect(address)
            except OSError as error:
                self.close()
                failure = error
                continue
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        raise failure

    def _look_up(self) -> list[_Address]:
        """The host's addresses. Asked for in a thread that is left behind: the system has no time limit to set."""
        try:
            threading.Thread(target=self._ask_for_addresses, name="tanksend-names", daemon=True).start()
        except RuntimeError:
            raise no_thread() from None
        try:
            found = self._found.get(timeout=self._left())
        except Empty:
            raise TimeoutError from None
        if isinstance(found, Exception):
            raise found
        return found

    def _ask_for_addresses(self) -> None:
        try:
            self._found.put(socket.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            self._found.put(socket.gaierror() if isinstance(error, UnicodeError) else error)

    def _left(self) -> float:
        """Seconds for the next step: what is left of the time to connect, or what the server has for a reply."""
        if self._deadline is None:
            return self._server.read_timeout
        if self._killed:
            raise ConnectionAbortedError
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _limit(self, seconds: float) -> None:
        assert self.sock is not None  # noqa: S101 - `_connect` comes first.
        self.sock.settimeout(max(_SHORTEST, seconds))

    def _set_up(self, login: Login | None) -> None:
        if self._server.implicit_tls:
            self._secure()
        _want(220, self.getreply())
        self._greet()
        if not self._server.implicit_tls:
            self._start_tls()
            self._greet()
        if login is not None:
            self._log_in(login)

    def _greet(self) -> None:
        _want(250, self.ehlo(self._own_name()))

    def _own_name(self) -> str:
        """Our address as a literal: true, and it needs no DNS (RFC 5321 section 4.1.4)."""
        own: str = self.sock.getsockname()[0] if self.sock is not None else "127.0.0.1"
        return f"[IPv6:{own.partition('%')[0]}]" if ":" in own else f"[{own}]"

    def _start_tls(self) -> None:
        if not self.has_extn("starttls"):
            raise LinkError("it does not offer STARTTLS", remedy=_NO_STARTTLS)
        code, _ = self.docmd("STARTTLS")
        if code != 220:
            remedy = None if 400 <= code < 500 else _NO_STARTTLS
            raise LinkError(f"it refused STARTTLS with {code}", remedy=remedy)
        self._secure()

    def _secure(self) -> None:
        assert self.sock is not None  # noqa: S101 - `_connect` comes first.
        # Two steps, so that `kill` knows the socket during the handshake.
        secured = self._server.context.wrap_socket(
            self.sock, server_hostname=self._server.host, do_handshake_on_connect=False
        )
        self.sock = secured
        self._limit(self._left())
        secured.do_handshake()
        # Whatever came before TLS may be anybody's (RFC 3207 section 6): what was offered, what is still to be read.
        self._came.clear()
        self.esmtp_features = {}

    def _log_in(self, login: Login) -> None:
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            code, text = self.docmd("AUTH", "PLAIN " + _encoded(f"\0{login.username}\0{login.password}"))
        elif "LOGIN" in offered:
            code, text = self.docmd("AUTH", "LOGIN")
            for word in (login.username, login.password):
                if code == 334:
                    code, text = self.docmd(_encoded(word))
        else:
            raise LinkError("it offers neither AUTH PLAIN nor AUTH LOGIN", remedy=_NOT_SMTP)
        if code != 235:
            raise _not_let_in(code, _text(text))

    # --- what smtplib calls

    def send(self, s: bytes | str) -> None:  # type: ignore[override]
        """Write all of it, and give the network the time limit for each piece."""
        data = memoryview(s.encode("ascii") if isinstance(s, str) else s)
        assert self.sock is not None  # noqa: S101 - `_connect` comes first.
        for start in range(0, len(data), _PIECE):
            self._limit(self._left())
            self.sock.sendall(data[start : start + _PIECE])

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply; it is in time when its last line is. Its code is -1 where there is none."""
        until = time.monotonic() + self._left()
        lines: list[bytes] = []
        while len(lines) < _MOST_LINES:
            line = self._line(until)
            lines.append(line[4:].strip(b" \t\r\n"))
            if not line[:3].isdigit() or line[3:4] != b"-":
                return int(line[:3]) if line[:3].isdigit() else -1, b"\n".join(lines)
        raise smtplib.SMTPResponseException(500, "Too many lines")

    def _line(self, until: float) -> bytes:
        assert self.sock is not None  # noqa: S101 - as above.
        while (end := self._came.find(b"\n") + 1) == 0:
            room = _LONGEST_LINE - len(self._came)
            if room == 0:
                raise smtplib.SMTPResponseException(500, "Line too long")
            self._limit(until - time.monotonic())
            data = self.sock.recv(room)
            if not data:
                raise smtplib.SMTPServerDisconnected
            self._came += data
        line = bytes(self._came[:end])
        del self._came[:end]
        return line

    # --- one message

    def usable(self) -> bool:
        """Nothing has come and nobody has closed it since its last reply."""
        sock = self.sock
        if self.spent or self._came or not isinstance(sock, ssl.SSLSocket):
            return False
        try:
            return sock.pending() == 0 and not is_readable(sock.fileno())
        except (OSError, ValueError):  # closed
            return False

    def deliver(self, mail: Mail) -> str:
        """
        Hand one message over; gives the text of the reply that says it was taken.

        Raises:
            StaleError: The connection is over, and was before this message.
            OutcomeUnknownError: The content was handed over, and no reply settles what became of it.
            SendError: The server certainly has not taken it.
        """
        self._sender = mail.sender
        fresh, self.used = self.used == 0, self.used + 1
        try:
            self._begin(mail, fresh=fresh)
            self._name_recipients(mail)
            self._require(354, "data", *self._ask("DATA", ""))
            return self._hand_over(mail.content)
        finally:
            self.idle_since = time.monotonic()
            self.spent = self.spent or self.sock is None

    def _begin(self, mail: Mail, *, fresh: bool) -> None:
        """Say who it is from. What fails here on a connection that has waited is not this message's failure."""
        size = f" SIZE={len(mail.content)}" if self.has_extn("size") else ""
        try:
            if self._unclean and self.docmd("RSET")[0] != 250:
                raise ConnectionAbortedError
            self._unclean = False
            code, text = self.docmd("MAIL", f"FROM:<{mail.sender}>{size}")
        except OSError as error:
            self.spent = True
            if fresh:
                raise self._lost(error) from None
            raise StaleError from None
        if code == 421 and not fresh:
            self.spent = True
            raise StaleError
        self._require(250, "mail", code, _text(text))

    def _name_recipients(self, mail: Mail) -> None:
        """All or nobody: where one is refused the message ends here, so that it has one fate and can be repeated."""
        refused: dict[str, SendError] = {}
        for address in mail.recipients:
            code, text = self._ask("RCPT", f"TO:<{address}>")
            if code not in (250, 251):
                refused[address] = self._refusal("rcpt", code, text)
            if self.spent:
                break
        if refused:
            raise _of_recipients(refused)

    def _ask(self, command: str, arguments: str) -> tuple[int, str]:
        """Give a command before the content, and get its reply."""
        try:
            code, text = self.docmd(command, arguments)
        except OSError as error:
            raise self._lost(error) from None
        return code, _text(text)

    def _lost(self, error: OSError) -> SendError:
        self.spent = True
        return broken_off(self._meaning(error))

    def _meaning(self, error: OSError) -> BaseException | None:
        cause = _behind(error)
        return no_answer(self._server.read_timeout) if isinstance(cause, TimeoutError) else cause

    def _require(self, wanted: int, phase: Phase, code: int, text: str | bytes) -> None:
        if code != wanted:
            raise self._refusal(phase, code, text if isinstance(text, str) else _text(text))

    def _refusal(self, phase: Phase, code: int, text: str) -> SendError:
        self._unclean = True
        # After 421 the server closes; after what is no refusal at all nobody knows which reply comes next.
        self.spent = self.spent or code == 421 or not 400 <= code < 600
        return classify_smtp(code, text, phase=phase, senders=(self._sender,))

    def _hand_over(self, content: bytes) -> str:
        try:
            self.send(content)
        except OSError as error:
            raise self._lost(error) from None
        try:
            code, text = self.getreply()
        except OSError as error:
            self.spent = True
            raise outcome_unknown(self._meaning(error)) from None
        self._require(250, "content", code, text)
        return _text(text)

    # --- letting go

    def kill(self) -> None:
        """End it from another thread: whoever waits on it there gets an error at once."""
        self._killed = True
        self._found.put(ConnectionAbortedError())
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not the TLS socket's own method, which would first turn it into one without TLS.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Let go of it in a forked child without a word: it is the parent's, which may be in the middle of one."""
        drop_unspoken(self._fd, self._inode)

    def part(self) -> None:
        """Say QUIT and close, without waiting: the reply would tell nothing."""
        with contextlib.suppress(OSError):
            if self.sock is not None and not self.spent:
                self.sock.settimeout(0)
                self.sock.sendall(b"QUIT\r\n")
        self.spent = True
        with contextlib.suppress(OSError):
            self.close()


def _behind(error: BaseException) -> BaseException | None:
    """What `smtplib` met: its own exception has only the text. None is the end of the connection."""
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return error.__context__
    if isinstance(error, smtplib.SMTPException):
        return LinkError("it answered with something that is no SMTP reply", error)
    return error


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(reply: bytes) -> str:
    return reply.decode("utf-8", "replace")


def _want(wanted: int, reply: tuple[int, bytes]) -> None:
    """Hold the server's first words to *wanted*. What SES says of a message is not yet meant here."""
    code, text = reply
    if code == wanted:
        return
    if 400 <= code < 500:
        raise classify_smtp(code, _text(text), phase="connect")
    raise LinkError(f"it began with {code}" if code > 0 else "it does not speak SMTP", remedy=_NOT_SMTP)


def _not_let_in(code: int, text: str) -> SendError:
    """Make the error for a login that failed: whatever is refused for good then is about the credentials."""
    error = classify_smtp(code, text, phase="auth")
    if 500 <= code < 600 and not isinstance(error, AccessDeniedError):
        return CredentialsError("SES refused the login", code=error.code, status=code)
    return error


def _of_recipients(refused: dict[str, SendError]) -> SendError:
    """One error for all who were refused; it names those whom repeating would not help, if there are any."""
    for_good = [address for address, error in refused.items() if not error.retryable]
    named = for_good or list(refused)
    error = refused[named[0]]
    error.identities = tuple(named)
    if for_good and error.scope is Scope.MESSAGE:
        error.scope = Scope.RECIPIENT
    error.field = error.field or "recipient"
    return error
