"""A run: one call of `Sender.send`, `send_all` or `stream` in progress, from the first message to the last fate."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Self

import anyio

from .._loops import uninterrupted
from .._messages import Priority
from .._results import Status
from ._attempts import Attempts
from ._books import Books
from ._deadlines import Deadlines
from ._entry import Entry, Parcel
from ._errors import first_of, held_by, stopped
from ._fates import Fates, too_late
from ._intake import Intake
from ._pools import Pools
from ._timers import Timers
from ._workers import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from .._report import SendReport
    from .._results import SendResult
    from ..exceptions import SendError
    from ..typing import Slot
    from ._lanes import Lanes
    from ._parts import Parts
    from ._sources import Source

LANES = tuple(Priority)
LOOK_AHEAD = 64
"""Messages looked at for one that fits, when there is no room for the next."""
GRACE_SECONDS = 5.0
"""How long requests on the wire may go on after a stop, and after that the ledger with what is to be recorded."""


class Run:
    """
    Made and driven by the surface: ``async with run: while results := await run.take_results(): …``.

    Everything here happens on one event loop. A method that is not ``async`` leaves a consistent state, so no lock is
    needed; what is ``async`` tells where others may come in between.
    """

    def __init__(
        self,
        parts: Parts,
        lanes: Lanes,
        source: Source,
        *,
        priority: Priority,
        campaign: str | None = None,
        give_up_after: float | None = None,
        keep: int = 10_000,
    ) -> None:
        self.parts = parts
        self.lanes = lanes
        self.leaving = False
        """Nothing of this run will be sent any more; its leader and its idle workers go."""
        self.done = anyio.Event()
        self._tasks: TaskGroup = anyio.create_task_group()
        self.timers = Timers(parts.clock, self._tasks)
        self.workers = Workers(self, self._tasks)
        self.books: Books | None = None
        if parts.ledger is not None:
            fresh = priority is Priority.TRANSACTIONAL and campaign is None
            self.books = Books(self, parts.ledger, self._tasks, campaign=campaign, fresh=fresh)
        self.fates = Fates(self, keep)
        self.attempts = Attempts(self)
        self.pools = Pools(self)
        self.intake = Intake(self, source, priority, give_up_after)
        self._window = 1
        self._in_flight = 0
        self._ready: tuple[list[tuple[int, Entry]], ...] = tuple([] for _ in LANES)
        self._ticketed: list[int | None] = [None for _ in LANES]
        self._waiting: set[Entry] = set()
        self._deadlines = Deadlines(self)
        self.failure: SendError | None = None
        """What all that still waits is held with, once the run is stopped."""
        self._crash: BaseException | None = None

    @property
    def report(self) -> SendReport:
        """What has become of the messages so far."""
        return self.fates.report

    @property
    def is_sending(self) -> bool:
        """Whether a request is on the wire, or about to be."""
        return self._in_flight > 0

    # --- for the surface ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(uninterrupted(self.intake.run))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self.done.is_set():
            self.stop("stopped")
        elif self.workers:
            self._begin_grace()
        try:
            # The tasks end by themselves: there is nothing to cancel, and no error of the caller's to be grouped.
            await self._tasks.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            self._crash = self._crash or first_of(group)
        except anyio.get_cancelled_exc_class():
            if self._crash is None and (error is None or isinstance(error, anyio.get_cancelled_exc_class())):
                raise
        finally:
            self._bury()
        if self._crash is not None:
            raise self._crash

    def crash(self, error: BaseException) -> None:
        """
        A part raised what nobody may catch, such as KeyboardInterrupt: have it come out of the caller's block.

        Not out of the task it was raised in: there it would end in a group, or take the event loop with it.
        """
        self._crash = self._crash or error
        self._tasks.cancel_scope.cancel()

    def _bury(self) -> None:
        """No task is left. Where some were killed, or never began, what they had in hand still needs a fate."""
        if self.books is not None:
            self.books.bury()
        self.workers.bury()
        if not self.done.is_set():
            self.intake.finish()

    async def take_results(self) -> Sequence[SendResult]:
        """What has ended since the last call; see `Fates.take_all`."""
        return await self.fates.take_all()

    async def take_result(self) -> SendResult | None:
        """The next that has ended; see `Fates.take_one`."""
        return await self.fates.take_one()

    def stop(self, why: str) -> None:
        """
        Take in no more and send no more; requests on the wire get 5 seconds.

        The waiting are held at once. Safe to call again.
        """
        self.intake.stop()
        self._begin_grace()
        self._leave(stopped(), why)

    def fail(self, error: SendError) -> None:
        """*error* concerns the whole account: hold the rest, and let what is on the wire end by itself."""
        self.intake.refuse()
        self._leave(held_by(error), f"stopped: {error.message}")

    def _leave(self, error: SendError, why: str) -> None:
        """Send nothing more; *error* is what the waiting are held with."""
        if self.failure is None:
            self.failure = error
            self.report.note = why
        self.leaving = True
        for entry in tuple(self._waiting):
            self.hold(entry, self.failure)
        self.workers.dismiss_idle()
        self.lanes.interrupt(self)
        self.check_done()

    def _begin_grace(self) -> None:
        self.timers.at(self.parts.clock.monotonic() + GRACE_SECONDS, self.hurry)

    def hurry(self) -> None:
        """The grace is over: whatever still goes on is cut off."""
        if self.failure is None and not self.done.is_set():
            self.stop("stopped")
        self.workers.cut()
        self.intake.abort()
        if self.books is None:
            self.timers.close()
        else:
            self.timers.at(self.parts.clock.monotonic() + GRACE_SECONDS, self.books.cut)

    # --- waiting entries ----------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """An entry fresh from intake begins to wait."""
        pool = entry.pool
        if pool is not None and entry.deadline is None and self.failure is None:
            self._waiting.add(entry)  # the usual way of many, without detours
            pool.gather(entry)
            return
        self._wait(entry, gathers=pool is not None)
        if entry.deadline is not None and not entry.settled:
            self._deadlines.watch(entry, entry.deadline)

    def _wait(self, entry: Entry, *, gathers: bool = False) -> None:
        """*entry* waits for a slot, perhaps for others to share it with first, unless it is too late for that."""
        if self.failure is not None:
            self.hold(entry, self.failure)
        elif entry.deadline is not None and entry.is_late(self.parts.clock.monotonic()):
            self.hold(entry, too_late(entry))
        else:
            self._waiting.add(entry)
            if gathers and entry.pool is not None:
                entry.pool.gather(entry)
            else:
                self.make_ready(entry)

    def make_ready(self, *entries: Entry) -> None:
        """*entries*, which wait, may be taken for the next slots."""
        for entry in entries:
            if entry.settled:
                continue
            entry.available = True
            pool = entry.pool
            if pool is None:
                self._queue(entry)
            else:
                pool.add(entry)
                if pool.front is None or entry.sequence < pool.front.sequence:
                    pool.front = entry
                    self._queue(entry)
        for lane in LANES:
            self.renew_ticket(lane)
        self.lanes.wake()

    def _queue(self, entry: Entry) -> None:
        if not entry.queued:
            entry.queued = True
            heapq.heappush(self._ready[entry.lane], (entry.sequence, entry))

    def _unqueued(self, entry: Entry) -> None:
        """*entry* has no place among those that wait any more: if it stood for a pool, the next of that does."""
        entry.queued = False
        pool = entry.pool
        if pool is not None and pool.front is entry:
            pool.front = pool.oldest()
            if pool.front is not None:
                self._queue(pool.front)

    def wait_until(self, when: float, entry: Entry, error: SendError) -> None:
        """*entry*, whose last attempt ended in *error*, waits for another one, which may begin at *when*."""
        self._waiting.add(entry)
        if self.books is not None and entry.claimed:
            self.books.free(entry, error, lambda: self._ready_at(when, entry))
        else:
            self._ready_at(when, entry)

    def _ready_at(self, when: float, entry: Entry) -> None:
        if when > self.parts.clock.monotonic():
            self.timers.at(when, lambda: self.make_ready(entry))
        else:
            self.make_ready(entry)

    def ripen_if_idle(self) -> None:
        """Nothing is on the wire or may go, and intake waits for room: see that something is sent that makes room."""
        if self._in_flight == 0 and self.intake.waits and not any(self._ready):
            self.pools.ripen()

    def next_waiting(self, number: int) -> list[Entry]:
        """So many of those that would be next."""
        near = [entry for lane in LANES for entry in sorted(self._near(lane, number), key=lambda each: each.sequence)]
        return near[:number]

    def _near(self, lane: Priority, number: int) -> list[Entry]:
        """Some *number* of those that would be next in *lane*, those behind the front of a pool included."""
        ready = self._ready[lane]
        fronts = [entry for _, entry in (ready if len(ready) <= number else heapq.nsmallest(number, ready))]
        near = [each for entry in fronts for each in (entry.pool.near(number) if entry.pool else (entry,))]
        return [entry for entry in near if entry.available]

    def renew_tickets(self) -> None:
        """There is room again: compete in each lane."""
        for lane in LANES:
            if self._ready[lane] and self._ticketed[lane] is None:
                self.renew_ticket(lane)
        self.ripen_if_idle()

    def renew_ticket(self, lane: Priority) -> None:
        """See that the lanes know the oldest entry of *lane*, when it may be sent."""
        ready = self._ready[lane]
        while ready and not ready[0][1].available:
            self._unqueued(heapq.heappop(ready)[1])
        if not ready or self._in_flight >= self._window:
            self._ticketed[lane] = None
        elif self._ticketed[lane] != ready[0][0]:
            self._ticketed[lane] = ready[0][0]
            self.lanes.ticket(self, lane, ready[0][0])

    def head(self, lane: Priority, sequence: int) -> Entry | None:
        """The entry that a ticket stands for, or None when the ticket does not hold any more."""
        if self._ticketed[lane] != sequence:
            return None
        entry = self._ready[lane][0][1]
        if self._in_flight < self._window and entry.available and not self._hold_failed(entry):
            return entry
        self._ticketed[lane] = None
        return None

    def _hold_failed(self, entry: Entry) -> bool:
        """Settle an entry whose origin has failed meanwhile."""
        error = self.attempts.failed_origin(entry)
        if error is not None:
            self.hold(entry, error)
        return error is not None

    def lightest(self, lane: Priority) -> int:
        """The fewest recipients of those who would be next in *lane*."""
        return min(entry.weight for entry in self._near(lane, LOOK_AHEAD))

    def pass_over(self, heavy: Entry, limit: int) -> Entry | None:
        """The heaviest with at most *limit* recipients, of those who would be next; the oldest of equals."""
        if heavy.passed_at is None:
            heavy.passed_at = self.parts.clock.monotonic()
        near = [entry for entry in self._near(heavy.lane, LOOK_AHEAD) if entry.weight <= limit]
        fitting = [entry for entry in near if not self._hold_failed(entry)]
        return max(fitting, key=lambda entry: (entry.weight, -entry.sequence), default=None)

    def take(self, entry: Entry, slot: Slot, due: float) -> Parcel:
        """The lanes give *entry* a slot; others of its pool come along, as long as there is room."""
        ready = self._ready[entry.lane]
        entry.available = False
        parcel = Parcel(self, [entry], slot, due)
        if entry.pool is not None:
            entry.pool.fill(parcel.entries, min(slot.recipients, self.lanes.pack_limit()) - entry.weight)
        if ready[0][1] is entry:
            heapq.heappop(ready)
            self._ticketed[entry.lane] = None
            self._unqueued(entry)
        elif entry.queued:
            ready.remove((entry.sequence, entry))
            heapq.heapify(ready)
            self._unqueued(entry)
        now = self.parts.clock.monotonic()
        for each in parcel.entries:
            self._waiting.discard(each)
            each.waited += now - each.since
        self._in_flight += 1
        self.renew_ticket(entry.lane)
        return parcel

    def put_back(self, parcel: Parcel) -> None:
        """It could not go after all."""
        self.off_the_wire(parcel)
        for entry in parcel.entries:
            self._wait(entry)
        self.renew_tickets()

    def off_the_wire(self, parcel: Parcel) -> None:
        """The request has ended, or was never made."""
        self._in_flight -= 1
        self.lanes.in_flight -= 1
        now = self.parts.clock.monotonic()
        for entry in parcel.entries:
            entry.since = now

    def expire(self, entry: Entry) -> None:
        """Its time is over; what is on the wire is not concerned."""
        if entry in self._waiting:
            self.hold(entry, too_late(entry))

    # --- workers ------------------------------------------------------------------------------------------------------

    def left(self, parcel: Parcel | None, *, led: bool) -> None:
        """A worker is gone. What it was woken for and had not begun, a parcel or the lead, is for another."""
        if parcel is not None:
            self.put_back(parcel)
        if led:
            self.lanes.resign()
        else:
            self.lanes.wake()
        if self.done.is_set() and not self.workers:
            self.timers.close()

    def grow(self) -> None:
        """A good answer: one more request at a time, which doubles them each round."""
        if self._window < self.parts.max_parallel:
            self._window += 1

    # --- the end ------------------------------------------------------------------------------------------------------

    def hold(self, entry: Entry, error: SendError) -> None:
        """Settle an entry that waits."""
        self._waiting.discard(entry)
        entry.waited += self.parts.clock.monotonic() - entry.since
        if entry.unknown is not None:
            self.fates.settle(entry, Status.UNKNOWN, error=entry.unknown)
        else:
            self.fates.settle(entry, Status.HELD, error=error)

    def pass_by(
        self, entry: Entry, status: Status, *, message_id: str | None = None, error: SendError | None = None
    ) -> None:
        """Settle an entry that needs no slot, whether it waits for one or not."""
        if entry in self._waiting:
            self._waiting.discard(entry)
            entry.waited += self.parts.clock.monotonic() - entry.since
        self.fates.settle(entry, status, message_id=message_id, error=error)

    def check_done(self) -> None:
        """When everything taken in has its fate and nothing more comes, the run is over."""
        if not self.intake.complete or self.done.is_set():
            return
        self.leaving = True
        self.report.limiter = self.parts.figures()
        self.done.set()
        if self.books is not None:
            self.books.close()
        self.workers.dismiss_idle()
        self.lanes.interrupt(self)
        if not self.workers:
            self.timers.close()
        self.fates.wake_consumer()
