"""
MIME entities as bytes: fields that fold where nothing can break, and bodies that are safe for every relay.

Everything is ASCII in lines of fewer than 998 bytes, ended by CRLF: SES may rewrite links in a body, and damages what
is 8-bit then. A field folds at a single space only, since readers put one space for whatever white space is at a fold,
and never inside a parameter. Boundaries are taken from a digest of the parts, so that the same input makes the same
bytes.

Source: RFC 2045 to 2047, RFC 2231, RFC 5322; Amazon SES API v2 reference, "RawMessage".
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

import attrs

from .._addresses import encode_words, has_control, needs_encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_LINE = 997  # RFC 5322 section 2.1.1 allows 998
_USUAL_LINE = 76
_MAX_NAME = 127  # of a header, with its colon; SES API v2, MessageHeader.Name
_PLACES = re.compile(r"(?<! ) (?! )")  # a single space, where a field may fold
_TOKEN = re.compile(r"[A-Za-z0-9!#$&+.^_`|~-]+")
_ENDS_EARLY = re.compile(r'[;"\\]')
# RFC 2045 section 6.7: what quoted-printable writes as it is.
_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("=")) + b"\n\t"
# A dot at the start of a line gets lost where a relay forgets to double it, and "From " starts a message in an mbox.
_RISKY = re.compile(rb"^(?:\.|From )", re.MULTILINE)
# RFC 2231 section 7: what an extended parameter writes as it is.
_ATTRIBUTE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_MAX_SEGMENT = 50


@attrs.frozen(repr=False)
class Part:
    """
    One entity.

    Attributes:
        head: Its fields, each ended by CRLF.
        body: What follows the empty line.
        digest: Of head and body.
    """

    head: bytes
    body: bytes
    digest: bytes

    @property
    def content(self) -> bytes:
        """The entity as it stands in a mail."""
        return b"\r\n".join((self.head, self.body))


def digest(*pieces: bytes) -> bytes:
    """A short fingerprint of *pieces*, which depends on where one ends and the next begins."""
    import hashlib  # only here: keeps the import of the package quick

    summary = hashlib.sha256()
    for piece in pieces:
        summary.update(len(piece).to_bytes(8, "big"))
        summary.update(piece)
    return summary.digest()[:16]


def without_control(text: str) -> str:
    """*text* with spaces for control characters."""
    return "".join(" " if has_control(character) else character for character in text) if has_control(text) else text


# --- fields ----------------------------------------------------------------------------------------------------------


def field(name: str, value: str) -> bytes:
    """Write a field whose *value* is printable ASCII, folded at single spaces."""
    return fold(name, foldable(value))


def foldable(value: str) -> list[str]:
    """What *value* may be folded between."""
    return _PLACES.split(value)


def fold(name: str, pieces: Iterable[str]) -> bytes:
    """Write a field of *pieces*, one space or one fold between them."""
    lines, line = [], f"{name}:"
    for position, piece in enumerate(pieces):
        if position and len(line) + 1 + len(piece) > _USUAL_LINE:
            lines.append(line)
            line = ""
        # Not every reader understands a field that begins with a fold, so the longest ones begin without a space.
        line += piece if len(line) + 1 + len(piece) > MAX_LINE else f" {piece}"
    return "\r\n".join([*lines, line, ""]).encode("ascii")


def fits(value: str) -> bool:
    """Whether a field can hold *value*, folded where it may be."""
    return max(map(len, foldable(value))) <= MAX_LINE - _MAX_NAME


def is_safe(raw: bytes) -> bool:
    """Whether every relay can carry *raw* as it is."""
    return raw.isascii() and b"\0" not in raw and max(map(len, raw.split(b"\n"))) <= MAX_LINE


def text_field(name: str, text: str) -> bytes:
    """Write a field of any *text*; control characters become spaces."""
    return field(name, words(text, room=_USUAL_LINE - len(name) - 2))


def words(text: str, *, room: int = 75) -> str:
    """Write *text* so that a field can hold it and a reader gives it back as it was, blanks at its ends too."""
    text = without_control(text)
    encoded = encode_words(text, room=max(room, 40))
    if needs_encoding(text) or (encoded == encoded.strip(" ") and fits(encoded)):
        return encoded
    return _forced(encoded)


def _forced(plain: str) -> str:
    """ASCII as encoded-words all the same, short enough to stand after a name."""
    chunks = [plain[start : start + 36].encode() for start in range(0, len(plain), 36)]
    return " ".join(f"=?UTF-8?B?{binascii.b2a_base64(chunk, newline=False).decode()}?=" for chunk in chunks)


def parametrized(name: str, value: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """
    Write ``Content-Type`` or ``Content-Disposition``.

    A parameter that ASCII cannot hold is written as RFC 2231 says, but for ``name`` of Content-Type: old Outlook reads
    nothing but encoded-words there.
    """
    written = [value]
    for key, text in parameters:
        if key == "name" and _is_hard(text):
            written += [f'name="{encode_words(text) if needs_encoding(text) else _forced(text)}"']
        else:
            written += _parameter(key, text)
    # Only the encoded-words of a name hold single spaces where a fold does no harm.
    pieces = [piece for each in written[:-1] for piece in _split_words(f"{each};")] + list(_split_words(written[-1]))
    return fold(name, pieces)


def _split_words(parameter: str) -> Sequence[str]:
    return parameter.split(" ") if parameter.startswith('name="=?') else (parameter,)


def _is_hard(text: str) -> bool:
    """Whether a quoted-string cannot hold *text*, or simple readers would end it early."""
    return needs_encoding(text) or len(text) > MAX_LINE // 2 or _ENDS_EARLY.search(text) is not None


def _parameter(key: str, text: str) -> list[str]:
    text = without_control(text)
    if _TOKEN.fullmatch(text):
        return [f"{key}={text}"]
    if not _is_hard(text):
        return [f'{key}="{text}"']
    segments = list(_segments(text))
    segments[0] = f"UTF-8''{segments[0]}"
    if len(segments) == 1:
        return [f"{key}*={segments[0]}"]
    return [f"{key}*{number}*={segment}" for number, segment in enumerate(segments)]


def _segments(text: str) -> Iterator[str]:
    """Cut *text* between characters, percent-encoded."""
    segment = ""
    for character in text:
        raw = character.encode("utf-8", "replace")
        written = "".join(chr(byte) if byte in _ATTRIBUTE else f"%{byte:02X}" for byte in raw)
        if len(segment) + len(written) > _MAX_SEGMENT:
            yield segment
            segment = ""
        segment += written
    yield segment


# --- bodies ----------------------------------------------------------------------------------------------------------


def text_part(subtype: str, text: str, parameters: Iterable[tuple[str, str]] = (), more: bytes = b"") -> Part:
    """
    A part to read, in UTF-8, with *more* fields: quoted-printable or base64, whichever is smaller.

    Raises:
        UnicodeEncodeError: *text* holds half of a surrogate pair.
    """
    raw = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    needing = len(raw.translate(None, _PLAIN))
    kind = parametrized("Content-Type", f"text/{subtype}", [("charset", "UTF-8"), *parameters])
    if needing * 2 <= len(raw) // 3:
        body, encoding = quoted_printable(raw), b"quoted-printable"
    else:
        body, encoding = base64_lines(raw.replace(b"\n", b"\r\n")), b"base64"
    return encoded_part(kind + more, encoding, body)


def encoded_part(head: bytes, encoding: bytes, body: bytes, of_body: bytes | None = None) -> Part:
    """A part whose *body* is encoded already; *of_body* is its digest, if somebody has it."""
    head += b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    return Part(head, body, digest(head, of_body or digest(body)))


def quoted_printable(raw: bytes) -> bytes:
    """Encode text whose lines end with LF; they end with CRLF then."""
    encoded = binascii.b2a_qp(raw, quotetabs=False, istext=True)
    if _RISKY.search(encoded):
        encoded = b"\n".join(map(_disarmed, encoded.split(b"\n")))
    return encoded.replace(b"\n", b"\r\n")


def _disarmed(line: bytes) -> bytes:
    """*line* of quoted-printable, beginning with neither a dot nor ``From``; it has at most 76 characters still."""
    if not _RISKY.match(line):
        return line
    first, rest = b"=%02X" % line[0], line[1:]
    return first + rest if len(line) <= 74 else first + b"=\n" + _disarmed(rest)


def base64_lines(raw: bytes) -> bytes:
    """Encode in lines of 76 characters, ended by CRLF."""
    return wrapped(binascii.b2a_base64(raw, newline=False))


def wrapped(encoded: bytes) -> bytes:
    """Cut base64 into lines of 76 characters, ended by CRLF."""
    lines = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
    return b"\r\n".join([*lines, b""])


def multipart(
    subtype: str,
    parts: Sequence[Part],
    parameters: Iterable[tuple[str, str]] = (),
    *,
    seed: bytes = b"",
    more: bytes = b"",
) -> Part:
    """Put *parts* together; *seed* goes into the boundary, *more* are further fields."""
    whole = digest(seed, subtype.encode(), more, *(part.digest for part in parts))
    # "=_" stands in no quoted-printable and in no base64 (RFC 2045 section 6.7).
    boundary = f"=_{whole.hex()}"
    head = parametrized("Content-Type", f"multipart/{subtype}", [*parameters, ("boundary", boundary)]) + more
    mark = f"--{boundary}".encode()
    pieces = [piece for part in parts for piece in (mark, b"\r\n", part.head, b"\r\n", part.body, b"\r\n")]
    return Part(head, b"".join([*pieces, mark, b"--\r\n"]), digest(head, whole))
