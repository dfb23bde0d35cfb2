"""
The lanes of one sender on one event loop: which entry takes the next slot, and who waits for it.

An entry waits in its run, in a heap by age for each lane. A run that has something to send and room to send it holds a
*ticket* for the oldest entry of each lane, and the best ticket is the next entry. Tickets that no longer hold are
dropped when they come up, so nothing has to be searched for.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import anyio
import attrs

from .._messages import Priority
from ..exceptions import HeldError, Scope, SendError
from ..typing import Demand, Slot

if TYPE_CHECKING:
    from ._entry import Entry
    from ._parts import Parts
    from ._run import Run

LATE = 0.025
"""Seconds after which a slot that came too late lapses: used then, it would crowd the slots that follow."""


class Lanes:
    """Shared by the runs of one sender on one event loop; touched by that loop only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limiter = parts.limiter
        self._clock = parts.clock
        self._max_parallel = parts.max_parallel
        self._tickets: list[tuple[Priority, int, int, Run]] = []
        self._numbers = count()
        self._sequence = count()
        self._leader: Run | None = None
        self._nap: anyio.CancelScope | None = None
        self._slot: Slot | None = None
        self._due = 0.0
        self.in_flight = 0

    def next_sequence(self) -> int:
        """The age of an entry that is taken in now."""
        return next(self._sequence)

    def ticket(self, run: Run, lane: Priority, sequence: int) -> None:
        """Let *run* compete in *lane* with its entry of that age."""
        heapq.heappush(self._tickets, (lane, sequence, next(self._numbers), run))

    def wake(self) -> None:
        """Something can be sent: see that somebody waits for the slot."""
        if self._leader is None and self.has_work():
            run = self._tickets[0][3]
            self._leader = run
            run.lead()

    def has_work(self) -> bool:
        """Whether an entry waits that may be sent as soon as there is a slot."""
        return self.in_flight < self._max_parallel and self._best() is not None

    def _best(self) -> Entry | None:
        """The entry whose turn it is, left where it is."""
        tickets = self._tickets
        while tickets:
            lane, sequence, _, run = tickets[0]
            entry = run.head(lane, sequence)
            if entry is not None:
                return entry
            heapq.heappop(tickets)
        return None

    def _take(self) -> Entry | None:
        """The entry whose turn it is, taken out and counted as being on the wire."""
        entry = self._best()
        if entry is not None:
            heapq.heappop(self._tickets)
            entry.run.take(entry)
            self.in_flight += 1
        return entry

    def try_lead(self, run: Run) -> bool:
        """Become leader on behalf of *run*, when nobody is and there is something to lead to."""
        if self._leader is None and self.has_work():
            self._leader = run
            return True
        return False

    def interrupt(self, run: Run) -> None:
        """*run* stops: when it leads, its leader must look up."""
        if self._leader is run and self._nap is not None:
            self._nap.cancel()

    async def lead(self, run: Run) -> Entry | None:
        """
        Wait for slots on behalf of *run*, which leads, until one is for an entry of its own.

        Entries of other runs are handed to them. None when there is nothing left to wait for.
        """
        try:
            while not run.leaving and self.has_work():
                entry = await self._next_due()
                if entry is None:
                    continue
                if entry.run is run:
                    return entry
                entry.run.start(entry)
            if self._slot is not None and not self.has_work():
                await self._give_back()
            return None
        finally:
            self._leader = None
            self.wake()

    async def _next_due(self) -> Entry | None:
        """The entry that takes the next slot, once that is due; None to look again."""
        if self._slot is None and not await self._reserve():
            return None
        slot = self._slot
        if slot is not None and slot.delay > 0 and not await self._due_now():
            return None
        entry = self._take()
        if entry is None:
            await self._give_back()
        elif slot is not None:
            self._slot = None
            if entry.weight != slot.recipients and not await self._settle_weight(slot, entry):
                return None
        return entry

    async def _reserve(self) -> bool:
        """Get a slot for the best entry; False when that failed, which its run has then been told."""
        best = self._best()
        if best is None:
            return False
        try:
            slot = await self._limiter.reserve(Demand(best.weight, best.weight, best.lane))
        except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
            best.run.fail(_limiter_error(error))
            return False
        self._slot = slot
        self._due = self._clock.monotonic() + slot.delay
        return True

    async def _due_now(self) -> bool:
        """Sleep until the slot is due; False when it was interrupted or is too late to be used."""
        with anyio.CancelScope() as self._nap:
            try:
                delay = self._due - self._clock.monotonic()
                if delay > 0:
                    await self._clock.sleep(delay)
            finally:
                self._nap = None
        late = self._clock.monotonic() - self._due
        if late < 0:
            return False
        if late > LATE:
            self._slot = None
            return False
        return True

    async def _settle_weight(self, slot: Slot, entry: Entry) -> bool:
        """Charge or refund the difference between what the slot carries and what goes; False when it cannot go."""
        extra = entry.weight - slot.recipients
        try:
            if extra < 0:
                await self._parts.release(attrs.evolve(slot, recipients=-extra))
            else:
                await self._limiter.reserve(Demand(extra, extra, entry.lane))
        except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
            entry.run.put_back(entry)
            entry.run.fail(_limiter_error(error))
            return False
        except BaseException:
            entry.run.put_back(entry)
            raise
        return True

    async def aclose(self) -> None:
        """The last run has ended: nobody will use a slot that is still held."""
        await self._give_back()

    async def _give_back(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            await self._parts.release(slot)


def _limiter_error(error: Exception) -> SendError:
    """What a run stops with when its limiter cannot give a slot."""
    if isinstance(error, SendError):
        return error
    return HeldError(
        "the rate limiter failed", code="LimiterFailed", scope=Scope.ACCOUNT, cause_type=type(error).__name__
    )
