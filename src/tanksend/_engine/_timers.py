"""Callbacks at given times, for one run: retries that fall due, deadlines, the end of the grace after a stop."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import anyio

from .._loops import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from ..typing import Clock


class Timers:
    """One task for all of them, started with the first."""

    def __init__(self, clock: Clock, tasks: TaskGroup) -> None:
        self._clock = clock
        self._tasks = tasks
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._nap: anyio.CancelScope | None = None
        self._running = False
        self._closed = False

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call *callback* at *when* on the monotonic clock, or as soon after as the loop allows."""
        if self._closed:
            return
        heapq.heappush(self._heap, (when, next(self._numbers), callback))
        if not self._running:
            self._running = True
            self._tasks.start_soon(uninterrupted(self._run))
        elif self._heap[0][2] is callback:
            self._look_up()

    def close(self) -> None:
        """Call nothing any more, and let the task end."""
        self._closed = True
        self._look_up()

    def _look_up(self) -> None:
        if self._nap is not None:
            self._nap.cancel()

    async def _run(self) -> None:
        # Shielded: after a cancellation there are still fates to settle, and the run closes this when they are.
        with anyio.CancelScope(shield=True):
            try:
                while self._heap and not self._closed:
                    delay = self._heap[0][0] - self._clock.monotonic()
                    if delay > 0:
                        await self._sleep(delay)
                    else:
                        heapq.heappop(self._heap)[2]()
            finally:
                self._running = False

    async def _sleep(self, delay: float) -> None:
        with anyio.CancelScope() as nap:
            self._nap = nap
            try:
                await self._clock.sleep(delay)
            finally:
                self._nap = None
