"""A fixed rate, paced evenly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .._clock import SystemClock
from .._pacing import Grant, Pace
from ..exceptions import SettingError, ThrottlingError
from ..typing import Clock, Demand, Signal, Slot

if TYPE_CHECKING:
    import datetime as dt

_PAUSE_SECONDS = 5.0
"""How long to stop when SES throttles for another reason than the rate: by its Developer Guide, a problem of SES."""


class TokenBucketLimiter:
    """
    So many recipients a second, evenly spaced, however many tasks, threads and loops share it.

    A message heavier than the bucket goes when it is due and leaves a debt. What is not used is not saved up beyond
    *burst*.

    Args:
        rate: Recipients per second; ``math.inf`` is no limit.
        burst: Recipients that may go at once after a rest. 1 is the evenest, and what keeps an account unthrottled.
        clock: Where time comes from.

    Raises:
        SettingError: *rate* is not above 0, or *burst* is below 1.
    """

    def __init__(self, rate: float, burst: int = 1, *, clock: Clock | None = None) -> None:
        self._pace = Pace(rate, burst)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._paid = float("-inf")
        self._latest: Grant | None = None

    @classmethod
    def every(cls, seconds: float | dt.timedelta, *, clock: Clock | None = None) -> TokenBucketLimiter:
        """
        One recipient every *seconds*: a fixed delay between mails.

        Raises:
            SettingError: *seconds* is not above 0.
        """
        delay = seconds if isinstance(seconds, int | float) else seconds.total_seconds()
        if not delay > 0:
            raise SettingError("the delay must be above 0 seconds")
        return cls(1.0 / delay, clock=clock)

    @property
    def rate(self) -> float:
        """Recipients per second."""
        return self._pace.rate

    async def reserve(self, demand: Demand) -> Slot:
        """Take *demand* whole; see `RateLimiter.reserve`."""
        with self._lock:
            now = self._clock.monotonic()
            grant = self._pace.grant(self._paid, now, demand.recipients)
            self._paid = grant.paid
            self._latest = grant
        return Slot(grant.due - now, demand.recipients, grant)

    async def release(self, slot: Slot) -> None:
        """
        Give a slot back, whole or in part.

        Only the latest slot frees its time again. An earlier one lapses: others have been promised what follows it.
        """
        grant = slot.token
        with self._lock:
            # By identity: a later grant may well be paid at the same moment, and is not this one.
            if isinstance(grant, Grant) and grant is self._latest:
                self._latest = None
                self._paid -= min(slot.recipients, grant.recipients) * self._pace.interval

    async def feedback(self, signal: Signal) -> None:
        """Wait off what SES refused: somebody else has used it up."""
        error = signal.error
        if not isinstance(error, ThrottlingError):
            return
        with self._lock:
            # Throttled means that SES has nothing left, so what is left of the burst here is void.
            empty = self._clock.monotonic() + (self._pace.burst - 1) * self._pace.interval
            if error.pause:
                # One pause, however many requests were on the wire when it began.
                self._paid = max(self._paid, empty + _PAUSE_SECONDS)
            else:
                self._paid = max(self._paid, empty) + signal.recipients * self._pace.interval
            self._latest = None  # its time may have passed: to free it now would shorten the wait

    def __repr__(self) -> str:
        return f"TokenBucketLimiter(rate={self._pace.rate:g}, burst={self._pace.burst})"
