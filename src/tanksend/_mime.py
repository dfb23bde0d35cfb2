"""
Mail as bytes: what goes out where SES's simple form cannot carry a message, over SMTP, and into files.

The shape is the one that mail clients agree on, each level only where there is something in it::

    multipart/mixed
        multipart/alternative
            text/plain
            multipart/related
                text/html
                images that the HTML shows by their content id
            text/calendar of an invitation
        attachments

``Date`` and ``Message-ID`` are left to SES, which writes both; configuration set and tags are no part of the mail.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from ._messages import _entities as entities
from ._messages._extras import UNSUBSCRIBE_HEADERS
from ._messages._rules import HALF_PAIR, MAX_ENCODED_BYTES, content_type_for, is_header_name
from .exceptions import InvalidMessageError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._addresses import Address
    from ._messages import Attachment, Message
    from .typing import SendRequest


def needs_raw(request: SendRequest) -> bool:
    """Whether SES's simple form cannot carry *request*: it is MIME already, or has a calendar invitation."""
    message = request.message
    if message.mime is not None:
        return True
    return any(attachment.method is not None for attachment in message.attachments)


def render(request: SendRequest, *, seed: bytes = b"") -> bytes:
    """
    The whole mail for *request*: headers and body, 7-bit safe, lines ended by CRLF.

    The same *request* and *seed* make the same bytes. Bcc is not in them. Nothing that is in a field of the message
    can end a header: control characters become spaces, though `Message.check` has refused them before.

    Args:
        request: Who it goes to; the content is that of its message.
        seed: Goes into the boundaries between parts.

    Raises:
        InvalidMessageError: SES alone can make the content (a template), it cannot be encoded, or it is larger than
            SES takes.
    """
    if request.message.template is not None:
        raise _refusal("template", "is rendered by SES; only its API carries one")
    try:
        body = _body(request.message, seed)
        mail = b"".join([*_fields(request), b"MIME-Version: 1.0\r\n", body.head, b"\r\n", body.body])
    except UnicodeEncodeError:
        # Its text would carry the content.
        raise _refusal("content", HALF_PAIR, cause_type="UnicodeEncodeError") from None
    if len(mail) > MAX_ENCODED_BYTES:
        raise _refusal("content", "is larger than 40 MB once encoded")
    return mail


def _refusal(field: str, reason: str, *, cause_type: str | None = None) -> InvalidMessageError:
    return InvalidMessageError(problems=[Problem(field, reason)], cause_type=cause_type)


# --- headers ---------------------------------------------------------------------------------------------------------


def _fields(request: SendRequest) -> Iterable[bytes]:
    message = request.message
    yield _addresses("From", (request.from_,))
    for name, addresses in (("To", request.to), ("Cc", request.cc), ("Reply-To", request.reply_to)):
        if addresses:
            yield _addresses(name, addresses)
    yield entities.text_field("Subject", message.subject)
    for name, value in _headers(message):
        if not is_header_name(name):
            raise _refusal("headers", "hold a name that is none")
        yield entities.field(name, value) if _is_printable(value) else entities.text_field(name, value)


def _addresses(name: str, addresses: Iterable[Address]) -> bytes:
    """A field that folds in plain names and between addresses: many readers take no fold in quotes or in an address."""
    pieces: list[str] = []
    for address in addresses:
        if pieces:
            pieces[-1] += ","
        written = address.header()
        start = len(written) - len(address.email) - 2 if address.name else 0
        before = written[: start - 1] if start else ""
        if before:
            pieces += [before] if before[0] == '"' else entities.foldable(before)
        pieces.append(written[start:])
    return entities.fold(name, pieces)


def _headers(message: Message) -> Iterable[tuple[str, str]]:
    """The message's own headers; what it says itself stands before what its MIME content brought."""
    own = (*message.headers.items(), *(message.unsubscribe.headers if message.unsubscribe else ()))
    yield from own
    if message.mime is not None:
        said = {name.lower() for name, _ in own}.union(UNSUBSCRIBE_HEADERS if message.unsubscribe else ())
        yield from ((name, value) for name, value in message.mime.headers if name.lower() not in said)


def _is_printable(value: str) -> bool:
    # Encoded-words that somebody wrote on purpose stay what they are.
    return value.isascii() and value.isprintable()


# --- body ------------------------------------------------------------------------------------------------------------


def _body(message: Message, seed: bytes) -> entities.Part:
    shown = [message.html is not None and each.content_id is not None for each in message.attachments]
    inline = list(compress(message.attachments, shown))
    files = [_file(each) for each, is_inline in zip(message.attachments, shown, strict=True) if not is_inline]
    versions = list(_versions(message, inline, seed))
    versions += [_invitation(each) for each in message.attachments if each.method is not None]
    whole = versions[0] if len(versions) == 1 else entities.multipart("alternative", versions, seed=seed)
    return entities.multipart("mixed", [whole, *files], seed=seed) if files else whole


def _versions(message: Message, inline: Sequence[Attachment], seed: bytes) -> Iterable[entities.Part]:
    """What says the same in several ways, the plainest first."""
    if message.mime is not None:
        yield message.mime.part
        return
    if message.text is not None:
        yield entities.text_part("plain", message.text)
    if message.html is not None:
        html = entities.text_part("html", message.html)
        images = [_file(each) for each in inline]
        kind = [("type", "text/html")]  # RFC 2387 section 3.1
        yield entities.multipart("related", [html, *images], kind, seed=seed) if images else html


def _invitation(attachment: Attachment) -> entities.Part:
    calendar = attachment.content.decode("utf-8", "replace")
    return entities.text_part("calendar", calendar, [("method", (attachment.method or "").upper())])


def _file(attachment: Attachment) -> entities.Part:
    value, parameters = content_type_for(attachment.name, attachment.content_type)
    name = attachment.name
    head = entities.parametrized("Content-Type", value, [*parameters, ("name", name)])
    shown = "inline" if attachment.content_id else "attachment"
    head += entities.parametrized("Content-Disposition", shown, [("filename", name)])
    if attachment.content_id:
        head += entities.text_field("Content-ID", f"<{attachment.content_id.strip('<>')}>")
    return entities.encoded_part(head, b"base64", attachment.wrapped, attachment.digest)
