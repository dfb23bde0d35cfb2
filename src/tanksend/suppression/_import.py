"""Suppression lists as CSV: what other programs, SES among them, write and what ours reads."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .._addresses import Address
from .._csv import as_written, seconds_of
from .._messages import default_validator
from ..exceptions import InvalidAddressError, Problem, SettingError
from ..typing import SuppressionReason
from ._people import person

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from types import ModuleType

COLUMNS = ("address", "reason", "at", "evidence", "expires_at")
"""What an export has, and what a file without a first line of names is taken to have, as far as it goes."""

_ALSO_CALLED = {
    "email": "address",
    "emailaddress": "address",
    "recipient": "address",
    "time": "at",
    "timestamp": "at",
    "lastupdatetime": "at",
    "createdat": "at",
    "expires": "expires_at",
    "expiresat": "expires_at",
}
_REASONS = {reason.value: reason.value for reason in SuppressionReason} | {"": SuppressionReason.MANUAL.value}
# What needs no closer look, which is nearly everything.
_PLAIN = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_PROBLEMS_KEPT = 1_000

Entry = tuple[str, str | None, str, float | None, str | None, float | None]
"""Person, address where it differs, reason, at, evidence, expires at."""


@attrs.frozen
class ImportReport:
    """
    What became of a file.

    Attributes:
        rows: Lines with something in them, the names of the columns left out.
        imported: How many of them are in the list now.
        problems: The first 1,000 of those that are not: ``line 7``, and why. No address.
    """

    rows: int
    imported: int
    problems: tuple[Problem, ...] = ()

    @property
    def skipped(self) -> int:
        """Rows that could not be used."""
        return self.rows - self.imported

    def __str__(self) -> str:
        return f"{self.imported:,} imported, {self.skipped:,} skipped"


class SuppressionCsv:
    """
    The entries of a file, some thousand at a time. Blocks.

    Raises:
        OSError: It cannot be read.
        SettingError: Its first line names columns, and none is the address.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import csv  # only here: keeps the import of the package quick

        # Bytes that are no UTF-8 spoil their own line only.
        self._seconds_of = lru_cache(seconds_of)  # many rows say the same day
        self._file = Path(path).open(  # noqa: SIM115  (closed below)
            encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self._lines = _Lines(self._file)
        self._records = csv.reader(self._lines)
        self._is_csv = partial(_is_csv, csv)
        self._refused = csv.Error
        self._problems: list[Problem] = []
        self._rows = 0
        self._bad = 0
        self._places = {name: place for place, name in enumerate(COLUMNS)}
        try:
            self._places = self._header()
        except BaseException:
            self._file.close()
            raise

    def some(self, number: int) -> list[Entry]:
        """The next *number* good rows; none at the end."""
        return list(islice(self._entries, number))

    def report(self) -> ImportReport:
        """What has become of the rows so far."""
        return ImportReport(self._rows, self._rows - self._bad, tuple(self._problems))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _header(self) -> dict[str, int]:
        first = next(self._read(), None)
        if first is None or any("@" in cell for cell in first):
            self._entries = self._all(first)
            return self._places
        names = [re.sub("[^a-z]", "", cell.lower()) for cell in first]
        places = {_ALSO_CALLED.get(name, name): place for place, name in enumerate(names)}
        if "address" not in places:
            raise SettingError('the first line of the file names columns, and none of them is "address"')
        self._entries = self._all(None)
        return places

    def _all(self, first: list[str] | None) -> Iterator[Entry]:
        if first is not None:
            yield from self._judged(first)
        for cells in self._read():
            yield from self._judged(cells)

    def _read(self) -> Iterator[list[str]]:
        """The rows that have something in them; what the parser refuses is one bad row."""
        while True:
            self._lines.begin()
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except self._refused:
                cells = None
            if cells is None or self._is_torn(cells):
                self._rows += 1
                self._note("is not CSV" if len(self._lines.taken) == 1 else "has a quote that does not end")
                self._lines.take_back()
            elif any(cells):
                yield cells

    def _is_torn(self, cells: list[str]) -> bool:
        """Whether a quote that somebody forgot took other lines with it: other people. Evidence may go over lines."""
        lines = self._lines.taken
        return len(lines) > 1 and ("\n" in self._cell(cells, "address") or not self._is_csv(lines))

    def _judged(self, cells: list[str]) -> Iterator[Entry]:
        self._rows += 1
        try:
            yield self._entry(cells)
        except _BadRowError as error:
            self._note(error.reason)

    def _note(self, reason: str) -> None:
        self._bad += 1
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(Problem(f"line {self._lines.first}", reason))

    def _entry(self, cells: list[str]) -> Entry:
        _check_text("".join(cells))
        address = self._cell(cells, "address")
        reason = _REASONS.get(self._cell(cells, "reason").lower())
        if reason is None:
            raise _BadRowError("has an unknown reason: it is one of " + ", ".join(SuppressionReason))
        at, expires_at = self._moment(cells, "at"), self._moment(cells, "expires_at")
        name, evidence = _judged_person(address), self._cell(cells, "evidence") or None
        return (name, None if address == name else address, reason, at, evidence, expires_at)

    def _cell(self, cells: list[str], name: str) -> str:
        place = self._places.get(name, len(cells))
        if place >= len(cells):
            return ""
        text = cells[place].strip()
        return as_written(text) if text.startswith("'") else text

    def _moment(self, cells: list[str], name: str) -> float | None:
        text = self._cell(cells, name)
        if not text:
            return None
        try:
            return self._seconds_of(text)
        except ValueError:
            raise _BadRowError(f"has something in {name} that is no time: write 2026-11-24T09:00:00Z") from None


class _Lines:
    """
    The lines of a file, which can be given again.

    Attributes:
        first: The number of the first one of the row under way, from 1.
        taken: All of it.
    """

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self._again: deque[str] = deque()
        self.first = 1
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.taken.append(line)
        return line

    def begin(self) -> None:
        """A row begins with the next line."""
        self.first += len(self.taken)
        self.taken.clear()

    def take_back(self) -> None:
        """Give all but the first of the row again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _is_csv(csv: ModuleType, lines: Iterable[str]) -> bool:
    """Whether the quotes of *lines* are all in order. The parser's usual patience ends where a row goes over lines."""
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error:
        return False
    return True


class _BadRowError(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRowError("is not UTF-8") from None


def _judged_person(address: str) -> str:
    """The person; an address that nobody can write to suppresses nobody, and is most likely a slip."""
    plain = address.lower()
    if _PLAIN.fullmatch(plain):
        return plain
    try:
        default_validator().validate(Address.parse(address).email)
    except InvalidAddressError as error:
        raise _BadRowError(f"has an address that cannot be used: {error.reason}") from None
    return person(address)
