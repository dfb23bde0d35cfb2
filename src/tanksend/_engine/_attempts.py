"""Attempts: one request on the wire for what a slot carries, and what follows from how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import anyio

from .._loops import killed
from .._results import Receipt, Status
from ..exceptions import OutcomeUnknownError, Scope, SendError, ThrottlingError
from ..typing import Attempt, BulkRequest, EventKind, GiveUp, Retry, SendEvent, Signal, Slot
from ._errors import copy_of, held_by, stopped, too_heavy
from ._fates import too_late
from ._lanes import LATE
from ._parts import log

if TYPE_CHECKING:
    from ..exceptions import Origin
    from ..typing import BulkTransport
    from ._books import Books
    from ._entry import Entry, Parcel
    from ._run import Run

HEAVY_THROTTLES = 6
"""How often a message that is heavier than a second of the rate is tried: an account that goes into debt takes it."""


class Attempts:
    """Those of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parts = run.parts
        self._failed_origins: dict[tuple[Origin, str], SendError] = {}

    def failed_origin(self, entry: Entry) -> SendError | None:
        """Why *entry* will not be sent: its origin has failed meanwhile."""
        if self._failed_origins:
            for origin in entry.origins():
                if origin in self._failed_origins:
                    return self._failed_origins[origin]
        return None

    async def make(self, parcel: Parcel, scope: anyio.CancelScope) -> None:
        """One request for *parcel*, and what follows from it; *scope* is the worker's."""
        run = self._run
        if run.books is not None:
            run.books.spare(scope)
            try:
                claimed = await self._claim(run.books, parcel)
            finally:
                run.books.spare_no_longer(scope)
            if claimed is None:
                return
            parcel = claimed
        entries = parcel.entries
        for entry in entries:
            entry.attempts += 1
        try:
            outcome = await self._request(entries)
        except SendError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  (a transport that breaks its contract: anything may have happened)
            outcome = self._unexplained(error)
        except BaseException as error:
            run.off_the_wire(parcel)
            self._cut(entries)
            if not _foreign(error, scope):
                raise
            run.renew_tickets()
            return
        run.off_the_wire(parcel)
        if len(entries) == 1:
            await self._end(entries[0], outcome)
        else:
            await self._end_all(entries, outcome)

    async def _request(self, entries: Sequence[Entry]) -> object:
        """What the transport returns, which may be anything."""
        transport = self._parts.transport
        if len(entries) == 1:
            request = entries[0].request
            assert request is not None  # noqa: S101  (intake made it)
            return await transport.send(request)
        requests = tuple(entry.request for entry in entries if entry.request is not None)
        return await cast("BulkTransport", transport).send_bulk(BulkRequest(requests))

    def _unexplained(self, outcome: object) -> SendError:
        """The error for a transport that neither returned a receipt nor raised a `SendError`."""
        kind = type(outcome).__name__
        log.warning("a transport of type %s broke its contract with a %s", type(self._parts.transport).__name__, kind)
        return OutcomeUnknownError("the transport failed", cause_type=kind)

    def _cut(self, entries: Sequence[Entry]) -> None:
        """They were on the wire when the patience with them ended."""
        for entry in entries:
            error = OutcomeUnknownError("the batch was stopped while the request was on the wire")
            error.attempts = entry.attempts
            self._run.fates.give_up(entry, error)

    # --- before the request -------------------------------------------------------------------------------------------

    async def _claim(self, books: Books, parcel: Parcel) -> Parcel | None:
        """*parcel*, or the next, once its intent is durable and its slot due; None when nothing goes now."""
        found: Parcel | None = parcel
        try:
            while found is not None:
                parcel = found
                await books.claim(parcel)
                if parcel.entries:
                    return parcel if await self._due(parcel) else None
                found = await self._hand_on(books, parcel)
        except SendError as error:
            self._run.fail(error)
            await self._call_off(parcel, error)
        except BaseException:
            await self._call_off(parcel, stopped())
            raise
        return None

    async def _hand_on(self, books: Books, parcel: Parcel) -> Parcel | None:
        """All that was in *parcel* is others' business: its slot is for the next, perhaps of another run."""
        run = self._run
        await books.look_again()
        run.off_the_wire(parcel)
        run.renew_tickets()
        return await run.lanes.hand_on(parcel)

    async def _due(self, parcel: Parcel) -> bool:
        """Wait until the slot of *parcel* is due; False when it does not go now after all."""
        clock = self._parts.clock
        early = parcel.due - clock.monotonic()
        if early > 0:
            await clock.sleep(early)
        elif parcel.slot.delay > 0 and -early > LATE and not parcel.entries[0].lapsed:
            # Used now, it would crowd the slots that follow. What was claimed stays so, and gets another; once only.
            for entry in parcel.entries:
                entry.lapsed = True
            self._run.put_back(parcel)
            await self._release(parcel)
            return False
        self._hold_the_late(parcel)
        while parcel.entries and parcel.weight < parcel.room:
            await self._give_back(parcel)
            self._hold_the_late(parcel)
        if not parcel.entries:
            await self._call_off(parcel)
        return bool(parcel.entries)

    def _hold_the_late(self, parcel: Parcel) -> None:
        """Take out of *parcel* what must not be sent any more: it was stopped meanwhile, or its time has run out."""
        run, now = self._run, self._parts.clock.monotonic()
        if run.failure is None and not any(entry.is_late(now) for entry in parcel.entries):
            return
        entries, parcel.entries = parcel.entries, []
        for entry in entries:
            error = run.failure or (too_late(entry) if entry.is_late(now) else None)
            if error is None:
                parcel.entries.append(entry)
            else:
                entry.since = now  # until its slot it has waited already
                run.hold(entry, error)

    async def _give_back(self, parcel: Parcel) -> None:
        """What *parcel* has become too light for, of the last that was charged for it."""
        slot = parcel.surcharge or parcel.slot
        extra = min(slot.recipients, parcel.room - parcel.weight)
        left = Slot(slot.delay, slot.recipients - extra, slot.token)
        if parcel.surcharge is None:
            parcel.slot = left
        else:
            parcel.surcharge = left if left.recipients else None
        await self._parts.release(Slot(slot.delay, extra, slot.token))

    async def _release(self, parcel: Parcel) -> None:
        await self._parts.release(parcel.slot)
        if parcel.surcharge is not None:
            await self._parts.release(parcel.surcharge)

    async def _call_off(self, parcel: Parcel, error: SendError | None = None) -> None:
        """Nothing of *parcel* goes; *error* says why."""
        self._run.off_the_wire(parcel)
        if error is not None:
            for entry in parcel.entries:
                self._run.hold(entry, error)
        self._run.renew_tickets()
        await self._release(parcel)

    # --- after it -----------------------------------------------------------------------------------------------------

    async def _end(self, entry: Entry, outcome: object) -> None:
        """What became of a message that went alone."""
        error = self._note(entry, outcome, self._parts.jitter())
        if _is_good(error):
            self._run.grow()
        self._run.renew_tickets()
        await self._parts.feedback(Signal(entry.weight, error, entry.uncounted), self._run.lanes.wake)

    async def _end_all(self, entries: Sequence[Entry], outcome: object) -> None:
        """What became of several: one outcome for each, or one error for all."""
        if isinstance(outcome, SendError) or not isinstance(outcome, Sequence) or len(outcome) != len(entries):
            # Of too few or too many, nobody knows which is whose.
            error = outcome if isinstance(outcome, SendError) else self._unexplained(outcome)
            outcome = [error] * len(entries)
        jitter = self._parts.jitter()  # one for all: who is tried again at the same time shares a request again
        errors = [self._note(entry, own, jitter) for entry, own in zip(entries, outcome, strict=True)]
        if any(map(_is_good, errors)):
            self._run.grow()
        self._run.renew_tickets()
        for one in {type(error): error for error in errors}.values():
            some = [entry for entry, own in zip(entries, errors, strict=True) if type(own) is type(one)]
            signal = Signal(sum(entry.weight for entry in some), one, sum(entry.uncounted for entry in some))
            await self._parts.feedback(signal, self._run.lanes.wake)

    def _note(self, entry: Entry, outcome: object, jitter: float) -> SendError | None:
        """Settle *entry*, or put it back for another attempt; the error, if there is one."""
        if isinstance(outcome, Receipt):
            self._run.fates.settle(entry, Status.SENT, message_id=outcome.message_id)
            return None
        error = outcome if isinstance(outcome, SendError) else self._unexplained(outcome)
        if error.attempts:
            # It was raised before, for another message or an earlier attempt.
            error = copy_of(error)
        error.attempts = entry.attempts
        self._failed(entry, error, jitter)
        return error

    def _failed(self, entry: Entry, error: SendError, jitter: float) -> None:
        entry.error = error
        if isinstance(error, ThrottlingError):
            entry.throttles += 1
            self._run.report.throttled += 1
        if error.maybe_sent:
            entry.unknown = entry.unknown or error
        if self._parts.observers:
            self._run.fates.tell(SendEvent(EventKind.ATTEMPT_FAILED, entry.index, error, entry.attempts))
        self._decide(entry, error, jitter)

    def _decide(self, entry: Entry, error: SendError, jitter: float) -> None:
        """Put *entry* back for another attempt, or settle it; then see what else the error concerns."""
        run = self._run
        if isinstance(error, ThrottlingError) and self._is_too_heavy(entry):
            run.fates.give_up(entry, too_heavy(entry.weight, entry.throttles, error))
            return
        now = self._parts.clock.monotonic()
        elapsed = now - entry.taken_at
        attempt = Attempt(entry.attempts, error, elapsed, jitter, entry.throttles)
        decision = self._ask(attempt)
        if isinstance(decision, Retry) and not run.leaving:
            again = now + decision.after
            if entry.deadline is None or again < entry.deadline:
                run.wait_until(again, entry, error)
                return
        run.fates.give_up(entry, error)
        if isinstance(decision, Retry):
            return
        if error.scope is Scope.ACCOUNT:
            run.fail(error)
        elif error.scope is Scope.ORIGIN and (origin := entry.origin(error)) is not None:
            self._failed_origins.setdefault(origin, held_by(error))

    def _is_too_heavy(self, entry: Entry) -> bool:
        """Whether *entry* names more recipients than fit into a second, and SES has refused it often enough."""
        return entry.throttles >= HEAVY_THROTTLES and entry.weight > self._parts.granted_rate()

    def _ask(self, attempt: Attempt) -> Retry | GiveUp:
        try:
            return self._parts.decide(attempt)
        except BaseException as error:  # noqa: BLE001  (it must not cost a fate)
            self._run.crash(error)
            return GiveUp()


def _is_good(error: SendError | None) -> bool:
    """Whether SES works as it should: it took a message, or found fault with that one alone."""
    return error is None or not (
        error.maybe_sent or error.retryable or error.scope not in (Scope.MESSAGE, Scope.RECIPIENT)
    )


def _foreign(error: BaseException, scope: anyio.CancelScope) -> bool:
    """Whether *error* is a cancellation that is none of this run's: the transport awaited something cancelled."""
    return isinstance(error, anyio.get_cancelled_exc_class()) and not scope.cancel_called and not killed()
