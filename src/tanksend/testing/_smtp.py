"""
One SMTP conversation with the simulated account, as a state machine without I/O.

`Session.feed` takes what a client sends and says, step by step, what goes back and what becomes of the connection.
The account judges each mail as it judges SendEmail with raw content, by the same quotas and with the same faults; its
answer is put into the words that SES has for SMTP.

Faults that cut a connection "before" do so at DATA, where nothing of the mail has been said. ``500-accepted`` and
``503-bare-accepted`` close it instead of an answer: a 4yz or 5yz reply to what was accepted would be a plain lie, which
no client could see through (RFC 5321 section 4.2.1).

Source: SES Developer Guide, "SMTP response codes returned by Amazon SES" and "Using the command line to send email".
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from email.parser import BytesHeaderParser
from email.utils import parseaddr
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs

from ._answers import Answer, Refusal, Request
from ._simulator import SEND_PATH, Exchange
from ._submission import MAX_BYTES
from ._syntax import mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

_END: Final = b"\r\n.\r\n"
_LONGEST_LINE: Final = 12_288  # RFC 4954 section 4: that of an AUTH command
_MUCH_TOO_LONG: Final = MAX_BYTES + 1_048_576  # Up to here the account says so; what is beyond is not even kept.

Then = Literal["go on", "start TLS", "close", "reset", "fall silent", "trickle"]


class Account(Protocol):
    """What a session needs to know of the account."""

    def log_in(self, username: str, password: str) -> bool:
        """Whether these are a user name and its password."""
        ...

    def draw_fault(self, method: str, path: str) -> str | None:
        """The fault for the next mail."""
        ...

    def cut(self, fault: str) -> None:
        """Note a mail that was cut off unread."""
        ...

    def exchange(self, request: Request, fault: str | None = None) -> Exchange:
        """Take a mail."""
        ...


@attrs.frozen
class Step:
    """Write `reply`, then do what `then` says. `judged`: it answers a whole mail, for latency and for counting."""

    reply: bytes
    then: Then = "go on"
    judged: bool = False


class MailRequest(Request):
    """A mail that came over SMTP: whoever sent it has logged in, and signed nothing."""


def _step(text: str, then: Then = "go on") -> Step:
    return Step(f"{text}\r\n".encode(), then)


_BAD_ORDER = _step("503 Bad sequence of commands")


class Session:
    """
    The server's side of one connection.

    Args:
        account: Who judges the mail.
        secured: TLS is spoken already.
        can_secure: STARTTLS can be offered.
    """

    def __init__(self, account: Account, *, secured: bool, can_secure: bool) -> None:
        self._account = account
        self._secured = secured
        self._can_secure = can_secure
        self._buffer = b""
        self._greeted = False
        self._logged_in = False
        self._asked_for: Literal["", "plain", "user name", "password"] = ""
        self._username = ""
        self._content: bytearray | None = None
        self._size = 0
        self._fault: str | None = None
        self._forget()

    def _forget(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def greeting(self) -> bytes:
        """The server's first words."""
        return b"220 email-smtp.amazonaws.com ESMTP SimpleEmailService simulated\r\n"

    def feed(self, data: bytes) -> Iterator[Step]:
        """Take what came; gives steps, each to be done before the next is asked for."""
        self._buffer += data
        while True:
            step = self._next_line() if self._content is None else self._next_content(self._content)
            if step is None:
                return
            yield step
            if step.then not in ("go on", "trickle"):
                return

    def _next_line(self) -> Step | None:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return _step("500 Line too long", "close") if len(line) > _LONGEST_LINE else None
        self._buffer = rest
        if self._asked_for:
            return self._go_on_logging_in(line)
        verb, _, arguments = line.decode("latin-1").partition(" ")
        command = getattr(self, f"_do_{verb.lower()}", None) if verb.isascii() and verb.isalpha() else None
        step: Step = command(arguments.strip()) if command is not None else _step("502 Unrecognized command")
        return step

    # --- commands

    def _do_ehlo(self, arguments: str) -> Step:
        del arguments
        self._greeted = True
        self._forget()
        more = "AUTH PLAIN LOGIN" if self._secured else "STARTTLS" if self._can_secure else ""
        lines = ["email-smtp.amazonaws.com", "8BITMIME", more, "Ok"]
        shown = [line for line in lines if line]
        return _step("\r\n".join(f"250{' ' if line == shown[-1] else '-'}{line}" for line in shown))

    def _do_helo(self, arguments: str) -> Step:
        self._do_ehlo(arguments)
        return _step("250 email-smtp.amazonaws.com")

    def _do_starttls(self, arguments: str) -> Step:
        del arguments
        if self._secured or not self._can_secure:
            return _step("502 Unrecognized command")
        # Nothing from before TLS counts (RFC 3207 section 4.2), nor what was sent along with the command.
        self._secured, self._greeted, self._buffer = True, False, b""
        return _step("220 Ready to start TLS", "start TLS")

    def _do_auth(self, arguments: str) -> Step:
        if not self._secured:
            return _step("530 Must issue a STARTTLS command first")
        if self._logged_in or not self._greeted:
            return _BAD_ORDER
        mechanism, _, initial = arguments.partition(" ")
        if mechanism.upper() == "PLAIN":
            self._asked_for = "plain"
            return self._go_on_logging_in(initial.encode()) if initial else _step("334 ")
        if mechanism.upper() == "LOGIN":
            self._asked_for = "user name"
            return self._go_on_logging_in(initial.encode()) if initial else _step("334 VXNlcm5hbWU6")
        return _step("504 Unrecognized Authentication Type")

    def _go_on_logging_in(self, line: bytes) -> Step:
        asked_for, self._asked_for = self._asked_for, ""
        try:
            said = base64.b64decode(line, validate=True).decode()
        except (binascii.Error, ValueError):
            return _step("501 Invalid base64")
        if asked_for == "user name":
            self._username, self._asked_for = said, "password"
            return _step("334 UGFzc3dvcmQ6")
        if asked_for == "plain":
            _, _, said = said.partition("\0")
            self._username, _, said = said.partition("\0")
        self._logged_in = self._account.log_in(self._username, said)
        good, bad = "235 Authentication successful.", "535 Authentication Credentials Invalid"
        return _step(good if self._logged_in else bad)

    def _do_mail(self, arguments: str) -> Step:
        if not self._secured:
            return _step("530 Must issue a STARTTLS command first")
        if not self._logged_in:
            return _step("530 Authentication required")
        if self._sender is not None:
            return _BAD_ORDER
        sender = _path(arguments, "FROM:")
        if not sender or not _is_address(sender):
            return _step("501 Invalid MAIL FROM address provided")
        self._sender = sender
        return _step("250 Ok")

    def _do_rcpt(self, arguments: str) -> Step:
        if self._sender is None:
            return _BAD_ORDER
        recipient = _path(arguments, "TO:")
        if recipient is None:
            return _step("501 Invalid RCPT TO address provided")
        if not _is_address(recipient):
            return _step(f"553 <{recipient}> Invalid email address")
        self._recipients.append(recipient)
        return _step("250 Ok")

    def _do_data(self, arguments: str) -> Step:
        del arguments
        if not self._recipients:
            return _BAD_ORDER
        self._fault = self._account.draw_fault("POST", SEND_PATH)
        if self._fault in ("reset-before", "close-before"):
            self._account.cut(self._fault)
            return Step(b"", "reset" if self._fault == "reset-before" else "close")
        self._content, self._size = bytearray(), 0
        # So that a mail without a line ends as any other.
        self._buffer = b"\r\n" + self._buffer
        return _step("354 End data with <CR><LF>.<CR><LF>")

    def _do_rset(self, arguments: str) -> Step:
        del arguments
        self._forget()
        return _step("250 Ok")

    def _do_noop(self, arguments: str) -> Step:
        del arguments
        return _step("250 Ok")

    def _do_quit(self, arguments: str) -> Step:
        del arguments
        return _step("221 Bye", "close")

    # --- the mail

    def _next_content(self, content: bytearray) -> Step | None:
        end = self._buffer.find(_END)
        whole = end >= 0
        # The end may be on its way in pieces, so its length is held back.
        cut = end if whole else max(0, len(self._buffer) - len(_END) + 1)
        self._size += cut
        if self._size <= _MUCH_TOO_LONG:
            content += self._buffer[:cut]
        self._buffer = self._buffer[cut + (len(_END) if whole else 0) :]
        if not whole:
            return None
        self._content = None
        return self._judge(bytes(content + b"\r\n").replace(b"\r\n.", b"\r\n")[2:])

    def _judge(self, mail: bytes) -> Step:
        sender, recipients = self._sender or "", self._recipients
        self._forget()
        if self._size > _MUCH_TOO_LONG:
            return attrs.evolve(_step("552 Message is too long."), judged=True)
        fault = _AMBIGUOUS.get(self._fault or "", self._fault)
        request = MailRequest(
            "POST", SEND_PATH, body=_body(sender, recipients, mail), monotonic=time.monotonic(), wall=time.time()
        )
        exchange = self._account.exchange(request, fault)
        if exchange.answer is None:
            return Step(b"", _WITHOUT_ANSWER[exchange.wire], judged=True)
        if exchange.answer.error == "503":
            return Step(b"421 Service not available, closing transmission channel\r\n", "close", judged=True)
        then: Then = "trickle" if exchange.wire == "slow" else "go on"
        return Step(_reply(exchange.answer), then, judged=True)


