"""The ledger in PostgreSQL, for many hosts."""

from __future__ import annotations

import weakref
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from .._worker import Job, Worker
from ..exceptions import SettingError
from ..typing import Claim, Clock, LedgerEntry
from ._book import CLAIMED, STATUSES, UNKNOWN
from ._keys import digest, proof
from ._postgres_link import Holder, Link
from ._postgres_rows import Errand, Rows
from ._postgres_tables import Tables
from ._states import LEASE_SECONDS, SETTLED_BY_HAND, Row, View, as_seconds, claim, prove, record, settle

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .._results import Status
    from ._postgres_link import Connection

T = TypeVar("T")

TIMEOUT_SECONDS = 20.0
"""How long to wait for a server that is away, and for locks of others, when nothing else is said."""

_KEYS_AT_ONCE = 5_000
_EVENTS_AT_ONCE = 500
_ROWS_AT_ONCE = 1_000
_PURGED_AT_ONCE = 20_000
_COLUMNS = ("key", "status", "message_id", "error", "at")


class PostgresLedger:
    """
    A ledger in a PostgreSQL database (10 or later), for as many tasks, threads, processes and hosts as share it.

    What is durable when a method returns is committed there; one transaction serves all that was asked for meanwhile.
    The keys are kept as they are, in a table that its owner alone can read unless you grant more.

    A claim ends with the process that made it: the server knows when its session ends, within a minute also when the
    host is gone. At the latest it ends after *lease*. From then on the fate of its key is unknown. Connect to the
    server itself, or through a pooler that gives each client a session of its own.

    When the server goes away, every call waits for it to come back, for *timeout* at most. Whether the last commit was
    done is found out then, so a claim is granted only if it is confirmed, and never twice. It goes on after a fork, in
    both processes, and the child claims for itself.

    Every method may raise `LedgerError`. It never names more of the DSN than host, port and database.

    Args:
        dsn: ``postgresql://user:password@host/database``, or ``host=… dbname=…``.
        lease: Seconds, or a ``timedelta``, that a claim lasts while its process lives.
        table: Its name, with a schema or without. A second one with ``_about`` behind the name is beside it.
        timeout: Seconds, or a ``timedelta``, to wait for a server that is away, and for others that hold locks; twice
            as long for the answer of one that is frozen.
        create: Make the tables where they are not there; False: that is an error.
        clock: Where the time comes from; None is the server's clock, which all hosts share.

    Raises:
        SettingError: One of them cannot be used, or psycopg is not installed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        lease: float | dt.timedelta = LEASE_SECONDS,
        table: str = "tanksend_ledger",
        timeout: float | dt.timedelta = TIMEOUT_SECONDS,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._lease = as_seconds(lease)
        tables = Tables(table, create=create)
        self._holder = Holder()
        self._desk = _Desk(dsn, tables, as_seconds(timeout), self._holder, clock)
        weakref.finalize(self, self._desk.stop)

    async def lookup(self, keys: Sequence[str]) -> Mapping[str, LedgerEntry]:
        """What is known of *keys*; see `Ledger.lookup`. A claim that nobody may be working on is ``UNKNOWN``."""
        found: dict[str, LedgerEntry] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            found.update(await self._desk.read(partial(self._desk.rows.find, keys=some, me=self._holder.number)))
        return found

    async def claim(self, keys: Sequence[str], *, resend_unknown: bool = False) -> Mapping[str, Claim]:
        """
        Take *keys* for sending; see `Ledger.claim`.

        A key that is claimed already is `Claim.ELSEWHERE`, also to the ledger that claimed it: somebody works on it.
        Whoever is cancelled while waiting has claimed them all the same. Who got an error may ask again, and is granted
        what he may have claimed then.
        """
        if not keys:
            return {}
        names = list(dict.fromkeys(keys))
        return dict(zip(names, await self._desk.write(self._claiming(names, resend_unknown)), strict=True))

    def _claiming(self, names: Sequence[str], resend: bool) -> Errand:  # noqa: FBT001
        act = partial(_claim, lease=self._lease)
        return Errand(act, [(digest(key), key, resend) for key in names], mine=self._desk.unheard)

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """
        Keep fates; see `Ledger.record`.

        ``ALREADY_SENT`` and ``ELSEWHERE`` change nothing: they are what a ledger said itself.
        """
        if entries:
            await self._desk.write(_recording(entries))

    async def record_and_claim(
        self, entries: Sequence[LedgerEntry], keys: Sequence[str], *, resend_unknown: bool = False
    ) -> Mapping[str, Claim]:
        """As `record` and then `claim`, in one transaction as a rule; see `BatchingLedger`."""
        names = list(dict.fromkeys(keys))
        _, answers = await self._desk.write_in_turn(_recording(entries), self._claiming(names, resend_unknown))
        return dict(zip(names, answers, strict=True))

    async def pending(self) -> AsyncIterator[LedgerEntry]:
        """Claims without a fate, and unknown ones; those that were claimed first come first."""
        async for some in self._pages((CLAIMED, UNKNOWN)):
            for entry in some:
                yield entry

    async def counts(self) -> Mapping[Status | None, int]:
        """Keys by fate; None counts the claims that somebody may be working on. Reads the whole table."""
        return await self._desk.read(partial(self._desk.rows.count, me=self._holder.number))

    async def settle(self, key: str, status: Status, *, message_id: str | None = None) -> bool:
        """Decide the fate of an unknown key by hand; see `SQLiteLedger.settle`."""
        if status not in SETTLED_BY_HAND:
            raise SettingError("a key is settled by hand as SENT, or as FAILED or HELD, which free it")
        (settled,) = await self._desk.write(Errand(_settle, [(digest(key), "", (status, message_id))]))
        return bool(settled)

    async def reconcile(self, events: Iterable[Mapping[str, Any]]) -> int:
        """Settle what SES's events say was sent; see `SQLiteLedger.reconcile`."""
        proofs, settled = (found for found in map(proof, events) if found is not None), 0
        while some := list(islice(proofs, _EVENTS_AT_ONCE)):
            errand = Errand(_prove, [(name, "", message_id) for name, message_id in some])
            settled += sum(await self._desk.write(errand))
        return settled

    async def purge(self, older_than: float | dt.timedelta, *, unknown: bool = False) -> int:
        """Forget what came to its fate longer ago than that; see `SQLiteLedger.purge`."""
        age, rows, gone = as_seconds(older_than, least=0.0), self._desk.rows, 0
        for start in range(0, await self._desk.read(rows.last), _PURGED_AT_ONCE):
            places = (start, start + _PURGED_AT_ONCE)
            gone += await self._desk.read(partial(rows.purge, places=places, age=age, unknown=unknown))
        return gone

    async def to_csv(self, path: str | os.PathLike[str]) -> int:
        """Write all keys with their fates to a file that only this user may read; see `SQLiteLedger.to_csv`."""
        from anyio.to_thread import run_sync  # only here: keeps the import of the package quick

        from .._csv import PrivateCsv

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
        Close the connections. What is still claimed is unknown to others from now on.

        The ledger opens again when it is used again. Without this, all is closed when the ledger is gone.
        """
        import anyio.to_thread

        await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """As `aclose`, for programs without an event loop. Blocks."""
        self._desk.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return "<PostgresLedger>"

    async def _pages(self, codes: Iterable[int]) -> AsyncIterator[list[LedgerEntry]]:
        rows, after = self._desk.rows, 0
        ask = partial(rows.page, codes=tuple(codes), size=_ROWS_AT_ONCE, me=self._holder.number)
        last = await self._desk.read(rows.last)
        while after < last:
            after, some = await self._desk.read(partial(ask, after=after))
            yield some


class _Desk:
    """A thread that writes and one that reads, each with a connection of its own."""

    def __init__(self, dsn: str, tables: Tables, timeout: float, holder: Holder, clock: Clock | None) -> None:
        self.rows = Rows(tables, clock)
        self.unheard: dict[bytes, int] = {}
        """Claims that may have been made and that nobody was granted: their marks, by digest."""
        self._holder = holder
        self._writing = Link(dsn, tables, timeout, holder)
        self._reading = Link(dsn, tables, timeout)
        self._writer: Worker[None] = Worker("tanksend-writer", self._write, rest=self._writing.close)
        self._reader: Worker[Connection] = Worker("tanksend-reader", self._read, rest=self._reading.close)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What *work* gives, called with a connection in the reading thread, twice if the connection is lost."""
        self._reading.check_process()
        return await self._reader.ask(work)

    async def write(self, errand: Errand) -> list[Any]:
        """The answers of *errand*, when what it changed is committed."""
        self._writing.check_process()
        return await self._writer.ask(errand)

    async def write_in_turn(self, *errands: Errand) -> list[list[Any]]:
        """The answers of *errands*, carried out one after the other; see `write`."""
        self._writing.check_process()
        return await self._writer.ask_in_turn(*errands)

    def stop(self) -> None:
        """Let the threads end and close their connections; does not wait. For finalizers, too."""
        self._writer.stop()
        self._reader.stop()

    def close(self) -> None:
        """Close, after what is under way."""
        self.stop()
        self._writer.join()
        self._reader.join()

    def _write(self, jobs: Sequence[Job[None, Any]]) -> None:
        errands = [job.work for job in jobs if isinstance(job.work, Errand)]
        claims = [errand for errand in errands if errand.mine is self.unheard]
        me = self._holder.number
        try:
            self._writing.run(lambda connection: self.rows.carry_out(connection, errands, me))
        except BaseException:
            self.unheard.update((name, claim.mark) for claim in claims for name, _, _ in claim.asked)
            raise
        if self.unheard:
            for name in (name for claim in claims for name, _, _ in claim.asked):
                self.unheard.pop(name, None)
        for job in jobs:
            job.do(None)

    def _read(self, jobs: Sequence[Job[Connection, Any]]) -> None:
        for job in jobs:
            try:
                self._reading.run(job.do)
            except Exception as error:  # noqa: BLE001  (whoever asked has to hear of it)
                job.error = error


