"""Retry policies: pure decisions about a failed attempt."""

from __future__ import annotations

import math

import attrs

from .exceptions import SettingError, ThrottlingError
from .typing import Attempt, GiveUp, Retry

__all__ = ["ExponentialBackoff", "NoRetry"]

_MAX_DOUBLINGS = 30


@attrs.frozen
class ExponentialBackoff:
    """
    Full jitter: before retry *n*, a random time up to ``base * 2 ** (n - 1)`` seconds, at most *cap*.

    Only what SES certainly has not taken is tried again. Being throttled does not count as an attempt: the limiter
    slows down, and the message is tried until its deadline.

    Args:
        attempts: Requests for one message, throttled ones not counted.
        resend_unknown: Also try again when SES may have taken the message. Every mail then arrives at least once,
            and some arrive twice.
        base: Seconds, for transient failures.
        cap: Seconds, the longest wait.
        throttle_base: Seconds, as *base* for throttles.

    Raises:
        SettingError: A number that makes no sense.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """

    attempts: int = 4
    resend_unknown: bool = False
    base: float = attrs.field(default=1.0, kw_only=True)
    cap: float = attrs.field(default=20.0, kw_only=True)
    throttle_base: float = attrs.field(default=0.5, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.attempts < 1:
            raise SettingError("attempts must be at least 1")
        if not all(0 <= seconds < math.inf for seconds in (self.base, self.cap, self.throttle_base)):
            raise SettingError("base, cap and throttle_base must be seconds, 0 or more, and finite")

    def decide(self, attempt: Attempt) -> Retry | GiveUp:
        """See `RetryPolicy.decide`."""
        error = attempt.error
        if not (self.resend_unknown if error.maybe_sent else error.retryable):
            return GiveUp()
        if isinstance(error, ThrottlingError):
            return self._after(attempt, self.throttle_base, attempt.throttles)
        counted = attempt.number - attempt.throttles
        if counted >= self.attempts:
            return GiveUp()
        return self._after(attempt, self.base, counted)

    def _after(self, attempt: Attempt, base: float, nth: int) -> Retry:
        doublings = min(max(nth - 1, 0), _MAX_DOUBLINGS)
        return Retry(attempt.jitter * min(self.cap, base * 2**doublings))


@attrs.frozen
class NoRetry:
    """One request for each message, whatever comes of it."""

    def decide(self, attempt: Attempt) -> Retry | GiveUp:
        """See `RetryPolicy.decide`."""
        del attempt
        return GiveUp()
