"""The rows of an SQLite ledger, as one transaction sees and changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._results import Status
from .._sqlite import Schema, snapshot
from ..typing import LedgerEntry
from ._keys import digest
from ._states import Row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from ._states import View

STATUSES: tuple[Status | None, ...] = (
    None,
    Status.SENT,
    Status.UNKNOWN,
    Status.FAILED,
    Status.HELD,
    Status.INVALID,
    Status.SUPPRESSED,
)
"""What the numbers in the file stand for; 0 is claimed. Part of the schema: only ever appended to."""

CODES = {status: code for code, status in enumerate(STATUSES)}
CLAIMED, UNKNOWN = CODES[None], CODES[Status.UNKNOWN]

# Rows are appended, so that what is claimed together is written together; only the index is in the order of digests.
SCHEMA = Schema(
    part="ledger",
    application_id=0x744C6467,  # "tLdg"
    steps=(
        (
            """
            CREATE TABLE entry (
                id INTEGER PRIMARY KEY,
                digest BLOB NOT NULL,
                key NOT NULL,
                status INTEGER NOT NULL,
                owner INTEGER,
                until REAL,
                doubt INTEGER NOT NULL,
                message_id TEXT,
                error_code TEXT,
                at REAL NOT NULL
            )
            """,
            "CREATE UNIQUE INDEX entry_by_digest ON entry (digest)",
        ),
    ),
)

_COLUMNS = "status, owner, until, doubt, message_id, error_code, at"
_FIND = f"SELECT id, {_COLUMNS} FROM entry WHERE digest = ?"  # noqa: S608  (names of ours)
_INSERT = f"INSERT INTO entry (digest, key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UPDATE = "UPDATE entry SET status=?, owner=?, until=?, doubt=?, message_id=?, error_code=?, at=? WHERE id=?"
_ASKED_AT_ONCE = 250  # SQLite allows 999 parameters and more; longer statements are no faster


class Book:
    """
    Rows by digest: read when they are first asked for, written when the transaction ends.

    What is claimed and recorded in one group is seen by the rest of the group.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: dict[bytes, Row | None] = {}
        self._places: dict[bytes, int] = {}
        self._changed: dict[bytes, str | bytes] = {}

    def get(self, name: bytes) -> Row | None:
        """The row of a digest."""
        if name not in self._rows:
            found = self._connection.execute(_FIND, (name,)).fetchone()
            if found is not None:
                self._places[name] = found[0]
            self._rows[name] = None if found is None else row_of(found[1:])
        return self._rows[name]

    def put(self, name: bytes, row: Row, key: str | bytes = b"") -> None:
        """Change a row, or make one for *key*."""
        self._rows[name] = row
        self._changed[name] = key or self._changed.get(name, b"")

    def turn_over(self) -> sqlite3.Connection:
        """Write what was changed and forget what was read: for work that looks at the rows by itself."""
        self.write()
        self._rows.clear()
        self._places.clear()
        return self._connection

    def write(self) -> None:
        """Write what was changed."""
        made, changed = [], []
        for name, key in self._changed.items():
            values = _values(self._rows[name])
            if name in self._places:
                changed.append((*values, self._places[name]))
            else:
                made.append((name, key, *values))
        self._changed.clear()
        if made:
            self._connection.executemany(_INSERT, made)
        if changed:
            self._connection.executemany(_UPDATE, changed)


def row_of(values: Sequence[Any]) -> Row:
    """A row from its columns."""
    status, owner, until, doubt, message_id, error_code, at = values
    return Row(STATUSES[status], owner, until or 0.0, bool(doubt), _told(message_id), _told(error_code), at)


def _values(row: Row | None) -> tuple[object, ...]:
    assert row is not None  # noqa: S101  (what was put is there)
    until = row.until or None
    texts = (_kept(row.message_id), _kept(row.error_code))
    return (CODES[row.status], row.owner, until, int(row.doubt), *texts, row.at)


def kept(key: str) -> str | bytes:
    """The key as the file holds it: text, or bytes where it is no Unicode text (half a surrogate pair)."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")
    return key


def told(key: str | bytes) -> str:
    """The key as it was given."""
    return key if isinstance(key, str) else key.decode("utf-8", "surrogatepass")


def _kept(text: str | None) -> str | bytes | None:
    return None if text is None else kept(text)


def _told(text: str | bytes | None) -> str | None:
    return None if text is None else told(text)


def find(connection: sqlite3.Connection, keys: Sequence[str], view: View) -> Mapping[str, LedgerEntry]:
    """What is known of *keys*, some hundred at a time. The one place here where microseconds count."""
    found: dict[str, LedgerEntry] = {}
    for start in range(0, len(keys), _ASKED_AT_ONCE):
        names = {digest(key): key for key in keys[start : start + _ASKED_AT_ONCE]}
        marks = ",".join("?" * len(names))
        query = f"SELECT digest, status, owner, until, message_id, error_code, at FROM entry WHERE digest IN ({marks})"  # noqa: S608
        for name, code, owner, until, message_id, error_code, at in connection.execute(query, tuple(names)):
            key, status = names[name], STATUSES[code]
            if status is None:
                status = view.fate(Row(None, owner, until or 0.0))
            found[key] = LedgerEntry(key, status, _told(message_id), _told(error_code), at)
    return found


def page(
    connection: sqlite3.Connection, *, after: int, codes: Sequence[int], size: int, view: View
) -> tuple[int, list[LedgerEntry]]:
    """The next entries of these statuses, in the order in which their keys came, and the place of the last."""
    wanted = ",".join(map(str, codes))
    query = f"SELECT id, key, {_COLUMNS} FROM entry WHERE id > ? AND status IN ({wanted}) ORDER BY id LIMIT ?"  # noqa: S608
    found: list[LedgerEntry] = []
    for place, key, *values in connection.execute(query, (after, size)):
        found.append(view.entry(told(key), row_of(values)))
        after = place
    return after, found


def count(connection: sqlite3.Connection, view: View) -> Mapping[Status | None, int]:
    """Keys by fate, as *view* sees them."""
    with snapshot(connection):
        return _counted(connection, view)


def _counted(connection: sqlite3.Connection, view: View) -> Mapping[Status | None, int]:
    counts = dict.fromkeys(STATUSES, 0)
    sums = ",".join(f"total(status = {code})" for code in range(len(STATUSES)))
    numbers = connection.execute(f"SELECT {sums} FROM entry").fetchone()  # noqa: S608  (numbers alone)
    counts.update({status: int(number) for status, number in zip(STATUSES, numbers, strict=True)})
    query = "SELECT owner, until, count(*) FROM entry WHERE status = ? GROUP BY owner, until > ?"
    for owner, until, number in connection.execute(query, (CLAIMED, view.now)):
        if not view.is_open(Row(None, owner, until or 0.0)):
            counts[None] -= number
            counts[Status.UNKNOWN] += number
    return counts


def purge(connection: sqlite3.Connection, places: tuple[int, int], before: float, now: float, *, unknown: bool) -> int:
    """Delete old rows of a range of places."""
    query = "DELETE FROM entry WHERE id > ? AND id <= ? AND at < ? AND status NOT IN (?, ?)"
    gone = connection.execute(query, (*places, before, CLAIMED, UNKNOWN)).rowcount
    if unknown:
        query = "DELETE FROM entry WHERE id > ? AND id <= ? AND at < ? AND (status = ? OR status = ? AND until <= ?)"
        gone += connection.execute(query, (*places, before, UNKNOWN, CLAIMED, now)).rowcount
    return gone
