"""
What is sent: `Message`, its `Attachment`, `Unsubscribe` and `Priority`.

Building a message raises for a programming error only (a wrong type, no content at all). What the data got wrong is
listed by `Message.check`, which applies SES's own rules before SES would.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from .._addresses import Address, has_control, parse_addresses
from ..exceptions import InvalidAddressError, InvalidMessageError, Problem
from ._digest import campaign_key
from ._extras import UNSUBSCRIBE_HEADERS, Attachment, Unsubscribe, within, wrong_type
from ._mime_content import MimeContent
from ._rules import (
    BLOCKED_EXTENSIONS,
    HALF_PAIR,
    KEY_TAG,
    MAX_ENCODED_BYTES,
    MAX_PARTS,
    MAX_RECIPIENTS,
    SET_NAME,
    are_tags,
    base64_size,
    check_headers,
    check_tags,
    is_encodable,
)
from ._templates import MAX_DATA_CHARACTERS, MAX_INLINE_BYTES, NO_DATA, Template, TemplateData, read_only_data

if TYPE_CHECKING:
    import datetime as dt
    from email.message import EmailMessage
    from typing import Self

    from .._validator import AddressValidator

__all__ = [
    "BLOCKED_EXTENSIONS",
    "KEY_TAG",
    "MAX_INLINE_BYTES",
    "MAX_RECIPIENTS",
    "NO_DATA",
    "SET_NAME",
    "Attachment",
    "Message",
    "MimeContent",
    "Priority",
    "Template",
    "TemplateData",
    "Unsubscribe",
    "campaign_key",
    "check_tags",
    "default_validator",
    "key_tag",
]

_STR_OR_NONE = frozenset({str, type(None)})


class Priority(enum.IntEnum):
    """The lane of a message: the lower number takes the next slot."""

    TRANSACTIONAL = 0
    BULK = 1


# Converters. All fields of every message go through theirs, so what is usual comes first and costs little.


def _addresses(value: str | Address | Iterable[str | Address]) -> tuple[Address, ...]:
    return () if value.__class__ is tuple and not value else parse_addresses(value)


def _one_address(value: str | Address | None) -> Address | None:
    """A single From address; what does not split into one is kept whole, for `Message.check` to refuse."""
    return value if value is None or isinstance(value, Address) else Address.parse(value)


def _attachments(value: Iterable[Attachment]) -> tuple[Attachment, ...]:
    if isinstance(value, Attachment):
        raise TypeError("attachments must be a list or tuple of Attachment values, not one of them")
    items = tuple(value)
    for item in items:
        if not isinstance(item, Attachment):
            raise TypeError(f"attachments must hold Attachment values, not {type(item).__name__}")
    return items


_NOTHING: Mapping[str, str] = MappingProxyType({})


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    return value if value is _NOTHING else _read_only("headers", value)


def _tags(value: Mapping[str, str]) -> Mapping[str, str]:
    return value if value is _NOTHING else _read_only("tags", value)


def _read_only(field: str, value: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that nobody can change, neither through the original nor through the message."""
    if not isinstance(value, Mapping):
        raise wrong_type(field, "mapping of str to str", value)
    copy = dict(value)
    for name, item in copy.items():
        if not (isinstance(name, str) and isinstance(item, str)):
            raise TypeError(f"{field} must map str to str, not {type(name).__name__} to {type(item).__name__}")
    return MappingProxyType(copy) if copy else _NOTHING


def _priority(value: Priority | None) -> Priority | None:
    return value if value is None or isinstance(value, Priority) else Priority(value)


