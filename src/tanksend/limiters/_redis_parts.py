"""What a `RedisLimiter` keeps in its own process: small machines of plain numbers, touched under its lock only."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ..typing import Demand

_LINGER = 0.1
"""Seconds after its turn at which a place is worth nothing: the script forgets it then."""


@attrs.define(eq=False)
class Grant:
    """What a slot was charged for, so that it can be given back, once."""

    open: int
    counted: int
    serial: float = 0.0
    bucket: float = 0.0
    local: bool = False

    def give_back(self, recipients: int) -> tuple[int, int]:
        """How many of *recipients* are given back now, and how many of them had been counted for the day for sure."""
        returned = min(recipients, self.open)
        counted = max(0, min(self.counted, returned - (self.open - self.counted)))
        if returned == self.open:
            counted = self.counted
        self.open = self.counted = 0
        return returned, counted


@attrs.define(order=True)
class Place:
    """A place in the line of those who wait for a slot."""

    turn: float
    name: str


class Line:
    """The places that this process has and nobody stands in now, the first turn first."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def put(self, place: Place) -> None:
        """Somebody will come back for it."""
        heapq.heappush(self._places, place)

    def take(self, now: float) -> Place | None:
        """The one whose turn is next."""
        while self._places:
            place = heapq.heappop(self._places)
            if place.turn + _LINGER > now:
                return place
        return None

    def leave(self, now: float) -> str:
        """Give up all places, as turns come sooner now; the name of the first."""
        place = self.take(now)
        self._places.clear()
        return "" if place is None else place.name


@attrs.define
class Outcomes:
    """
    What has become of requests since the script was last told.

    Attributes:
        took: Recipients that SES took.
        counting: Recipients that SES may have counted for the day.
        missed: Recipients that it has not.
        beside: Recipients sent without being granted by the script; below 0, granted and not sent.
    """

    took: int = 0
    counting: int = 0
    missed: int = 0
    beside: int = 0

    def hand_over(self) -> Outcomes:
        """All of it, to be told now."""
        told = attrs.evolve(self)
        self.took = self.counting = self.missed = self.beside = 0
        return told

    def take_back(self, told: Outcomes) -> None:
        """It may have been heard or not: what would be wrong to say twice is dropped."""
        self.took += told.took
        self.beside += max(0, told.beside)


@attrs.define(eq=False)
class Lease:
    """
    Some milliseconds of the rate, evenly spaced.

    Attributes:
        due: When the next recipient may go.
        left: Recipients that may still go.
        price: Seconds between two of them.
        until: When all of it has lapsed.
        unused: Recipients whose moment went by; they are still to be told.
    """

    due: float
    left: int
    price: float
    until: float
    unused: int = 0

    def lapse(self, now: float) -> None:
        """Let go of those whose moment has passed by more than their own time: used now, they would crowd the rest."""
        gone = self.left if now >= self.until else 0
        if not gone and self.price > 0:
            gone = min(self.left, max(0, math.floor((now - self.due) / self.price)))
        self.left -= gone
        self.unused += gone
        self.due += gone * self.price

    def take(self, demand: Demand) -> Grant:
        """Use some."""
        self.left -= demand.recipients
        self.due += demand.recipients * self.price
        self.unused += min(demand.uncounted, demand.recipients)
        return Grant(demand.recipients, demand.recipients - min(demand.uncounted, demand.recipients), local=True)

    def end(self) -> int:
        """Recipients that were counted for the day and have not been sent."""
        return self.unused + self.left


@attrs.define(eq=False)
class Share:
    """Even pacing at a part of the rate, while nobody can be asked."""

    paid: float

    def grant(self, now: float, demand: Demand, rate: float) -> tuple[float, Grant]:
        """When *demand* may go."""
        due = max(now, self.paid)
        self.paid = due + demand.recipients / rate
        return due, Grant(demand.recipients, max(0, demand.recipients - demand.uncounted), local=True)

    def refused(self, now: float, recipients: int, rate: float, pause: float) -> None:
        """SES throttles: what it refused is paid for once more, or nothing goes for *pause* seconds."""
        self.paid = max(self.paid, now) + (pause or recipients / rate)
