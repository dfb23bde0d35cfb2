"""The ledger in a file."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from .._clock import SystemClock
from .._csv import PrivateCsv, moment
from .._sqlite import LOCK_SECONDS, SQLiteFile, absolute, when_gone
from ..exceptions import SettingError, StorageError
from ._book import CLAIMED, SCHEMA, STATUSES, UNKNOWN, Book, count, find, kept, page, purge
from ._holders import Holder
from ._keys import digest, proof
from ._states import LEASE_SECONDS, SETTLED_BY_HAND, View, as_seconds, claim, prove, record, settle

if TYPE_CHECKING:
    import datetime as dt
    import os
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from .._results import Status
    from ..typing import Claim, Clock, LedgerEntry

T = TypeVar("T")

_KEYS_AT_ONCE = 5_000
_EVENTS_AT_ONCE = 500
_ROWS_AT_ONCE = 1_000
_PURGED_AT_ONCE = 20_000
_COLUMNS = ("key", "status", "message_id", "error", "at")


class SQLiteLedger:
    """
    A ledger in one SQLite file, for as many tasks, threads and processes of this machine as share it.

    What is durable when a method returns is on the disk: one sync serves all that was asked for meanwhile. The file and
    those beside it (``-wal``, ``-shm``, ``-holder-…``) can be read by this user alone, and hold the keys as they are.
    It must be on a disk of this machine: SQLite does not work over network file systems.

    A claim ends with the process that made it, however it dies, and at the latest after *lease*. From then on the fate
    of its key is unknown. The file is opened when it is first used, and both processes go on after a fork.

    Every method may raise `LedgerError`.

    Args:
        path: Of the file; it is made when it is first used.
        lease: Seconds, or a ``timedelta``, that a claim lasts while its process lives.
        lock_timeout: Seconds to wait for another process that writes, before that is an error.
        clock: Where the time comes from.

    Raises:
        SettingError: *path* names no file, or *lease* is not above 0.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float | dt.timedelta = LEASE_SECONDS,
        lock_timeout: float = LOCK_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._lease = as_seconds(lease)
        self._clock = clock or SystemClock()
        self._late: list[LedgerEntry] = []
        """Fates that could not be written: a full disk may have room again, and nobody else knows them."""
        self._holder = Holder(absolute(path))
        self._file = SQLiteFile(path, SCHEMA, group=_book, lock_timeout=lock_timeout, rest=self._holder.let_go)
        when_gone(self, self._file)

    async def lookup(self, keys: Sequence[str]) -> Mapping[str, LedgerEntry]:
        """What is known of *keys*; see `Ledger.lookup`. A claim that nobody may be working on is ``UNKNOWN``."""
        found: dict[str, LedgerEntry] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            found.update(await self._read(partial(find, keys=some, view=self._view())))
        return found

    async def claim(self, keys: Sequence[str], *, resend_unknown: bool = False) -> Mapping[str, Claim]:
        """
        Take *keys* for sending; see `Ledger.claim`.

        A key that is claimed already is `Claim.ELSEWHERE`, also to the ledger that claimed it: somebody works on it.
        Whoever is cancelled while waiting has claimed them all the same.
        """
        if not keys:
            return {}
        names = {key: digest(key) for key in keys}
        return await self._write(partial(self._claim, names=names, resend=resend_unknown))

    def _claim(self, book: Book, *, names: Mapping[str, bytes], resend: bool) -> Mapping[str, Claim]:
        self._holder.hold()
        view = self._view()
        answers: dict[str, Claim] = {}
        for key, name in names.items():
            answers[key], row = claim(book.get(name), view, self._lease, resend_unknown=resend)
            if row is not None:
                book.put(name, row, kept(key))
        return answers

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """
        Keep fates; see `Ledger.record`.

        ``ALREADY_SENT`` and ``ELSEWHERE`` change nothing: they are what a ledger said itself. Fates that could not be
        written are with the next call of this ledger, whatever that asks for.
        """
        if entries:
            await self._write_fates(entries)

    async def _write_fates(self, entries: Sequence[LedgerEntry], *then: Callable[[Book], Any]) -> list[Any]:
        """Record *entries*, and those that could not be before, and do *then*."""
        late, self._late = self._late, []
        kept = [*late, *entries]
        try:
            return await self._file.write_in_turn(partial(_record, named=_named(kept), view=self._view()), *then)
        except StorageError:
            self._late += kept
            raise

    async def record_and_claim(
        self, entries: Sequence[LedgerEntry], keys: Sequence[str], *, resend_unknown: bool = False
    ) -> Mapping[str, Claim]:
        """As `record` and then `claim`, with one sync at the most; see `BatchingLedger`."""
        names = {key: digest(key) for key in keys}
        claiming = partial(self._claim, names=names, resend=resend_unknown)
        _, answers = await self._write_fates(entries, claiming)
        return answers  # type: ignore[no-any-return]

    async def pending(self) -> AsyncIterator[LedgerEntry]:
        """Claims without a fate, and unknown ones, in the order in which they were first claimed."""
        async for entry in self._entries((CLAIMED, UNKNOWN)):
            yield entry

    async def counts(self) -> Mapping[Status | None, int]:
        """Keys by fate; None counts the claims that somebody may be working on. Reads the whole file."""
        return await self._read(partial(count, view=self._view()))

    async def settle(self, key: str, status: Status, *, message_id: str | None = None) -> bool:
        """
        Decide the fate of an unknown key by hand.

        Args:
            key: The key.
            status: ``SENT``; or ``FAILED`` or ``HELD``, which free it to be sent again.
            message_id: SES's message id, where you found it.

        Returns:
            False when its fate is not unknown: it is settled or free already, or somebody may be working on it.

        Raises:
            SettingError: It is another status.
        """
        if status not in SETTLED_BY_HAND:
            raise SettingError("a key is settled by hand as SENT, or as FAILED or HELD, which free it")
        return await self._write(
            partial(_settle, name=digest(key), status=status, view=self._view(), message_id=message_id)
        )

    async def reconcile(self, events: Iterable[Mapping[str, Any]]) -> int:
        """
        Settle what SES's events say was sent: they carry the key as a message tag.

        Args:
            events: As SES publishes them, parsed from JSON, of any kind and any order. What proves nothing about a key
                of this ledger is passed over.

        Returns:
            How many keys became ``SENT``.
        """
        proofs, settled = (found for found in map(proof, events) if found is not None), 0
        while some := list(islice(proofs, _EVENTS_AT_ONCE)):
            settled += await self._write(partial(_reconcile, proofs=some, now=self._clock.wall()))
        return settled

    async def purge(self, older_than: float | dt.timedelta, *, unknown: bool = False) -> int:
        """
        Forget what came to its fate longer ago than that. A forgotten key may be sent again.

        Args:
            older_than: Seconds, or a ``timedelta``.
            unknown: Forget those whose fate is unknown, too.

        Returns:
            How many keys were forgotten.
        """
        now = self._clock.wall()
        before = now - as_seconds(older_than, least=0.0)
        last, gone = await self._read(_last), 0
        for start in range(0, last, _PURGED_AT_ONCE):
            places = (start, start + _PURGED_AT_ONCE)
            gone += await self._write(partial(_purge, places=places, before=before, now=now, unknown=unknown))
        return gone

    async def to_csv(self, path: str | os.PathLike[str]) -> int:
        """
        Write all keys with their fates to a file that only this user may read; what was in it is gone.

        Returns:
            How many keys there are.

        Raises:
            OSError: The file cannot be written.
        """
        from anyio.to_thread import run_sync  # only here: keeps the import of the package quick

        self._file.spare(path)
        number = 0
        file = await run_sync(PrivateCsv, path, _COLUMNS)
        try:
            async for some in self._pages(range(len(STATUSES))):
                await run_sync(file.write, [_cells(entry) for entry in some])
                number += len(some)
        finally:
            file.close()
        return number

    async def aclose(self) -> None:
        """
        Close the file. What is still claimed is unknown to others from now on.

        The ledger opens again when it is used again. Without this, all is closed when the ledger is gone.
        """
        from anyio.to_thread import run_sync  # only here: keeps the import of the package quick

        await run_sync(self.close)

    def close(self) -> None:
        """As `aclose`, for programs without an event loop. Blocks."""
        late, self._late = self._late, []
        if late:
            try:
                self._file.write_here(partial(_record, named=_named(late), view=self._view()))
            except StorageError:
                self._late += late
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return "<SQLiteLedger>"

    def _view(self) -> View:
        return View(self._holder.number, self._clock.wall(), self._holder.glance(), self._holder.past)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        await self._write_late()
        return await self._file.read(work)

    async def _write(self, work: Callable[[Book], T]) -> T:
        await self._write_late()
        return await self._file.write(work)

    async def _write_late(self) -> None:
        if self._late:
            await self._write_fates(())

    async def _entries(self, codes: Iterable[int]) -> AsyncIterator[LedgerEntry]:
        async for some in self._pages(codes):
            for entry in some:
                yield entry

    async def _pages(self, codes: Iterable[int]) -> AsyncIterator[list[LedgerEntry]]:
        """Some hundred entries at a time: nobody reads so long that the log could not begin anew."""
        wanted, after = tuple(codes), 0
        while True:
            after, some = await self._read(
                partial(page, after=after, codes=wanted, size=_ROWS_AT_ONCE, view=self._view())
            )
            if not some:
                return
            yield some


