"""Suppression in a file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .._clock import SystemClock
from .._csv import PrivateCsv, moment
from .._sqlite import LOCK_SECONDS, Schema, SQLiteFile, plain, when_gone
from ..typing import Clock, Suppression
from ._import import COLUMNS, ImportReport, SuppressionCsv
from ._people import check_entry, person
from ._sorted import Sorted

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from ._import import Entry

SCHEMA = Schema(
    part="suppression",
    application_id=0x74537570,  # "tSup"
    steps=(
        (
            """
            CREATE TABLE suppression (
                person TEXT PRIMARY KEY,
                address TEXT, -- as it was given, where that is not the person
                reason TEXT NOT NULL,
                at REAL,
                evidence TEXT,
                expires_at REAL
            ) WITHOUT ROWID
            """,
        ),
    ),
)

_COLUMNS = "coalesce(address, person), reason, at, evidence, expires_at"
_PUT = "INSERT OR REPLACE INTO suppression VALUES (?, ?, ?, ?, ?, ?)"
_HOLDS = "(expires_at IS NULL OR expires_at > ?)"
_ASKED_AT_ONCE = 250
_MOMENT = 0.000_5  # seconds; 64 look-ups in a file of a million rows take half of it
_ADDRESSES_AT_ONCE = 5_000
_ROWS_AT_ONCE = 1_000
_ROWS_IMPORTED_AT_ONCE = 20_000


class SQLiteSuppressionStore:
    """
    The suppression list in one SQLite file, for as many tasks, threads and processes of this machine as share it.

    Matching is as in `MemorySuppressionStore`. The file and those beside it can be read by this user alone, and hold
    the addresses as they are. What was added or removed is on the disk when the method returns. The file is opened when
    it is first used, and both processes go on after a fork.

    Every method may raise `StorageError`.

    Args:
        path: Of the file; it is made when it is first used.
        lock_timeout: Seconds to wait for another process that writes, before that is an error.
        clock: Where the time for expiry comes from.

    Raises:
        SettingError: *path* names no file.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, lock_timeout: float = LOCK_SECONDS, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._file = SQLiteFile(path, SCHEMA, group=plain, lock_timeout=lock_timeout)
        when_gone(self, self._file)

    async def lookup(self, addresses: Collection[str]) -> Mapping[str, Suppression]:
        """Those of *addresses* that are suppressed now; many at once cost least."""
        found: dict[str, Suppression] = {}
        asked, now = list(addresses), self._clock.wall()
        for start in range(0, len(asked), _ADDRESSES_AT_ONCE):
            some = asked[start : start + _ADDRESSES_AT_ONCE]
            found.update(await self._file.read(partial(_find, addresses=some, now=now), _MOMENT))
        return found

    async def add(self, *entries: Suppression) -> None:
        """Suppress; an entry for a known person replaces it."""
        if entries:
            rows = [_row(entry) for entry in entries]
            await self._file.write(partial(_put, rows=rows))

    async def remove(self, address: str) -> bool:
        """Lift a suppression; False when there was none, or none that still held."""
        return await self._file.write(partial(_remove, name=_name(address), now=self._clock.wall()))

    async def explain(self, address: str) -> Suppression | None:
        """Why *address* is suppressed, or None when it is not."""
        return (await self.lookup([address])).get(address)

    async def entries(self) -> AsyncIterator[Suppression]:
        """All that is suppressed now, in the order of the addresses."""
        after = ""
        while True:
            after, some = await self._file.read(partial(_page, after=after, now=self._clock.wall()))
            if not some:
                return
            for entry in some:
                yield entry

    async def import_csv(self, path: str | os.PathLike[str]) -> ImportReport:
        """
        Add what a file lists, in bounded memory however long it is. An entry for a known person replaces it.

        The first line may name the columns: ``address`` (or ``email``), and any of ``reason``, ``at`` (or
        ``LastUpdateTime``, as SES has it), ``evidence``, ``expires_at``. Without names they stand in this order. Times
        are ISO 8601 or seconds since 1970. A row that cannot be used is skipped, and the report says why.

        When this is cancelled or fails, nothing or a part of the file has been added; to run it again does no harm.

        Raises:
            OSError: The file cannot be read, or there is no room to sort it in the folder for temporary files.
            SettingError: Its first line names columns, and none is the address.
        """
        from anyio.to_thread import run_sync  # only here: keeps the import of the package quick

        self._file.spare(path)
        file = await run_sync(SuppressionCsv, path)
        entries = Sorted(6)
        try:
            while some := await run_sync(file.some, _ROWS_IMPORTED_AT_ONCE):
                await run_sync(entries.put, some)
            while rows := await run_sync(entries.some, _ROWS_IMPORTED_AT_ONCE):
                await self._file.write(partial(_put, rows=rows))
        finally:
            file.close()
            entries.close()
        return file.report()

    async def to_csv(self, path: str | os.PathLike[str]) -> int:
        """
        Write all that is suppressed now to a file that only this user may read, as `import_csv` reads it.

        Returns:
            How many entries there are.

        Raises:
            OSError: The file cannot be written.
        """
        from anyio.to_thread import run_sync  # only here: keeps the import of the package quick

        self._file.spare(path)
        number, after = 0, ""
        file = await run_sync(PrivateCsv, path, COLUMNS)
        try:
            while True:
                after, some = await self._file.read(partial(_page, after=after, now=self._clock.wall()))
                if not some:
                    return number
                await run_sync(file.write, [_cells(entry) for entry in some])
                number += len(some)
        finally:
            file.close()

    async def aclose(self) -> None:
        """Close the file; it opens again when it is used again. Without this it is closed when the store is gone."""
        await self._file.aclose()

    def close(self) -> None:
        """As `aclose`, for programs without an event loop. Blocks."""
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return "<SQLiteSuppressionStore>"


