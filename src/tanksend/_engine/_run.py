"""A run: one call of `Sender.send`, `send_all` or `stream` in progress, from the first message to the last fate."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Self

import anyio

from .._loops import killed, uninterrupted
from .._messages import Priority
from .._report import SendReport
from .._results import Receipt, SendResult, Status
from ..exceptions import HeldError, OutcomeUnknownError, Scope, SendError, ThrottlingError
from ..typing import Attempt, EventKind, GiveUp, Retry, SendEvent, Signal
from ._deadlines import Deadlines
from ._errors import copy_of, first_of, held_by, too_heavy
from ._intake import Intake
from ._parts import log
from ._timers import Timers
from ._workers import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from ..exceptions import Origin
    from ._entry import Entry
    from ._lanes import Lanes
    from ._parts import Parts
    from ._sources import Source

LANES = tuple(Priority)
LOOK_AHEAD = 64
"""Messages looked at for one that fits, when there is no room for the next."""
HEAVY_THROTTLES = 6
"""How often a message that is heavier than a second of the rate is tried: an account that goes into debt takes it."""
GRACE_SECONDS = 5.0
"""How long requests on the wire may go on after a stop."""


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
        self.workers = Workers(self, self._tasks)
        self.intake = Intake(self, source, priority, give_up_after)
        self._started_at = parts.clock.monotonic()
        self._window = 1
        self._in_flight = 0
        self._ready: tuple[list[tuple[int, Entry]], ...] = tuple([] for _ in LANES)
        self._ticketed: list[int | None] = [None for _ in LANES]
        self._waiting: set[Entry] = set()
        self._deadlines = Deadlines(self)
        self._failed_origins: dict[tuple[Origin, str], SendError] = {}
        self.failure: SendError | None = None
        """What all that still waits is held with, once the run is stopped."""
        self._crash: BaseException | None = None
        self._results: deque[SendResult] = deque()
        self._results_wanted: anyio.Event | None = None
        self._handed_out = 0

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
        self.workers.bury()
        if not self.done.is_set():
            self.intake.finish()

    async def take_results(self) -> Sequence[SendResult]:
        """
        What has ended since the last call, at least one; empty when everything has.

        The results of the last call count as used up by now, and make room for intake.
        """
        self.intake.delivered(self._handed_out)
        self._handed_out = 0
        await self._result_event()
        taken = tuple(self._results)
        self._results.clear()
        self._handed_out = len(taken)
        return taken

    async def take_result(self) -> SendResult | None:
        """The next that has ended; None when everything has."""
        while not self._results:
            if self.done.is_set():
                return None
            await self._result_event()
        self.intake.delivered(1)
        return self._results.popleft()

    async def _result_event(self) -> None:
        while not self._results and not self.done.is_set():
            wanted = self._results_wanted = self._results_wanted or anyio.Event()
            await wanted.wait()

    def stop(self, why: str) -> None:
        """
        Take in no more and send no more; requests on the wire get 5 seconds.

        The waiting are held at once. Safe to call again.
        """
        self.intake.stop()
        self._begin_grace()
        self._leave(HeldError("the batch was stopped before the message was sent", code="Stopped"), why)

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
        self.timers.at(self.parts.clock.monotonic() + GRACE_SECONDS, self._end_grace)

    def _end_grace(self) -> None:
        """Whatever still goes on is cut off."""
        if self.failure is None:
            self.stop("stopped")
        self.workers.cut()
        self.intake.abort()
        self.timers.close()

    # --- waiting entries ----------------------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """An entry fresh from intake begins to wait."""
        self._wait(entry)
        if entry.deadline is not None and not entry.settled:
            self._deadlines.watch(entry, entry.deadline)

    def _wait(self, entry: Entry) -> None:
        """*entry* is ready for a slot, unless it is too late for that."""
        if self.failure is not None:
            self.hold(entry, self.failure)
        elif entry.is_late(self.parts.clock.monotonic()):
            self.hold(entry, self._too_late(entry))
        else:
            self._waiting.add(entry)
            self._make_ready(entry)

    def _make_ready(self, entry: Entry) -> None:
        if entry.settled:
            return
        heapq.heappush(self._ready[entry.lane], (entry.sequence, entry))
        self.renew_ticket(entry.lane)
        self.lanes.wake()

    def _renew_tickets(self) -> None:
        """There is room again: compete in each lane."""
        for lane in LANES:
            if self._ready[lane] and self._ticketed[lane] is None:
                self.renew_ticket(lane)

    def renew_ticket(self, lane: Priority) -> None:
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
        return None

    def _hold_failed(self, entry: Entry) -> bool:
        """Settle an entry whose origin has failed meanwhile."""
        if self._failed_origins:
            for origin in entry.origins():
                if origin in self._failed_origins:
                    self.hold(entry, self._failed_origins[origin])
                    return True
        return False

    def lightest(self, lane: Priority) -> int:
        """The fewest recipients of those who would be next in *lane*."""
        return min(entry.weight for _, entry in self._ready[lane][:LOOK_AHEAD] if not entry.settled)

    def pass_over(self, heavy: Entry, limit: int) -> Entry | None:
        """The heaviest with at most *limit* recipients, of those who would be next; the oldest of equals."""
        if heavy.passed_at is None:
            heavy.passed_at = self.parts.clock.monotonic()
        near = [entry for _, entry in self._ready[heavy.lane][:LOOK_AHEAD] if entry.weight <= limit]
        fitting = [entry for entry in near if not entry.settled and not self._hold_failed(entry)]
        return max(fitting, key=lambda entry: (entry.weight, -entry.sequence), default=None)

    def take(self, entry: Entry) -> None:
        """The lanes give *entry* a slot."""
        ready = self._ready[entry.lane]
        if ready[0][1] is entry:
            heapq.heappop(ready)
            self._ticketed[entry.lane] = None
        else:
            ready.remove((entry.sequence, entry))
            heapq.heapify(ready)
        self._waiting.discard(entry)
        self._in_flight += 1
        entry.waited += self.parts.clock.monotonic() - entry.since
        self.renew_ticket(entry.lane)

    def put_back(self, entry: Entry) -> None:
        """It could not go after all."""
        self._off_the_wire(entry)
        self._wait(entry)
        self._renew_tickets()

    def _off_the_wire(self, entry: Entry) -> None:
        self._in_flight -= 1
        self.lanes.in_flight -= 1
        entry.since = self.parts.clock.monotonic()

    def expire(self, entry: Entry) -> None:
        """Its time is over; what is on the wire is not concerned."""
        if entry in self._waiting:
            self.hold(entry, self._too_late(entry))

    # --- attempts -----------------------------------------------------------------------------------------------------

    def left(self, entry: Entry | None, *, led: bool) -> None:
        """A worker is gone. What it was woken for and had not begun, an entry or the lead, is for another."""
        if entry is not None:
            self.put_back(entry)
        if led:
            self.lanes.resign()
        else:
            self.lanes.wake()
        if self.done.is_set() and not self.workers:
            self.timers.close()

    async def attempt(self, entry: Entry, scope: anyio.CancelScope) -> None:
        """One request for *entry*, and what follows from it; *scope* is the worker's."""
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
            await self._failed(entry, self._unexplained(error))
        except BaseException as error:
            self._off_the_wire(entry)
            cut = OutcomeUnknownError("the batch was stopped while the request was on the wire")
            cut.attempts = entry.attempts
            self._give_up(entry, cut)
            if not _foreign(error, scope):
                raise
            self._renew_tickets()
        else:
            self._off_the_wire(entry)
            if not isinstance(receipt, Receipt):
                await self._failed(entry, self._unexplained(receipt))
                return
            self._grow()
            self.settle(entry, Status.SENT, receipt=receipt)
            await self.parts.feedback(Signal(entry.weight, None, entry.uncounted), self.lanes.wake)

    def _unexplained(self, outcome: object) -> SendError:
        """The error for a transport that neither returned a receipt nor raised a `SendError`."""
        kind = type(outcome).__name__
        log.warning("a transport of type %s broke its contract with a %s", type(self.parts.transport).__name__, kind)
        return OutcomeUnknownError("the transport failed", cause_type=kind)

    def _grow(self) -> None:
        """A good answer: one more request at a time, which doubles them each round."""
        if self._window < self.parts.max_parallel:
            self._window += 1
        self._renew_tickets()

    async def _failed(self, entry: Entry, error: SendError) -> None:
        if error.attempts:
            # It was raised before, for another message or an earlier attempt.
            error = copy_of(error)
        error.attempts = entry.attempts
        entry.error = error
        if isinstance(error, ThrottlingError):
            entry.throttles += 1
            self.report.throttled += 1
        if error.maybe_sent:
            entry.unknown = entry.unknown or error
        elif error.scope in (Scope.MESSAGE, Scope.RECIPIENT) and not error.retryable:
            self._grow()
        if self.parts.observers:
            self._tell(SendEvent(EventKind.ATTEMPT_FAILED, entry.index, error, entry.attempts))
        self._decide(entry, error)
        self._renew_tickets()
        await self.parts.feedback(Signal(entry.weight, error, entry.uncounted), self.lanes.wake)

    def _decide(self, entry: Entry, error: SendError) -> None:
        """Put *entry* back for another attempt, or settle it; then see what else the error concerns."""
        if isinstance(error, ThrottlingError) and self._is_too_heavy(entry):
            self._give_up(entry, too_heavy(entry.weight, entry.throttles, error))
            return
        now = self.parts.clock.monotonic()
        elapsed = now - entry.taken_at
        attempt = Attempt(entry.attempts, error, elapsed, self.parts.jitter(), entry.throttles)
        decision = self._ask(attempt)
        if isinstance(decision, Retry) and not self.leaving:
            again = now + decision.after
            if entry.deadline is None or again < entry.deadline:
                self._waiting.add(entry)
                if decision.after > 0:
                    self.timers.at(again, lambda: self._make_ready(entry))
                else:
                    self._make_ready(entry)
                return
        self._give_up(entry, error)
        if isinstance(decision, Retry):
            return
        if error.scope is Scope.ACCOUNT:
            self.fail(error)
        elif error.scope is Scope.ORIGIN and (origin := entry.origin(error)) is not None:
            self._failed_origins.setdefault(origin, held_by(error))

    def _is_too_heavy(self, entry: Entry) -> bool:
        """Whether *entry* names more recipients than fit into a second, and SES has refused it often enough."""
        return entry.throttles >= HEAVY_THROTTLES and entry.weight > self.parts.granted_rate()

    def _ask(self, attempt: Attempt) -> Retry | GiveUp:
        try:
            return self.parts.decide(attempt)
        except BaseException as error:  # noqa: BLE001  (it must not cost a fate)
            self.crash(error)
            return GiveUp()

    # --- fates --------------------------------------------------------------------------------------------------------

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
        entry.waited += self.parts.clock.monotonic() - entry.since
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
            entry.waited,
            now - entry.taken_at,
        )
        self.report.add(result)
        self.report.duration = now - self._started_at
        self._results.append(result)
        self._wake_consumer()
        self.intake.settled += 1
        if self.parts.observers:
            self._tell(SendEvent(EventKind.RESULT, entry.index, error, entry.attempts, result))
        if self.intake.ended:
            self.check_done()

    def _tell(self, event: SendEvent) -> None:
        try:
            self.parts.tell(event)
        except BaseException as error:  # noqa: BLE001  (it must not cost a fate)
            self.crash(error)

    def _wake_consumer(self) -> None:
        if self._results_wanted is not None:
            self._results_wanted.set()
            self._results_wanted = None

    def check_done(self) -> None:
        """When everything taken in has its fate and nothing more comes, the run is over."""
        if not self.intake.complete or self.done.is_set():
            return
        self.leaving = True
        self.report.limiter = self.parts.figures()
        self.done.set()
        self.workers.dismiss_idle()
        self.lanes.interrupt(self)
        if not self.workers:
            self.timers.close()
        self._wake_consumer()


def _foreign(error: BaseException, scope: anyio.CancelScope) -> bool:
    """Whether *error* is a cancellation that is none of this run's: the transport awaited something cancelled."""
    return isinstance(error, anyio.get_cancelled_exc_class()) and not scope.cancel_called and not killed()
