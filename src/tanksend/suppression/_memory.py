"""Suppression in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._clock import SystemClock
from ..typing import Clock, Suppression
from ._people import check_entry, person

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping


class MemorySuppressionStore:
    """
    The suppression list of one process; gone when the process ends.

    Matching is per person: case and surrounding space of an address do not matter, nor does it which way its domain is
    written, in letters of any script or in Punycode, or whether a display name stands before it.

    Args:
        entries: Suppressions, or plain addresses, to begin with.
        clock: Where the time for expiry comes from.
    """

    def __init__(self, entries: Iterable[Suppression | str] = (), *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._entries: dict[str, Suppression] = {}
        if isinstance(entries, str):
            raise TypeError("entries must be a list of suppressions or addresses, not one str")
        for entry in entries:
            self._put(Suppression(entry) if isinstance(entry, str) else entry)

    def _put(self, entry: Suppression) -> None:
        check_entry(entry)
        self._entries[person(entry.address)] = entry

    async def lookup(self, addresses: Collection[str]) -> Mapping[str, Suppression]:
        """Those of *addresses* that are suppressed now."""
        if not self._entries:
            return {}
        with self._lock:
            found = {address: self._entries.get(person(address)) for address in addresses}
        return {address: entry for address, entry in found.items() if entry is not None and self._holds(entry)}

    def _holds(self, entry: Suppression) -> bool:
        return entry.expires_at is None or entry.expires_at > self._clock.wall()

    async def add(self, *entries: Suppression) -> None:
        """Suppress; an entry for a known person replaces it."""
        with self._lock:
            for entry in entries:
                self._put(entry)

    async def remove(self, address: str) -> bool:
        """Lift a suppression; False when there was none, or none that still held."""
        with self._lock:
            entry = self._entries.pop(person(address), None)
        return entry is not None and self._holds(entry)

    async def explain(self, address: str) -> Suppression | None:
        """Why *address* is suppressed, or None when it is not."""
        return (await self.lookup([address])).get(address)

    async def entries(self) -> AsyncIterator[Suppression]:
        """All that is suppressed now."""
        with self._lock:
            held = [entry for entry in self._entries.values() if self._holds(entry)]
        for entry in held:
            yield entry

    def __repr__(self) -> str:
        return f"<MemorySuppressionStore {len(self._entries)} entries>"
