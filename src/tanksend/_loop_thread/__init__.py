"""
An event loop on a daemon thread, for callers without one.

Not anyio's ``start_blocking_portal``: kept in an object, that one keeps the interpreter from ending, is dead in a
forked child, and goes on with what it does when its caller is interrupted. What is different here:

- An interrupt (`KeyboardInterrupt`) may hit the calling thread between any two lines. A call is known to its caller
  before it is handed over, and callbacks reach the loop in the order they were posted: one that is cancelled before it
  has begun will never begin. So whoever waits can always tell a call to stop, and knows when it has.
- A fork copies one thread. Before it, every loop is brought to rest between two callbacks, so that no lock is held and
  nothing half done is copied. The child begins with a loop of its own. What it inherits is kept, untouched: destroying
  it would reach into the parent's loop, with which it shares sockets and the selector.
- At exit, calls of threads that do not keep the interpreter alive are stopped as an interrupt would stop them.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._room import NAP_SECONDS, Call, Pause, Room, room_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["NAP_SECONDS", "Call", "LoopThread"]

T = TypeVar("T")

FORK_SECONDS = 1.0
"""How long a fork waits for a loop to come to rest: something in it may be waiting for the thread that forks."""

EXIT_SECONDS = 6.0
"""How long the exit of the interpreter waits for calls that it stops: the grace of a run, and a little more."""


class LoopThread:
    """
    Starts with the first call, again in a forked child or after `close`, and never has to be closed.

    Any number of threads may use one. While somebody on its loop (an observer, say) waits for a call, it is not there
    for others: another thread is, also for that call.

    Args:
        goodbye: What is run on the loop before its thread ends.
    """

    def __init__(self, goodbye: Callable[[], Awaitable[object]]) -> None:
        self._goodbye = goodbye
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._reset()
        _everyone[id(self)] = self

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._room: Room | None = None
        self._spare: LoopThread | None = None

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._room is not None

    def call(self, function: Callable[..., Awaitable[T]], *args: object, **kwargs: object) -> T:
        """Run *function* on the loop and wait; an interrupt cancels it, and waits for it to end."""
        call = Call(partial(function, *args, **kwargs))
        try:
            self.start(call)
            return call.result()  # type: ignore[no-any-return]
        except BaseException:
            self.stop(call)
            raise

    def start(self, call: Call) -> None:
        """Begin *call*. Whoever is interrupted here must still `stop` it."""
        call.started_in(room_here())
        with self._lock:
            room = self._room
            if room is None or room.over:
                room = self._begin()
            if not room.waits_for:
                room.take(call)
                return
            spare = self._spare = self._spare or LoopThread(self._goodbye)
        spare.start(call)

    def _begin(self) -> Room:
        room = Room(self._lock)
        try:
            room.start()
            self._room = room
        except BaseException:
            room.end()  # Its thread may have started after all.
            raise
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _left_open, room, self._goodbye)
        self._finalizer.atexit = False
        return room

    def stop(self, call: Call) -> None:
        """
        Cancel *call* and wait until it has ended.

        A second interrupt ends the grace that requests on the wire have, or where there is no way to do so, the wait.
        """
        try:
            call.cancel_soon()
            call.wait()
        except BaseException:
            call.cancel_soon()  # The interrupt may have come before the first one was posted.
            call.hurry_soon()
            if call.hurry is not None:
                call.wait()
            raise

    def close(self) -> None:
        """Say goodbye and end the thread, unless others still use it. It starts again when it is needed."""
        if self.running:
            self.call(self._goodbye)
            self._end()

    def _end(self) -> None:
        if self._spare is not None:
            self._spare._end()  # noqa: SLF001  (its own kind)
        with self._lock:
            room = self._room
            if room is None or room.calls:
                return
            self._room = None
        if self._finalizer is not None:
            self._finalizer.detach()
        room.end()
        room.thread.join()

    # --- fork and exit

    def rooms(self) -> tuple[Room, ...]:
        """Its thread, if there is one; as a tuple, because there may be none."""
        room = self._room
        return () if room is None else (room,)

    def forked(self) -> None:
        """This process is a new one: what is here belongs to the parent."""
        for room in self.rooms():
            _inherited.append(room)
            room.lost()
        if self._finalizer is not None:
            self._finalizer.detach()
        self._reset()


def _left_open(room: Room, goodbye: Callable[[], Awaitable[object]]) -> None:
    """Nobody refers to a loop thread any more that was never closed. Called from anywhere, so it must not wait."""
    with suppress(RuntimeError):  # The loop has ended by itself.
        room.take(Call(goodbye))
        room.end()


# --- fork and exit ----------------------------------------------------------------------------------------------------

_everyone: weakref.WeakValueDictionary[int, LoopThread] = weakref.WeakValueDictionary()

_inherited: list[object] = []
"""What a forked child got from its parent, kept from being destroyed."""

_forking = threading.Lock()
_pauses: list[Pause] = []


def _rooms() -> list[Room]:
    # The list of references is made in one step, so that others may begin and end loop threads meanwhile.
    threads = [reference() for reference in _everyone.valuerefs()]
    return [room for thread in threads if thread is not None for room in thread.rooms()]


def _before_fork() -> None:
    _forking.acquire()
    for room in _rooms():
        if not room.is_here():
            pause = Pause()
            _pauses.append(pause)
            room.rest(pause)
    for pause in _pauses:
        pause.wait(FORK_SECONDS)


def _after_fork_in_parent() -> None:
    for pause in _pauses:
        pause.end()
    _pauses.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    _pauses.clear()
    _forking.release()
    for reference in _everyone.valuerefs():
        thread = reference()
        if thread is not None:
            thread.forked()


def _at_exit() -> None:
    calls = [call for room in _rooms() for call in tuple(room.calls)]
    for call in calls:
        call.cancel_soon()
    deadline = time.monotonic() + EXIT_SECONDS
    for call in calls:
        call.wait(max(0.0, deadline - time.monotonic()))


if hasattr(os, "register_at_fork"):  # Not on Windows, which has no fork.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