def _row(entry: Suppression) -> Entry:
    check_entry(entry)
    evidence = None if entry.evidence is None else _storable(entry.evidence)
    name, address = _name(entry.address), _storable(entry.address)
    return (name, None if address == name else address, entry.reason.value, entry.at, evidence, entry.expires_at)


def _name(address: str) -> str:
    """The person, as a text that SQLite takes: one bad address must not keep a batch from being looked up."""
    return _storable(person(address))


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _put(connection: sqlite3.Connection, *, rows: Sequence[tuple[object, ...]]) -> None:
    connection.executemany(_PUT, rows)


def _remove(connection: sqlite3.Connection, *, name: str, now: float) -> bool:
    held = connection.execute(f"SELECT 1 FROM suppression WHERE person = ? AND {_HOLDS}", (name, now)).fetchone()  # noqa: S608
    connection.execute("DELETE FROM suppression WHERE person = ?", (name,))
    return held is not None


def _find(connection: sqlite3.Connection, *, addresses: Sequence[str], now: float) -> Mapping[str, Suppression]:
    found: dict[str, Suppression] = {}
    for start in range(0, len(addresses), _ASKED_AT_ONCE):
        some = addresses[start : start + _ASKED_AT_ONCE]
        people = [_name(address) for address in some]
        query = f"SELECT person, {_COLUMNS} FROM suppression WHERE person IN ({','.join('?' * len(some))}) AND {_HOLDS}"  # noqa: S608
        held = {name: Suppression(*rest) for name, *rest in connection.execute(query, (*people, now))}
        if held:
            found.update({address: held[name] for address, name in zip(some, people, strict=True) if name in held})
    return found


def _page(connection: sqlite3.Connection, *, after: str, now: float) -> tuple[str, list[Suppression]]:
    query = f"SELECT person, {_COLUMNS} FROM suppression WHERE person > ? AND {_HOLDS} ORDER BY person LIMIT ?"  # noqa: S608
    rows = connection.execute(query, (after, now, _ROWS_AT_ONCE)).fetchall()
    return (rows[-1][0] if rows else after), [Suppression(*rest) for _, *rest in rows]


def _cells(entry: Suppression) -> tuple[str | None, ...]:
    return (entry.address, entry.reason.value, moment(entry.at), entry.evidence, moment(entry.expires_at))
