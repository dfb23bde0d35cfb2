"""
Two readers of mail that nobody here wrote: Python's `email`, and mailparse, which is written in Rust.

Both give the same view of a mail, so that what one of them read can be held against what was sent.
"""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

import attrs
import fast_mail_parser

from tanksend import Address, Message
from tanksend._messages._rules import content_type_for
from tanksend.typing import SendRequest

SENDER = Address("Tank", "no-reply@example.com")
# What is about the parts rather than the mail.
STRUCTURE = {"mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id"}
READ = {"from", "to", "cc", "reply-to", "subject"}


@attrs.frozen
class Leaf:
    """A part without parts: what a reader shows or saves."""

    kind: str
    content: str | bytes
    name: str | None = None
    content_id: str | None = None
    disposition: str | None = None


@attrs.frozen
class View:
    """A mail as a reader sees it."""

    from_: list[tuple[str, str]]
    to: list[tuple[str, str]]
    cc: list[tuple[str, str]]
    reply_to: list[tuple[str, str]]
    subject: str
    headers: dict[str, list[str]]
    leaves: list[Leaf]


def request_for(message: Message, **fields: Any) -> SendRequest:
    """What the engine would make of the message."""
    lists = {"to": message.to, "cc": message.cc, "bcc": message.bcc, "reply_to": message.reply_to}
    return SendRequest(message, **{"from_": message.from_ or SENDER, **lists, **fields})


def lines(text: str) -> str:
    """Mail knows one end of a line, and text goes out with it."""
    return re.sub(r"\r\n?", "\n", text)


def sent(message: Message) -> View:
    """What a reader has to see of a message that was made from fields."""

    def pairs(addresses: tuple[Address, ...]) -> list[tuple[str, str]]:
        return [(address.name, address.email) for address in addresses]

    headers = [*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ())]
    return View(
        pairs((message.from_ or SENDER,)),
        pairs(message.to),
        pairs(message.cc),
        pairs(message.reply_to),
        message.subject,
        {name.lower(): [value.strip(" ")] for name, value in headers},
        [*_bodies(message), *(_file(each) for each in message.attachments if not _is_shown(message, each))],
    )


def _is_shown(message: Message, attachment: Any) -> bool:
    return message.html is not None and attachment.content_id is not None


def _bodies(message: Message) -> list[Leaf]:
    leaves = []
    if message.text is not None:
        leaves.append(Leaf("text/plain", lines(message.text)))
    if message.html is not None:
        leaves.append(Leaf("text/html", lines(message.html)))
    leaves += [_file(each) for each in message.attachments if _is_shown(message, each)]
    calendars = [each for each in message.attachments if each.method is not None]
    return leaves + [Leaf("text/calendar", lines(each.content.decode())) for each in calendars]


def _file(attachment: Any) -> Leaf:
    kind = content_type_for(attachment.name, attachment.content_type)[0].lower()
    disposition = "inline" if attachment.content_id else "attachment"
    return Leaf(kind, attachment.content, attachment.name, attachment.content_id, disposition)


# --- Python's --------------------------------------------------------------------------------------------------------


def read_with_python(raw: bytes) -> View:
    """Read with the standard library."""
    mail = message_from_bytes(raw, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert not [part.defects for part in mail.walk() if part.defects]

    # The newer interface puts a space between two encoded-words of a name, against RFC 2047 section 6.2.
    older = message_from_bytes(raw)

    def people(name: str) -> list[tuple[str, str]]:
        found = getaddresses(older.get_all(name, []))
        return [(str(make_header(decode_header(shown))), address) for shown, address in found]

    headers: dict[str, list[str]] = {}
    for name, value in mail.items():
        if name.lower() not in READ | STRUCTURE:
            headers.setdefault(name.lower(), []).append(str(value).strip(" "))
    leaves = [_python_leaf(part) for part in mail.walk() if not part.is_multipart()]
    return View(people("from"), people("to"), people("cc"), people("reply-to"), str(mail["subject"]), headers, leaves)


def _python_leaf(part: Any) -> Leaf:
    kind, name, disposition = part.get_content_type(), part.get_filename(), part.get_content_disposition()
    content = part.get_payload(decode=True)
    if disposition is None:
        content = lines(content.decode(part.get_content_charset()))
    content_id = part["content-id"]
    return Leaf(kind, content, name, str(content_id).strip("<>") if content_id else None, disposition)


# --- mailparse -------------------------------------------------------------------------------------------------------


def read_with_rust(raw: bytes) -> View:
    """Read with mailparse."""
    mail = fast_mail_parser.parse_email(raw)
    tree = fast_mail_parser.parse_email_tree(raw)
    assert not mail.warnings

    def pairs(addresses: Any) -> list[tuple[str, str]]:
        return [(address.display_name or "", address.address) for address in addresses if address is not None]

    headers = {
        name.lower(): [value.strip(" ") for value in values]
        for name, values in mail.headers.items()
        if name.lower() not in READ | STRUCTURE
    }
    leaves = [_rust_leaf(part) for part in fast_mail_parser.walk(tree) if not part.children]
    return View(
        pairs([mail.from_]), pairs(mail.to), pairs(mail.cc), pairs(mail.reply_to), mail.subject, headers, leaves
    )


def _rust_leaf(part: Any) -> Leaf:
    content = part.content
    # It tells neither "no disposition" from "inline", nor the charset; ours is always the same.
    fields = {name.lower(): values[0] for name, values in part.headers.items()}
    disposition = fields.get("content-disposition", "").partition(";")[0] or None
    if disposition is None:
        assert "charset=utf-8" in fields["content-type"].lower()
        content = lines(content.decode())
    return Leaf(part.content_type, content, part.filename or None, part.content_id, disposition)


READERS = [read_with_python, read_with_rust]
