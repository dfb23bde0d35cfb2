"""
What is sent: `Message`, its `Attachment`, `Unsubscribe` and `Priority`.

Building a message raises for a programming error only (a wrong type, no content at all). What the data got wrong is
listed by `Message.check`, which applies SES's own rules before SES would.
"""

from __future__ import annotations

import binascii
import enum
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ._addresses import Address, parse_addresses
from .exceptions import InvalidAddressError, Problem

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from ._validator import AddressValidator

KEY_TAG = "tanksend-key"
MAX_RECIPIENTS = 50  # To + Cc + Bcc of one request; SES Developer Guide, "Service quotas"
MAX_HEADERS = 15  # SES API v2, MessageHeader
MAX_ENCODED_BYTES = 41_943_040  # 40 MB after base64; SES Developer Guide, "Service quotas"

_HEADER_NAME = re.compile(r"[!-9;-@A-~]{1,126}")  # SES API v2, MessageHeader.Name
_HEADER_VALUE = re.compile(r"[ -~]{1,995}")  # SES API v2, MessageHeader.Value, printable ASCII
_MAX_HEADER_CHARACTERS = 996  # name and value together
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")  # SES API v2, MessageTag
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Headers that another field of Message writes, or that SES writes itself; SES refuses a second one.
_OWN_HEADERS = {
    "bcc": "use bcc=",
    "cc": "use cc=",
    "content-disposition": "SES writes it",
    "content-transfer-encoding": "SES writes it",
    "content-type": "SES writes it",
    "date": "SES writes it",
    "from": "use from_=",
    "message-id": "SES writes it",
    "mime-version": "SES writes it",
    "reply-to": "use reply_to=",
    "return-path": "SES writes it",
    "sender": "use from_=",
    "subject": "use subject=",
    "to": "use to=",
}
_UNSUBSCRIBE_HEADERS = {"list-unsubscribe", "list-unsubscribe-post"}

# SES Developer Guide, "Unsupported attachment types".
BLOCKED_EXTENSIONS = frozenset(
    """
    ade adp app asp bas bat cer chm cmd com cpl crt csh der exe fxp gadget hlp hta inf ins isp its js jse ksh lib lnk
    mad maf mag mam maq mar mas mat mau mav maw mda mdb mde mdt mdw mdz msc msh msh1 msh2 mshxml msh1xml msh2xml msi
    msp mst ops pcd pif plg prf prg ps1 ps1xml ps2 ps2xml psc1 psc2 reg scf scr sct shb shs sys tmp url vb vbe vbs vps
    vsmacros vss vst vsw vxd ws wsc wsf wsh xnk
    """.split()
)


class Priority(enum.IntEnum):
    """The lane of a message: the lower number takes the next slot."""

    TRANSACTIONAL = 0
    BULK = 1


