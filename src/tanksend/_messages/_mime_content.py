"""Content that is MIME already: a mail that somebody else made, read into what `Message` holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .._addresses import Address, decode_words, has_control, parse_addresses
from ..exceptions import Problem
from ._entities import field, fits
from ._mime_text import in_ascii, known_words, readable, unfolded
from ._rules import HEADERS_OF_SES, NO_HEADER, is_header_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import EmailMessage

    from ._entities import Part

# What `Message` has fields for.
_READ = ("from", "to", "cc", "bcc", "reply-to", "subject")
# Written anew by SES or with the parts, or traces of the way that a mail came. Sender would be a second identity for
# SES to check.
_DROPPED = frozenset(
    """
    authentication-results date delivered-to dkim-signature domainkey-signature envelope-to lines message-id
    mime-version received received-spf return-path sender status x-delivered-to x-envelope-from x-envelope-to
    x-gm-message-state x-google-dkim-signature x-google-smtp-source x-original-to x-received x-status x-uid
    """.split()
)
_DROPPED_KINDS = ("arc-", "content-", "resent-")
# SES Developer Guide, "Amazon SES header fields": those that SES takes once, as far as they travel on.
_ONCE = frozenset(
    """
    accept-language acceptlanguage archived-at auto-submitted bounces-to comments disposition-notification-options
    disposition-notification-to errors-to importance in-reply-to keywords list-archive list-help list-id list-owner
    list-post list-subscribe list-unsubscribe message-context organization original-from original-message-id
    original-recipient original-subject precedence priority references return-receipt-to solicitation sensitivity
    thread-index thread-topic user-agent vbr-info
    """.split()
)


@attrs.frozen(repr=False)
class MimeContent:
    """
    The parts of a mail and those of its headers that a `Message` has no field for.

    Attributes:
        part: The entity: 7-bit safe, and below the limit for lines.
        headers: Those that travel on, printable ASCII.
        problems: What was wrong with the mail.
    """

    part: Part
    headers: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def content(self) -> bytes:
        """Headers and entity as bytes, the same for the same mail."""
        headers = b"".join(field(name, value) for name, value in self.headers)
        return headers + self.part.content

    @property
    def encoded_bytes(self) -> int:
        """How large entity and headers are in the mail that goes out."""
        of_headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.part.head) + len(self.part.body) + of_headers

    def check(self) -> tuple[Problem, ...]:
        """What SES, or a reader, could not take, by field."""
        return self.problems

    def __repr__(self) -> str:
        return f"<MimeContent {self.encoded_bytes} bytes>"


def message_fields(mail: EmailMessage | bytes) -> dict[str, Any]:
    """
    What `Message` is made with, read from *mail*.

    Line breaks that do not fold a header stay in its value, so that `Message.check` refuses the field. What cannot be
    decoded is a problem of the `MimeContent`.

    Raises:
        TypeError: *mail* is neither an ``email.message.Message`` nor bytes.
    """
    from ._mime_reading import parsed, read_parts  # loads the standard library's mail parser

    source = parsed(mail)
    problems: list[Problem] = []
    found: dict[str, list[str]] = {name: [] for name in _READ}
    for name, value in source.raw_items():
        if name.lower() in found:
            found[name.lower()].append(_value(value, _FIELDS.get(name.lower(), name.lower()), problems))
    headers = tuple(_travelling(source.raw_items(), problems))
    part, of_parts = read_parts(source, mail if isinstance(mail, bytes) else None)
    return {**_fields(found), "mime": MimeContent(part, headers, (*problems, *of_parts))}


_FIELDS = {"from": "from_", "reply-to": "reply_to"}


def _fields(found: dict[str, list[str]]) -> dict[str, Any]:
    people = {name: ", ".join(filter(str.strip, found[name])) for name in _READ[:-1]}
    return {
        "from_": Address.parse(people["from"]) if people["from"] else None,
        "to": parse_addresses(people["to"]),
        "cc": parse_addresses(people["cc"]),
        "bcc": parse_addresses(people["bcc"]),
        "reply_to": parse_addresses(people["reply-to"]),
        "subject": decode_words(found["subject"][0]) if found["subject"] else "",
    }


def _value(value: object, place: str, problems: list[Problem]) -> str:
    """A header's text, its encoded-words in charsets that everybody knows."""
    text, is_readable = readable(unfolded(value))
    text, is_known = known_words(text)
    if not is_readable:
        problems.append(Problem(place, "has bytes that are no UTF-8, and does not say what they are"))
    if not is_known:
        problems.append(Problem(place, "has an encoded-word that its charset cannot decode, or none knows the charset"))
    return text


def _travelling(items: Iterable[tuple[str, object]], problems: list[Problem]) -> Iterable[tuple[str, str]]:
    """The headers that go on with the mail."""
    seen: set[str] = set()
    for number, (name, value) in enumerate(items, 1):
        lowered = name.lower()
        if lowered in _READ or lowered in _DROPPED or lowered.startswith(_DROPPED_KINDS):
            continue
        shown = f"headers[{name if is_header_name(name) else f'number {number}'}]"
        text, is_readable = readable(unfolded(value))
        written = in_ascii(name, text)
        if reason := _reason(name, text, written, is_readable=is_readable, seen=seen):
            problems.append(Problem(shown, reason))
        else:
            yield name, written
        seen.add(lowered)


def _reason(name: str, text: str, written: str, *, is_readable: bool, seen: set[str]) -> str | None:
    lowered = name.lower()
    if not is_header_name(name):
        return NO_HEADER
    if lowered.startswith("x-ses-"):
        return HEADERS_OF_SES
    if not is_readable:
        return "has bytes that are no UTF-8"
    if has_control(decode_words(text)):
        return "has a control character or line break"
    if lowered in _ONCE and lowered in seen:
        return "is given twice; SES takes it once"
    if not written.isascii():
        return "has an address that is not ASCII"
    if not fits(written):
        return "is longer than a line without a space in it"
    return None
