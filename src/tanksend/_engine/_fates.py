"""The fates of one run's messages: decided here, kept in the ledger where there is one, and handed to the consumer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from .._report import SendReport
from .._results import SendResult, Status
from ..exceptions import HeldError, Scope
from ..typing import EventKind, SendEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..exceptions import SendError
    from ._entry import Entry
    from ._run import Run


class Fates:
    """The results of one run."""

    def __init__(self, run: Run, keep: int) -> None:
        self._run = run
        self._books = run.books
        self._observed = bool(run.parts.observers)
        self._clock = run.parts.clock
        self._began = self._clock.monotonic()
        self._results: deque[SendResult] = deque()
        self._wanted: anyio.Event | None = None
        self._handed_out = 0
        self.report = SendReport(keep=keep)
        self.told = 0
        """How many results there are."""

    # --- for the surface ----------------------------------------------------------------------------------------------

    async def take_all(self) -> Sequence[SendResult]:
        """
        What has ended since the last call, at least one; empty when everything has.

        The results of the last call count as used up by now, and make room for intake.
        """
        self._run.intake.delivered(self._handed_out)
        self._handed_out = 0
        await self._some()
        taken = tuple(self._results)
        self._results.clear()
        self._handed_out = len(taken)
        return taken

    async def take_one(self) -> SendResult | None:
        """The next that has ended; None when everything has."""
        while not self._results:
            if self._run.done.is_set():
                return None
            await self._some()
        self._run.intake.delivered(1)
        return self._results.popleft()

    async def _some(self) -> None:
        while not self._results and not self._run.done.is_set():
            wanted = self._wanted = self._wanted or anyio.Event()
            await wanted.wait()

    def wake_consumer(self) -> None:
        """There is a result, or there will be no other."""
        if self._wanted is not None:
            self._wanted.set()
            self._wanted = None

    # --- for the engine -----------------------------------------------------------------------------------------------

    def give_up(self, entry: Entry, error: SendError) -> None:
        """Settle *entry*, whose last attempt ended in *error*."""
        if error.maybe_sent:
            entry.unknown = entry.unknown or error
        if entry.unknown is not None:
            self.settle(entry, Status.UNKNOWN, error=entry.unknown)
        elif error.retryable:
            self.settle(entry, Status.HELD, error=too_late(entry))
        elif error.scope in (Scope.ORIGIN, Scope.ACCOUNT):
            self.settle(entry, Status.HELD, error=error)
        else:
            self.settle(entry, Status.FAILED, error=error)

    def settle(
        self, entry: Entry, status: Status, *, message_id: str | None = None, error: SendError | None = None
    ) -> None:
        """The fate of *entry*, once and for all: told as soon as the ledger knows it."""
        entry.settled = True
        entry.available = False
        request = entry.request
        result = SendResult(
            entry.index,
            entry.message,
            status,
            message_id,
            error,
            entry.attempts,
            request.recipients if request is not None else (),
            entry.suppressed,
            entry.waited,
            self._clock.monotonic() - entry.taken_at,
        )
        books = self._books
        if books is None or not books.keep(entry, result):
            self.publish(entry, result)

    def publish(self, entry: Entry, result: SendResult) -> None:
        """Hand out *result*."""
        self.report.add(result)
        self.report.duration = entry.taken_at + result.elapsed - self._began
        self._results.append(result)
        if self._wanted is not None:
            self.wake_consumer()
        self.told += 1
        if self._observed:
            self.tell(SendEvent(EventKind.RESULT, entry.index, result.error, entry.attempts, result))
        if self._books is not None:
            for follower in self._books.forget(entry):
                self._share(follower, result)
        if self._run.intake.ended:
            self._run.check_done()

    def _share(self, follower: Entry, result: SendResult) -> None:
        """*follower* had the key of a message that came before it."""
        if result.status is Status.SENT:
            self.settle(follower, Status.ALREADY_SENT, message_id=result.message_id)
        else:
            self.settle(follower, result.status, message_id=result.message_id, error=result.error)

    def tell(self, event: SendEvent) -> None:
        """Tell the observers."""
        try:
            self._run.parts.tell(event)
        except BaseException as error:  # noqa: BLE001  (it must not cost a fate)
            self._run.crash(error)


def too_late(entry: Entry) -> SendError:
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
