"""
The parts of somebody else's mail, made safe for every relay and otherwise left as they are.

What a reader sees is UTF-8 afterwards, whatever it was before; files keep their bytes. Signed parts and machine reports
may not be touched, so they travel as they are, if they can. Text before and after the parts of a multipart, which no
reader shows, is left out.
"""

from __future__ import annotations

import binascii
import copy
import io
import re
from email import message_from_bytes, policy
from email.generator import BytesGenerator
from email.message import Message as Mail
from email.parser import BytesHeaderParser
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs

from .._addresses import decode_words, has_control
from ..exceptions import Problem
from . import _entities as entities
from ._extras import wrong_type
from ._mime_text import decoded, in_ascii, known_words, readable, unfolded
from ._rules import MAX_PARTS, blocked_extension, is_header_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from email.message import EmailMessage

    from ._entities import Part

# Far more than any mail has. The standard library walks a mail by recursion.
_MAX_DEPTH = 30
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&+.^_-]+/[a-z0-9!#$&+.^_-]+")
_TOKEN = re.compile(r"[a-z0-9!#$&+.^_`|~-]+")
_LINE_BREAK = re.compile(rb"\r\n?|\n")
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
_ENCODINGS = _PLAIN_ENCODINGS | {"base64", "quoted-printable", "uue", "uuencode", "x-uue", "x-uuencode"}
# Written anew with each part, or about bytes that may have changed.
_REWRITTEN = frozenset({"content-type", "content-disposition", "content-transfer-encoding"})
_REWRITTEN |= {"content-length", "content-md5", "mime-version"}


def parsed(mail: EmailMessage | bytes) -> Mail[Any, Any]:
    """
    *mail* as a tree of parts.

    Raises:
        TypeError: It is neither an ``email.message.Message`` nor bytes.
    """
    if isinstance(mail, bytes):
        try:
            return message_from_bytes(mail, policy=policy.compat32)
        except RecursionError:
            # Its parts are then a text, which is refused as parts that are missing.
            return BytesHeaderParser(policy=policy.compat32).parsebytes(mail)
    if not isinstance(mail, Mail):
        raise wrong_type("mail", "EmailMessage or bytes", mail)
    return mail


def read_parts(mail: Mail[Any, Any], raw: bytes | None) -> tuple[Part, tuple[Problem, ...]]:
    """The entity that *mail* is, which was parsed from *raw* if that is known, and what was wrong with it."""
    reader = _Reader()
    return reader.whole(mail, raw), reader.found()


def _depth(mail: Mail[Any, Any]) -> int:
    depth, level = 0, [mail]
    while level:
        level = [child for part in level if part.is_multipart() for child in _children(part)]
        depth += 1
    return depth


def _children(mail: Mail[Any, Any]) -> Sequence[Mail[Any, Any]]:
    children: Any = mail.get_payload()
    for child in children:
        if not isinstance(child, Mail):
            raise wrong_type("a part", "email.message.Message", child)
    return children  # type: ignore[no-any-return]


# --- what a part says of itself --------------------------------------------------------------------------------------


@attrs.frozen
class _Label:
    """
    The content fields of a part.

    Attributes:
        kind: MIME type in lower case.
        parameters: Of the type.
        disposition: ``inline``, ``attachment`` or empty.
        of_disposition: Its parameters.
        encoding: Content-Transfer-Encoding in lower case.
        more: Further fields, ready to write.
        is_readable: Whether all of it could be decoded.
    """

    kind: str
    parameters: dict[str, str]
    disposition: str
    of_disposition: dict[str, str]
    encoding: str
    more: bytes
    is_readable: bool

    @property
    def names(self) -> list[str]:
        """The file's, which may be two; clients differ in which they read."""
        found = (self.of_disposition.get("filename"), self.parameters.get("name"))
        return [name for name in found if name is not None]

    @property
    def is_file(self) -> bool:
        """Whether it is kept rather than read."""
        return self.disposition == "attachment" or bool(self.names)

    @property
    def rest(self) -> bytes:
        """All fields but the type and the encoding."""
        if not self.disposition:
            return self.more
        return entities.parametrized("Content-Disposition", self.disposition, self.of_disposition.items()) + self.more

    def head(self, parameters: Iterable[tuple[str, str]] | None = None) -> bytes:
        """All fields but the encoding."""
        given = self.parameters.items() if parameters is None else parameters
        return entities.parametrized("Content-Type", self.kind, given) + self.rest


def _label(mail: Mail[Any, Any], *, is_root: bool) -> _Label:
    clean: Mail[Any, Any] = Mail(policy=policy.compat32)
    clean.set_default_type(mail.get_default_type())
    flags = []
    for name, value in mail.raw_items():
        if name.lower() in _REWRITTEN:
            text, is_readable = readable(unfolded(value))
            flags.append(is_readable)
            clean[name] = entities.without_control(text)
    parameters, is_known = _parameters(clean, "content-type")
    of_disposition, is_known_too = _parameters(clean, "content-disposition")
    kind = clean.get_content_type()
    return _Label(
        kind=kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream",
        parameters=parameters,
        disposition=_disposition(clean),
        of_disposition=of_disposition,
        encoding=clean.get("content-transfer-encoding", "").strip().lower(),
        more=b"".join(_more(mail, is_root=is_root)),
        is_readable=all(flags) and is_known and is_known_too,
    )


def _disposition(clean: Mail[Any, Any]) -> str:
    said = clean.get_content_disposition()
    # RFC 2183 section 2.8: what nobody knows is treated as an attachment.
    return said if said in {None, "inline", "attachment"} else "attachment"  # type: ignore[return-value]


def _parameters(clean: Mail[Any, Any], header: str) -> tuple[dict[str, str], bool]:
    """The parameters of one field, the first of each name, and whether all could be decoded."""
    found: dict[str, str] = {}
    is_known = True
    for key, value in (clean.get_params([], header) or [])[1:]:
        text, is_fine = _parameter(value)
        is_known = is_known and is_fine
        if _TOKEN.fullmatch(key.lower()) and key.lower() not in found:
            found[key.lower()] = entities.without_control(text)
    found.pop("boundary", None)
    return found, is_known


def _parameter(value: str | tuple[str | None, str | None, str]) -> tuple[str, bool]:
    if isinstance(value, str):
        text, is_known = known_words(value)
        return decode_words(text), is_known
    charset, _, text = value
    try:
        return decoded(text.encode("latin-1"), charset or "utf-8"), True
    except (LookupError, ValueError):
        return text, False


def _more(mail: Mail[Any, Any], *, is_root: bool) -> Iterator[bytes]:
    """The fields that travel with a part as they are; those of the mail itself are not the part's."""
    for name, value in mail.raw_items():
        is_own = not is_root or name.lower().startswith("content-")
        if is_own and name.lower() not in _REWRITTEN and is_header_name(name):
            yield _field(name, value)


def _field(name: str, value: object) -> bytes:
    text = readable(unfolded(value))[0]
    written = in_ascii(name, text)
    if written.isascii() and not has_control(written) and entities.fits(written):
        return entities.field(name, written)
    return entities.text_field(name, decode_words(text))


# --- parts -----------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one mail; collects what is wrong, by the place of the part among those that have no parts."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._leaves: list[Mail[Any, Any]] = []  # kept, so that no other gets the id of one
        self._places: dict[int, str] = {}
        self._sources: list[bytes] = []
        self._depth = 0

    def found(self) -> tuple[Problem, ...]:
        """All that is wrong."""
        if len(self._leaves) > MAX_PARTS:
            self.problems.append(Problem("parts", f"are {len(self._leaves)}; SES takes {MAX_PARTS}"))
        return tuple(self.problems)

    def whole(self, mail: Mail[Any, Any], raw: bytes | None, place: str | None = None) -> Part:
        """A mail, or one in it that stands at *place*."""
        depth = _depth(mail)
        if self._depth + depth > _MAX_DEPTH:
            self.problems.append(Problem("parts", f"are nested more than {_MAX_DEPTH} deep"))
            return entities.text_part("plain", "")
        leaves = [part for part in mail.walk() if not part.is_multipart()]
        self._leaves += leaves
        self._places |= {id(leaf): place or f"parts[{number}]" for number, leaf in enumerate(leaves)}
        if raw is not None:
            self._sources.append(raw)
        self._depth += depth
        part = self.entity(mail, is_root=True)
        self._depth -= depth
        return part

    def entity(self, mail: Mail[Any, Any], *, is_root: bool = False) -> Part:
        """One part with all that is in it."""
        label = _label(mail, is_root=is_root)
        if not mail.is_multipart():
            return self._leaf(mail, label)
        children = _children(mail)
        if label.kind == "message/rfc822" and len(children) == 1:
            return self._enclosed(children[0], label)
        if label.kind.startswith("message/"):
            return self._as_it_is(mail, label.head())
        subtype = label.kind.partition("/")[2] if label.kind.startswith("multipart/") else "mixed"
        parts = self._signed(mail, children) if subtype == "signed" else [self.entity(child) for child in children]
        return entities.multipart(subtype, parts, label.parameters.items(), more=label.rest)

    def _leaf(self, mail: Mail[Any, Any], label: _Label) -> Part:
        place = self._places[id(mail)]
        self._check(label, place)
        raw = _content(mail, label.encoding)
        if label.kind.startswith("multipart/"):
            self.problems.append(Problem(place, "says that it has parts, and has none"))
        elif label.kind.startswith("text/") and not label.is_file:
            return self._text(raw, label, place)
        elif label.kind.startswith("message/"):
            return self._as_it_is(mail, label.head())
        return entities.encoded_part(label.head(), b"base64", entities.base64_lines(raw))

    def _check(self, label: _Label, place: str) -> None:
        for extension in {blocked_extension(name) for name in label.names} - {None}:
            self.problems.append(Problem(f"{place}.name", f"SES refuses files that end in .{extension}"))
        if not label.is_readable:
            self.problems.append(Problem(f"{place}.name", "cannot be decoded"))
        if label.encoding not in _ENCODINGS:
            self.problems.append(Problem(place, "is in a transfer encoding that MIME does not know"))

    def _text(self, raw: bytes, label: _Label, place: str) -> Part:
        text = _decoded(raw, label.parameters.get("charset", ""))
        if text is None:
            self.problems.append(Problem(place, "is not what its charset says, or nobody knows the charset"))
            text = ""
        parameters = [(key, value) for key, value in label.parameters.items() if key != "charset"]
        return entities.text_part(label.kind.partition("/")[2], text, parameters, label.rest)

    def _enclosed(self, mail: Mail[Any, Any], label: _Label) -> Part:
        """A whole mail, such as one that is forwarded: no encoding is allowed around it (RFC 2046 section 5.2.1)."""
        if label.encoding not in _PLAIN_ENCODINGS:
            mail, inner = self._opened(mail, label.encoding)
        else:
            inner = self.entity(mail, is_root=True)
        own = ((name, value) for name, value in mail.raw_items() if not name.lower().startswith("content-"))
        fields = [_field(name, value) for name, value in own if is_header_name(name) and name.lower() != "mime-version"]
        body = b"".join([*fields, b"MIME-Version: 1.0\r\n", inner.content])
        return entities.encoded_part(label.head(), b"7bit", body)

    def _opened(self, mail: Mail[Any, Any], encoding: str) -> tuple[Mail[Any, Any], Part]:
        """What is in a *mail* that somebody has encoded all the same; its lines were read as a text."""
        place = next((self._places[id(part)] for part in mail.walk() if not part.is_multipart()), "parts")
        try:
            raw = binascii.a2b_base64(b"".join(_flat(mail))) if encoding == "base64" else None
        except ValueError:
            raw = None
        if raw is None:
            self.problems.append(Problem(place, "is a mail in an encoding, which MIME does not allow"))
            return Mail(), entities.text_part("plain", "")
        inner = parsed(raw)
        return inner, self.whole(inner, raw, place)

    def _signed(self, mail: Mail[Any, Any], children: Sequence[Mail[Any, Any]]) -> list[Part]:
        """Parts that a signature is over, exactly as they came."""
        names = [name for part in mail.walk() for name in _label(part, is_root=False).names]
        for extension in dict.fromkeys(filter(None, map(blocked_extension, names))):
            self.problems.append(Problem("parts", f"hold a signed file that ends in .{extension}, which SES refuses"))
        for source in self._sources:
            if pieces := _pieces(source, mail.get_boundary(""), len(children)):
                return [self._kept(*_halves(piece)) for piece in pieces]
        if self._sources:
            self.problems.append(Problem("parts", "hold signed ones, and it is not certain where those begin and end"))
        return [self._as_it_is(child) for child in children]

    def _as_it_is(self, mail: Mail[Any, Any], head: bytes | None = None) -> Part:
        """A part byte by byte, with its own fields or those of *head*."""
        try:
            own, body = _flat(mail)
        except UnicodeEncodeError:  # 8-bit text where parts should be: the standard library cannot write it
            own, body = b"", b"\xff"
        return self._kept(own if head is None else head + b"Content-Transfer-Encoding: 7bit\r\n", body)

    def _kept(self, head: bytes, body: bytes) -> Part:
        if not entities.is_safe(head + body):
            self.problems.append(Problem("parts", "hold one that may not be changed, and not every relay can carry"))
            head, body = b"", b""
        return entities.Part(head, body, entities.digest(head, body))


def _content(mail: Mail[Any, Any], encoding: str) -> bytes:
    """What the part holds, decoded."""
    plain = copy.copy(mail)  # shares what it holds, and has fields and a policy of its own
    plain.policy = policy.compat32
    del plain["Content-Transfer-Encoding"]
    plain["Content-Transfer-Encoding"] = encoding
    raw, text = plain.get_payload(decode=True), plain.get_payload()
    if not isinstance(raw, bytes):
        return b""
    if encoding in _PLAIN_ENCODINGS and isinstance(text, str) and raw.isascii() and not text.isascii():
        return text.encode("utf-8", "surrogatepass")  # set_payload() without a charset: escapes by now
    return raw


def _decoded(raw: bytes, charset: str) -> str | None:
    """Text without a charset is UTF-8 if it can be: a superset of the ASCII that it should be."""
    try:
        return decoded(raw, "utf-8" if charset.strip().lower() in {"", "us-ascii", "ascii"} else charset)
    except (LookupError, ValueError):
        return None


def _flat(mail: Mail[Any, Any]) -> tuple[bytes, bytes]:
    """Fields and body of a part, nothing changed but the ends of lines."""
    target = io.BytesIO()
    as_it_is = mail.policy.clone(linesep="\r\n", max_line_length=0)
    BytesGenerator(target, mangle_from_=False, policy=as_it_is).flatten(mail)
    return _halves(_LINE_BREAK.sub(b"\r\n", target.getvalue()))


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    """Fields and body."""
    if raw.startswith(b"\r\n"):
        return b"", raw[2:]
    head, _, body = raw.partition(b"\r\n\r\n")
    return head + b"\r\n", body


def _pieces(raw: bytes, boundary: str, count: int) -> list[bytes]:
    """The *count* parts between the lines of *boundary* in *raw*; none where they are not clear."""
    mark = b"--" + boundary.encode("ascii", "replace")
    text = _LINE_BREAK.sub(b"\r\n", raw)
    found = list(re.finditer(rb"\r\n%b(--)?[ \t]*(?=\r\n|\Z)" % re.escape(mark), text))
    if [match[1] is None for match in found] != [*[True] * count, False]:
        return []
    pieces = [text[start.end() + 2 : end.start()] for start, end in pairwise(found)]
    return pieces if all(b"\r\n\r\n" in b"\r\n" + piece for piece in pieces) else []
