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
from ._rules import BLOCKED_EXTENSIONS, HALF_PAIR, MAX_HEADER_CHARACTERS, extension_of, is_encodable

if TYPE_CHECKING:
    from pathlib import Path

_CONTENT_TYPE = re.compile(r"[ -~]{1,78}")  # SES API v2, Attachment.ContentType
_CONTENT_ID = re.compile(r"[!-~]{1,78}")  # SES API v2, Attachment.ContentId
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
    _encoded: list[str] = attrs.field(init=False, factory=list, eq=False)
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

    @property
    def encoded(self) -> str:
        """The content in base64, made once."""
        if not self._encoded:
            self._encoded.append(binascii.b2a_base64(self.content, newline=False).decode("ascii"))
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
            encoded = self._encoded[0].encode() if self._encoded else binascii.b2a_base64(self.content, newline=False)
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
        extension = extension_of(self.name)
        if extension in BLOCKED_EXTENSIONS:
            yield Problem("name", f"SES refuses files that end in .{extension}")
        if self.content_type is not None and not _CONTENT_TYPE.fullmatch(self.content_type):
            yield Problem("content_type", "must be 1 to 78 printable ASCII characters")
        if self.content_id is not None and not _CONTENT_ID.fullmatch(self.content_id):
            yield Problem("content_id", "must be 1 to 78 printable ASCII characters without spaces")

    def __repr__(self) -> str:
        return f"<Attachment {len(self.content)} bytes{' inline' if self.content_id else ''}>"


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