@attrs.frozen(repr=False)
class Message:
    """
    One mail: recipients, content, options. Immutable, hashable, and safe to share between threads.

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
        tags: SES message tags (letters, digits, ``_``, ``-``); they come back in events. Like *headers*, copied, and
            read-only from then on.
        configuration_set: Name of the SES configuration set; the sender's default when None.
        unsubscribe: One-click unsubscribe headers.
        priority: The lane; None means bulk in a batch, transactional in `Sender.send`.
        key: The caller's name for this message, unique in a ledger.
        last_active: When the recipient last showed a sign of life, for guards.
        template: What SES makes the content of, with *data*; see `from_template`.
        data: Values for the template's variables. Copied, and read-only from then on.
        mime: Parts that are made already; see `from_mime`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: There is no content, or two of them: *text* and *html*, a template, or MIME; or *priority* is no
            `Priority`.
    """

    to: tuple[Address, ...] = attrs.field(converter=_addresses)
    subject: str
    text: str | None = None
    html: str | None = None
    from_: Address | None = attrs.field(default=None, kw_only=True, converter=_one_address)
    cc: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=_addresses)
    bcc: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=_addresses)
    reply_to: tuple[Address, ...] = attrs.field(default=(), kw_only=True, converter=_addresses)
    attachments: tuple[Attachment, ...] = attrs.field(default=(), kw_only=True, converter=_attachments)
    headers: Mapping[str, str] = attrs.field(default=_NOTHING, kw_only=True, converter=_headers, hash=False)
    tags: Mapping[str, str] = attrs.field(default=_NOTHING, kw_only=True, converter=_tags, hash=False)
    configuration_set: str | None = attrs.field(default=None, kw_only=True)
    unsubscribe: Unsubscribe | None = attrs.field(default=None, kw_only=True)
    priority: Priority | None = attrs.field(default=None, kw_only=True, converter=_priority)
    key: str | None = attrs.field(default=None, kw_only=True)
    last_active: dt.datetime | None = attrs.field(default=None, kw_only=True)
    template: Template | None = attrs.field(default=None, kw_only=True)
    data: TemplateData = attrs.field(default=NO_DATA, kw_only=True, converter=read_only_data, hash=False)
    mime: MimeContent | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def from_template(
        cls,
        template: Template,
        *,
        to: str | Address | Iterable[str | Address],
        data: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """
        A message whose content SES makes of *template* and *data*.

        `check` tells of variables that an inline template needs and *data* lacks: SES would take the mail and drop it.

        Args:
            template: Stored in SES, or inline.
            to: As for `Message`.
            data: Values for the template's variables, of whatever JSON can carry: at most 262,144 characters of it.
            options: Any of `Message`'s keyword arguments but the content.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: *options* bring a content of their own.
        """
        if not isinstance(template, Template):
            raise wrong_type("template", "Template", template)
        return cls(to, options.pop("subject", ""), template=template, data=NO_DATA if data is None else data, **options)

    @classmethod
    def from_mime(cls, mail: EmailMessage | bytes, **options: Any) -> Self:
        """
        A message from one that is made already, with all its parts as they are.

        Args:
            mail: From, To, Cc, Bcc, Reply-To and Subject are read from its headers.
            options: Any of `Message`'s keyword arguments but the content; they go before the headers.

        Raises:
            TypeError: An argument has a wrong type.
        """
        from ._mime_content import message_fields  # loads the standard library's mail parser

        return cls(**{**message_fields(mail), **options})

    def __attrs_post_init__(self) -> None:
        # One look at all types at once: a validator for each field would take longer than everything else here.
        if not {type(self.text), type(self.html), type(self.key), type(self.configuration_set)} <= _STR_OR_NONE:
            self._check_texts()
        if not isinstance(self.subject, str):
            raise wrong_type("subject", "str", self.subject)
        if self.template is not None or self.mime is not None or self.data is not NO_DATA:
            self._check_sources()
        elif self.text is None and self.html is None:
            raise ValueError("a message needs text= or html=")
        if self.unsubscribe is not None and not isinstance(self.unsubscribe, Unsubscribe):
            raise wrong_type("unsubscribe", "Unsubscribe", self.unsubscribe)
        if self.last_active is not None:
            _check_moment(self.last_active)

    def _check_texts(self) -> None:
        for name in ("text", "html", "key", "configuration_set"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise wrong_type(name, "str", value)

    def _check_sources(self) -> None:
        """The content has one source: what is given twice would be sent once, and nobody knows which."""
        if not (self.template is None or isinstance(self.template, Template)):
            raise wrong_type("template", "Template", self.template)
        if not (self.mime is None or isinstance(self.mime, MimeContent)):
            raise wrong_type("mime", "MimeContent", self.mime)
        if self.template is None and self.data:
            raise ValueError("data= is for a message with template=")
        own = self.text is not None or self.html is not None
        if self.template is not None and (own or self.subject or self.mime is not None):
            raise ValueError("a message with template= takes its subject, text and html from it alone")
        if self.mime is not None and own:
            raise ValueError("a message with mime= takes its text and html from it alone")
        if self.template is None and self.mime is None and not own:
            raise ValueError("a message needs text= or html=")

    def __getstate__(self) -> dict[str, Any]:
        # A mapping proxy can be neither pickled nor copied.
        return attrs.asdict(self, recurse=False) | {"headers": dict(self.headers), "tags": dict(self.tags)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "headers", _headers(state["headers"]))
        object.__setattr__(self, "tags", _tags(state["tags"]))

    def __repr__(self) -> str:
        return f"<Message recipients={len(self.recipients)} attachments={len(self.attachments)}>"

    @property
    def recipients(self) -> tuple[Address, ...]:
        """To, Cc and Bcc, each person once and where first named: what SES counts."""
        everyone = self.to + self.cc + self.bcc
        if len(everyone) == 1:
            return everyone
        persons: dict[str, Address] = {}
        for address in everyone:
            persons.setdefault(address.key, address)
        return tuple(persons.values())

    def check(self, validator: AddressValidator | None = None) -> tuple[Problem, ...]:
        """
        List what SES would refuse, by field; empty when nothing is wrong.

        Pure: no network, no clock. The addresses are judged by *validator*, or the strict default.
        """
        if validator is None:
            validator = default_validator()
        return (*self.check_content(), *self._address_problems(validator))

    def check_content(self) -> tuple[Problem, ...]:
        """The part of `check` that does not look at addresses."""
        # A text that is printable throughout has neither control characters nor halves of surrogate pairs.
        if self.subject.isprintable() and self._options_fit_easily() and self._fits_easily():
            return ()
        return tuple(self._content_problems())

    def _options_fit_easily(self) -> bool:
        if self.headers or self.attachments or self.key == "":
            return False
        if self.configuration_set is not None and not SET_NAME.fullmatch(self.configuration_set):
            return False
        if self.unsubscribe is not None and not self.unsubscribe.is_plain:
            return False
        return not self.tags or are_tags(self.tags)

    def _fits_easily(self) -> bool:
        if self.template is not None:
            return self._template_fits(self.template)
        if self.mime is not None:
            return False
        # Four bytes a character, a third more for base64: no need to encode anything to know.
        text, html = self.text or "", self.html or ""
        return (len(text) + len(html)) * 6 < MAX_ENCODED_BYTES and is_encodable(text) and is_encodable(html)

    def _template_fits(self, template: Template) -> bool:
        json = self.data.json
        if json is None or len(json) > MAX_DATA_CHARACTERS or not template.suits(self.data):
            return False
        return template.name is not None or (len(json) + template.characters) * 4 <= MAX_INLINE_BYTES

    def _content_problems(self) -> Iterable[Problem]:
        if has_control(self.subject):
            yield Problem("subject", "has a control character or line break")
        broken = [name for name in ("subject", "text", "html") if not is_encodable(getattr(self, name) or "")]
        yield from (Problem(name, HALF_PAIR) for name in broken)
        if not broken and self._encoded_bytes() > MAX_ENCODED_BYTES:
            yield Problem("content", "is larger than 40 MB once encoded")
        if self.template is not None:
            yield from self._template_problems(self.template)
        if self.mime is not None:
            yield from within("mime", self.mime.check())
        if self.configuration_set is not None and not SET_NAME.fullmatch(self.configuration_set):
            yield Problem("configuration_set", "must be 1 to 64 letters, digits, _ or -")
        if self.key == "":
            yield Problem("key", "is empty; every message without a name would be the same one to a ledger")
        if self.unsubscribe is None:
            yield from check_headers(self.headers, written=0, taken=())
        else:
            yield from check_headers(self.headers, written=len(self.unsubscribe.headers), taken=UNSUBSCRIBE_HEADERS)
        yield from check_tags(self.tags)
        yield from self._attachment_problems()
        if self.unsubscribe is not None:
            yield from within("unsubscribe", self.unsubscribe.check())

    def _encoded_bytes(self) -> int:
        parts = [len((part or "").encode()) for part in (self.text, self.html)]
        # An invitation is a version of the text, too.
        parts += [len(each.content) for each in self.attachments for _ in range(1 if each.method is None else 2)]
        made = 0 if self.mime is None else self.mime.encoded_bytes  # its parts are in their encodings already
        return made + sum(map(base64_size, parts))

    def _template_problems(self, template: Template) -> Iterable[Problem]:
        yield from within("template", template.check())
        try:
            encoded = self.data.encoded
        except InvalidMessageError as error:
            yield from error.problems
            return
        if len(encoded) > MAX_DATA_CHARACTERS:
            yield Problem("data", "has more than 262,144 characters as JSON, which is what SES takes")
        elif template.name is None and template.size <= MAX_INLINE_BYTES < template.size + len(encoded.encode()):
            yield Problem("data", "is larger than 1 MB together with the inline template, which is what SES takes")
        yield from template.data_problems(self.data)
        for position, attachment in enumerate(self.attachments):
            if attachment.method is not None:
                yield Problem(f"attachments[{position}]", "is an invitation, which no templated mail can carry")

    def _attachment_problems(self) -> Iterable[Problem]:
        parts = len(self.attachments) + (self.text is not None) + (self.html is not None)
        if parts > MAX_PARTS:
            yield Problem("attachments", f"make {parts} MIME parts with text and html; SES takes {MAX_PARTS}")
        for position, attachment in enumerate(self.attachments):
            yield from within(f"attachments[{position}]", attachment.check())
        for position in [at for at, attachment in enumerate(self.attachments) if attachment.method is not None][1:]:
            yield Problem(f"attachments[{position}]", "is a second invitation; mail programs show one in a message")

    def _address_problems(self, validator: AddressValidator) -> Iterable[Problem]:
        persons: set[str] = set()
        for field, address in self._named_addresses():
            try:
                person = validator.validate(address).key
            except InvalidAddressError as error:
                person = address.key
                yield Problem(field, error.reason)
            if not field.startswith(("from_", "reply_to")):
                persons.add(person)
        if not persons:
            yield Problem("to", "names no recipient")
        elif len(persons) > MAX_RECIPIENTS:
            yield Problem("to", f"has {len(persons)} recipients with cc and bcc; SES takes {MAX_RECIPIENTS}")

    def _named_addresses(self) -> Iterable[tuple[str, Address]]:
        if self.from_ is not None:
            yield "from_", self.from_
        for name in ("to", "cc", "bcc", "reply_to"):
            for position, address in enumerate(getattr(self, name)):
                yield f"{name}[{position}]", address


def _check_moment(value: object) -> None:
    import datetime as dt  # only here: keeps the import of the package quick

    if not isinstance(value, dt.datetime):
        raise wrong_type("last_active", "datetime", value)


def key_tag(key: str) -> Mapping[str, str]:
    """
    The message tag by which SES's events find their way back to *key*.

    Hashed, because a key may hold anything, and tags are letters, digits, ``_`` and ``-`` that everybody can read.
    """
    import hashlib  # only here: keeps the import of the package quick

    return {KEY_TAG: hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]}


_shared_validator: list[AddressValidator] = []


def default_validator() -> AddressValidator:
    """The strict validator that is used where none was given; one for the process, so that its cache is shared."""
    if not _shared_validator:
        from .._validator import AddressValidator  # only here: keeps the import of the package quick

        _shared_validator.append(AddressValidator())
    return _shared_validator[0]
