"""
Addresses as SES judges them: JavaMail's strict check, with its texts, in its order.

Written from JavaMail's rules and not from this package's own validator, so that the two can be held against each other.
Like SES it is laxer than the RFCs in places (dotless domains, long local parts) and stricter in others (ASCII only).

Source: Jakarta Mail, ``InternetAddress.checkAddress``, as of 1.5 where everything from 0x7F up counts as control.
"""

from __future__ import annotations

import re

from ._answers import Refusal, bad_request

MAX_ADDRESS_UNITS = 320  # UTF-16 units of the whole "Name <address>"

_SPECIALS = frozenset('()<>,;:\\"[]@')
_DELETE = 0x7F
# What nearly every address looks like. Letting it pass at once changes no verdict.
_PLAIN = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_SIMULATOR = re.compile(
    r"(success|bounce|complaint|ooto|suppressionlist)(?:\+[^@]*)?@simulator\.amazonses\.com", re.IGNORECASE
)


def mailbox(text: str) -> str:
    """
    The bare address of ``Name <address>`` or ``address``.

    Raises:
        Refusal: It is not exactly one address by JavaMail's rules.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return text
    address = _bare(text)
    check_address(address)
    return address


def check_length(text: str) -> None:
    """
    Hold the whole text, display name included, to 320 UTF-16 units.

    Raises:
        Refusal: It is longer.
    """
    if len(text) > MAX_ADDRESS_UNITS // 2 and len(text.encode("utf-16-le", "surrogatepass")) // 2 > MAX_ADDRESS_UNITS:
        raise bad_request(f"Address length is more than {MAX_ADDRESS_UNITS} characters long: '{text}'.")


def simulated_mailbox(address: str) -> str | None:
    """Which of SES's mailbox-simulator addresses it is, ``bounce`` for ``bounce+any@…``; None for any other."""
    if address[-4:].lower() != ".com":
        return None
    match = _SIMULATOR.fullmatch(address)
    return match[1].lower() if match else None


def _bare(text: str) -> str:
    """Take the display name off."""
    opening = _outside_quotes(text)
    if opening is None:
        return text
    if not text.endswith(">"):
        raise _illegal()
    return text[opening + 1 : -1]


def _outside_quotes(text: str) -> int | None:
    """Where the angle bracket opens; commas before it make a list, which is not one address."""
    quoted = False
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted and character == "<":
            return position
        elif not quoted and character in ",;" and "<" in text:
            raise _illegal()
        position += 1
    return None


def _illegal() -> Refusal:
    return bad_request("Illegal address")


def check_address(address: str) -> None:
    """
    Check one bare address.

    Raises:
        Refusal: With JavaMail's text for the first thing wrong.
    """
    if not address:
        raise _illegal()
    at = _check_local(address)
    if at is None:
        raise bad_request("Missing final '@domain'")
    _check_domain(address[at + 1 :])


def _check_local(address: str) -> int | None:
    """Walk the local part; the position of the "@" that ends it, None when there is none."""
    quoted = False
    last = ""
    for position, character in enumerate(address):
        escaped = character == "\\" or last == "\\"
        if character == '"' and not escaped:
            quoted = _turn_quote(address, position, quoted=quoted)
        elif not quoted and not escaped:
            if character == "@":
                _check_local_end(position, last)
                return position
            _check_local_character(character, last, position)
        last = character
    if quoted:
        raise bad_request("Unterminated quote")
    return None


def _turn_quote(address: str, position: int, *, quoted: bool) -> bool:
    if quoted and position + 1 < len(address) and address[position + 1] != "@":
        raise bad_request("Quote not at end of local address")
    if not quoted and position != 0:
        raise bad_request("Unexpected quote in local address")
    return not quoted


def _check_local_end(position: int, last: str) -> None:
    if position == 0:
        raise bad_request("Missing local name")
    if last == ".":
        raise bad_request("Local address ends with dot")


def _check_local_character(character: str, last: str, position: int) -> None:
    if character == "." and position == 0:
        raise bad_request("Local address starts with dot")
    if character == "." and last == ".":
        raise bad_request("Local address contains dot-dot")
    if character <= " " or ord(character) >= _DELETE:
        raise bad_request("Local address contains control or whitespace")
    if character in _SPECIALS:
        raise bad_request("Local address contains illegal character")


def _check_domain(domain: str) -> None:
    if not domain:
        raise bad_request("Missing domain")
    if domain[0] == ".":
        raise bad_request("Domain starts with dot")
    literal = False
    last = ""
    for position, character in enumerate(domain):
        if character in "[]":
            literal = _turn_literal(domain, position)
        else:
            _check_domain_character(character, last, literal=literal)
        last = character
    if last == ".":
        raise bad_request("Domain ends with dot")


def _turn_literal(domain: str, position: int) -> bool:
    if domain[position] == "[" and position != 0:
        raise bad_request("Domain literal not at start of domain")
    if domain[position] == "]" and position != len(domain) - 1:
        raise bad_request("Domain literal end not at end of domain")
    return domain[position] == "["


def _check_domain_character(character: str, last: str, *, literal: bool) -> None:
    if character <= " " or ord(character) >= _DELETE:
        raise bad_request("Domain contains control or whitespace")
    if literal:
        return
    if not (character.isalnum() or character in "-."):
        raise bad_request("Domain contains illegal character")
    if character == "." and last == ".":
        raise bad_request("Domain contains dot-dot")
