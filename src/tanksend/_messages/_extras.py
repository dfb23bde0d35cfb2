"""What goes with a message: `Attachment` and `Unsubscribe`."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from .._addresses import has_control
from ..exceptions import Problem
from ._entities import digest, wrapped
from ._rules import HALF_PAIR, MAX_HEADER_CHARACTERS, blocked_extension, is_encodable

if TYPE_CHECKING:
    from pathlib import Path

# RFC 5546 section 1.4: what a calendar object asks of its reader.
_METHODS = frozenset({"ADD", "CANCEL", "COUNTER", "DECLINECOUNTER", "PUBLISH", "REFRESH", "REPLY", "REQUEST"})
_CALENDAR_METHOD = re.compile(r"^METHOD(?:;[^:\n]*)?:(.*)$", re.IGNORECASE | re.MULTILINE)
_CALENDAR_FOLD = re.compile(r"\n[ \t]")  # RFC 5545 section 3.1
# How files begin that are compressed already: zip and with it docx, xlsx, pptx, odt and jar; gzip, bzip2, xz, 7z, zstd,
# rar, PNG, JPEG, GIF, PDF, MP3. MP4, WebP and HEIC say so a little later.
_COMPRESSED: tuple[bytes, ...] = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c")
_COMPRESSED += (b"\x28\xb5\x2f\xfd", b"Rar!\x1a", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"ID3")
_COMPRESSED_LATER = re.compile(rb"....ftyp|RIFF....WEBP", re.DOTALL)
# What zip remembers of a file may not depend on when, where and by whom it was made.
_ZIP_MOMENT = (1980, 1, 1, 0, 0, 0)
_ZIP_UNIX = 3
_CONTENT_TYPE = re.compile(r"[ -~]{1,78}")  # SES API v2, Attachment.ContentType
_CONTENT_ID = re.compile(r"[!-~]{1,78}")  # SES API v2, Attachment.ContentId
# What nearly every such address looks like: nothing to take apart.
_PLAIN_URL = re.compile(r"https://[a-z0-9.-]+(?::[0-9]{1,5})?/[!#-;=?-~]{0,700}")
_URL = re.compile(r"https://[!#-;=?-~]+", re.IGNORECASE)
# RFC 6068: one address, and fields after a "?", where an "@" may stand as it is.
_MAILTO = re.compile(r"(?:mailto:)?[!#-;=A-~]+@[!#-;=A-~]+(?:\?[!#-;=?-~]*)?", re.IGNORECASE)
_MAILTO_SCHEME = "mailto:"
# Both belong to `Unsubscribe`, also where it writes one of them only: without an https address there is no one-click.
UNSUBSCRIBE_HEADERS = ("list-unsubscribe", "list-unsubscribe-post")

Validator = Callable[[object, "attrs.Attribute[Any]", object], None]


def must_be(kind: type, *, optional: bool = False) -> Validator:
    """Refuse other types. attrs has such a validator, but its error repeats the value: a body, or a personal link."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not (isinstance(value, kind) or (optional and value is None)):
            raise wrong_type(attribute.name, kind.__name__, value)

    return check


def wrong_type(field: str, kind: str, value: object) -> TypeError:
    return TypeError(f"{field} must be a {kind}, not {type(value).__name__}")


def within(field: str, problems: Iterable[Problem]) -> Iterable[Problem]:
    """*problems* as those of a part that stands in *field*."""
    return (Problem(f"{field}.{problem.field}", problem.reason) for problem in problems)


