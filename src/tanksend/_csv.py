"""CSV files of ours: only this user may read them, and no spreadsheet runs a cell as a formula."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ._report import harmless, open_private

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

_DAY = re.compile("[0-9]{8}")
_FORMULAS = ("'=", "'+", "'-", "'@", "'\t", "'\r")


class PrivateCsv:
    """A file that is written from the beginning. Blocks while it writes."""

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str]) -> None:
        import csv  # only here: keeps the import of the package quick

        # The replacement is for halves of surrogate pairs: an export has to be complete.
        self._file = open(  # noqa: SIM115  (closed below)
            path, "w", encoding="utf-8", errors="backslashreplace", newline="", opener=open_private
        )
        self._writer = csv.writer(self._file)
        self._writer.writerow(columns)

    def write(self, lines: Iterable[Iterable[str | None]]) -> None:
        """Add lines."""
        self._writer.writerows([harmless(cell) for cell in line] for line in lines)

    def close(self) -> None:
        """Write what is buffered and close."""
        self._file.close()


def as_written(cell: str) -> str:
    """A cell without the apostrophe that `harmless` put before it."""
    return cell[1:] if cell.startswith(_FORMULAS) else cell


def moment(at: float | None) -> str | None:
    """A Unix time for people and for `seconds_of`: ISO 8601 in UTC, to the microsecond."""
    if at is None:
        return None
    import datetime as dt  # only here: keeps the import of the package quick

    try:
        return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return repr(at)


def seconds_of(text: str) -> float:
    """
    The Unix time that a cell says: a number, or ISO 8601, which is UTC unless it says otherwise.

    Eight digits are a day, and not one of 1970.

    Raises:
        ValueError: It is neither.
    """
    try:
        seconds = math.nan if _DAY.fullmatch(text) else float(text)
    except ValueError:
        seconds = math.nan
    if not math.isnan(seconds):  # which SQLite would keep as nothing, and nothing never ends
        return seconds
    import datetime as dt  # only here: keeps the import of the package quick

    found = dt.datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
