"""
A batch that runs on another thread's loop, for the thread that feeds it and looks at its results.

Three objects:

- `SyncResultStream` belongs to the caller's thread. There it pulls messages and hands out results, in turns.
- `_Batch` is the run on the loop's thread. It hands its results over in lots, the next when one is used up.
- `_Handed` lies between them: messages that were pulled and not taken in yet.

An interrupt may hit the caller's thread between any two lines, so nothing here takes a lock in it, and a message is
pulled and put down in one step.
"""

from __future__ import annotations

import asyncio
import queue
import weakref
from collections import deque
from collections.abc import AsyncIterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio

from ._engine import Feed, SequenceSource, source_of
from ._engine._sources import BUFFER, CHUNK
from ._loop_thread import NAP_SECONDS, Call
from ._messages import Priority
from ._sender import raise_intake_error, take_results

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from ._engine import Run
    from ._loop_thread import LoopThread
    from ._messages import Message
    from ._report import Row, SendReport
    from ._results import SendResult
    from ._sender import Sender

_GO_ON = object()
_END = object()
_LAST = object()


class _Sleep:
    """The loop waits for the caller's thread."""

    __slots__ = ("end", "over")

    def __init__(self, end: Callable[[], object]) -> None:
        self.end = end
        self.over = False


class _Handed(Feed):
    """
    Messages pulled in the caller's thread, on their way to the loop. `fetch` is for the one, the rest for the other.

    No lock: each side says what it is about to do before it looks at what the other one does.

    Args:
        messages: Iterated over in the caller's thread.
        on_room: Called, in the loop's thread, when `full` has changed.
    """

    def __init__(self, messages: Iterable[object], on_room: Callable[[], object]) -> None:
        self._messages = messages
        self._queue: deque[object] = deque()
        self._iterator: Iterator[object] | None = None
        self._put_down: Iterator[None] | None = None
        self._room = on_room
        self._fetching = False
        self._ended = False
        self._error: BaseException | None = None
        self._sleep: _Sleep | None = None
        self.closed = False
        self._forsaken = False

    # --- for the caller's thread

    def full(self) -> bool:
        """Whether nothing more is wanted, for the time being or at all."""
        return self.closed or self._ended or len(self._queue) >= BUFFER

    def fetch(self) -> None:
        """Pull one message; what the iterable raises is for the loop's side."""
        self._fetching = True
        try:
            if not self.closed:
                self._fetch()
        except Exception as error:  # noqa: BLE001  (the iterable's own: it comes back as IntakeError)
            self._iterator = None
            self._error = error
            self._ended = True
        finally:
            self._fetching = False
            self.wake()

    def _fetch(self) -> None:
        if self._put_down is None:
            self._iterator = iter(self._messages)
            self._put_down = map(self._queue.append, self._iterator)
        # In C from the iterable into the queue: an interrupt cannot come between and lose a message.
        if next(self._put_down, _LAST) is _LAST:
            self._iterator = None
            self._ended = True

    def wake(self) -> None:
        """See that the loop looks again."""
        # Only the loop's side sets it back: here it could be the next sleep already.
        sleep = self._sleep
        if sleep is not None and not sleep.over:
            with suppress(RuntimeError):  # The loop has ended, and with it whoever waited.
                sleep.end()
            sleep.over = True

    def let_go(self) -> None:
        """Close the iterator."""
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    # --- for the loop's thread

    async def pull(self, limit: int) -> Sequence[object] | None:
        while True:
            # Looked at in this order: nothing is put down after the end was said.
            ended = self._ended
            if self._queue:
                return self._take(limit)
            if ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._until(lambda: bool(self._queue) or self._ended)

    async def _until(self, ready: Callable[[], bool]) -> None:
        changed = anyio.Event()
        self._sleep = _Sleep(partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set))
        if not ready():
            await changed.wait()
        self._sleep = None

    def _take(self, limit: int) -> list[object]:
        taken = [self._queue.popleft() for _ in range(min(limit, CHUNK, len(self._queue)))]
        if len(taken) + len(self._queue) >= BUFFER:
            self._room()
        return taken

    def rest(self) -> Sequence[object]:
        self.closed = True
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def aclose(self) -> None:
        self.closed = True
        # A message that is being pulled is handed in: it comes before `rest`, and finds its fate there.
        while self._fetching and not self._forsaken:
            await self._until(lambda: not self._fetching or self._forsaken)

    def forsake(self) -> None:
        """Do not wait for the caller's thread any more."""
        self._forsaken = True
        self.wake()


