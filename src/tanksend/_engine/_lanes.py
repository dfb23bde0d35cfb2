"""
The lanes of one sender on one event loop: which entry takes the next slot, and who waits for it.

An entry waits in its run, in a heap by age for each lane. A run that has something to send and room to send it holds a
*ticket* for the oldest entry of each lane, and the best ticket is the next entry. Tickets that no longer hold are
dropped when they come up, so nothing has to be searched for.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING

import anyio

from .._messages import Priority
from ..exceptions import DailyQuotaExceededError
from ..typing import Demand, Slot
from ._errors import a_slot, limiter_error
from ._waits import with_notice

if TYPE_CHECKING:
    from ._entry import Entry, Parcel
    from ._parts import Parts
    from ._run import Run

LATE = 0.025
"""Seconds after which a slot that came too late lapses: used then, it would crowd the slots that follow."""
ROUNDING = 1e-7
"""Seconds by which a sum of times may be off; who woke up too early by that much would wake up again and again."""
PATIENCE = 5.0
"""Seconds for which lighter messages may pass a heavy one for which there is no room; then they wait for it."""
FAR = 60.0
"""
Seconds after which a slot that is still not due is given back and reserved anew; twice as many each time.

Where several share a slow limiter, who gives a slot back is the last in line: at even intervals none would ever be due.
"""
AHEAD = 0.1
"""The longest time, in seconds, that a slot is taken ahead, for its claim in the ledger."""
MOST_ENTRIES = 50
"""Messages of one request; SES API v2, "SendBulkEmail"."""
PACK_SECONDS = 0.5
"""Seconds of the rate that one request may take at once."""
PACK_SECONDS_BESIDE_TRANSACTIONAL = 0.15
"""The same, while transactional mail may come, which waits for as long."""
TRANSACTIONAL_SECONDS = 10.0
"""Seconds after transactional mail in which more of it is reckoned with."""
PACK_LIMIT_SECONDS = 0.1
"""Seconds for which the limit of a request holds before it is reckoned anew."""
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
        self._claim_seconds = 0.0
        self._transactional_at = -math.inf
        self._pack_limit = 0
        self._pack_limit_until = -math.inf
        self.in_flight = 0

    def next_sequence(self) -> int:
        """The age of an entry that is taken in now."""
        return next(self._sequence)

    def ticket(self, run: Run, lane: Priority, sequence: int) -> None:
        """Let *run* compete in *lane* with its entry of that age."""
        heapq.heappush(self._tickets, (lane, sequence, next(self._numbers), run))
        if lane is Priority.TRANSACTIONAL:
            now = self._clock.monotonic()
            if now - self._transactional_at >= TRANSACTIONAL_SECONDS:
                self._pack_limit_until = -math.inf
            self._transactional_at = now
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

    def pack_limit(self) -> int:
        """Recipients of one request with several messages."""
        now = self._clock.monotonic()
        if now >= self._pack_limit_until:
            self._pack_limit_until = now + PACK_LIMIT_SECONDS
            beside = now - self._transactional_at < TRANSACTIONAL_SECONDS
            room = self._parts.usable_rate() * (PACK_SECONDS_BESIDE_TRANSACTIONAL if beside else PACK_SECONDS)
            self._pack_limit = MOST_ENTRIES if room >= MOST_ENTRIES else max(1, int(room))
        return self._pack_limit

    def claims_take(self, seconds: float) -> None:
        """A claim took so long."""
        self._claim_seconds = max(seconds, self._claim_seconds + (seconds - self._claim_seconds) / 1024)

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

    def _take(self, slot: Slot, due: float) -> Parcel | None:
        """What *slot* is for, taken out and counted as being on the wire."""
        entry = self._best()
        if entry is not None and entry.weight > slot.recipients and self._must_be_passed(entry, slot):
            entry = entry.run.pass_over(entry, slot.recipients)
        return None if entry is None else self._take_out(entry, slot, due)

    def _take_out(self, entry: Entry, slot: Slot, due: float) -> Parcel:
        if self._tickets[0][1] == entry.sequence:
            heapq.heappop(self._tickets)
        self.in_flight += 1
        return entry.run.take(entry, slot, due)

    async def hand_on(self, parcel: Parcel) -> Parcel | None:
        """
        The slot of *parcel*, of which nothing is left, is for the best that waits and fits.

        None when that is of another run, which is handed it; or when nobody waits, and the slot was given back.
        """
        run, slot = parcel.run, parcel.slot
        best = self._best() if self.in_flight < self._max_parallel else None
        if best is not None and best.weight > slot.recipients:
            best = best.run.pass_over(best, slot.recipients)
        if best is None or best.run.leaving:
            await self._parts.release(slot)
            if parcel.surcharge is not None:
                await self._parts.release(parcel.surcharge)
            return None
        taken = self._take_out(best, slot, parcel.due)
        taken.surcharge = parcel.surcharge
        if taken.run is run:
            return taken
        taken.run.workers.set_to(taken)
        return None

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
        if self._leader is not run:
            return
        if self._nap is not None:
            self._nap.cancel()
        elif self._asking is not None and self._best() is None:
            self._asking.cancel()  # the slot would be for nobody, and whoever stops would wait for the limiter

    async def lead(self, run: Run) -> Parcel | None:
        """
        Wait for slots on behalf of *run*, which leads, until one is for entries of its own.

        Those of other runs are handed to them. None when there is nothing left to wait for.
        """
        try:
            while not run.leaving and self.in_flight < self._max_parallel and (best := self._best()) is not None:
                parcel = await self._next_due(run, best)
                if parcel is None:
                    continue
                if parcel.run is run:
                    return parcel
                parcel.run.workers.set_to(parcel)
            return None
        finally:
            self._leader = None
            self.wake()
            if self._slot is not None and self._leader is None:
                await self._give_back()

    async def _next_due(self, run: Run, best: Entry) -> Parcel | None:
        """What takes the next slot, once that is due; None to look again."""
        slot = self._slot
        if slot is None:
            slot = await self._reserve(best)
            if slot is None or run.leaving:
                return None
        if slot.delay > 0 and not await self._due_now():
            return None
        parcel = self._take(slot, self._due)
        if parcel is None:
            await self._give_back()
            return None
        self._slot = None
        self._lapsed = False
        self._far = FAR
        if parcel.weight != slot.recipients and not await self._settle_weight(slot, parcel):
            return None
        return parcel

    async def _reserve(self, best: Entry) -> Slot | None:
        """
        Get a slot for the best entry and those that go along; for fewer of them where the day has no room for all.

        None to look again, or when that failed, which its run has then been told.
        """
        limit = best.weight if best.pool is None else max(best.weight, self.pack_limit())
        while best.available:
            asked = self._asked = self._demand(best, limit)
            limit = max(best.weight, asked.recipients // 2)
            try:
                slot = await self._ask(asked)
            except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
                if not isinstance(error, DailyQuotaExceededError) or limit == asked.recipients:
                    self._refused(best, error)
                    return None
            else:
                if slot is None or slot.delay <= FAR or limit == asked.recipients:
                    return self._got(slot)
                await self._parts.release(slot)
        return None

    def _demand(self, best: Entry, limit: int) -> Demand:
        """What goes with the next request of at most *limit* recipients."""
        weight, uncounted = best.weight, best.uncounted
        if best.pool is not None:
            weight, uncounted = best.pool.load(limit)
        least = weight if weight == 1 else self._at_least(best)
        return Demand(weight, least, best.lane, uncounted, divisible=weight > best.weight)

    def _got(self, slot: Slot | None) -> Slot | None:
        if slot is not None:
            self._slot = slot
            self._due = self._clock.monotonic() + slot.delay
        return slot

    async def _ask(self, asked: Demand) -> Slot | None:
        slow, self._limiter_waits = self._limiter_waits, False
        if slow:
            return await self._ask_patiently(asked)
        return a_slot(await with_notice(self._limiter.reserve(asked), self._limiter_has_waited))

    async def _ask_patiently(self, asked: Demand) -> Slot | None:
        """Ask a limiter that did not answer at once the last time; None when it was called off."""
        with anyio.CancelScope() as asking:
            self._asking = asking
            try:
                return a_slot(await with_notice(self._limiter.reserve(asked), self._limiter_has_waited))
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
        ahead = min(AHEAD, 2 * self._claim_seconds)
        delay = self._due - ahead - self._clock.monotonic()
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
        return late >= -ahead - ROUNDING

    async def _settle_weight(self, slot: Slot, parcel: Parcel) -> bool:
        """Charge or refund the difference between what the slot carries and what goes; False when it cannot go."""
        extra = parcel.weight - slot.recipients
        if extra < 0:
            parcel.slot = Slot(slot.delay, slot.recipients + extra, slot.token)
            await self._parts.release(Slot(slot.delay, -extra, slot.token))
            return self._still_goes(parcel)
        entry = parcel.entries[0]
        try:
            charged = a_slot(await self._limiter.reserve(Demand(extra, extra, entry.lane, min(extra, entry.uncounted))))
        except Exception as error:  # noqa: BLE001  (a limiter of the caller's own)
            self._put_back(slot, parcel)
            self._refused(entry, error)
            return False
        except BaseException:
            self._put_back(slot, parcel)
            raise
        if entry.run.leaving or entry.is_late(self._clock.monotonic()):
            # It was stopped meanwhile, or its time has run out; it has not left yet.
            self._put_back(slot, parcel)
            await self._parts.release(charged)
            return False
        if charged.delay > FAR:
            # No matter of pace: the day's quota has no room for the rest. It waits for a slot that has.
            self._put_back(slot, parcel)
            await self._parts.release(charged)
            await self._give_back()
            return False
        parcel.surcharge = charged
        return True

    def _still_goes(self, parcel: Parcel) -> bool:
        """False when some of *parcel*, which has not left yet, was stopped meanwhile, or its time has run out."""
        now = self._clock.monotonic()
        if parcel.run.leaving or any(entry.is_late(now) for entry in parcel.entries):
            self._put_back(parcel.slot, parcel)
            return False
        return True

    def _put_back(self, slot: Slot, parcel: Parcel) -> None:
        """As if neither had been taken: the slot is due, and good for whoever is the best now."""
        self._slot = slot
        parcel.run.put_back(parcel)

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
