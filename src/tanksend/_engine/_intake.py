"""Intake: pulls messages, gives each an entry, and settles those that will never be sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from .._results import Status
from ..exceptions import GuardError, HeldError, InvalidMessageError, Problem, Scope, SuppressedError
from ..typing import Allow, Drop, Hold, Replace
from ._entry import Entry
from ._errors import stopped
from ._prepare import prepare, uncounted, without_suppressed
from ._sources import CHUNK
from ._templates import StoredTemplates

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .._messages import Message, Priority
    from ..typing import Guard, GuardDecision
    from ._run import Run
    from ._sources import Source

AHEAD = 900
"""Messages taken in whose results were not taken out yet; with what a thread has pulled, 1,000."""
RESUME = 250
"""Once full, intake goes on when so many have been taken out: it would else be woken for each."""


class Intake:
    """The front of one run."""

    def __init__(self, run: Run, source: Source, priority: Priority, give_up_after: float | None) -> None:
        self._run = run
        self._source = source
        self._priority = priority
        self._give_up_after = give_up_after
        self._templates = StoredTemplates(run)
        self._pulling = anyio.CancelScope()
        self._closing = anyio.CancelScope(shield=True)
        self._taken = 0
        self._delivered = 0
        self._admitting: list[Entry] = []
        """Entries that have neither a fate nor a place in the lanes yet."""
        self._room_wanted: anyio.Event | None = None
        self._stopped = False
        self.ended = False
        """Nothing more will be taken in."""
        self.error: BaseException | None = None
        """What the iterable raised."""

    @property
    def complete(self) -> bool:
        """Whether all that will ever be taken in has its fate."""
        return self.ended and self._run.fates.told == self._taken

    @property
    def waits(self) -> bool:
        """Whether nothing is taken in until more results have been taken out."""
        return self._room_wanted is not None and not self._room_wanted.is_set()

    def delivered(self, number: int) -> None:
        """So many results were taken out."""
        self._delivered += number
        if self._room_wanted is not None and self._room() >= RESUME:
            self._room_wanted.set()

    def stop(self) -> None:
        """Take in no more."""
        self._stopped = True
        self._pulling.cancel()

    def refuse(self) -> None:
        """All that comes is held: go through what is finite, so that each has its fate, and stop the endless."""
        if not self._source.finite:
            self.stop()

    def abort(self) -> None:
        """Wait no longer for the iterable to close."""
        self._closing.cancel()

    def _room(self) -> int:
        return AHEAD - (self._taken - self._delivered)

    async def run(self) -> None:
        """Pull until the end, a stop or an error of the iterable; then see to it that a cancellation is a stop."""
        try:
            await self._pull_until_stopped()
            with self._closing:
                await self._close()
        finally:
            self.finish()
        await self._watch()

    async def _watch(self) -> None:
        """
        Stop the run when its caller is cancelled, until it is over.

        The caller himself may notice late: he is busy with a result, or cleans up, or sends one more and waits for it.
        """
        try:
            await self._run.done.wait()
        except anyio.get_cancelled_exc_class():
            self._run.stop("stopped")

    async def _pull_until_stopped(self) -> None:
        try:
            with self._pulling:
                await self._pull_all()
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                self._run.stop("stopped")
            elif not self._stopped:
                # By nobody around us: the iterable awaited something that had been cancelled.
                self._failed(error)
        except Exception as error:  # noqa: BLE001  (the iterable's own; the surface raises it)
            self._failed(error)
        except BaseException as error:  # noqa: BLE001  (it comes out of the caller's block)
            self._run.crash(error)

    def _failed(self, error: BaseException) -> None:
        self.error = error
        self._run.stop("stopped by an error of its iterable")

    async def _pull_all(self) -> None:
        if self._run.books is not None:
            self._run.books.check_keys(self._source.known)
        while not self._stopped:
            chunk = await self._source.pull(await self._wait_for_room())
            if chunk is None:
                return
            await self._admit(self._entries(chunk))

    async def _wait_for_room(self) -> int:
        while self._room() < CHUNK:  # less would be looked up in driblets, each of which costs a round
            self._room_wanted = anyio.Event()
            self._run.ripen_if_idle()
            await self._room_wanted.wait()
            self._room_wanted = None
        return self._room()

    async def _close(self) -> None:
        try:
            await self._source.aclose()
        except anyio.get_cancelled_exc_class() as error:
            if self._closing.cancel_called:
                raise
            self.error = self.error or error
        except Exception as error:  # noqa: BLE001  (the iterable's own)
            self.error = self.error or error
        except BaseException as error:  # noqa: BLE001  (it comes out of the caller's block)
            self._run.crash(error)

    def finish(self) -> None:
        """What was pulled and came no further than here is held, and nothing more is taken in."""
        entries = self._admitting + self._entries(self._source.rest())
        self._admitting = []
        for entry in entries:
            if not entry.settled and not entry.follows:
                self._run.hold(entry, self._run.failure or stopped())
        self.ended = True
        self._run.pools.ripen()
        self._run.check_done()

    def _entries(self, items: Sequence[object]) -> list[Entry]:
        now = self._run.parts.clock.monotonic()
        entries = []
        for item in items:
            entry = Entry(self._run, self._taken, self._run.lanes.next_sequence(), item, now)  # type: ignore[arg-type]
            if self._give_up_after is not None:
                entry.deadline = now + self._give_up_after
            self._taken += 1
            entries.append(entry)
        return entries

    async def _admit(self, entries: list[Entry]) -> None:
        """Give *entries* a place in the lanes, or a fate where something is in the way."""
        self._admitting = entries
        if not self._run.leaving:
            if self._run.books is not None:
                await self._run.books.look_up(entries)
                entries = [entry for entry in entries if not entry.settled and not entry.follows]
            for entry in entries:
                self._prepare(entry)
            await self._templates.check(entries)
            await self._suppress([entry for entry in entries if not entry.settled])
            if self._run.parts.guards:
                for entry in entries:
                    await self._guard(entry)
        self._admitting = []
        for entry in entries:
            if not entry.settled:
                self._run.pools.assign(entry)
                self._run.add(entry)

    def _prepare(self, entry: Entry) -> None:
        try:
            prepared = prepare(self._run.parts, entry.message, entry.key)
        except Exception as error:  # noqa: BLE001  (a validator of the caller's own; one row, not the batch)
            prepared = (Problem("message", f"could not be checked: {type(error).__name__}"),)
        if isinstance(prepared, tuple):
            self._run.fates.settle(entry, Status.INVALID, error=InvalidMessageError(problems=prepared))
            return
        entry.request = prepared
        entry.suppressed = ()
        entry.weight = len(prepared.recipients)
        entry.uncounted = uncounted(prepared)
        priority = entry.message.priority
        entry.lane = self._priority if priority is None else priority

    async def _suppress(self, entries: list[Entry]) -> None:
        """Take out who must not be written to; one look-up for all of *entries*."""
        emails = [address.email for entry in entries if entry.request for address in entry.request.recipients]
        try:
            found = frozenset(await self._run.parts.suppression.lookup(emails)) if emails else ()
        except Exception as error:  # noqa: BLE001  (a store of the caller's own)
            # Without the list nobody may be written to: a mail to somebody who complained cannot be taken back.
            failed = HeldError("the suppression store failed", code="SuppressionStoreFailed", scope=Scope.ACCOUNT)
            failed.cause_type = type(error).__name__
            self._run.fail(failed)
            return
        if found:
            for entry in entries:
                self._leave_out(entry, found)

    def _leave_out(self, entry: Entry, suppressed: Collection[str]) -> None:
        assert entry.request is not None  # noqa: S101  (it was prepared)
        entry.request, entry.suppressed = without_suppressed(entry.request, suppressed)
        entry.weight = len(entry.request.recipients)
        entry.uncounted = uncounted(entry.request)
        if entry.weight == 0:
            self._run.fates.settle(entry, Status.SUPPRESSED, error=SuppressedError())

    async def _guard(self, entry: Entry) -> None:
        """Ask the guards one after the other; each sees what the one before made of the message."""
        for guard in self._run.parts.guards:
            if entry.settled or self._run.leaving:
                return
            decision = await self._ask(guard, entry.message)
            if isinstance(decision, Replace):
                entry.message = decision.message
                self._prepare(entry)
                await self._templates.check([entry])
                if not entry.settled:
                    await self._suppress([entry])
            elif isinstance(decision, Hold):
                held = HeldError(decision.reason, code="GuardHold", resume_at=decision.resume_at)
                self._run.fates.settle(entry, Status.HELD, error=held)
            elif isinstance(decision, Drop):
                self._run.fates.settle(entry, Status.FAILED, error=GuardError(decision.reason))

    async def _ask(self, guard: Guard, message: Message) -> GuardDecision:
        """What *guard* says; where that is not known, no."""
        try:
            decision: object = await guard.check(message)
        except Exception as error:  # noqa: BLE001  (a guard of the caller's own)
            return Drop(f"a guard of type {type(guard).__name__} raised {type(error).__name__}")
        if isinstance(decision, Allow | Replace | Hold | Drop):
            return decision
        return Drop(f"a guard of type {type(guard).__name__} answered with a {type(decision).__name__}")
