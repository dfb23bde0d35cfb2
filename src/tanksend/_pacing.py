"""
Even pacing, as arithmetic: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), weighted by recipients.

The whole state is one number, the theoretical arrival time: the moment at which all that was granted so far will have
been paid for. Time is an argument; nothing here waits.
"""

from __future__ import annotations

import math

import attrs

from .exceptions import SettingError


@attrs.frozen
class Grant:
    """Leave for *recipients*, usable from *due* on; *paid* is when the budget has recovered from it."""

    due: float
    paid: float
    recipients: int


@attrs.frozen
class Pace:
    """
    A rate and how much of it may come at once.

    Args:
        rate: Recipients per second, above 0; ``math.inf`` is no limit.
        burst: Recipients that may go at once after a rest, at least 1.

    Raises:
        SettingError: One of them is out of range.
    """

    rate: float
    burst: int = 1

    def __attrs_post_init__(self) -> None:
        # Also refuses NaN, and what is so small that its interval would be infinite.
        if not (self.rate > 0 and 1.0 / self.rate < math.inf):
            raise SettingError("rate must be above 0 recipients per second")
        if not 1 <= self.burst < math.inf:
            raise SettingError("burst must be at least 1 recipient, and finite; rate=math.inf is no limit")

    @property
    def interval(self) -> float:
        """Seconds that one recipient costs."""
        return 0.0 if math.isinf(self.rate) else 1.0 / self.rate

    def grant(self, paid: float, now: float, recipients: int) -> Grant:
        """
        When *recipients* may go, given that what was granted before is paid for at *paid*.

        A grant heavier than the burst goes when it is due like any other and leaves a debt: the next one waits it off.
        So what is due in any *w* seconds is at most ``rate * w + burst - 1`` and the last grant of them.
        """
        interval = self.interval
        due = max(now, paid - (self.burst - 1) * interval)
        return Grant(due, max(now, paid) + recipients * interval, recipients)
