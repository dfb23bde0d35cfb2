"""One thread with its event loop, from start to end, and the calls that run in it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")
P = ParamSpec("P")

NAP_SECONDS = 0.5
"""How long a thread is blocked before it looks for interrupts: one that came just before does not wake it."""

log = logging.getLogger("tanksend")

_here = threading.local()
"""``room``, in the thread of one."""


class Call:
    """
    A coroutine function on its way through a loop thread, and its caller's hold on it.

    Args:
        function: What is to run.
        on_end: Called at the end, whatever it is; from the loop's thread.
    """

    def __init__(self, function: Callable[[], Awaitable[Any]], on_end: Callable[[], object] | None = None) -> None:
        self._function = function
        self._on_end = on_end
        self._room: Room | None = None
        self._waiting: Room | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurrying: asyncio.Task[None] | None = None
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()
        self.ended = False
        self.hurry: Callable[[], object] | None = None
        """What ends a stop that takes its time, once that is known; called in a task of its own."""

    # --- for the caller

    def result(self) -> Any:  # noqa: ANN401  (whatever the function returns)
        """Wait for the end; what the function returned, or raised."""
        self.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value

    def wait(self, timeout: float = math.inf) -> None:
        """Wait for the end, whatever it is; for *timeout* seconds at most."""
        # `ended` is set before the lock is released: an interrupt may leave the lock locked after all.
        while not self.ended and timeout >= 0:
            if self._running.acquire(timeout=min(timeout, NAP_SECONDS)):
                self._running.release()
            timeout -= NAP_SECONDS

    def started_in(self, room: Room | None) -> None:
        """Its caller is in the thread of *room*, which does nothing else until this has ended."""
        if room is not None:
            self._waiting = room
            room.waits_for.add(self)

    def enter(self, room: Room) -> None:
        """It is about to be handed to the thread of *room*."""
        self._room = room

    def cancel_soon(self) -> None:
        """Have it cancelled, also when it has not begun yet."""
        if self._room is None:
            self.ended = True
        elif not self.ended:
            self.soon(self._cancel)

    def hurry_soon(self) -> None:
        """Have a stop ended that takes its time, where that is possible."""
        self.soon(self._hurry)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call *callback* on the loop, without waiting."""
        if self._room is not None:
            self._room.soon(callback)

    # --- for the loop's thread

    def begin(self) -> None:
        """Run it."""
        self._task = _new_task(self._run())

    async def _run(self) -> None:
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self._cancelled:
                    scope.cancel()
                self._value = await self._function()
            if scope.cancelled_caught:
                self._error = CancelledError()
        except asyncio.CancelledError:
            self._error = _stopped()
        except BaseException as error:  # noqa: BLE001  (it comes out of result, in the caller's thread)
            self._error = error
        finally:
            self.end()

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
        elif self._task is None:  # It was interrupted on its way here, and will not come any more.
            self.end(CancelledError())

    def _hurry(self) -> None:
        if self.hurry is not None and not self.ended:
            self._hurrying = _new_task(_call(self.hurry))

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if self.ended:
            return
        self._error = self._error or error
        if self._room is not None:
            self._room.left(self)
        if self._waiting is not None:
            self._waiting.waits_for.discard(self)
        self.ended = True
        if self._on_end is not None:
            self._on_end()
        self._running.release()


class Room:
    """
    One thread with its loop, from start to end.

    Args:
        lock: Held while a call is handed over, and while the thread says that it takes no more.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._loop = _new_event_loop()
        self._loop.set_default_executor(_Executor())
        self._leave = asyncio.Event()
        self._leaving = False
        self._lost = False
        self.thread = threading.Thread(target=self._main, name="tanksend", daemon=True)
        self.calls: set[Call] = set()
        self.waits_for: set[Call] = set()
        """Calls that somebody in this thread waits for, each blocking the loop."""
        self.over = False
        """It takes no more calls."""

    def start(self) -> None:
        self.thread.start()

    def is_here(self) -> bool:
        """Whether this is its thread."""
        return self.thread.ident == threading.get_ident()

    def take(self, call: Call) -> None:
        """Begin *call* in the loop."""
        call.enter(self)
        self.calls.add(call)
        self._loop.call_soon_threadsafe(call.begin)

    def left(self, call: Call) -> None:
        """*call* is over."""
        self.calls.discard(call)
        self._look()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call *callback* in the loop, unless that is over."""
        if self._lost:
            return
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return

    def end(self) -> None:
        """End the thread as soon as no call runs."""
        self._leaving = True
        self.soon(self._look)

    def _look(self) -> None:
        if self._leaving and not self.calls:
            self._leave.set()

    def _main(self) -> None:
        _here.room = self
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001  (SystemExit, say, raised by an observer)
            log.error("the event loop of a SyncSender was ended by %s", type(error).__name__)  # noqa: TRY400  (no data)
        finally:
            with self._lock:
                self.over = True
            for call in tuple(self.calls):
                call.end(_stopped())

    async def _live(self) -> None:
        await self._leave.wait()

    # --- fork

    def rest(self, pause: Pause) -> None:
        """Come to rest between two callbacks, and stay there until *pause* is over."""
        self.soon(pause.rest)

    def lost(self) -> None:
        """Its thread is not in this process, and nor are its calls. The parent must not be woken for them."""
        self._lost = True
        for call in tuple(self.calls):
            call.end(RuntimeError("this call runs in the process that this one was forked from"))


class Pause:
    """One loop at rest while another thread forks."""

    def __init__(self) -> None:
        self._resting = threading.Lock()
        self._resting.acquire()
        self._over = threading.Lock()
        self._over.acquire()

    def rest(self) -> None:
        """For the loop that is to rest."""
        self._resting.release()
        self._over.acquire()

    def wait(self, timeout: float) -> None:
        """Until it rests; for the thread that forks."""
        self._resting.acquire(timeout=timeout)

    def end(self) -> None:
        """For the thread that has forked."""
        self._over.release()


class _Executor(ThreadPoolExecutor):
    """
    Threads for what the loop itself cannot do without blocking: it looks up host names in them.

    The standard ones take no work once the main thread has ended, while other threads may still be sending, and keep
    the interpreter from ending.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  (it comes out of the future)
                future.set_exception(error)

        try:
            threading.Thread(target=work, name="tanksend-lookup", daemon=True).start()
        except RuntimeError:  # Python 3.12.0 and 3.12.1 start none once the main thread has ended. The loop can wait.
            work()
        return future


def room_here() -> Room | None:
    """The one whose thread this is."""
    room: Room | None = getattr(_here, "room", None)
    return room


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _new_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task in the context of whoever posted the running callback, for the tracing of callers."""
    context = contextvars.copy_context()
    if sniffio := sys.modules.get("sniffio"):
        # The caller may be inside trio, and its context says so.
        context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return asyncio.get_running_loop().create_task(coroutine, context=context)


async def _call(function: Callable[[], object]) -> None:
    function()


def _stopped() -> RuntimeError:
    return RuntimeError("the event loop of this SyncSender was stopped in the middle of a call")