@attrs.frozen(repr=False)
class Attachment:
    """
    A file that goes with a message.

    Args:
        name: File name as the reader sees it, at most 255 characters.
        content: The bytes; base64 is applied once, however many messages carry it.
        content_type: MIME type; SES guesses from the name when it is None.
        content_id: Given, the part is inline and ``<img src="cid:…">`` in the HTML shows it.
        method: Written by `invitation`.
        saved: Written by `compressed`: by how many bytes the content became smaller.

    Source: Amazon SES API v2 reference, "Attachment".
    """

    name: str = attrs.field(validator=must_be(str))
    content: bytes = attrs.field(validator=must_be(bytes))
    content_type: str | None = attrs.field(default=None, kw_only=True, validator=must_be(str, optional=True))
    content_id: str | None = attrs.field(default=None, kw_only=True, validator=must_be(str, optional=True))
    method: str | None = attrs.field(default=None, kw_only=True, validator=must_be(str, optional=True))
    saved: int = attrs.field(default=0, kw_only=True, eq=False)
    _encoded: list[bytes] = attrs.field(init=False, factory=list, eq=False)
    _wrapped: list[tuple[bytes, bytes]] = attrs.field(init=False, factory=list, eq=False)

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        content_type: str | None = None,
        content_id: str | None = None,
    ) -> Attachment:
        """
        Read a file. Blocks while it reads.

        Raises:
            OSError: The file cannot be read.
        """
        from pathlib import Path  # only here: keeps the import of the package quick

        path = Path(path)
        return cls(name or path.name, path.read_bytes(), content_type=content_type, content_id=content_id)

    @classmethod
    def invitation(cls, ics: str | bytes, *, method: str = "REQUEST", name: str = "invite.ics") -> Attachment:
        """
        A calendar invitation, or the change of one, that Outlook and Gmail show with buttons to answer it.

        The calendar stands beside text and HTML as a third version of the message, and once more as a file. A message
        with one is sent raw.

        Args:
            ics: An iCalendar object in UTF-8, with the METHOD property that *method* says.
            method: ``REQUEST``, ``CANCEL``, ``REPLY`` and so on.
            name: Of the file.

        Raises:
            TypeError: An argument has a wrong type.

        Source: RFC 6047 section 2.4 and RFC 5546.
        """
        if not isinstance(ics, str | bytes):
            raise wrong_type("ics", "str or bytes", ics)
        content = ics.encode("utf-8", "surrogatepass") if isinstance(ics, str) else ics
        lines = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # RFC 5545 section 3.1
        return cls(name, lines, content_type="application/ics", method=method)

    def compressed(self) -> Attachment:
        """
        The file in a zip archive, if that is smaller; `saved` says by how many bytes.

        Stays what it is: a file that is compressed already, an image that the HTML shows, an invitation, and a file
        that `check` refuses. SES looks into archives, so that zip is no way around its rules. The same content makes
        the same bytes, with the same version of zlib.
        """
        is_special = self.content_id is not None or self.method is not None or any(self.check())
        if is_special or _is_compressed(self.content):
            return self
        archive = _zipped(self.name, self.content)
        smaller = Attachment(
            f"{self.name}.zip", archive, content_type="application/zip", saved=len(self.content) - len(archive)
        )
        return smaller if smaller.saved > 0 and not smaller.check() else self

    @property
    def encoded(self) -> bytes:
        """The content in base64, made once."""
        if not self._encoded:
            self._encoded.append(binascii.b2a_base64(self.content, newline=False))
        return self._encoded[0]

    @property
    def wrapped(self) -> bytes:
        """The content in base64 as a mail holds it, in lines of 76 characters, made once."""
        return self._in_lines()[0]

    @property
    def digest(self) -> bytes:
        """A fingerprint of `wrapped`, made once."""
        return self._in_lines()[1]

    def _in_lines(self) -> tuple[bytes, bytes]:
        if not self._wrapped:
            encoded = self._encoded[0] if self._encoded else binascii.b2a_base64(self.content, newline=False)
            lines = wrapped(encoded)
            self._wrapped.append((lines, digest(lines)))
        return self._wrapped[0]

    def check(self) -> tuple[Problem, ...]:
        """What SES would refuse, by field."""
        return tuple(self._problems())

    def _problems(self) -> Iterable[Problem]:
        if not 1 <= len(self.name) <= 255:
            yield Problem("name", "must be 1 to 255 characters long")
        if has_control(self.name):
            yield Problem("name", "has a control character")
        if not is_encodable(self.name):
            yield Problem("name", HALF_PAIR)
        if extension := blocked_extension(self.name):
            yield Problem("name", f"SES refuses files that end in .{extension}")
        if self.content_type is not None and not _CONTENT_TYPE.fullmatch(self.content_type):
            yield Problem("content_type", "must be 1 to 78 printable ASCII characters")
        if self.content_id is not None and not _CONTENT_ID.fullmatch(self.content_id.strip("<>")):
            yield Problem("content_id", "must be 1 to 78 printable ASCII characters without spaces")
        if self.method is not None:
            yield from self._calendar_problems(self.method)

    def _calendar_problems(self, method: str) -> Iterable[Problem]:
        if method.upper() not in _METHODS:
            yield Problem("method", f"must be one of {', '.join(sorted(_METHODS))}")
        try:
            calendar = self.content.decode()
        except UnicodeDecodeError:
            yield Problem("content", "is not UTF-8, as a calendar must be")
            return
        said = _CALENDAR_METHOD.findall(_CALENDAR_FOLD.sub("", calendar.replace("\r\n", "\n")))
        if [each.strip(" \t").upper() for each in said] != [method.upper()]:
            yield Problem("method", "is not the METHOD property that the calendar has, or the calendar has not one")

    def __repr__(self) -> str:
        return f"<Attachment {len(self.content)} bytes{' inline' if self.content_id else ''}>"


