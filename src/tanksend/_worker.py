"""
A thread that does blocking work for tasks of any event loop, in groups.

What is asked for while the thread is busy waits in a queue, and the next turn takes all of it: that is what makes one
sync of a disk, or one round to a server, pay for many requests.

Nothing here takes a lock from a finalizer: those run wherever the garbage collector happens to, also in the thread that
holds the lock. The queue is a `queue.SimpleQueue`, whose ``put`` is safe even there.
"""

from __future__ import annotations

import copy
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from ._forks import watch
from ._loops import call_soon, this_loop
from .exceptions import TanksendError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

T = TypeVar("T")
G = TypeVar("G")

_LARGEST_GROUP = 500
_JOIN_SECONDS = 10.0


class Job(Generic[G, T]):
    """
    Something to do, for somebody who waits.

    Attributes:
        work: Called in the thread with what `serve` gives it.
        error: What to raise instead of returning.
        outcome: What *work* returned.
    """

    __slots__ = ("_gave_up", "_is_over", "_news", "done", "error", "loop", "outcome", "work")

    def __init__(self, work: Callable[[G], T], loop: Hashable = None, done: anyio.Event | None = None) -> None:
        self.work = work
        self.loop = loop
        self.done = done
        self._news: threading.Condition | None = None
        self._is_over = self._gave_up = False
        self.error: BaseException | None = None
        self.outcome: T

    def do(self, given: G) -> None:
        """Do it, and keep what came of it."""
        self.outcome = self.work(given)

    def expect_soon(self) -> None:
        """`wait` will be called; until that gives up, nobody waits for *done*. Call it before anybody has the job."""
        self._news = threading.Condition()

    def wait(self, seconds: float) -> bool:
        """Block for so long at most; whether it is over."""
        assert self._news is not None  # noqa: S101  (`expect_soon` was called)
        with self._news:
            self._gave_up = not self._news.wait_for(lambda: self._is_over, seconds)
            return self._is_over

    def end(self) -> bool:
        """It is over; whether somebody waits for *done*."""
        if self._news is None:
            return self.done is not None
        with self._news:
            self._is_over = True
            self._news.notify()
            return self._gave_up

    def result(self) -> T:
        """What came of it."""
        if self.error is None:
            return self.outcome
        # Others of the group raise the same error: each a copy, with a traceback of its own.
        raise copy.copy(self.error) if isinstance(self.error, TanksendError) else self.error


class Worker(Generic[G]):
    """
    One daemon thread, started when there is work and ended by `stop`; it starts again when it is used again.

    Args:
        name: The thread's.
        serve: Called in the thread with a group of jobs, none empty. It calls `Job.do` of each, or sets `Job.error`;
            what it raises is the error of all of them.
        rest: Called in the thread before it ends.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Sequence[Job[G, Any]]], None],
        *,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._serve = serve
        self._rest = rest
        self._begin()
        watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Job[G, Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, work: Callable[[G], T], moment: float = 0.0) -> T:
        """
        Have *work* done, and wait for it.

        Whoever is cancelled while waiting has asked all the same: it is done, and nobody hears what came of it.

        Args:
            work: Called in the thread with what `serve` gives it.
            moment: Seconds for which the whole event loop may wait. For what is nearly always done sooner: a loop that
                goes on, and is busy, and this thread wake each other for the interpreter all the while, which costs
                more than the wait (33 µs for each message of a busy loop, measured on two processors).
        """
        done = anyio.Event()
        job: Job[G, T] = Job(work, this_loop(), done)
        if moment:
            job.expect_soon()
        self._put(job)
        if not (moment and job.wait(moment)):
            await done.wait()
        return job.result()

    async def ask_in_turn(self, *works: Callable[[G], Any]) -> list[Any]:
        """Have *works* done one after the other, and nothing of them after what is asked for later; see `ask`."""
        done = anyio.Event()
        loop = this_loop()
        jobs: list[Job[G, Any]] = [Job(work, loop) for work in works]
        jobs[-1].done = done
        self._put(*jobs)
        await done.wait()
        return [job.result() for job in jobs]

    def tell(self, work: Callable[[G], object]) -> None:
        """Have *work* done, and do not wait for it."""
        self._put(Job(work))

    def _put(self, *jobs: Job[G, Any]) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()  # raises RuntimeError where the system has no more threads: then nobody has asked
                self._thread = thread
            for job in jobs:
                self._queue.put(job)

    def stop(self) -> None:
        """Let the thread end when it has done what was asked of it. Does not wait; may be called from anywhere."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended after `stop`."""
        thread = self._thread
        if thread is not None:
            thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            if job is None:
                if self._ends():
                    return
                continue
            group = [job, *self._waiting()]
            self._do(group)
            _wake(group)
            del job, group

    def _ends(self) -> bool:
        """Whether nobody has asked for anything since the thread was told to stop."""
        with suppress(Exception):  # nobody waits for what it says, and the next who asks needs an answer
            self._rest()
        with self._lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True

    def _waiting(self) -> list[Job[G, Any]]:
        found: list[Job[G, Any]] = []
        while len(found) < _LARGEST_GROUP:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is None:
                self._queue.put(None)  # first what was asked for, then the end
                break
            found.append(job)
        return found

    def _do(self, group: Sequence[Job[G, Any]]) -> None:
        try:
            self._serve(group)
        except BaseException as error:  # noqa: BLE001  (whoever waits has to hear of it)
            for job in group:
                job.error = error

    def before_fork(self) -> None:
        """Nothing: the queue and the lock are replaced in the child."""

    def after_fork_in_parent(self) -> None:
        """Nothing: the thread went on."""

    def after_fork_in_child(self) -> None:
        """The thread is not here, and who waited in the queue is the parent's."""
        self._begin()


def _wake(group: Sequence[Job[G, Any]]) -> None:
    """Tell those who wait, each loop once."""
    by_loop: dict[Hashable, list[anyio.Event]] = {}
    for job in group:
        if job.end() and job.done is not None:
            by_loop.setdefault(job.loop, []).append(job.done)
    for loop, events in by_loop.items():
        call_soon(loop, lambda events=events: [event.set() for event in events])  # type: ignore[misc]
