"""
One message as SMTP carries it, and what the last reply says about it. No socket here.

The content is what `tanksend._mime.render` writes, with the two headers before it that stand for what the HTTP API has
fields for, its line ends all CRLF and its dots doubled: a line end that two servers read in two ways, or a lone dot,
would let a message end where somebody else wants it to.

Source: RFC 5321 sections 2.3.8, 4.1.1.4 and 4.5.2; Amazon SES Developer Guide, "Specifying a configuration set when you
send email" and "Send email using event publishing".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from .._messages import SET_NAME
from .._mime import render
from ..exceptions import InvalidAddressError, InvalidMessageError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._addresses import Address
    from ..typing import SendRequest

__all__ = ["Mail", "mail_of", "message_id"]

_END: Final = b".\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT_FIRST = re.compile(rb"^\.", re.MULTILINE)
# What may stand between the angle brackets of MAIL and RCPT without ending them. SES knows no SMTPUTF8.
_PATH = re.compile(r"[ !-;=?-~]{1,320}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_LONGEST_LINE: Final = 900  # RFC 5322 section 2.1.1 allows 998; folded no earlier than it has to be.

# SES's ids: "0100018f2c5e7a1b-0f2b7c1e-...-000000". Neither a sentence nor an address looks like that, nor does one of
# which the end was lost.
_SES_ID = re.compile(r"(?:\A|\s)ok:?\s+<?([0-9a-z]{8,40}(?:-[0-9a-z]{1,40}){1,8}-[0-9]{6})>?(?!\S)", re.IGNORECASE)
_RELAY_IDS = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # Postfix and Exim: "2.0.0 Ok: queued as 4XkF2T1z9zN", "OK id=1tRk-0004-Ab", "Ok 4XkF2T1z9zN".
        r"(?:queued as|\bid=|\bok:?)\s*<?([0-9a-z][\w.+-]{4,127})>?\s*$",
        # Sendmail and OpenSMTPD: "2.0.0 4AB9xY2c012345 Message accepted for delivery".
        r"(?:^|\s)([0-9a-z]{6,64}) message accepted for delivery",
        # Exchange: "2.6.0 <...> [InternalId=123456, Hostname=...] Queued mail for delivery".
        r"\[InternalId=([0-9]{4,20})\b",
    )
)

_NO_TEMPLATES: Final = (
    "SES fills in templates for its HTTP API alone, not over SMTP; give text= or html=, or use SESTransport"
)


@attrs.frozen(repr=False)
class Mail:
    """
    Who, to whom, and the bytes after ``DATA`` with their final dot.

    Args:
        sender: For MAIL FROM.
        recipients: For RCPT TO, one each.
        content: What follows the reply to DATA.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes


def mail_of(request: SendRequest) -> Mail:
    """
    Write *request* for SMTP.

    Raises:
        InvalidMessageError: It cannot be written so; the error names the field.
    """
    refuse_templates(request)
    headers = _steering(request.configuration_set, request.tags)
    sender = _path(request.from_, "from_")
    recipients = tuple(_path(each, "recipient") for each in request.recipients)
    return Mail(sender, recipients, _stuffed(headers + render(request)))


def refuse_templates(request: SendRequest) -> None:
    """
    Refuse what SES alone could fill in.

    Raises:
        InvalidMessageError: The message has a template.
    """
    if request.message.template is not None:
        raise InvalidMessageError(problems=[Problem("template", _NO_TEMPLATES)])


def _path(address: Address, field: str) -> str:
    if not _PATH.fullmatch(address.email):
        raise InvalidAddressError("The address has characters that SMTP cannot carry", field=field)
    return address.email


def _steering(configuration_set: str | None, tags: Mapping[str, str]) -> bytes:
    """The headers that SES reads and takes out. Checked once more here: in a header, a line end would be the next."""
    lines = ""
    if configuration_set is not None:
        if not SET_NAME.fullmatch(configuration_set):
            raise InvalidMessageError(problems=[Problem("configuration_set", "is no name of a configuration set")])
        lines = f"X-SES-CONFIGURATION-SET: {configuration_set}\r\n"
    if not tags:
        return lines.encode()
    if not all(_TAG.fullmatch(text) for pair in tags.items() for text in pair):
        raise InvalidMessageError(problems=[Problem("tags", "names and values have letters, digits, _ and - only")])
    return (lines + _folded("X-SES-MESSAGE-TAGS: ", [f"{name}={value}" for name, value in tags.items()])).encode()


def _folded(line: str, items: list[str]) -> str:
    """A header with comma-separated *items*, on as few lines as they fit."""
    lines: list[str] = []
    for number, item in enumerate(items, 1):
        if lines_full := (len(line) + len(item) > _LONGEST_LINE and number > 1):
            lines.append(line.rstrip())
        line = (" " if lines_full else line) + item + (", " if number < len(items) else "")
    return "\r\n".join([*lines, line, ""])


def _stuffed(content: bytes) -> bytes:
    """Every line ended by CRLF, dots at their beginning doubled, and the lone dot after the last."""
    ends = content.count(b"\r\n")
    if not ends == content.count(b"\r") == content.count(b"\n"):
        content = _LINE_END.sub(b"\r\n", content)
    if b"\n." in content or content.startswith(b"."):
        content = _DOT_FIRST.sub(b"..", content)
    return content + (_END if content.endswith(b"\r\n") else b"\r\n" + _END)


def message_id(reply: str, *, relay: bool = False) -> str | None:
    """
    Read the id out of the reply to the content: ``Ok 0100018f2c5e7a1b-...``.

    Args:
        reply: The reply's text, without its code.
        relay: A relay's own id will do.
    """
    for pattern in (_SES_ID, *_RELAY_IDS) if relay else (_SES_ID,):
        if found := pattern.search(reply):
            return found[1]
    return None