@contextmanager
def _book(connection: sqlite3.Connection) -> Iterator[Book]:
    book = Book(connection)
    yield book
    book.write()


def _named(entries: Iterable[LedgerEntry]) -> list[tuple[bytes, LedgerEntry]]:
    return [(digest(entry.key), entry) for entry in entries]


def _record(book: Book, *, named: Sequence[tuple[bytes, LedgerEntry]], view: View) -> None:
    for name, entry in named:
        row = record(book.get(name), entry, view)
        if row is not None:
            book.put(name, row, kept(entry.key))


def _settle(book: Book, *, name: bytes, status: Status, view: View, message_id: str | None) -> bool:
    row = settle(book.get(name), status, view, message_id)
    if row is not None:
        book.put(name, row)
    return row is not None


def _reconcile(book: Book, *, proofs: Sequence[tuple[bytes, str | None]], now: float) -> int:
    settled = 0
    for name, message_id in proofs:
        row = prove(book.get(name), message_id, now)
        if row is not None:
            book.put(name, row)
            settled += 1
    return settled


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()[0])


def _purge(book: Book, *, places: tuple[int, int], before: float, now: float, unknown: bool) -> int:
    return purge(book.turn_over(), places, before, now, unknown=unknown)


def _cells(entry: LedgerEntry) -> tuple[str | None, ...]:
    status = entry.status.value if entry.status else "claimed"
    return (entry.key, status, entry.message_id, entry.error_code, moment(entry.at))
