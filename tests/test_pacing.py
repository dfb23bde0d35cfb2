from __future__ import annotations

import math
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, strategies as st

from tanksend._pacing import Grant, Pace
from tanksend.exceptions import SettingError

rates = st.floats(0.01, 10_000)
bursts = st.integers(1, 100)
weights = st.integers(1, 50)
# What happens before a grant: some intervals of rest, or none.
demands = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.3, 1.0, 7.5]), weights), min_size=1, max_size=40)


def granted(pace, demands, start=1_000.0):
    """The grants for *demands*, each asked for some intervals after the one before it."""
    now, paid, grants = start, -math.inf, []
    for rest, recipients in demands:
        now += rest * pace.interval
        grant = pace.grant(paid, now, recipients)
        assert grant.due >= now
        assert grant.recipients == recipients
        paid = grant.paid
        grants.append(grant)
    return grants


@given(rates, bursts, demands)
def test_no_window_of_any_length_has_more_than_its_share(rate, burst, demands):
    """Rate times length, the burst, and the one that goes into debt."""
    grants = granted(Pace(rate, burst), demands)
    for first in range(len(grants)):
        total = 0
        for last in range(first, len(grants)):
            share = rate * (grants[last].due - grants[first].due)
            # All but the last are paid for by the time the last is due.
            assert total <= share + burst - 1 + 1e-6 * (total + 1)
            total += grants[last].recipients
            heaviest = max(grant.recipients for grant in grants[first : last + 1])
            assert total <= share + burst + heaviest + 1e-6 * (total + 1)


@given(rates, bursts, demands)
def test_grants_come_in_order(rate, burst, demands):
    """Nobody who asks later is served earlier."""
    dues = [grant.due for grant in granted(Pace(rate, burst), demands)]
    assert dues == sorted(dues)


@given(rates, st.lists(weights, min_size=2, max_size=30))
def test_nothing_is_wasted(rate, weights):
    """Asked for without a rest, the whole rate is used: each waits exactly for those before it."""
    grants = granted(Pace(rate), [(0.0, weight) for weight in weights])
    before = 0
    for grant in grants:
        assert (grant.due - grants[0].due) * rate == pytest.approx(before, rel=1e-6, abs=1e-6)
        before += grant.recipients


@given(rates, bursts, weights)
def test_a_debt_is_waited_off(rate, burst, heavy):
    """What is heavier than the burst goes at once, and the next waits until it is paid for."""
    pace = Pace(rate, burst)
    first, second = granted(pace, [(0.0, heavy), (0.0, 1)])
    assert first.due == 1_000.0
    assert (second.due - first.due) * rate == pytest.approx(max(0, heavy - burst + 1), abs=1e-5)


def test_a_rest_saves_up_one_burst_and_no_more():
    """However long it was."""
    pace = Pace(10.0, burst=3)
    grants = granted(pace, [(0.0, 1), (1e6, 1), (0.0, 1), (0.0, 1), (0.0, 1), (0.0, 1)])
    dues = [grant.due - grants[1].due for grant in grants[1:]]
    assert dues == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2], abs=1e-9)


def test_without_a_burst_it_is_even():
    """14 a second is one every 71 ms, each from the one before it."""
    dues = [grant.due for grant in granted(Pace(14.0), [(0.0, 1)] * 15)]
    assert dues[-1] - dues[0] == pytest.approx(1.0)
    assert [later - earlier for earlier, later in pairwise(dues)] == pytest.approx([1 / 14] * 14)


@given(bursts, demands)
def test_no_limit(burst, demands):
    """An infinite rate grants everything at once."""
    pace = Pace(math.inf, burst)
    assert pace.interval == 0.0
    assert {grant.due for grant in granted(pace, demands)} == {1_000.0}


@pytest.mark.parametrize("rate", [0, 0.0, -1.0, -math.inf, math.nan, 5e-324])
def test_a_rate_that_is_none_is_refused(rate):
    """Zero, less, no number, and what is so little that nothing would ever go."""
    with pytest.raises(SettingError, match="rate must be above 0"):
        Pace(rate)


@pytest.mark.parametrize("burst", [0, -1, 0.5, math.nan, math.inf])
def test_a_burst_that_is_none_is_refused(burst):
    """Less than one recipient could never go; an endless one is no pace."""
    with pytest.raises(SettingError, match="burst must be at least 1"):
        Pace(1.0, burst)


def test_the_slowest_pace_there_may_be():
    """A mail a year is a pace."""
    pace = Pace(1 / 31_536_000)
    first, second = granted(pace, [(0.0, 1), (0.0, 1)])
    assert second.due - first.due == pytest.approx(31_536_000)


def test_paces_and_grants_are_values():
    """Frozen, and compared by what they are."""
    assert Pace(2.0) == Pace(2.0, 1)
    assert Pace(2.0).interval == 0.5
    assert Pace(4.0).grant(10.0, 9.0, 2) == Grant(10.0, 10.5, 2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Pace(2.0).rate = 3.0
