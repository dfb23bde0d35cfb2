"""The deadlines of one run: who waits beyond his is held."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._entry import Entry
    from ._run import Run

MANY = 2_000
"""When to forget the settled among those watched; so many never wait at once."""


class Deadlines:
    """
    One timer for all: all messages of a run may wait equally long, so their deadlines come in the order of intake.

    A long batch would else keep a timer, and with it a message, for each that was settled long before its deadline.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._watched: deque[Entry] = deque()
        self._timer_set = False

    def watch(self, entry: Entry, deadline: float) -> None:
        """See that *entry* does not wait beyond its deadline."""
        if len(self._watched) >= MANY:
            self._watched = deque(entry for entry in self._watched if not entry.settled)
        self._watched.append(entry)
        if not self._timer_set:
            self._timer_set = True
            self._run.timers.at(deadline, self._expire)

    def _expire(self) -> None:
        """Hold what waits and has no time left, and come back for the next."""
        now = self._run.parts.clock.monotonic()
        watched = self._watched
        while watched and (watched[0].settled or watched[0].is_late(now)):
            self._run.expire(watched.popleft())
        self._timer_set = bool(watched)
        if watched:
            self._run.timers.at(watched[0].deadline or now, self._expire)
