from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from tanksend import exceptions
from tanksend.exceptions import (
    AccessDeniedError,
    ConnectionFailedError,
    DailyQuotaExceededError,
    MessageRejectedError,
    OutcomeUnknownError,
    SendError,
    ServiceUnavailableError,
    SettingError,
    ThrottlingError,
)
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.testing import check_retry_policy
from tanksend.typing import Attempt, GiveUp, Retry

ERRORS = [error for error in vars(exceptions).values() if isinstance(error, type) and issubclass(error, SendError)]
jitters = st.floats(0, 1, exclude_max=True)


def attempt(error, number=1, throttles=0, jitter=0.5):
    """A failed attempt."""
    return Attempt(number, error, elapsed=1.0, jitter=jitter, throttles=throttles)


policies = st.builds(
    ExponentialBackoff,
    st.integers(1, 10),
    st.booleans(),
    base=st.floats(0, 100),
    cap=st.floats(0, 1_000),
    throttle_base=st.floats(0, 100),
)


@given(policies, st.sampled_from(ERRORS), st.integers(1, 10_000), st.data())
def test_the_wait_is_within_its_bounds(policy, error, number, data):
    """From 0 to the base, doubled for each failure before, and never above the cap."""
    throttles = data.draw(st.integers(1 if error is ThrottlingError else 0, number))
    one = attempt(error(), number, throttles, data.draw(jitters))
    decision = policy.decide(one)
    assert decision == policy.decide(one)
    if isinstance(decision, GiveUp):
        return
    failures, base = (
        (throttles, policy.throttle_base) if error is ThrottlingError else (number - throttles, policy.base)
    )
    longest = min(policy.cap, base * 2.0 ** min(max(failures - 1, 0), 30))
    assert 0 <= decision.after <= longest
    assert decision.after == pytest.approx(one.jitter * longest)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("resend", [False, True])
def test_only_what_cannot_arrive_twice_is_tried_again(error, resend):
    """Unless the caller asked for it, and then only where the outcome is not known."""
    made = error()
    expected = made.retryable or (made.maybe_sent and resend)
    policy = ExponentialBackoff(resend_unknown=resend)
    assert isinstance(policy.decide(attempt(made, throttles=int(error is ThrottlingError))), Retry) is expected


@pytest.mark.parametrize("error", [ServiceUnavailableError, ConnectionFailedError])
def test_attempts_are_counted(error):
    """Four in all: three after the first."""
    decisions = [ExponentialBackoff().decide(attempt(error(), number)) for number in range(1, 6)]
    assert decisions == [Retry(0.5), Retry(1.0), Retry(2.0), GiveUp(), GiveUp()]
    assert ExponentialBackoff(attempts=1).decide(attempt(error())) == GiveUp()
    assert isinstance(ExponentialBackoff(attempts=5).decide(attempt(error(), 4)), Retry)


def test_throttles_do_not_count_as_attempts():
    """However often: the limiter slows down, and the deadline ends it."""
    policy = ExponentialBackoff(attempts=2, cap=8.0)
    waits = [policy.decide(attempt(ThrottlingError(), number, number)).after for number in range(1, 8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert isinstance(policy.decide(attempt(ThrottlingError(), 10_000, 10_000)), Retry)
    # Ten throttles and one other failure: one attempt of two is left.
    assert policy.decide(attempt(ServiceUnavailableError(), 11, 10)) == Retry(0.5)
    assert policy.decide(attempt(ServiceUnavailableError(), 12, 10)) == GiveUp()


def test_a_throttle_that_is_not_to_be_repeated_is_not():
    """The error has the last word, whatever its class."""
    assert ExponentialBackoff().decide(attempt(ThrottlingError(retryable=False), throttles=1)) == GiveUp()
    unknown = ThrottlingError(maybe_sent=True)
    assert ExponentialBackoff().decide(attempt(unknown, throttles=1)) == GiveUp()
    assert isinstance(ExponentialBackoff(resend_unknown=True).decide(attempt(unknown, throttles=1)), Retry)


def test_unknown_outcomes_are_resent_only_when_asked_for():
    """At least once means that some get it twice."""
    assert ExponentialBackoff().decide(attempt(OutcomeUnknownError())) == GiveUp()
    policy = ExponentialBackoff(attempts=3, resend_unknown=True)
    assert policy.decide(attempt(OutcomeUnknownError(), 2)) == Retry(1.0)
    assert policy.decide(attempt(OutcomeUnknownError(), 3)) == GiveUp()
    # An error that may have sent it is not harmless because it says that trying again may help.
    assert ExponentialBackoff().decide(attempt(ServiceUnavailableError(maybe_sent=True))) == GiveUp()


@pytest.mark.parametrize("error", [AccessDeniedError, DailyQuotaExceededError, MessageRejectedError])
@pytest.mark.parametrize("resend", [False, True])
def test_what_would_fail_again_is_left(error, resend):
    """Also with at-least-once."""
    assert ExponentialBackoff(resend_unknown=resend).decide(attempt(error())) == GiveUp()


def test_no_jitter_is_no_wait():
    """The random number alone decides between 0 and the bound."""
    assert ExponentialBackoff().decide(attempt(ServiceUnavailableError(), jitter=0.0)) == Retry(0.0)
    assert ExponentialBackoff(cap=0).decide(attempt(ServiceUnavailableError())) == Retry(0.0)


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempt_is_no_policy(attempts):
    """There is always the first."""
    with pytest.raises(SettingError, match="attempts must be at least 1"):
        ExponentialBackoff(attempts)


@pytest.mark.parametrize("name", ["base", "cap", "throttle_base"])
@pytest.mark.parametrize("seconds", [-0.1, math.inf, math.nan])
def test_seconds_that_make_no_sense_are_refused(name, seconds):
    """Negative, endless, or no number."""
    with pytest.raises(SettingError, match="must be seconds"):
        ExponentialBackoff(**{name: seconds})


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_no_retry_leaves_everything(error):
    """Throttles, too."""
    assert NoRetry().decide(attempt(error(), throttles=1)) == GiveUp()


def test_they_keep_their_contract():
    """The check that ships for everybody's policies."""
    check_retry_policy(NoRetry())
    check_retry_policy(ExponentialBackoff())
    check_retry_policy(ExponentialBackoff(attempts=9, resend_unknown=True), resend_unknown=True)


def test_seconds_are_given_by_name():
    """Three numbers in a row tell nobody which is which."""
    with pytest.raises(TypeError):
        ExponentialBackoff(4, False, 1.0)  # the third


def test_policies_are_values():
    """Compared by their numbers, which their repr shows."""
    assert ExponentialBackoff() == ExponentialBackoff(4, resend_unknown=False, base=1.0, cap=20.0, throttle_base=0.5)
    assert repr(NoRetry()) == "NoRetry()"
    assert "attempts=4" in repr(ExponentialBackoff())