def _recording(entries: Sequence[LedgerEntry]) -> Errand:
    return Errand(_record, [(digest(entry.key), entry.key, entry) for entry in entries])


def _claim(row: Row | None, resend: bool, view: View, mine: bool, lease: float) -> tuple[Claim, Row | None]:  # noqa: FBT001
    if mine and row is not None and row.status is None:
        return Claim.GRANTED, attrs.evolve(row, owner=view.me, until=view.now + lease, at=view.now)
    return claim(row, view, lease, resend_unknown=resend)


def _record(row: Row | None, entry: LedgerEntry, view: View, mine: bool) -> tuple[None, Row | None]:  # noqa: FBT001
    return None, None if mine else record(row, entry, view)


def _settle(
    row: Row | None,
    what: tuple[Status, str | None],
    view: View,
    mine: bool,  # noqa: FBT001
) -> tuple[bool, Row | None]:
    new = None if mine else settle(row, what[0], view, what[1])
    return mine or new is not None, new


def _prove(row: Row | None, message_id: str | None, view: View, mine: bool) -> tuple[bool, Row | None]:  # noqa: FBT001
    new = None if mine else prove(row, message_id, view.now)
    return mine or new is not None, new


def _cells(entry: LedgerEntry) -> tuple[str | None, ...]:
    from .._csv import moment

    status = entry.status.value if entry.status else "claimed"
    return (entry.key, status, entry.message_id, entry.error_code, moment(entry.at))
