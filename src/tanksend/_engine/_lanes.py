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

from ..typing import Demand, Slot
from ._errors import limiter_error
from ._waits import with_notice

if TYPE_CHECKING:
    from .._messages import Priority
    from ._entry import Entry
    from ._parts import Parts
    from ._run import Run

LATE = 0.025
"""Seconds after which a slot that came too late lapses: used then, it would crowd the slots that follow."""
PATIENCE = 5.0
"""Seconds for which lighter messages may pass a heavy one for which there is no room; then they wait for it."""
FAR = 60.0
"""
Seconds after which a slot that is still not due is given back and reserved anew; twice as many each time.

Where several share a slow limiter, who gives a slot back is the last in line: at even intervals none would ever be due.
"""
NEAR = 30.0
"""Seconds up to which a slot that was reserved for bulk is not reserved anew because transactional mail has come."""


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
        self._asking: anyio.CancelScope | None = None
        self._limiter_waits = True
        """Whether its last answer took time, and so might the next; nothing is known of the first."""
        self._slot: Slot | None = None
        self._due = 0.0
        self._lapsed = False
        self._far = FAR
        self._asked: Demand | None = None
        self._outranked = False
        self.in_flight = 0

    def next_sequence(self) -> int:
        """The age of an entry that is taken in now."""
        return next(self._sequence)

    def ticket(self, run: Run, lane: Priority, sequence: int) -> None:
        """Let *run* compete in *lane* with its entry of that age."""
        heapq.heappush(self._tickets, (lane, sequence, next(self._numbers), run))
        asked, nap = self._asked, self._nap
        if asked is None or lane >= asked.priority:
            return
        if self._asking is not None:
            # A limiter that several processes share may let bulk wait for its turn; this one need not stand in line.
            self._asking.cancel()
        elif nap is not None and self._due - self._clock.monotonic() > NEAR:
            # The limiter may let this one go much earlier: bulk may be waiting for tomorrow's quota.
            self._outranked = True
            nap.cancel()

    def wake(self) -> None:
        """Something can be sent: see that somebody waits for the slot."""
        if self._leader is None and self.has_work():
            run = self._tickets[0][3]
            self._leader = run
            run.workers.set_to(None)

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
            run.renew_ticket(lane)
        return None

    def _take(self, slot: Slot) -> Entry | None:
        """The entry that *slot* is for, taken out and counted as being on the wire."""
        entry = self._best()
        if entry is not None and entry.weight > slot.recipients and self._must_be_passed(entry, slot):
            entry = entry.run.pass_over(entry, slot.recipients)
        if entry is not None:
            if self._tickets[0][1] == entry.sequence:
                heapq.heappop(self._tickets)
            entry.run.take(entry)
            self.in_flight += 1
        return entry

    def _must_be_passed(self, entry: Entry, slot: Slot) -> bool:
        """Whether *entry*, too heavy for *slot*, is so because the limiter has no room for more."""
        asked = self._asked
        assert asked is not None  # noqa: S101  (there is a slot)
        # Fewer than the fewest that are of use is against the contract: the difference is charged then, as ever.
        return asked.at_least <= slot.recipients < asked.recipients and entry.lane >= asked.priority

    def try_lead(self, run: Run) -> bool:
        """Become leader on behalf of *run*, when nobody is and there is something to lead to."""
        if self._leader is None and self.has_work():
            self._leader = run
            return True
        return False

    def resign(self) -> None:
        """The worker that was to lead is gone before it began."""
        self._leader = None
        self.wake()

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
            while not run.leaving and self.in_flight < self._max_parallel and (best := self._best()) is not None:
                entry = await self._next_due(run, best)
                if entry is None:
                    continue
                if entry.run is run:
                    return entry
                entry.run.workers.set_to(entry)
            return None
        finally:
            self._leader = None
            self.wake()
            if self._slot is not None and self._leader is None:
                await self._give_back()

    async def _next_due(self, run: Run, best: Entry) -> Entry | None:
        """The entry that takes the next slot, once that is due; None to look again."""
        slot = self._slot
        if slot is None:
            slot = await self._reserve(best)
            if slot is None or run.leaving:
                return None
        if slot.delay > 0 and not await self._due_now():
            return None
        entry = self._take(slot)
        if entry is None:
            await self._give_back()
            return None
        self._slot = None
        self._lapsed = False
        self._far = FAR
        if entry.weight != slot.recipients and not await self._settle_weight(slot, entry):
            return None
        return entry

    async def _reserve(self, best: Entry) -> Slot | None:
        """Get a slot for the best entry; None to look again, or when that failed, which its run has then been told."""
        least = best.weight if best.weight == 1 else self._at_least(best)
        asked = Demand(best.weight, least, best.lane, best.uncounted)
        self._asked = asked
        slow, self._limiter_waits = self._limiter_waits, False
        try:
            slot = await (self._ask_patiently(asked) if slow else self._ask(asked))
        except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
            self._refused(best, error)
            return None
        if slot is not None:
            self._slot = slot
            self._due = self._clock.monotonic() + slot.delay
        return slot

    async def _ask(self, asked: Demand) -> Slot:
        return await with_notice(self._limiter.reserve(asked), self._limiter_has_waited)

    async def _ask_patiently(self, asked: Demand) -> Slot | None:
        """Ask a limiter that did not answer at once the last time; None when it was called off."""
        with anyio.CancelScope() as asking:
            self._asking = asking
            try:
                return await self._ask(asked)
            finally:
                self._asking = None
        return None

    def _limiter_has_waited(self) -> None:
        self._limiter_waits = True

    def _at_least(self, best: Entry) -> int:
        """The fewest recipients that are of use: the lightest message may pass *best*, until that has waited enough."""
        if best.passed_at is not None and self._clock.monotonic() - best.passed_at > PATIENCE:
            return best.weight
        return best.run.lightest(best.lane)

    async def _due_now(self) -> bool:
        """Sleep until the slot is due; False when it was interrupted or is too late to be used."""
        delay = self._due - self._clock.monotonic()
        with anyio.CancelScope() as nap:
            self._nap = nap
            try:
                if delay > 0:
                    await self._clock.sleep(min(delay, self._far))
            finally:
                self._nap = None
        if self._outranked or (delay > self._far and not nap.cancelled_caught):
            # Asked again, the limiter may know better: of a day's quota that others have left, for example.
            if not self._outranked:
                self._far *= 2
            self._outranked = False
            await self._give_back()
            return False
        late = self._clock.monotonic() - self._due
        if late > LATE and not self._lapsed:
            # Only one in a row: where everything is late, nothing would ever go.
            self._lapsed = True
            await self._give_back()
            return False
        return late >= 0

    async def _settle_weight(self, slot: Slot, entry: Entry) -> bool:
        """Charge or refund the difference between what the slot carries and what goes; False when it cannot go."""
        extra = entry.weight - slot.recipients
        if extra < 0:
            await self._parts.release(Slot(slot.delay, -extra, slot.token))
            return True
        try:
            charged = await self._limiter.reserve(Demand(extra, extra, entry.lane, min(extra, entry.uncounted)))
        except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
            self._put_back(slot, entry)
            self._refused(entry, error)
            return False
        except BaseException:
            self._put_back(slot, entry)
            raise
        if entry.run.leaving or entry.is_late(self._clock.monotonic()):
            # It was stopped meanwhile, or its time has run out; it has not left yet.
            self._put_back(slot, entry)
            await self._parts.release(charged)
            return False
        if charged.delay > FAR:
            # No matter of pace: the day's quota has no room for the rest. It waits for a slot that has.
            self._put_back(slot, entry)
            await self._parts.release(charged)
            await self._give_back()
            return False
        return True

    def _put_back(self, slot: Slot, entry: Entry) -> None:
        """As if neither had been taken: the slot is due, and good for whoever is the best now."""
        self._slot = slot
        entry.run.put_back(entry)

    def _refused(self, entry: Entry, error: Exception) -> None:
        """The limiter gave no slot for *entry*, and so it will be for the rest."""
        refusal = limiter_error(error)
        if not entry.settled:
            entry.run.hold(entry, refusal)
        entry.run.fail(refusal)

    async def aclose(self) -> None:
        """The last run has ended: nobody will use a slot that is still held."""
        await self._give_back()

    async def _give_back(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            await self._parts.release(slot)
