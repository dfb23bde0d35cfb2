"""
`FakeClock`: time that moves when nobody has anything left to do.

A task that sleeps on it is kept with its moment in a heap. A driver watches the event loop while anybody sleeps; once
every task is blocked, it sets the time to the next moment and wakes who waits for it, in order. Nothing ever waits
for real.

When is every task blocked? trio can say so (`trio.testing.wait_all_tasks_blocked`). asyncio cannot, so a callback puts
itself back into the loop's queue turn by turn: when it finds nothing else queued for a few turns in a row, with the
selector asked in between, only a timer of ours can move things on. Two exceptions:

- While anyio delivers a cancellation to tasks that are shielded, it puts callbacks into the queue without end. Turns
  with such a callback in the queue count as quiet after a good many of them.
- Loops that hide their queue (uvloop) count every turn as busy up to a fixed number since the last sleeper came.

Source: CPython ``asyncio/base_events.py`` (``_ready``, ``_run_once``); anyio ``CancelScope._deliver_cancellation``.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUIET_TURNS = 4
_CHURNING_TURNS = 200
_HIDDEN_TURNS = 64


@attrs.define(order=False, eq=False)
class _Sleeper:
    """Somebody who waits, and whether he still does."""

    event: anyio.Event
    asleep: bool = True


class FakeClock:
    """
    A `Clock` for tests, on asyncio and trio.

    It jumps to the next timer when every task of the event loop is blocked, so a test that spends hours in it ends at
    once. Work in threads and on real sockets looks like being blocked: give those the system's clock. One event loop at
    a time; several, one after the other, are fine.

    Args:
        start: What `monotonic` says at the beginning, in seconds.
        wall: What `wall` says at the beginning, as Unix time in seconds.
        autojump: False: only `advance` moves it.
    """

    def __init__(self, *, start: float = 1_000.0, wall: float = 1_800_000_000.0, autojump: bool = True) -> None:
        self._now = start
        self._wall_offset = wall - start
        self._autojump = autojump
        self._heap: list[tuple[float, int, _Sleeper]] = []
        self._order = itertools.count()
        self._asleep = 0
        self._driver: _AsyncioDriver | _TrioDriver | None = None

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.6f} asleep={self._asleep}>"

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._now

    def wall(self) -> float:
        """See `Clock.wall`."""
        return self._now + self._wall_offset

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock now."""
        return self._asleep

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        sleeper = _Sleeper(anyio.Event())
        heapq.heappush(self._heap, (self._now + seconds, next(self._order), sleeper))
        self._asleep += 1
        if self._autojump:
            self._drive()
        try:
            await sleeper.event.wait()
        finally:
            self._leave(sleeper)

    def advance(self, seconds: float) -> None:
        """
        Move on by *seconds* at once and wake everybody whose moment has come, in order.

        For use inside the event loop, best with ``autojump=False``.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError("time does not go back")
        self._move_to(self._now + seconds)

    def jump(self) -> bool:
        """Go to the next timer and wake who waits for it; False when nobody sleeps."""
        moment = self._next()
        if moment is None:
            return False
        self._move_to(moment)
        return True

    def _next(self) -> float | None:
        while self._heap and not self._heap[0][2].asleep:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _move_to(self, moment: float) -> None:
        self._now = max(self._now, moment)
        while self._heap and (self._heap[0][0] <= self._now or not self._heap[0][2].asleep):
            sleeper = heapq.heappop(self._heap)[2]
            if sleeper.asleep:
                self._leave(sleeper)
                sleeper.event.set()

    def _leave(self, sleeper: _Sleeper) -> None:
        if sleeper.asleep:
            sleeper.asleep = False
            self._asleep -= 1

    def _drive(self) -> None:
        """See that somebody watches this event loop."""
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_task():
            token = trio.lowlevel.current_trio_token()
            if not isinstance(self._driver, _TrioDriver) or self._driver.token is not token:
                self._driver = _TrioDriver(self, token)
        else:
            loop = asyncio.get_running_loop()
            if not isinstance(self._driver, _AsyncioDriver) or self._driver.loop is not loop:
                self._driver = _AsyncioDriver(self, loop)
        self._driver.start()


class _TrioDriver:
    """A system task that jumps whenever all tasks are blocked."""

    def __init__(self, clock: FakeClock, token: object) -> None:
        self.token = token
        self._clock = clock
        self._running = False

    def start(self) -> None:
        if not self._running:
            import trio

            self._running = True
            trio.lowlevel.spawn_system_task(self._run)

    async def _run(self) -> None:
        import trio.testing

        try:
            while self._clock.sleepers:
                await trio.testing.wait_all_tasks_blocked()
                self._clock.jump()
        finally:
            self._running = False


class _AsyncioDriver:
    """A callback that puts itself back into the loop's queue while anybody sleeps."""

    def __init__(self, clock: FakeClock, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._clock = clock
        self._running = False
        self._quiet = 0
        self._churning = 0

    def start(self) -> None:
        self._quiet = self._churning = 0
        if not self._running:
            self._running = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        if not self._clock.sleepers:
            self._running = False
            return
        if self._blocked():
            self._quiet = self._churning = 0
            self._clock.jump()
        self.loop.call_soon(self._turn)

    def _blocked(self) -> bool:
        """Whether nothing but a timer can move this loop on."""
        ready: Iterable[Any] | None = getattr(self.loop, "_ready", None)
        if ready is None:
            self._quiet += 1
            return self._quiet > _HIDDEN_TURNS
        queue = tuple(ready)  # another thread may put something into it at any moment
        if not queue or all(map(_is_driver, queue)):
            self._quiet += 1
            return self._quiet > _QUIET_TURNS
        self._quiet = 0
        # Only while a cancellation is delivered again and again does a busy queue mean nothing.
        self._churning = self._churning + 1 if any(map(_delivers_cancellation, queue)) else 0
        return self._churning > _CHURNING_TURNS


def _is_driver(handle: object) -> bool:
    """Whether it is the turn of another fake clock, which waits just as we do."""
    return isinstance(getattr(getattr(handle, "_callback", None), "__self__", None), _AsyncioDriver)


def _delivers_cancellation(handle: object) -> bool:
    return getattr(getattr(handle, "_callback", None), "__name__", "") == "_deliver_cancellation"
