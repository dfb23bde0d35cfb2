"""
Judging addresses: what SES takes and mail can reach.

email-validator knows the syntax of mail and IDNA 2008. SES is stricter in one way, it has no SMTPUTF8 and so takes
ASCII before the ``@`` only, and laxer in others: it accepts over-long parts, hyphens at the ends of labels, domains
without a dot and address literals, none of which can be reached. So our own rules come first, because they give the
reason in words, and email-validator has the last word on whatever they let pass. No option of it, and none of its
module globals, which a program may change for its own purposes, has a say here.

What stands before the ``@`` is decided by one expression, except quoted strings. Domains repeat, so the verdict on
each is kept.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import attrs

from ._addresses import Address, has_control
from .exceptions import InvalidAddressError

if TYPE_CHECKING:
    from email_validator import ValidatedEmail

REASONS = {
    "empty": "there is no address",
    "too_long": "the address is longer than 254 characters",
    "no_at": 'there is no "@"',
    "no_local": 'nothing stands before the "@"',
    "no_domain": 'nothing stands after the "@"',
    "display_name": "a name stands beside the address; give them to Address.parse, which takes them apart",
    "several": "this is more than one address; each needs an entry of its own",
    "whitespace": "the address has white space or a control character in it",
    "invisible": "the address has an invisible character in it, such as the byte order mark some programs put in files",
    "local_not_ascii": 'a character before the "@" is not ASCII, and SES cannot send to such an address (no SMTPUTF8)',
    "local_too_long": 'what stands before the "@" is longer than 64 characters',
    "local_dot": 'before the "@", a dot stands first, last or beside another dot',
    "local_quote": 'the quotes before the "@" are not used as they may be: around all of it, with backslashes inside',
    "local_character": 'a character before the "@" may only be used within quotes',
    "domain_literal": "the domain is a network address in brackets, not a name",
    "domain_dot": "in the domain, a dot stands first, last or beside another dot",
    "domain_character": "the domain has a character that domain names do not have",
    "domain_hyphen": "a part of the domain begins or ends with a hyphen",
    "domain_too_long": "a part of the domain, between two dots, is longer than 63 characters",
    "domain_no_dot": "the domain is a single word; it lacks an ending such as .com",
    "domain_numeric": "the domain does not end in a letter, as all public domains do",
    "domain_mapped": "the domain has letters or dots in another form, such as full-width; write it in the usual form",
    "domain_idna": "the domain is not a valid internationalised domain name (IDNA 2008), or too long as Punycode",
    "domain_reserved": "the domain is reserved and belongs to nobody, such as those that end in .invalid or .test",
    "name_control": "the display name has a control character or a line break in it",
    "name_surrogate": "the display name has half of a surrogate pair in it, which is no character",
    "name_too_long": "the address is longer than 320 characters together with its display name as encoded",
}
"""Every reason for which an address is refused, by the `code` of the error."""

_MAX_EMAIL = 254
_MAX_LOCAL = 64
_MAX_LABEL = 63
# SES counts ``Name <address>``, with the name encoded.
_MAX_WITH_NAME = 320

# IANA's special-use names (RFC 6761, 6762, 7686, 9476) and ICANN's .internal. RFC 6761 asks applications not to treat
# the example domains as special.
_RESERVED = frozenset({"alt", "arpa", "internal", "invalid", "local", "localhost", "onion", "test"})

_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
_DOMAIN_CHARACTERS = re.compile("[a-z0-9.\x80-\U0010ffff-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


@attrs.frozen
class _Refusal:
    code: str


class AddressValidator:
    """
    Decide which addresses to send to, with a reason for each refusal.

    One validator serves any number of threads and tasks. It does no I/O: whether a domain or mailbox exists is not
    asked. It keeps the verdicts on the domains it met last.

    Args:
        allow_reserved_domains: Take domains such as ``example.test`` and ``host.localhost``, for tests. No mail
            reaches them.
        cache_domains: How many domains to keep a verdict on. Four thousand, some hundred bytes each, cover nearly all
            of a usual list.
    """

    def __init__(self, *, allow_reserved_domains: bool = False, cache_domains: int = 4096) -> None:
        self._allow_reserved = allow_reserved_domains
        # The standard library's cache is bounded and safe to share between threads.
        self._judge = lru_cache(maxsize=cache_domains)(partial(_judge_domain, allow_reserved=allow_reserved_domains))

    def __repr__(self) -> str:
        cached = self._judge.cache_info().currsize
        return f"<AddressValidator allow_reserved_domains={self._allow_reserved}, {cached} domains cached>"

    def validate(self, text: str | Address) -> Address:
        """
        Judge one address and bring it into the form that goes on the wire.

        A `str` is a bare address and taken literally: no display name, nothing trimmed. In an `Address` both parts are
        judged, and their length together as SES measures it.

        Returns:
            The address with its local part and name as written and its domain in lower-case Punycode.

        Raises:
            InvalidAddressError: It is refused; `code` is a key of `REASONS`, `reason` its text. Neither says which
                address it was.
            TypeError: *text* is neither a `str` nor an `Address`.

        Source: RFC 5321 sections 4.1.2 and 4.5.3.1, RFC 5891; Amazon SES API v2, "Destination"; what SES was seen to
        refuse.
        """
        name, email = (text.name, text.email) if isinstance(text, Address) else ("", text)
        if not isinstance(email, str):
            raise TypeError(f"an address must be a str or an Address, not {type(email).__name__}")
        if len(email) > _MAX_EMAIL:  # before anything else, so that no text costs more than this
            raise _refused("too_long")
        local, at, domain = email.rpartition("@")
        if len(local) > _MAX_LOCAL or not _DOT_ATOM.fullmatch(local):
            code = _unusual_local_problem(local, at, domain)
            if code:
                raise _refused(code)
        verdict = self._judge(domain)
        if isinstance(verdict, _Refusal):
            raise _refused(verdict.code)
        if len(local) + 1 + len(verdict) > _MAX_EMAIL:  # Punycode is longer
            raise _refused("too_long")
        address = text if verdict == domain and isinstance(text, Address) else Address(name, f"{local}@{verdict}")
        if name:
            _check_name(address)
        return address


def _refused(code: str) -> InvalidAddressError:
    return InvalidAddressError(REASONS[code], code=code)


def _unusual_local_problem(local: str, at: str, domain: str) -> str | None:
    """Find what is wrong with a local part that is no plain dot-atom of a usual length; None for a quoted string."""
    if not at:
        return "no_at" if domain.strip() else "empty"
    if _QUOTED.fullmatch(local) and len(local) <= _MAX_LOCAL:
        return None if _ask(f"{local}@a.z") else "local_quote"
    if domain.endswith(">") and "<" in local:
        return "display_name"
    if "@" in local and ("," in local or ";" in local):
        return "several"
    return _local_problem(local)


def _local_problem(local: str) -> str:
    if not local:
        return "no_local"
    if _DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local):
        return "local_too_long"
    unseen = _unseen(local)
    if unseen and (has_control(local) or '"' not in local):
        return unseen
    if not local.isascii():
        return "local_not_ascii"
    if '"' in local:
        return "local_quote"
    return "local_dot" if _has_stray_dot(local) else "local_character"


def _unseen(text: str) -> str | None:
    """Name white space, control characters and what cannot be seen at all."""
    if has_control(text) or any(map(str.isspace, text)):
        return "whitespace"
    return "invisible" if any(unicodedata.category(character) == "Cf" for character in text) else None


def _has_stray_dot(text: str) -> bool:
    return text.startswith(".") or text.endswith(".") or ".." in text


def _judge_domain(domain: str, *, allow_reserved: bool) -> str | _Refusal:
    """Bring a domain into lower-case Punycode, or say why not."""
    # Character by character, as IDNA maps: str.lower would give a capital sigma another form at the end of a word.
    lowered = unicodedata.normalize("NFC", "".join(map(str.lower, domain)))
    code = _domain_problem(lowered)
    if code:
        return _Refusal(code)
    verdict = _punycode(lowered)
    if isinstance(verdict, _Refusal):
        return verdict
    if not verdict[-1].isalpha():
        return _Refusal("domain_numeric")
    if not allow_reserved and verdict.rpartition(".")[2] in _RESERVED:
        return _Refusal("domain_reserved")
    return verdict


def _domain_problem(domain: str) -> str | None:
    if not domain:
        return "no_domain"
    if domain.startswith("["):
        return "domain_literal"
    unseen = _unseen(domain)
    if unseen:
        return unseen
    if not _DOMAIN_CHARACTERS.fullmatch(domain):
        return "domain_character"
    if "\u3002" in domain or unicodedata.normalize("NFKC", domain) != domain:
        return "domain_mapped"
    if _has_stray_dot(domain):
        return "domain_dot"
    return _labels_problem(domain.split("."))


def _labels_problem(labels: list[str]) -> str | None:
    if any(label.startswith("-") or label.endswith("-") for label in labels):
        return "domain_hyphen"
    # A label only grows when it is encoded.
    if any(len(label) > _MAX_LABEL for label in labels):
        return "domain_too_long"
    return "domain_no_dot" if len(labels) == 1 else None


def _punycode(domain: str) -> str | _Refusal:
    """
    Let email-validator encode and check *domain*, which is in lower case and has a dot.

    It compares the end of a domain with a list that programs may edit, and has no option to leave that out. So it is
    shown the domain with another ending, one letter long. An ending that needs its eye, being Punycode or not ASCII,
    is kept before that letter, which makes the longest such domain two characters shorter than it could be.
    """
    head, _, ending = domain.rpartition(".")
    if not ending.isascii() or ending[2:4] == "--":
        head, ending = domain, ""
    found = _ask(f"a@{head}.z")
    if found is None:
        return _Refusal("domain_idna")
    encoded, shown = found.ascii_domain.removesuffix(".z"), found.domain.removesuffix(".z")
    pairs = list(zip(encoded.split("."), shown.split("."), strict=True))
    given = head.split(".")
    # Whatever IDNA would map without a word, such as full-width letters, is another domain than the one written.
    if len(given) != len(pairs) or not all(label in pair for label, pair in zip(given, pairs, strict=True)):
        return _Refusal("domain_mapped")
    return f"{encoded}.{ending}" if ending else encoded


def _ask(email: str) -> ValidatedEmail | None:
    """Ask email-validator, every option given; None if it refuses. Its texts may repeat the address: they end here."""
    from email_validator import validate_email

    try:
        return validate_email(
            email,
            allow_smtputf8=False,
            allow_empty_local=True,  # quoted, RFC 5321 permits it; nothing at all before the "@" never gets here
            allow_quoted_local=True,
            allow_domain_literal=False,
            allow_display_name=False,
            strict=True,
            check_deliverability=False,
            test_environment=False,
            globally_deliverable=True,
            timeout=1,
            dns_resolver=None,
        )
    except ValueError:  # EmailNotValidError, and UnicodeError for half surrogate pairs
        return None


def _check_name(address: Address) -> None:
    name = address.name
    if has_control(name):
        raise _refused("name_control")
    if _SURROGATE.search(name):
        raise _refused("name_surrogate")
    # Encoded, a name has less than nine characters for each of its own and 90 more: most need no counting.
    if 9 * len(name) + 90 + len(address.email) > _MAX_WITH_NAME and len(address.header()) > _MAX_WITH_NAME:
        raise _refused("name_too_long")