# What SMTP has no honest reply for.
_AMBIGUOUS = {"500-accepted": "close-after", "503-bare-accepted": "close-after"}
_WITHOUT_ANSWER: dict[str, Then] = {"reset": "reset", "close": "close", "silent": "fall silent"}


def _path(arguments: str, keyword: str) -> str | None:
    """The address of ``FROM:<address> OPTIONS``; None if it is not written so."""
    if not arguments.upper().startswith(keyword):
        return None
    path = arguments[len(keyword) :].strip()
    return path[1 : path.index(">")] if path.startswith("<") and ">" in path else None


def _is_address(text: str) -> bool:
    try:
        mailbox(text)
    except Refusal:
        return False
    return True


def _body(sender: str, recipients: list[str], mail: bytes) -> bytes:
    """The mail as the API's raw content. The envelope's sender counts as an identity of its own where it is another."""
    content: dict[str, object] = {
        "Destination": {"ToAddresses": recipients},
        "Content": {"Raw": {"Data": base64.b64encode(mail).decode()}},
    }
    named = str(BytesHeaderParser().parsebytes(mail)["From"] or "")
    if parseaddr(named)[1].lower() != sender.lower():
        content["FeedbackForwardingEmailAddress"] = sender
    return json.dumps(content).encode()


# --- the account's answers in SES's words for SMTP

_TEXTS = {
    "TooManyRequestsException": "454 Throttling failure: {}",
    "MessageRejected": "554 Message rejected: {}",
    "AccountSuspendedException": "554 Message rejected: {}",
    "SendingPausedException": "554 Message rejected: {}",
    "AccessDeniedException": "554 Access denied: {}",
    "NotFoundException": "554 {}",
    "InternalFailure": "451 Temporary service failure",
    "ServiceUnavailable": "454 Temporary service failure",
}


def _reply(answer: Answer) -> bytes:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return b"\x00\xff<not a reply>\r\n"
    if answer.error is None:
        return f"250 Ok {found.get('MessageId', '')}".rstrip().encode() + b"\r\n"
    text = " ".join(str(found.get("message") or found.get("Message") or "").split())
    if text.startswith("Message length is more than"):
        return b"552 Message is too long.\r\n"
    line = _TEXTS.get(answer.error, "554 Transaction failed: {}").format(text.removeprefix("Transaction failed: "))
    return line.encode("utf-8", "replace") + b"\r\n"
