"""The people of the demo: rows of a CSV file, each with its address judged."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import attrs

from .._addresses import Address
from .._validator import AddressValidator
from ..exceptions import InvalidAddressError
from ..typing import Suppression, SuppressionReason

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from pathlib import Path

_NEEDED = {"name", "email"}
_REASONS = {reason.value for reason in SuppressionReason}


@attrs.frozen(repr=False)
class Person:
    """
    One row.

    Args:
        line: Where it ends in the file, from 1.
        address: As written, less white space around it.
        judged: The address in the form that goes on the wire; None if it is a bad one.
        language: Which letter to write: ``en``, ``id``, ``ja``, ``ko``.
        suppressed: Why nobody may write to this person; None if everybody may.
    """

    line: int
    address: Address
    judged: Address | None = None
    language: str = "en"
    suppressed: SuppressionReason | None = None

    @property
    def identity(self) -> Hashable:
        """The same for all rows that mean one person; a bad address is nobody, and so stays a row of its own."""
        return self.line if self.judged is None else self.judged.key

    def __repr__(self) -> str:
        return f"<Person line={self.line}>"


def read_people(path: Path) -> list[Person]:
    """
    Read a UTF-8 file with the columns ``name`` and ``email``, and perhaps ``language`` and ``suppressed``.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file. The text repeats nothing of it.
    """
    validator = AddressValidator()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="")
            columns = {name: name.strip().lower() for name in rows.fieldnames or ()}
            if not _NEEDED.issubset(columns.values()):
                raise ValueError("the first line must name the columns, name and email among them")
            cells = ({columns[name]: cell.strip() for name, cell in row.items() if name in columns} for row in rows)
            return [_person(rows.line_num, row, validator) for row in cells]
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    except csv.Error:
        raise ValueError("the file is not CSV") from None


def _person(line: int, row: Mapping[str, str], validator: AddressValidator) -> Person:
    # Two columns make an Address, not f"{name} <{email}>": whatever a cell holds, it cannot add a second recipient.
    address = Address(row["name"], row["email"])
    why = row.get("suppressed", "").lower()
    reason = None if not why else SuppressionReason(why if why in _REASONS else "manual")
    return Person(line, address, _judged(address, validator), row.get("language", "").lower() or "en", reason)


def _judged(address: Address, validator: AddressValidator) -> Address | None:
    try:
        return validator.validate(address)
    except InvalidAddressError:
        return None


def each_once(people: Iterable[Person]) -> list[Person]:
    """The first row of each person: a list from several sources names people twice, and spells them differently."""
    first: dict[Hashable, Person] = {}
    for person in people:
        first.setdefault(person.identity, person)
    return list(first.values())


def suppressions(people: Iterable[Person]) -> list[Suppression]:
    """Who must not be written to, if only one of a person's rows says so."""
    return [Suppression(p.judged.email, p.suppressed) for p in people if p.judged and p.suppressed]
