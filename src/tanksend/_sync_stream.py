"""The results of a batch that runs on another thread's loop, for the thread that feeds it and looks at them."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import anyio

from ._engine import Feed, SequenceSource, source_of
from ._loop_thread import Call
from ._messages import Priority
from ._sender import raise_intake_error

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from ._engine import Run, Source
    from ._loop_thread import LoopThread
    from ._messages import Message
    from ._report import SendReport
    from ._results import SendResult
    from ._sender import Sender

_ROOM = object()
_END = object()


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
        give_up_after: float | dt.timedelta | None,
        *,
        keep: int = 10_000,
    ) -> None:
        self._sender = sender
        self._loop = loop
        self._give_up_after = give_up_after
        self._keep = keep
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._feed: Feed | None = None
        self._iterator: Iterator[Message] | None = None
        self._source: Source = self._source_of(messages)
        self._call: Call | None = None
        self._run: Run | None = None
        self._acknowledge: Callable[[], None] | None = None
        self._results: Iterator[SendResult] = iter(())
        self._ended = False

    def _source_of(self, messages: Iterable[Message] | AsyncIterable[Message]) -> Source:
        source = source_of(messages)
        if isinstance(source, SequenceSource) or isinstance(messages, AsyncIterable):
            return source
        self._iterator = iter(messages)
        self._feed = Feed(on_room=lambda: self._inbox.put(_ROOM))
        return self._feed

    def __enter__(self) -> SyncResultStream:
        call = self._call = Call()
        call.when_done(lambda: self._inbox.put(_END))
        self._loop.start(self._drive, call)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._call is not None and not self._ended:
                self._loop.stop(self._call)
        finally:
            self._close_iterator()

    def __iter__(self) -> SyncResultStream:
        return self

    def __next__(self) -> SendResult:
        while True:
            for result in self._results:
                return result
            self._release()
            if self._ended:
                raise StopIteration
            self._results = iter(self._next_results())

    def _next_results(self) -> Sequence[SendResult]:
        """Pull messages in this thread until results come back; none at the end."""
        while True:
            if self._iterator is not None and self._feed is not None and self._inbox.empty() and not self._feed.full():
                self._pull(self._iterator, self._feed)
                continue
            event = self._inbox.get()
            if event is _END:
                self._finish()
                return ()
            if event is not _ROOM:
                return event  # type: ignore[no-any-return]

    def _pull(self, iterator: Iterator[Message], feed: Feed) -> None:
        try:
            message = next(iterator)
        except StopIteration:
            self._iterator = None
            feed.end()
        except Exception as error:  # noqa: BLE001  (the iterable's own: it comes back as IntakeError)
            self._iterator = None
            feed.end(error)
        else:
            feed.put(message)

    def _finish(self) -> None:
        self._ended = True
        if self._call is not None:
            self._call.result()

    def _release(self) -> None:
        """The results handed out so far were used: the loop may go on to the next."""
        acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is not None:
            self._loop.soon(acknowledge)

    def _close_iterator(self) -> None:
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()

    async def _drive(self) -> None:
        """On the loop: run the batch, and hand its results over one lot at a time."""
        async with self._sender._run(  # noqa: SLF001
            self._source, Priority.BULK, self._give_up_after, keep=self._keep
        ) as run:
            self._run = run
            self._sender.last_report = run.report
            while results := await run.take_results():
                used = anyio.Event()
                self._acknowledge = used.set
                self._inbox.put(results)
                await used.wait()
        raise_intake_error(run)

    @property
    def report(self) -> SendReport:
        """What has become of the batch so far."""
        if self._run is None:
            msg = "there is no report before the first result"
            raise RuntimeError(msg)
        return self._run.report
