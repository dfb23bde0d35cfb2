"""A run: one call of `Sender.send`, `send_all` or `stream` in progress, from the first message to the last fate."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

import anyio

from .._messages import Priority
from .._report import SendReport
from .._results import SendResult, Status
from ..exceptions import HeldError, OutcomeUnknownError, Scope, SendError, ThrottlingError
from ..typing import Attempt, EventKind, Retry, SendEvent, Signal
from ._intake import Intake
from ._timers import Timers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from .._results import Receipt
    from ..exceptions import Origin
    from ._entry import Entry
    from ._intake import Source
    from ._lanes import Lanes
    from ._parts import Parts

LANES = tuple(Priority)
GRACE_SECONDS = 5.0
"""How long requests on the wire may go on after a stop."""


class Worker:
    """A worker with nothing to do, and what it is woken for."""

    __slots__ = ("dismissed", "entry", "event")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.entry: Entry | None = None
        """What it is to work on; None to lead."""
        self.dismissed = False


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
        give_up_after: float | None = None,
        keep: int = 10_000,
    ) -> None:
        self.parts = parts
        self.lanes = lanes
        self.report = SendReport(keep=keep)
        self.leaving = False
        """Nothing of this run will be sent any more; its leader and its idle workers go."""
        self.done = anyio.Event()
        self._tasks: TaskGroup = anyio.create_task_group()
        self.timers = Timers(parts.clock, self._tasks)
        self.intake = Intake(self, source, priority, give_up_after)
        self._started_at = parts.clock.monotonic()
        self._window = 1
        self._in_flight = 0
        self._ready: tuple[list[tuple[int, Entry]], ...] = tuple([] for _ in LANES)
        self._ticketed: list[int | None] = [None for _ in LANES]
        self._waiting: set[Entry] = set()
        self._idle: list[Worker] = []
        self._scopes: set[anyio.CancelScope] = set()
        self._failed_origins: dict[tuple[Origin, str], SendError] = {}
        self._failure: SendError | None = None
        self._results: deque[SendResult] = deque()
        self._results_wanted: anyio.Event | None = None
        self._numbers = count()

    # --- for the surface ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Run:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.intake.run)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self.done.is_set():
            self.stop("stopped")
        try:
            with anyio.CancelScope(shield=True):
                await self.done.wait()
        finally:
            self.timers.close()
            await self._tasks.__aexit__(None, None, None)

    async def take_results(self) -> Sequence[SendResult]:
        """What has ended since the last call, at least one; empty when everything has."""
        await self._result_event()
        taken = tuple(self._results)
        self._results.clear()
        self.intake.delivered(len(taken))
        return taken

    async def take_result(self) -> SendResult | None:
        """The next that has ended; None when everything has."""
        if not self._results:
            await self._result_event()
            if not self._results:
                return None
        self.intake.delivered(1)
        return self._results.popleft()

    async def _result_event(self) -> None:
        while not self._results and not self.done.is_set():
            self._results_wanted = anyio.Event()
            await self._results_wanted.wait()

    def stop(self, why: str) -> None:
        """
        Take in no more and send no more; requests on the wire get 5 seconds.

        The waiting are held at once. Safe to call again.
        """
        self.intake.stop()
        self._leave(HeldError("the batch was stopped before the message was sent", code="Stopped"), why)
        if self._in_flight:
            self.timers.at(self.parts.clock.monotonic() + GRACE_SECONDS, self._end_grace)

    def fail(self, error: SendError) -> None:
        """*error* concerns the whole account: hold the rest, and let what is on the wire end by itself."""
        self.intake.refuse()
        self._leave(_held(error), f"stopped: {error.message}")

    def _leave(self, error: SendError, why: str) -> None:
        """Send nothing more; *error* is what the waiting are held with."""
        if self._failure is None:
            self._failure = error
            self.report.note = why
        self.leaving = True
        for entry in tuple(self._waiting):
            self.hold(entry, self._failure)
        self.lanes.interrupt(self)
        self.check_done()

    def _end_grace(self) -> None:
        for scope in self._scopes:
            scope.cancel()

    # --- waiting entries ------------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """An entry fresh from intake begins to wait."""
        self._waiting.add(entry)
        if self._failure is not None:
            self.hold(entry, self._failure)
            return
        if entry.deadline is not None:
            self.timers.at(entry.deadline, lambda: self._expire(entry))
        self._make_ready(entry)

    def _make_ready(self, entry: Entry) -> None:
        if entry.settled:
            return
        heapq.heappush(self._ready[entry.lane], (entry.sequence, entry))
        self._renew_ticket(entry.lane)
        self.lanes.wake()

    def _renew_tickets(self) -> None:
        """There is room again: compete in each lane."""
        for lane in LANES:
            if self._ready[lane] and self._ticketed[lane] is None:
                self._renew_ticket(lane)

    def _renew_ticket(self, lane: Priority) -> None:
        """See that the lanes know the oldest entry of *lane*, when it may be sent."""
        ready = self._ready[lane]
        while ready and ready[0][1].settled:
            heapq.heappop(ready)
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
        if self._in_flight < self._window and not entry.settled and not self._hold_failed(entry):
            return entry
        self._ticketed[lane] = None
        self._renew_ticket(lane)
        return None

    def _hold_failed(self, entry: Entry) -> bool:
        """Settle an entry whose origin has failed meanwhile."""
        if self._failed_origins:
            for origin in entry.origins():
                if origin in self._failed_origins:
                    self.hold(entry, self._failed_origins[origin])
                    return True
        return False

    def take(self, entry: Entry) -> None:
        """The lanes give *entry* a slot."""
        heapq.heappop(self._ready[entry.lane])
        self._ticketed[entry.lane] = None
        self._waiting.discard(entry)
        self._in_flight += 1
        entry.waited += self.parts.clock.monotonic() - entry.since
        self._renew_ticket(entry.lane)

    def put_back(self, entry: Entry) -> None:
        """It could not go after all."""
        self._off_the_wire(entry)
        self._waiting.add(entry)
        self._make_ready(entry)

    def _off_the_wire(self, entry: Entry) -> None:
        self._in_flight -= 1
        self.lanes.in_flight -= 1
        entry.since = self.parts.clock.monotonic()

    def _expire(self, entry: Entry) -> None:
        if entry in self._waiting:
            self.hold(entry, self._too_late(entry))

    # --- workers --------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """An idle worker, or a new one, waits for the next slots."""
        if self._idle:
            self._idle.pop().event.set()
        else:
            self._tasks.start_soon(self._work, None)

    def start(self, entry: Entry) -> None:
        """An idle worker, or a new one, makes the attempt for *entry*."""
        if self._idle:
            worker = self._idle.pop()
            worker.entry = entry
            worker.event.set()
        else:
            self._tasks.start_soon(self._work, entry)

    async def _work(self, entry: Entry | None) -> None:
        """The life of a worker, which begins with *entry* or as leader."""
        # One scope for all of it: the run decides when what is on the wire ends, not who cancels the caller.
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            try:
                while True:
                    if entry is None:
                        entry = await self.lanes.lead(self)
                    while entry is not None:
                        await self._attempt(entry)
                        entry = await self.lanes.lead(self) if self.lanes.try_lead(self) else None
                    if self.done.is_set():
                        return
                    worker = Worker()
                    self._idle.append(worker)
                    await worker.event.wait()
                    if worker.dismissed:
                        return
                    entry = worker.entry
            finally:
                self._scopes.discard(scope)

    async def _attempt(self, entry: Entry) -> None:
        """One request for *entry*, and what follows from it."""
        request = entry.request
        assert request is not None  # noqa: S101  (intake made it)
        entry.attempts += 1
        try:
            receipt = await self.parts.transport.send(request)
        except SendError as error:
            self._off_the_wire(entry)
            await self._failed(entry, error)
        except Exception as error:  # noqa: BLE001  (a transport that breaks its contract: anything may have happened)
            self._off_the_wire(entry)
            await self._failed(entry, OutcomeUnknownError("the transport failed", cause_type=type(error).__name__))
        except BaseException:
            self._off_the_wire(entry)
            self._give_up(entry, OutcomeUnknownError("the batch was stopped while the request was on the wire"))
            raise
        else:
            self._off_the_wire(entry)
            self._grow()
            self.settle(entry, Status.SENT, receipt=receipt)
            await self.parts.feedback(Signal(entry.weight))

    def _grow(self) -> None:
        """A good answer: one more request at a time, which doubles them each round."""
        if self._window < self.parts.max_parallel:
            self._window += 1
        self._renew_tickets()

    async def _failed(self, entry: Entry, error: SendError) -> None:
        error.attempts = entry.attempts
        entry.error = error
        if isinstance(error, ThrottlingError):
            entry.throttles += 1
            self.report.throttled += 1
        if error.maybe_sent:
            entry.unknown = entry.unknown or error
        elif error.scope in (Scope.MESSAGE, Scope.RECIPIENT) and not error.retryable:
            self._grow()
        self.parts.tell(SendEvent(EventKind.ATTEMPT_FAILED, entry.index, error, entry.attempts))
        self._decide(entry, error)
        self._renew_tickets()
        await self.parts.feedback(Signal(entry.weight, error))

    def _decide(self, entry: Entry, error: SendError) -> None:
        """Put *entry* back for another attempt, or settle it; then see what else the error concerns."""
        now = self.parts.clock.monotonic()
        elapsed = now - entry.taken_at
        attempt = Attempt(entry.attempts, error, elapsed, self.parts.jitter(), entry.throttles)
        decision = self.parts.decide(attempt)
        if isinstance(decision, Retry) and not self.leaving:
            again = now + decision.after
            if entry.deadline is None or again < entry.deadline:
                self._waiting.add(entry)
                self.timers.at(again, lambda: self._make_ready(entry))
                return
        self._give_up(entry, error)
        if isinstance(decision, Retry):
            return
        if error.scope is Scope.ACCOUNT:
            self.fail(error)
        elif error.scope is Scope.ORIGIN and (origin := entry.origin(error)) is not None:
            self._failed_origins.setdefault(origin, _held(error))

    # --- fates ----------------------------------------------------------------------------------------------------------

    def _give_up(self, entry: Entry, error: SendError) -> None:
        """Settle *entry*, whose last attempt ended in *error*."""
        if error.maybe_sent:
            entry.unknown = entry.unknown or error
        if entry.unknown is not None:
            self.settle(entry, Status.UNKNOWN, error=entry.unknown)
        elif error.retryable:
            self.settle(entry, Status.HELD, error=self._too_late(entry))
        elif error.scope in (Scope.ORIGIN, Scope.ACCOUNT):
            self.settle(entry, Status.HELD, error=error)
        else:
            self.settle(entry, Status.FAILED, error=error)

    def _too_late(self, entry: Entry) -> SendError:
        """Why an entry is held that could have gone, had there been more time or more attempts."""
        if entry.error is None:
            return HeldError("its time ran out before the pace allowed it", code="Deadline")
        held = HeldError(
            f"not sent after {entry.attempts} attempts; the last ended so: {entry.error.message}",
            code=entry.error.code,
            remedy=entry.error.remedy,
            attempts=entry.attempts,
        )
        held.__cause__ = entry.error
        return held

    def hold(self, entry: Entry, error: SendError) -> None:
        """Settle an entry that waits."""
        self._waiting.discard(entry)
        if entry.unknown is not None:
            self.settle(entry, Status.UNKNOWN, error=entry.unknown)
        else:
            self.settle(entry, Status.HELD, error=error)

    def settle(
        self, entry: Entry, status: Status, *, receipt: Receipt | None = None, error: SendError | None = None
    ) -> None:
        """The fate of *entry*, once and for all."""
        now = self.parts.clock.monotonic()
        entry.settled = True
        request = entry.request
        result = SendResult(
            entry.index,
            entry.message,
            status,
            receipt.message_id if receipt is not None else None,
            error,
            entry.attempts,
            request.recipients if request is not None else (),
            entry.suppressed,
            entry.waited if entry.attempts else now - entry.taken_at,
            now - entry.taken_at,
        )
        self.report.add(result)
        self.report.duration = now - self._started_at
        if self.parts.observers:
            self.parts.tell(SendEvent(EventKind.RESULT, entry.index, error, entry.attempts, result))
        self._results.append(result)
        if self._results_wanted is not None:
            self._results_wanted.set()
            self._results_wanted = None
        self.intake.settled += 1
        if self.intake.ended:
            self.check_done()

    def check_done(self) -> None:
        """When everything taken in has its fate and nothing more comes, the run is over."""
        if not self.intake.complete or self.done.is_set():
            return
        self.leaving = True
        self.done.set()
        self.timers.close()
        self.lanes.interrupt(self)
        for worker in self._idle:
            worker.dismissed = True
            worker.event.set()
        self._idle.clear()
        if self._results_wanted is not None:
            self._results_wanted.set()


def _held(error: SendError) -> SendError:
    """The error of a message that was never sent because of somebody else's *error*."""
    if isinstance(error, HeldError):
        return error
    return HeldError(
        f"held back, because another message met this: {error.message}",
        code=error.code,
        scope=error.scope,
        origin=error.origin,
        remedy=error.remedy,
        resume_at=error.resume_at,
    )
