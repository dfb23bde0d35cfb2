"""The ledger in memory: the model of the others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import attrs

from .._clock import SystemClock
from .._results import Status
from ..exceptions import SettingError
from ._keys import digest, proof
from ._states import LEASE_SECONDS, NOT_SENT, SETTLED_BY_HAND, Row, View, as_seconds, claim, prove, record, settle

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from typing import Any

    from ..typing import Claim, Clock, LedgerEntry


@attrs.define
class _Shelf:
    """What all holders of one ledger share."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    rows: dict[bytes, Row] = attrs.field(factory=dict)
    keys: dict[bytes, str] = attrs.field(factory=dict)
    dead: set[int] = attrs.field(factory=set)
    holders: int = 0

    def put(self, name: bytes, row: Row | None, key: str | None = None) -> bool:
        """Keep a row that changed; False when it did not."""
        if row is None:
            return False
        self.rows[name] = row
        if key is not None:
            self.keys[name] = key
        return True


class MemoryLedger:
    """
    A ledger that keeps nothing beyond its process: for tests, and to see what the others do.

    Args:
        lease: Seconds, or a ``timedelta``, that a claim lasts.
        clock: Where the time comes from.

    Raises:
        SettingError: *lease* is not above 0.
    """

    def __init__(self, *, lease: float | dt.timedelta = LEASE_SECONDS, clock: Clock | None = None) -> None:
        self._lease = as_seconds(lease)
        self._clock = clock or SystemClock()
        self._shelf = _Shelf()
        self._number = 0

    def another(self) -> MemoryLedger:
        """Another holder of the same keys, as another process would be."""
        other = MemoryLedger(lease=self._lease, clock=self._clock)
        with self._shelf.lock:
            self._shelf.holders += 1
            other._shelf, other._number = self._shelf, self._shelf.holders
        return other

    def crash(self) -> None:
        """As if the process that holds this one had died: what it has claimed is unknown from now on."""
        with self._shelf.lock:
            self._shelf.dead.add(self._number)
            self._shelf.holders += 1
            self._number = self._shelf.holders

    async def lookup(self, keys: Sequence[str]) -> Mapping[str, LedgerEntry]:
        """What is known of *keys*; see `Ledger.lookup`."""
        view = self._view()
        with self._shelf.lock:
            found = ((key, self._shelf.rows.get(digest(key))) for key in keys)
            return {key: view.entry(key, row) for key, row in found if row is not None}

    async def claim(self, keys: Sequence[str], *, resend_unknown: bool = False) -> Mapping[str, Claim]:
        """Take *keys* for sending; see `Ledger.claim`."""
        view, answers = self._view(), {}
        with self._shelf.lock:
            for key in dict.fromkeys(keys):
                name = digest(key)
                answers[key], row = claim(self._shelf.rows.get(name), view, self._lease, resend_unknown=resend_unknown)
                self._shelf.put(name, row, key)
        return answers

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep fates; see `Ledger.record`."""
        view = self._view()
        with self._shelf.lock:
            for entry in entries:
                name = digest(entry.key)
                self._shelf.put(name, record(self._shelf.rows.get(name), entry, view), entry.key)

    async def record_and_claim(
        self, entries: Sequence[LedgerEntry], keys: Sequence[str], *, resend_unknown: bool = False
    ) -> Mapping[str, Claim]:
        """As `record` and then `claim`; see `BatchingLedger`."""
        await self.record(entries)
        return await self.claim(keys, resend_unknown=resend_unknown)

    async def pending(self) -> AsyncIterator[LedgerEntry]:
        """Claims without a fate, and unknown ones."""
        for entry in self._entries():
            if entry.status in {None, Status.UNKNOWN}:
                yield entry

    async def counts(self) -> Mapping[Status | None, int]:
        """Keys by fate; None counts the claims that somebody may be working on."""
        counts: dict[Status | None, int] = dict.fromkeys((None, Status.SENT, Status.UNKNOWN, *sorted(NOT_SENT)), 0)
        for entry in self._entries():
            counts[entry.status] += 1
        return counts

    async def settle(self, key: str, status: Status, *, message_id: str | None = None) -> bool:
        """Decide the fate of an unknown key by hand; see `SQLiteLedger.settle`."""
        if status not in SETTLED_BY_HAND:
            raise SettingError("a key is settled by hand as SENT, or as FAILED or HELD, which free it")
        name, view = digest(key), self._view()
        with self._shelf.lock:
            return self._shelf.put(name, settle(self._shelf.rows.get(name), status, view, message_id))

    async def reconcile(self, events: Iterable[Mapping[str, Any]]) -> int:
        """Settle what SES's events say was sent; see `SQLiteLedger.reconcile`."""
        proofs, now = [found for found in map(proof, events) if found is not None], self._clock.wall()
        with self._shelf.lock:
            return sum(
                self._shelf.put(name, prove(self._shelf.rows.get(name), message_id, now)) for name, message_id in proofs
            )

    async def purge(self, older_than: float | dt.timedelta, *, unknown: bool = False) -> int:
        """Forget what came to its fate longer ago than that; see `SQLiteLedger.purge`."""
        before = self._clock.wall() - as_seconds(older_than, least=0.0)
        kept, view = {None} if unknown else {None, Status.UNKNOWN}, self._view()
        with self._shelf.lock:  # all the while: a key may be claimed meanwhile
            rows = self._shelf.rows
            old = [name for name, row in rows.items() if row.at < before and view.fate(row) not in kept]
            for name in old:
                del rows[name], self._shelf.keys[name]
        return len(old)

    def __repr__(self) -> str:
        return f"<MemoryLedger {len(self._shelf.rows)} keys>"

    def _view(self) -> View:
        return View(self._number, self._clock.wall(), lambda number: number not in self._shelf.dead)

    def _entries(self) -> list[LedgerEntry]:
        view = self._view()
        with self._shelf.lock:
            return [view.entry(self._shelf.keys[name], row) for name, row in self._shelf.rows.items()]
