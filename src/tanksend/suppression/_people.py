"""Who an address belongs to, for a suppression list."""

from __future__ import annotations

from .._addresses import Address
from .._messages import default_validator
from ..exceptions import InvalidAddressError
from ..typing import Suppression


def person(address: str) -> str:
    """The one name of a person under all spellings of the address: of case, space, display name and domain."""
    if address.isascii() and "<" not in address:
        return address.strip().lower()
    parsed = Address.parse(address)
    try:
        return default_validator().validate(parsed.email).key
    except InvalidAddressError:  # nobody can write to it, so how it is kept does not matter
        return parsed.key


def check_entry(entry: object) -> None:
    """See that *entry* is a `Suppression`. Raises `TypeError`."""
    if not isinstance(entry, Suppression):
        raise TypeError(f"only a Suppression can be added, such as Suppression(address), not {type(entry).__name__}")