def _is_compressed(content: bytes) -> bool:
    return content.startswith(_COMPRESSED) or _COMPRESSED_LATER.match(content) is not None


def _zipped(name: str, content: bytes) -> bytes:
    import io  # only here, as the next: keeps the import of the package quick
    import zipfile

    # A path in the name would be one for whoever unpacks it.
    entry = zipfile.ZipInfo(re.sub(r"[/\\\0]", "_", name), _ZIP_MOMENT)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = _ZIP_UNIX
    entry.external_attr = 0o644 << 16
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, content)
    return target.getvalue()


@attrs.frozen(kw_only=True, repr=False)
class Unsubscribe:
    """
    The one-click unsubscribe that Gmail and Yahoo ask of bulk senders; writes both headers of RFC 8058.

    Args:
        url: An ``https`` address that unsubscribes on POST; personal to the recipient. Without it there is no
            one-click, and only the older of the two headers is written.
        mailto: An address for mail clients without one-click, as a plain address or with ``?subject=…``.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: Neither was given.
    """

    url: str | None = attrs.field(default=None, validator=must_be(str, optional=True))
    mailto: str | None = attrs.field(default=None, validator=must_be(str, optional=True))

    def __attrs_post_init__(self) -> None:
        if self.url is None and self.mailto is None:
            raise ValueError("Unsubscribe needs url= or mailto=")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to write. Source: RFC 2369 section 3.2, RFC 8058 section 3.1."""
        targets = [f"<{self.url}>"] if self.url else []
        if self.mailto:
            has_scheme = self.mailto[: len(_MAILTO_SCHEME)].lower() == _MAILTO_SCHEME
            targets.append(f"<{self.mailto}>" if has_scheme else f"<{_MAILTO_SCHEME}{self.mailto}>")
        listed = ("List-Unsubscribe", ", ".join(targets))
        # RFC 8058 ties List-Unsubscribe-Post to an https URI: a mailto alone cannot be one-click.
        return (listed, ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")) if self.url else (listed,)

    @property
    def is_plain(self) -> bool:
        """Whether it is so usual that `check` would find nothing."""
        return self.mailto is None and self.url is not None and _PLAIN_URL.fullmatch(self.url) is not None

    def check(self) -> tuple[Problem, ...]:
        """What a mailbox provider or SES would refuse, by field."""
        return tuple(self._problems())

    def _problems(self) -> Iterable[Problem]:
        if self.url is not None and not _is_https(self.url):
            yield Problem("url", "must be an https address of printable ASCII (RFC 8058)")
        if self.mailto is not None and not _MAILTO.fullmatch(self.mailto):
            yield Problem("mailto", "must be one e-mail address of printable ASCII")
        if any(len(name) + len(value) > MAX_HEADER_CHARACTERS for name, value in self.headers):
            yield Problem("url" if self.url else "mailto", "is too long for one header")

    def __repr__(self) -> str:
        return f"<Unsubscribe{' url' if self.url else ''}{' mailto' if self.mailto else ''}>"


def _is_https(url: str) -> bool:
    from urllib.parse import urlsplit  # only here: keeps the import of the package quick

    if not _URL.fullmatch(url):
        return False
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False
