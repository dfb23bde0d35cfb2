"""
Threads for work that blocks, with a bound of their own.

anyio's worker threads are one pool for the whole program: forty requests on a slow network would leave none for anybody
else. So whoever blocks for long brings a crew. A hop into a thread and back costs more than signing a request, and is
spared where there is a choice: a thread that has done one job takes the next that waits, without going back to an event
loop first; and all that is done by the time an event loop looks is told to it in one call.

The threads are daemons and end by themselves when there is nothing to do, or with the process.
"""

from __future__ import annotations

import functools
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio

from .._forks import watch
from .._loops import call_soon, this_loop
from ._threads import no_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Crew"]

T = TypeVar("T")

_IDLE_SECONDS: Final = 15.0


class _Job(Generic[T]):
    """Something to do, for a task that waits."""

    __slots__ = ("done", "error", "loop", "outcome", "wanted", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.loop = this_loop()
        self.done = anyio.Event()
        self.wanted = True
        self.error: BaseException | None = None
        self.outcome: T

    def do(self) -> None:
        """Do it, and keep what came of it."""
        try:
            self.outcome = self.work()
        except BaseException as error:  # noqa: BLE001 - whoever waits has to hear of it.
            self.error = error

    def result(self) -> T:
        """What came of it."""
        if self.error is None:
            return self.outcome
        try:
            raise self.error
        finally:
            self.error = None  # An exception that holds its own frame is a cycle.


class Crew:
    """
    At most *size* daemon threads that work for tasks of any event loop.

    Args:
        name: The threads'.
        size: How many there may be. One is started when a job would wait otherwise.
        idle: Seconds after which a thread without work ends.
    """

    def __init__(self, name: str, size: int, *, idle: float = _IDLE_SECONDS) -> None:
        self._name = name
        self._size = size
        self._idle_seconds = idle
        self._begin()
        watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Job[Any]] = SimpleQueue()
        self._queued = 0
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._done: dict[Hashable, list[anyio.Event]] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """
        Have *work* done, and wait for it.

        Cancelled before a thread has begun with it, it is not done at all; after that it is done to its end, and nobody
        hears what came of it.

        Raises:
            ConnectionFailedError: The system starts no thread for it.
        """
        job = _Job(work)
        self._put(job)
        try:
            await job.done.wait()
        except BaseException:
            job.wanted = False
            raise
        return job.result()

    def _put(self, job: _Job[Any]) -> None:
        with self._lock:
            self._queued += 1
            if self._queued > self._idle and len(self._threads) < self._size and not self._enlarged():
                self._queued -= 1
                raise no_thread()
            self._queue.put(job)

    def _enlarged(self) -> bool:
        """Start a thread; under the lock. False where there is none at all: otherwise the others do the work."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()  # It waits for the lock.
        except RuntimeError:
            return bool(self._threads)
        self._threads.add(thread)
        self._idle += 1  # It will be, at once.
        return True

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended for want of work."""
        for thread in tuple(self._threads):
            thread.join(seconds)

    def _work(self) -> None:
        while (job := self._take()) is not None:
            if job.wanted:
                job.do()
            self._finish(job)
            del job  # Or the message would live until the next one comes.

    def _take(self) -> _Job[Any] | None:
        job = _next(self._queue, self._idle_seconds)
        with self._lock:
            # Another look, with nobody putting: what came in the moment between was left to this thread.
            job = job or _next(self._queue)
            self._idle -= 1
            if job is None:
                self._threads.discard(threading.current_thread())
            else:
                self._queued -= 1
        return job

    def _finish(self, job: _Job[Any]) -> None:
        """Be free again, and tell the job's loop, unless it has been called and has not looked yet."""
        with self._lock:
            self._idle += 1
            events = self._done.setdefault(job.loop, [])
            events.append(job.done)
            called = len(events) > 1
        if not called and not call_soon(job.loop, functools.partial(self._wake, job.loop)):
            with self._lock:
                self._done.pop(job.loop, None)

    def _wake(self, loop: Hashable) -> None:
        with self._lock:
            events = self._done.pop(loop, [])
        for event in events:
            event.set()

    def before_fork(self) -> None:
        """Nothing: queue, lock and threads are replaced in the child."""

    def after_fork_in_parent(self) -> None:
        """Nothing: the threads went on."""

    def after_fork_in_child(self) -> None:
        """The threads are not here, and who waited in the queue is the parent's."""
        self._begin()


def _next(queue: SimpleQueue[_Job[Any]], seconds: float | None = None) -> _Job[Any] | None:
    try:
        return queue.get_nowait() if seconds is None else queue.get(timeout=seconds)
    except Empty:
        return None
