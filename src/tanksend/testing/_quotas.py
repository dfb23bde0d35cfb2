"""
The account's two quotas, counted in recipients.

The rate has two readings. "strict" is the letter of the documentation: no sliding second holds more than the rate.
"debt" is how AWS has described the implementation: a bucket that fills at the rate, holds one second of it, lets a
request pass whenever it is not empty, and is charged for all its recipients afterwards, below zero if need be.
Real accounts lie somewhere between; who keeps to the strict reading is safe under both.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import attrs

UNLIMITED = -1
DAY = 86_400.0
# Sums of fractions of a second miss their mark by less than this; who paces evenly must not be refused for it.
ROUNDING = 1e-9


class StrictRate:
    """No window of one second, wherever it begins, holds more than the rate."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0

    def take(self, recipients: int, rate: float, now: float) -> bool:
        """Charge *recipients* if they fit."""
        while self._taken and now - self._taken[0][0] >= 1.0 - ROUNDING:
            self._sum -= self._taken.popleft()[1]
        if rate != UNLIMITED and self._sum + recipients > rate:
            return False
        self._taken.append((now, recipients))
        self._sum += recipients
        return True


class DebtRate:
    """A bucket of one second of the rate; a request passes while it is not empty, and may leave a debt."""

    def __init__(self) -> None:
        self._balance = math.inf
        self._filled_at = 0.0

    def take(self, recipients: int, rate: float, now: float) -> bool:
        """Charge *recipients* if anything is left."""
        if rate == UNLIMITED:
            return True
        self._balance = min(rate, self._balance + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._balance <= 0:
            return False
        self._balance -= recipients
        return True


class DailyQuota:
    """Recipients of the last 24 hours, exactly."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0

    def spent(self, now: float) -> int:
        """Recipients counted in the 24 hours before *now*."""
        while self._taken and now - self._taken[0][0] >= DAY - ROUNDING:
            self._sum -= self._taken.popleft()[1]
        return self._sum

    def has_room(self, recipients: int, quota: float, now: float, *, strict: bool) -> bool:
        """
        Whether a request of *recipients* passes.

        The documentation refuses what would exceed the quota (*strict*); the described implementation lets any
        request pass while something is left.
        """
        if quota == UNLIMITED or recipients == 0:
            return True
        spent = self.spent(now)
        return spent + recipients <= quota if strict else spent < quota

    def charge(self, recipients: int, now: float) -> None:
        """Count *recipients* at *now*."""
        if recipients:
            self._taken.append((now, recipients))
            self._sum += recipients


@attrs.define
class Quotas:
    """Both quotas of one account. What either refuses is charged to neither."""

    strict: StrictRate = attrs.field(init=False, factory=StrictRate)
    debt: DebtRate = attrs.field(init=False, factory=DebtRate)
    daily: DailyQuota = attrs.field(init=False, factory=DailyQuota)

    def take(
        self, recipients: int, counted: int, *, rate: float, quota: float, strict: bool, now: float
    ) -> Literal["rate", "day"] | None:
        """
        Charge one message, and say which quota has no room for it, None when both have.

        Args:
            recipients: All of them; the rate counts all.
            counted: Those that count against the daily quota.
            rate: Recipients per second.
            quota: Recipients per 24 hours.
            strict: Which reading of both.
            now: In seconds.
        """
        if not self.daily.has_room(counted, quota, now, strict=strict):
            return "day"
        meter = self.strict if strict else self.debt
        if not meter.take(recipients, rate, now):
            return "rate"
        self.daily.charge(counted, now)
        return None