class _Batch:
    """
    A run on the loop's thread.

    Args:
        sender: Whose run it is.
        messages: What it takes in.
        campaign: As for `Sender.send_all`.
        give_up_after: As for `Sender.send_all`.
        keep: As for `Sender.send_all`.
        save: Called with the row of each result, also of those that nobody is there for any more.
        inbox: Where the results go, in lots.
    """

    def __init__(
        self,
        sender: Sender,
        messages: object,
        *,
        campaign: str | None,
        give_up_after: float | dt.timedelta | None,
        keep: int,
        save: Callable[[Row], object] | None,
        inbox: queue.SimpleQueue[Any],
    ) -> None:
        self._sender = sender
        self._messages = messages
        self._campaign = campaign
        self._give_up_after = give_up_after
        self._keep = keep
        self._save = save
        self._inbox = inbox
        self.call = Call(self._drive, on_end=lambda: inbox.put(_END))
        self.run: Run | None = None

    async def _drive(self) -> None:
        try:
            async with self._sender._run(  # noqa: SLF001  (the other half of the surface)
                self._messages, Priority.BULK, self._give_up_after, campaign=self._campaign, keep=self._keep
            ) as run:
                self.run = run
                self.call.hurry = run.hurry
                self._sender.last_report = run.report
                self._inbox.put(_GO_ON)
                await self._hand_over(run)
        finally:
            # Those that were given their fate by a stop belong in the file, too.
            while self.run is not None and await take_results(self.run, self._save):
                pass
        raise_intake_error(run)

    async def _hand_over(self, run: Run) -> None:
        try:
            while lot := await take_results(run, self._save):
                used = anyio.Event()
                self._inbox.put((lot, used.set))
                await used.wait()
        except BaseException:
            if isinstance(self._messages, _Handed):
                self._messages.forsake()
            raise


class SyncResultStream:
    """
    The results of `SyncSender.stream`, in the order they end.

    The iterable of messages is pulled, and closed, in the thread that iterates over this: cursors and database sessions
    stay where they were made.
    """

    def __init__(
        self,
        sender: Sender,
        loop: LoopThread,
        messages: Iterable[Message] | AsyncIterable[Message],
        campaign: str | None,
        give_up_after: float | dt.timedelta | None,
        *,
        keep: int = 10_000,
        save: Callable[[Row], object] | None = None,
    ) -> None:
        self._loop = loop
        self._inbox = inbox = queue.SimpleQueue[Any]()
        self._handed: _Handed | None = None
        if not isinstance(messages, AsyncIterable) and not isinstance(source_of(messages), SequenceSource):
            self._handed = _Handed(messages, lambda: inbox.put(_GO_ON))
        self._batch = _Batch(
            sender,
            self._handed or messages,
            campaign=campaign,
            give_up_after=give_up_after,
            keep=keep,
            save=save,
            inbox=inbox,
        )
        # Nothing on the loop's side refers to this: should an interrupt keep the block from being left, this ends it.
        self._finalizer = weakref.finalize(self, self._batch.call.cancel_soon)
        self._finalizer.atexit = False
        self._results: Iterator[SendResult] = iter(())
        self._used: Callable[[], None] | None = None
        self._entered = False
        self._ended = False

    def __enter__(self) -> Self:
        if self._entered:
            msg = "a stream is used once"
            raise RuntimeError(msg)
        self._entered = True
        try:
            self._loop.start(self._batch.call)
            if self._next_event() is _END:
                self._finish()
            return self  # noqa: TRY300  (an interrupt here is one of the block that is being entered)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.stop(self._batch.call)
            self._finalizer.detach()
        finally:
            if self._handed is not None:
                self._handed.let_go()

    def __iter__(self) -> SyncResultStream:
        return self

    def __next__(self) -> SendResult:
        if not self._entered:
            msg = "use it in a block: with sender.stream(messages) as results"
            raise RuntimeError(msg)
        while True:
            for result in self._results:
                return result
            if self._ended:
                raise StopIteration
            self._results = iter(self._next_lot())

    def _next_lot(self) -> Sequence[SendResult]:
        """Pull messages until results come back; none at the end."""
        used, self._used = self._used, None
        if used is not None:
            self._batch.call.soon(used)
        handed = self._handed
        while True:
            while handed is not None and self._inbox.empty() and not handed.full():
                handed.fetch()
            if handed is not None:
                handed.wake()
            event = self._next_event()
            if event is _END:
                self._finish()
                return ()
            if event is not _GO_ON:
                lot, self._used = event
                return lot  # type: ignore[no-any-return]

    def _next_event(self) -> Any:  # noqa: ANN401  (a lot of results, or one of the two marks)
        while True:
            with suppress(queue.Empty):
                return self._inbox.get(timeout=NAP_SECONDS)

    def _finish(self) -> None:
        self._ended = True
        self._batch.call.result()

    @property
    def report(self) -> SendReport:
        """What has become of the batch so far."""
        if self._batch.run is None:
            msg = "there is no report before the block is entered"
            raise RuntimeError(msg)
        return self._batch.run.report