@attrs.frozen(repr=False)
class Attachment:
    """
    A file that goes with a message.

    Args:
        name: File name as the reader sees it, at most 255 characters.
        content: The bytes; base64 is applied once, however many messages carry it.
        content_type: MIME type; SES guesses from the name when it is None.
        content_id: Given, the part is inline and ``<img src="cid:…">`` in the HTML shows it.

    Source: Amazon SES API v2 reference, "Attachment".
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    content: bytes = attrs.field(validator=attrs.validators.instance_of(bytes), repr=False)
    content_type: str | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )
    content_id: str | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )
    _encoded: list[str] = attrs.field(init=False, factory=list, eq=False)

    @classmethod
    def from_path(
        cls, path: str | Path, *, name: str | None = None, content_type: str | None = None, content_id: str | None = None
    ) -> Attachment:
        """
        Read a file. Blocks while it reads.

        Raises:
            OSError: The file cannot be read.
        """
        from pathlib import Path  # noqa: PLC0415  (only here: keeps the import of the package quick)

        path = Path(path)
        return cls(name or path.name, path.read_bytes(), content_type=content_type, content_id=content_id)

    @property
    def encoded(self) -> str:
        """The content in base64, made once."""
        if not self._encoded:
            self._encoded.append(binascii.b2a_base64(self.content, newline=False).decode("ascii"))
        return self._encoded[0]

    def check(self) -> tuple[Problem, ...]:
        """What SES would refuse, by field."""
        return tuple(self._problems())

    def _problems(self) -> Iterable[Problem]:
        if not 1 <= len(self.name) <= 255:
            yield Problem("attachments.name", "must be 1 to 255 characters long")
        if _CONTROL.search(self.name):
            yield Problem("attachments.name", "has a control character")
        extension = self.name.rpartition(".")[2].strip().lower() if "." in self.name else ""
        if extension in BLOCKED_EXTENSIONS:
            yield Problem("attachments.name", f"SES refuses files that end in .{extension}")
        if self.content_type is not None and not re.fullmatch(r"[ -~]{1,78}", self.content_type):
            yield Problem("attachments.content_type", "must be 1 to 78 printable ASCII characters")
        if self.content_id is not None and not re.fullmatch(r"[!-~]{1,78}", self.content_id):
            yield Problem("attachments.content_id", "must be 1 to 78 printable ASCII characters without spaces")

    def __repr__(self) -> str:
        return f"<Attachment {len(self.content)} bytes{' inline' if self.content_id else ''}>"


@attrs.frozen(kw_only=True, repr=False)
class Unsubscribe:
    """
    The one-click unsubscribe that Gmail and Yahoo ask of bulk senders; writes both headers of RFC 8058.

    Args:
        url: An ``https`` address that unsubscribes on POST; personal to the recipient.
        mailto: An address for mail clients without one-click, as a plain address or with ``?subject=…``.
    """

    url: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str)))
    mailto: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str)))

    def __attrs_post_init__(self) -> None:
        if self.url is None and self.mailto is None:
            msg = "Unsubscribe needs url= or mailto="
            raise ValueError(msg)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to write. Source: RFC 2369 section 3.2, RFC 8058 section 3.1."""
        targets = [f"<{self.url}>"] if self.url else []
        if self.mailto:
            targets.append(f"<mailto:{self.mailto.removeprefix('mailto:')}>")
        listed = ("List-Unsubscribe", ", ".join(targets))
        # RFC 8058 ties List-Unsubscribe-Post to an https URI: a mailto alone cannot be one-click.
        return (listed, ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")) if self.url else (listed,)

    def check(self) -> tuple[Problem, ...]:
        """What a mailbox provider or SES would refuse, by field."""
        return tuple(self._problems())

    def _problems(self) -> Iterable[Problem]:
        if self.url is not None and not _is_https(self.url):
            yield Problem("unsubscribe.url", "must be an https address of printable ASCII (RFC 8058)")
        if self.mailto is not None and not re.fullmatch(r"(mailto:)?[!#-;=?A-~]+@[!#-;=?A-~]+", self.mailto):
            yield Problem("unsubscribe.mailto", "must be one e-mail address of printable ASCII")
        if any(len(value) > _MAX_HEADER_CHARACTERS - len(name) for name, value in self.headers):
            yield Problem("unsubscribe", "is too long for one header")

    def __repr__(self) -> str:
        return f"<Unsubscribe{' url' if self.url else ''}{' mailto' if self.mailto else ''}>"


def _is_https(url: str) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415  (only here: keeps the import of the package quick)

    if not re.fullmatch(r"https://[!#-;=?-~]+", url, re.IGNORECASE):
        return False
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _text_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        msg = f"{attribute.alias} must be a str, not {type(value).__name__}"
        raise TypeError(msg)


def _text(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        msg = f"{attribute.alias} must be a str, not {type(value).__name__}"
        raise TypeError(msg)


def _string_mapping(instance: object, attribute: attrs.Attribute[Any], value: Mapping[str, str]) -> None:
    for name, item in value.items():
        if not isinstance(name, str) or not isinstance(item, str):
            msg = f"{attribute.alias} must map str to str"
            raise TypeError(msg)


def _one_address(value: str | Address | None) -> Address | None:
    """A single From address; what does not split into one is kept whole, for `Message.check` to refuse."""
    if value is None or isinstance(value, Address):
        return value
    found = parse_addresses(value)
    return found[0] if len(found) == 1 else Address("", value)


def _attachments(value: Iterable[Attachment]) -> tuple[Attachment, ...]:
    items = tuple(value)
    for item in items:
        if not isinstance(item, Attachment):
            msg = f"attachments must hold Attachment values, not {type(item).__name__}"
            raise TypeError(msg)
    return items


_NOTHING: Mapping[str, str] = {}


@attrs.frozen(repr=False)
class Message:
    """
    One mail: recipients, content, options. Immutable, and safe to share between threads.

    Args:
        to: One address, a comma-separated string, an `Address`, or any iterable of them.
        subject: Any Unicode, no control characters.
        text: The plain part. At least one of *text* and *html* must be given.
        html: The HTML part.
        from_: From; the sender's default when None.
        cc: As *to*.
        bcc: As *to*.
        reply_to: As *to*.
        attachments: `Attachment` values.
        headers: Up to 15 further headers of printable ASCII.
        tags: SES message tags (letters, digits, ``_``, ``-``); they come back in events.
        configuration_set: Name of the SES configuration set; the sender's default when None.
        unsubscribe: One-click unsubscribe headers.
        priority: The lane; None means bulk in a batch, transactional in `Sender.send`.
        key: The caller's name for this message, unique in a ledger.
        last_active: When the recipient last showed a sign of life, for guards.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: Neither *text* nor *html* was given.
    """

    to: tuple[Address, ...] = attrs.field(converter=parse_addresses)
    subject: str = attrs.field(validator=_text)
    text: str | None = attrs.field(default=None, validator=_text_or_none)
    html: str | None = attrs.field(default=None, validator=_text_or_none)
    from_: Address | None = attrs.field(default=None, kw_only=True, converter=_one_address)
    cc: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=parse_addresses)
    bcc: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=parse_addresses)
    reply_to: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=parse_addresses)
    attachments: tuple[Attachment, ...] = attrs.field(default=(), kw_only=True, converter=_attachments)
    headers: Mapping[str, str] = attrs.field(default=_NOTHING, kw_only=True, converter=dict, validator=_string_mapping)
    tags: Mapping[str, str] = attrs.field(default=_NOTHING, kw_only=True, converter=dict, validator=_string_mapping)
    configuration_set: str | None = attrs.field(default=None, kw_only=True, validator=_text_or_none)
    unsubscribe: Unsubscribe | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.instance_of(Unsubscribe))
    )
    priority: Priority | None = attrs.field(
        default=None, kw_only=True, converter=attrs.converters.optional(Priority)
    )
    key: str | None = attrs.field(default=None, kw_only=True, validator=_text_or_none)
    last_active: dt.datetime | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.text is None and self.html is None:
            msg = "a message needs text= or html="
            raise ValueError(msg)

    def __repr__(self) -> str:
        count = len(self.to) + len(self.cc) + len(self.bcc)
        return f"<Message recipients={count} attachments={len(self.attachments)}>"

    @property
    def recipients(self) -> tuple[Address, ...]:
        """To, Cc and Bcc, each person once: what SES counts."""
        everyone = self.to + self.cc + self.bcc
        if len(everyone) == 1:
            return everyone
        return tuple({address.key: address for address in reversed(everyone)}.values())[::-1]

    def check(self, validator: AddressValidator | None = None) -> tuple[Problem, ...]:
        """
        List what SES would refuse, by field; empty when nothing is wrong.

        Pure: no network, no clock. The addresses are judged by *validator*, or the strict default.
        """
        if validator is None:
            validator = default_validator()
        return (*self.check_content(), *self._check_addresses(validator))

    def check_content(self) -> tuple[Problem, ...]:
        """The part of `check` that does not look at addresses."""
        if _CONTROL.search(self.subject) is None and not self._has_options() and self._fits_easily():
            return ()
        return tuple(self._content_problems())

    def _has_options(self) -> bool:
        return bool(
            self.headers or self.tags or self.attachments or self.unsubscribe or self.configuration_set is not None
        )

    def _fits_easily(self) -> bool:
        # Four bytes a character, a third more for base64: no need to encode anything to know.
        return (len(self.text or "") + len(self.html or "")) * 6 < MAX_ENCODED_BYTES and _no_surrogate(self)

    def _content_problems(self) -> Iterable[Problem]:
        if _CONTROL.search(self.subject):
            yield Problem("subject", "has a control character or line break")
        if not _no_surrogate(self):
            yield Problem("content", "has half of a surrogate pair, which is no character")
        elif self._encoded_bytes() > MAX_ENCODED_BYTES:
            yield Problem("content", "is larger than 40 MB once encoded")
        if self.configuration_set is not None and not _SET_NAME.fullmatch(self.configuration_set):
            yield Problem("configuration_set", "must be 1 to 64 letters, digits, _ or -")
        yield from self._header_problems()
        yield from check_tags(self.tags)
        for attachment in self.attachments:
            yield from attachment.check()
        if self.unsubscribe is not None:
            yield from self.unsubscribe.check()

    def _encoded_bytes(self) -> int:
        parts = [len((part or "").encode()) for part in (self.text, self.html)]
        parts += [len(attachment.content) for attachment in self.attachments]
        return sum(-(-part // 3) * 4 for part in parts)

    def _header_problems(self) -> Iterable[Problem]:
        count = len(self.headers) + (len(self.unsubscribe.headers) if self.unsubscribe else 0)
        if count > MAX_HEADERS:
            yield Problem("headers", f"has {count} headers; SES takes {MAX_HEADERS}")
        seen: set[str] = set(_UNSUBSCRIBE_HEADERS if self.unsubscribe else ())
        for number, (name, value) in enumerate(self.headers.items(), 1):
            reason = _header_problem(name, value, seen)
            seen.add(name.lower())
            if reason:
                # A name that is not a token may be data in the wrong place: show its position only.
                shown = name if _HEADER_NAME.fullmatch(name) else f"number {number}"
                yield Problem(f"headers[{shown}]", reason)

    def _check_addresses(self, validator: AddressValidator) -> Iterable[Problem]:
        if not self.to + self.cc + self.bcc:
            yield Problem("to", "names no recipient")
        elif len(self.recipients) > MAX_RECIPIENTS:
            yield Problem("to", f"has {len(self.recipients)} recipients with cc and bcc; SES takes {MAX_RECIPIENTS}")
        senders = () if self.from_ is None else (self.from_,)
        fields = (("from_", senders), ("to", self.to), ("cc", self.cc), ("bcc", self.bcc), ("reply_to", self.reply_to))
        for name, addresses in fields:
            for position, address in enumerate(addresses):
                try:
                    validator.validate(address)
                except InvalidAddressError as error:
                    yield Problem(f"{name}[{position}]" if name != "from_" else name, error.reason)


def _no_surrogate(message: Message) -> bool:
    """Whether every text can be written as UTF-8."""
    try:
        for part in (message.subject, message.text, message.html):
            if part is not None and not part.isascii():
                part.encode()
    except UnicodeEncodeError:
        return False
    return True


def _header_problem(name: str, value: str, seen: set[str]) -> str | None:
    lowered = name.lower()
    if not _HEADER_NAME.fullmatch(name):
        return "the name must be 1 to 126 printable ASCII characters without space or colon"
    if lowered.startswith("x-ses-"):
        return "X-SES-* headers steer SES and are not for messages; use configuration_set= or tags="
    if lowered in _OWN_HEADERS:
        return f"is not for headers=: {_OWN_HEADERS[lowered]}"
    if lowered in seen:
        return "is given twice"
    if not _HEADER_VALUE.fullmatch(value):
        return "the value must be 1 to 995 printable ASCII characters"
    if len(name) + len(value) > _MAX_HEADER_CHARACTERS:
        return f"name and value have more than {_MAX_HEADER_CHARACTERS} characters"
    return None


def check_tags(tags: Mapping[str, str]) -> Iterable[Problem]:
    """What is wrong with message tags; values may hold data and are not repeated."""
    for number, (name, value) in enumerate(tags.items(), 1):
        if not _TAG.fullmatch(name):
            yield Problem(f"tags[number {number}]", "the name must be 1 to 256 letters, digits, _ or -")
        elif not _TAG.fullmatch(value):
            yield Problem(f"tags[{name}]", "the value must be 1 to 256 letters, digits, _ or -")


def key_tag(key: str) -> Mapping[str, str]:
    """
    The message tag by which SES's events find their way back to *key*.

    Hashed, because a key may hold anything, and tags are letters, digits, ``_`` and ``-`` that everybody can read.
    """
    import hashlib  # noqa: PLC0415  (only here: keeps the import of the package quick)

    return {KEY_TAG: hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]}


_shared_validator: list[AddressValidator] = []


def default_validator() -> AddressValidator:
    """The strict validator that is used where none was given; one for the process, so that its cache is shared."""
    if not _shared_validator:
        from ._validator import AddressValidator  # noqa: PLC0415  (only here: keeps the import of the package quick)

        _shared_validator.append(AddressValidator())
    return _shared_validator[0]
