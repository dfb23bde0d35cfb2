from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, strategies as st

from tanksend._quota import (
    BUCKET,
    CUT_EVERY,
    DAY,
    FORGET,
    LATE,
    PATIENCE,
    PROBE,
    RECOVERY,
    STRICT_FOR,
    DailyWindow,
    RateControl,
    floor_of,
)
from tanksend.testing._quotas import DailyQuota, StrictRate

RATE = 50.0
weights = st.integers(1, 50)


def take(control, now, recipients=1, at_least=None, *, rate=RATE, headroom=1.0):
    """A grant for a whole message, unless fewer will do."""
    return control.grant(now, recipients, recipients if at_least is None else at_least, rate, headroom)


def dues(control, now, *recipients, **options):
    """When each of these would go."""
    return [take(control, now, count, **options).due for count in recipients]


def strangled(now=0.0, rate=RATE, headroom=1.0, taken=50):
    """A control that has just been cut, at *now*."""
    control = RateControl()
    control.accepted(now - 0.5, taken)
    control.throttled(now - 0.5, 1, rate, headroom)
    control.throttled(now, 1, rate, headroom)
    assert control.cut_at == now
    return control


# --- the pace --------------------------------------------------------------------------------------------------------


def test_single_recipients_are_evenly_spaced():
    """The first at once, each further one an interval of the rate and its headroom later."""
    assert dues(RateControl(), 7.0, 1, 1, 1, rate=10.0) == pytest.approx([7.0, 7.1, 7.2])
    assert dues(RateControl(), 7.0, 1, 1, rate=10.0, headroom=0.5) == pytest.approx([7.0, 7.2])


def test_a_heavy_message_leaves_a_debt():
    """It goes when it is due like any other, and the next one waits it off."""
    assert dues(RateControl(), 0.0, 1, 40, 1) == pytest.approx([0.0, 0.02, 0.82])


def test_a_rest_is_not_saved_up():
    """After an hour the second request still waits its interval."""
    control = RateControl()
    take(control, 0.0)
    assert dues(control, 3_600.0, 1, 1) == pytest.approx([3_600.0, 3_600.02])


def test_without_a_limit_everything_goes_at_once():
    """An infinite rate has no interval."""
    assert dues(RateControl(), 5.0, 50, 50, 1, rate=math.inf) == [5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("rate", "floor"), [(0.2, 0.2), (1.0, 1.0), (14.0, 1.0), (20.0, 1.0), (50.0, 2.5), (500.0, 25.0), (math.inf, 1.0)]
)
def test_the_floor(rate, floor):
    """A twentieth, but one a second where the rate has that."""
    assert floor_of(rate) == floor


@given(st.lists(st.tuples(st.floats(0, 0.5), weights), max_size=40), st.floats(0.5, 1.0))
def test_no_window_has_more_than_its_share(demands, headroom):
    """But for the last message of it, which may go into debt, and for what comes late."""
    control, now, granted = RateControl(), 0.0, []
    for rest, recipients in demands:
        now += rest
        granted.append(take(control, now, recipients, headroom=headroom))
    for first in range(len(granted)):
        before = 0
        for grant in granted[first:]:
            assert before <= RATE * headroom * (grant.due - granted[first].due + LATE) + 1e-6
            before += grant.recipients


# --- lateness --------------------------------------------------------------------------------------------------------


def test_what_came_late_is_made_up_for():
    """As long as it is less than 25 ms; the next ones come at once."""
    control = RateControl()
    take(control, 0.0, rate=100.0)
    take(control, 0.0, rate=100.0)
    assert dues(control, 0.03, 1, 1, 1, rate=100.0) == pytest.approx([0.03, 0.03, 0.04])


def test_a_rest_is_not_lateness():
    """What is longer than that is gone."""
    control = RateControl()
    take(control, 0.0, rate=100.0)
    assert dues(control, 0.0351, 1, 1, rate=100.0) == pytest.approx([0.0351, 0.0451])


def test_one_that_left_late_keeps_the_one_a_second_later_away():
    """The account's second begins when it arrived."""
    control = RateControl()
    take(control, 0.0, rate=2.0)
    assert dues(control, 0.02, 1, 1, 1, rate=2.0) == pytest.approx([0.5, 1.02, 1.5])


def test_a_heavy_one_on_an_account_in_debt_does_not_wait_for_the_second():
    """Only single recipients do that."""
    control = RateControl()
    take(control, 0.0, 40)
    assert dues(control, 0.8, 40, 1) == pytest.approx([0.8, 1.6])


@given(st.lists(st.floats(0, LATE), min_size=1, max_size=200), st.sampled_from([1.0, 14.0, 50.0, 120.0]))
def test_no_lateness_makes_a_strict_account_refuse(lates, rate):
    """Each is used late by so much, and the next one is asked for at that moment."""
    control, account, now = RateControl(), StrictRate(), 0.0
    for late in lates:
        now = max(now, take(control, now, rate=rate).due) + late
        assert account.take(1, rate, now)


def test_lateness_costs_nothing():
    """Up to ten milliseconds each time, ten times the interval: of three seconds' worth, all goes in three seconds."""
    control, chance, now = RateControl(), random.Random(1), 0.0
    for _ in range(3 * 1_000):
        now = max(now, take(control, now, rate=1_000.0).due) + (chance.random() * 0.01 if chance.random() < 0.1 else 0)
    assert now < 3.1


# --- giving back -----------------------------------------------------------------------------------------------------


def test_the_latest_grant_can_be_given_back_once():
    """Whole, and no more than it had."""
    control = RateControl()
    take(control, 0.0)
    take(control, 0.0, 10)
    control.give_back(control.serial, 99)
    assert take(control, 0.0, 5).due == pytest.approx(0.02)
    control.give_back(control.serial - 1, 10)
    assert take(control, 0.0).due == pytest.approx(0.12)


def test_a_part_can_be_given_back():
    """And then no more of it."""
    control = RateControl()
    take(control, 0.0, 10)
    control.give_back(control.serial, 4)
    control.give_back(control.serial, 4)
    assert take(control, 0.0).due == pytest.approx(0.12)


def test_a_grant_by_an_older_price_is_given_back_at_that_price():
    """The pace may have changed in between."""
    control = RateControl()
    take(control, 0.0, 10)
    assert take(control, 0.0, 10, rate=1.0).due == pytest.approx(0.2)
    control.give_back(control.serial, 10)
    assert take(control, 0.0).due == pytest.approx(0.2)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_one_refusal_at_full_pace_is_jitter():
    """Nor are several of them more than that when they come together, or seldom."""
    control = RateControl()
    for now in (10.0, 10.1, 10.24, 13.1, 13.2, 16.2):
        control.throttled(now, 1, RATE, 1.0)
    assert control.pace(16.2, RATE, 1.0) == RATE


@pytest.mark.parametrize("later", [0.25, 3.0])
def test_another_one_soon_after_is_not(later):
    """Between a quarter of a second and three."""
    control = RateControl()
    control.accepted(10.0, 40)
    control.throttled(10.0, 1, RATE, 1.0)
    control.throttled(10.0 + later, 1, RATE, 1.0)
    assert control.pace(10.0 + later, RATE, 1.0) == pytest.approx(0.95 * RATE)


def test_the_pace_comes_back_along_a_cubic_curve():
    """From 0.95 of what was refused, flat at it after four seconds, then faster and faster."""
    control = strangled(0.0, headroom=0.5)
    pace = lambda now: control.pace(now, RATE, 1.0)
    assert pace(0.0) == pytest.approx(0.95 * 25.0)
    assert pace(2.0) == pytest.approx(25.0 * (1 - 0.05 / 8))
    assert pace(4.0) == pytest.approx(25.0)
    assert pace(9.0) == pytest.approx(25.0 + 0.0008 * RATE * 125)
    assert pace(14.0) == RATE


def test_a_cut_pace_is_what_grants_go_by():
    """An interval of the cut pace, not of the rate."""
    control = strangled(0.0)
    assert dues(control, 0.0, 1, 1) == pytest.approx([0.0, 1 / 47.5])


def test_when_it_has_come_back_it_is_full_again():
    """The next single refusal is jitter once more; one just before that is not."""
    control = strangled(0.0)
    control.throttled(3.9, 1, RATE, 1.0)
    assert control.cut_at == 3.9
    take(control, 30.0)
    assert control.ceiling == math.inf
    control.throttled(30.0, 1, RATE, 1.0)
    assert control.pace(30.0, RATE, 1.0) == RATE


def test_a_lower_rate_is_no_recovery():
    """The ceiling is above it, but the cut is fresh."""
    control = strangled(0.0)
    take(control, 1.0, rate=10.0)
    assert control.ceiling == RATE
    take(control, 5.0, rate=10.0)
    assert control.ceiling == math.inf


def test_a_burst_of_refusals_cuts_once():
    """In a second; after that it cuts again, from where the pace is then."""
    control = strangled(0.0)
    for number in range(30):
        control.throttled(number * 0.03, 1, RATE, 1.0)
    assert control.cut_at == 0.0
    control.accepted(CUT_EVERY, 1_000)
    before = control.pace(CUT_EVERY, RATE, 1.0)
    control.throttled(CUT_EVERY, 1, RATE, 1.0)
    assert (control.cut_at, control.ceiling) == (CUT_EVERY, before * 0.95)


@pytest.mark.parametrize(("after", "ceiling"), [(1.24, 25.0 * 0.95), (1.25, 25.0)])
def test_a_cut_that_another_has_to_follow_was_too_small(after, ceiling):
    """Then the ceiling falls as well."""
    control = strangled(0.0, headroom=0.5)
    control.accepted(after, 1_000)
    before = control.pace(after, RATE, 1.0)
    control.throttled(after, 1, RATE, 1.0)
    assert control.ceiling == pytest.approx(before * ceiling / 25.0)


def test_what_is_free_lies_between_a_ceiling_and_what_was_refused_above_it():
    """In the middle, for all we know."""
    control = strangled(0.0, headroom=0.5)
    control.accepted(9.0, 1_000)
    control.throttled(9.0, 1, RATE, 1.0)
    assert control.ceiling == pytest.approx(25.0 + 5.0 / 2)
    assert control.recovery == 6.0


def test_where_much_is_refused_the_ceiling_is_lower_by_that():
    """A refusal is the price of asking; the others are a share of what was tried."""
    control = RateControl()
    control.throttled(-1.0, 1, RATE, 1.0)
    control.taken, control.refused, control.faded_at = 60.0, 40.0, 0.0
    control.throttled(0.0, 1, RATE, 1.0)
    assert control.ceiling == pytest.approx(RATE * 60 / 100)
    assert (control.taken, control.refused) == (0.0, 0.0)


def test_where_little_is_refused_the_ceiling_is_what_was_tried():
    """Up to 15 in 100."""
    control = RateControl()
    control.throttled(-1.0, 1, RATE, 1.0)
    control.taken, control.refused, control.faded_at = 86.0, 14.0, 0.0
    control.throttled(0.0, 2, RATE, 1.0)
    assert control.strict_until == STRICT_FOR
    control.throttled(0.0, 1, RATE, 1.0)
    assert control.ceiling == pytest.approx(RATE * (1 - 16 / 102))
    control = RateControl()
    control.throttled(-1.0, 1, RATE, 1.0)
    control.taken, control.refused, control.faded_at = 86.0, 14.0, 0.0
    control.throttled(0.0, 1, RATE, 1.0)
    assert control.ceiling == RATE


def test_counts_fade():
    """By a factor of e in a second, and never grow because a clock went back."""
    control = RateControl()
    control.accepted(5.0, 100)
    control.accepted(6.0, 0)
    assert control.taken == pytest.approx(100 / math.e)
    control.accepted(4.0, 1)
    assert control.taken == pytest.approx(100 / math.e + 1)


def test_the_same_ceiling_again_is_asked_about_less_often():
    """Up to nine seconds."""
    control = strangled(0.0, headroom=0.5)
    now, found = 0.0, []
    for _ in range(3):
        now += control.recovery
        control.accepted(now, 1_000)
        control.throttled(now, 1, RATE, 1.0)
        found.append(control.recovery)
    assert found == [6.0, PATIENCE, PATIENCE]
    assert control.ceiling == pytest.approx(25.0)


@pytest.mark.parametrize(("after", "recovery"), [(1.0, RECOVERY), (2.5, 6.0), (3.9, 6.0)])
def test_the_same_is_what_differs_by_little(after, recovery):
    """From 0.98 of the ceiling on."""
    control = strangled(0.0, headroom=0.5)
    control.accepted(after, 1_000)
    control.throttled(after, 1, RATE, 1.0)
    assert control.recovery == recovery


def test_many_refusals_end_the_patience():
    """The ceiling has moved."""
    control = strangled(0.0, headroom=0.5)
    control.recovery = PATIENCE
    control.taken, control.refused, control.faded_at = 10.0, 10.0, 8.0
    before = control.pace(8.0, RATE, 1.0)
    control.throttled(8.0, 1, RATE, 1.0)
    assert control.recovery == RECOVERY
    assert control.ceiling == pytest.approx(before * 0.5)


def test_a_refusal_below_the_ceiling_ends_the_patience():
    """A restless neighbour has gaps that are worth asking for."""
    control = strangled(0.0)
    control.recovery = PATIENCE
    control.accepted(1.2, 1_000)
    control.throttled(1.2, 1, RATE, 1.0)
    assert control.recovery == RECOVERY
    assert control.ceiling < 0.98 * RATE


def test_it_never_falls_below_the_floor():
    """Whatever is refused, for however long."""
    control = RateControl()
    for number in range(1_000):
        control.throttled(number * 0.5, 1, RATE, 1.0)
        assert control.pace(number * 0.5, RATE, 1.0) >= 2.5
    assert control.pace(499.5, RATE, 1.0) == 2.5


def test_an_unlimited_rate_is_cut_to_what_was_taken():
    """And is without limit again a minute after the last cut."""
    control = RateControl()
    control.throttled(0.0, 1, math.inf, 1.0)
    control.accepted(0.5, 80)
    control.throttled(0.5, 1, math.inf, 1.0)
    assert control.ceiling == pytest.approx(80.0)
    pace = lambda now: control.pace(now, math.inf, 1.0)
    assert pace(4.5) == pytest.approx(80.0)
    assert pace(14.5) == pytest.approx(80.0 * (1 + PROBE * 1_000))
    assert pace(4.4 + FORGET) < math.inf
    assert pace(4.5 + FORGET) == math.inf
    take(control, 80.0, rate=math.inf)
    assert control.ceiling == math.inf


def test_an_unlimited_rate_that_nothing_comes_through():
    """It is cut to the floor."""
    control = RateControl()
    control.throttled(0.0, 1, math.inf, 1.0)
    control.throttled(0.5, 1, math.inf, 1.0)
    assert control.ceiling == 1.0


def test_a_pause():
    """Nothing is due before its end, and what was granted before cannot shorten it."""
    control = RateControl()
    take(control, 0.0, 10)
    control.pause(5.0)
    control.give_back(control.serial, 10)
    assert take(control, 0.0).due == 5.0
    control.pause(1.0)
    assert take(control, 0.0).due == pytest.approx(5.02)


# --- strict accounts -------------------------------------------------------------------------------------------------


def strict(now=0.0):
    """A control that has learned that the account is strict."""
    control = RateControl()
    control.throttled(now, 50, RATE, 1.0)
    assert control.strict_until == now + STRICT_FOR
    assert control.ceiling == math.inf
    return control


def test_a_heavy_message_waits_for_an_empty_second():
    """And those after it until it has left that."""
    assert dues(strict(), 0.0, 40, 10, 40, 1) == pytest.approx([0.0, 0.02, 1.0, 1.02])


def test_a_message_heavier_than_a_second_goes_alone():
    """It will be refused, but that is for SES to say."""
    assert dues(strict(), 0.0, 1, 60, 1) == pytest.approx([0.0, 1.0, 2.0])


def test_where_fewer_will_do_a_light_message_passes():
    """As many as fit at the earliest moment."""
    control = strict()
    take(control, 0.0, 40)
    grant = take(control, 0.0, 40, 1)
    assert (grant.due, grant.recipients) == (pytest.approx(0.02), 10)
    grant = take(control, 0.0, 40, 1)
    assert (grant.due, grant.recipients) == (pytest.approx(1.0), 40)


def test_single_recipients_stay_evenly_spaced_on_a_strict_account():
    """Nothing comes in bursts."""
    assert dues(strict(), 0.0, 1, 1, 1) == pytest.approx([0.0, 0.02, 0.04])


def test_what_is_given_back_fits_again():
    """Whole or in part; the interval is given back with the whole."""
    control = strict()
    take(control, 0.0, 40)
    control.give_back(control.serial, 40)
    assert take(control, 0.0, 40).due == 0.0
    control.give_back(control.serial, 30)
    assert dues(control, 0.0, 40, 1) == pytest.approx([0.02, 1.0])


def test_a_message_heavier_than_a_second_says_nothing_of_the_pace():
    """However often it is refused."""
    control = RateControl()
    for now in range(100):
        control.throttled(float(now), 51, RATE, 1.0)
    assert (control.ceiling, control.refused, control.strict_until) == (math.inf, 0.0, 99 + STRICT_FOR)


def test_strictness_is_forgotten():
    """After a while; the debt is back."""
    control = strict()
    assert dues(control, STRICT_FOR, 10, 1) == pytest.approx([STRICT_FOR, STRICT_FOR + 0.2])


def test_strictness_is_no_excuse_for_ever():
    """Once learned, refusals mean what they mean of others."""
    control = strict()
    control.accepted(1.0, 1_000)
    control.throttled(1.0, 40, RATE, 1.0)
    control.throttled(1.5, 40, RATE, 1.0)
    assert control.ceiling == RATE


def test_no_limit_and_strict():
    """There is nothing to fit into."""
    control = RateControl()
    control.throttled(0.0, 40, math.inf, 1.0)
    assert dues(control, 0.0, 40, 40, rate=math.inf) == [0.0, 0.0]


@given(st.lists(st.tuples(st.floats(0, 0.3), weights, weights), max_size=40), st.floats(0.9, 1.0))
def test_a_strict_account_refuses_nothing(demands, headroom):
    """However weights are mixed, as long as none is more than a second's worth."""
    control, account, now = RateControl(), StrictRate(), 0.0
    control.strict_until = math.inf
    for rest, recipients, at_least in demands:
        now += rest
        grant = take(control, now, recipients, min(at_least, recipients), headroom=headroom)
        assert min(at_least, recipients) <= grant.recipients <= recipients
        assert account.take(grant.recipients, RATE, grant.due)


# --- packs


def pack(control, now, recipients, *, rate=14.0, headroom=1.0, at_least=1):
    """A grant for several messages in one request: when, and for how many."""
    grant = control.grant(now, recipients, at_least, rate, headroom, divisible=True)
    return round(grant.due, 6), grant.recipients


def test_packs_are_evenly_spaced():
    """Each when the one before is paid for."""
    control = RateControl()
    assert [(0, 7), (0.5, 7), (1, 7), (1.5, 7)] == [pack(control, 0.0, 7) for _ in range(4)]


def test_a_rate_that_is_no_multiple_of_a_pack_is_used_to_the_full():
    """What does not fit into the second with the others goes by itself."""
    control = RateControl()
    granted = [pack(control, 0.0, 7, rate=15.0) for _ in range(6)]
    assert [7, 7, 1, 7, 7, 1] == [recipients for _, recipients in granted]
    assert granted[3][0] == 1.0


def test_a_pack_that_left_late_keeps_the_one_a_second_later_away_and_whole():
    """A few milliseconds are waited for."""
    control = RateControl()
    pack(control, 0.0, 7)
    assert pack(control, 0.008, 7) == (0.5, 7)
    assert pack(control, 0.5, 7) == (1.008, 7)


def test_a_pack_that_left_much_later_is_not_waited_for_where_some_fit():
    """Half of the packs before has left the second."""
    control = RateControl()
    pack(control, 0.0, 4)
    pack(control, 0.0, 3)
    assert pack(control, 0.3057, 7) == (0.5, 7)
    assert pack(control, 0.5, 7) == (1.0, 4)


def test_single_ones_between_do_not_keep_packs_in_pieces_for_ever():
    """Each leaves room for one a second later; sooner or later that is waited for until there is room for all."""
    control, now, sizes = RateControl(), 0.0, []
    for _ in range(14):
        now = take(control, now, rate=14.0).due
    for _ in range(6):
        now, size = pack(control, now, 7)
        sizes.append(size)
    assert sizes == [7] * 6
    assert now == pytest.approx(13 / 14 + 7 / 14 + 5 / 2, abs=0.01)


def test_where_a_pack_was_refused_the_next_have_a_little_more_room_for_jitter():
    """The account is strict, and requests arrive less evenly than was thought."""
    control = RateControl()
    control.throttled(0.0, 7, 14.0, 1.0)
    assert [(0, 7), (0.5, 7), (1.004, 7), (1.504, 7)] == [pack(control, 0.0, 7) for _ in range(4)]


def test_a_pack_is_no_larger_than_what_an_account_takes_in_a_second():
    """While the pace is cut on a strict account, that is less than the rate."""
    control = RateControl(ceiling=3.0, cut_at=0.0, strict_until=1e9)
    assert pack(control, 4.0, 7)[1] == 3
    assert pack(RateControl(), 0.0, 7, rate=5.0)[1] == 5


def test_packs_without_a_limit_go_at_once():
    """All of them."""
    control = RateControl()
    assert [(0, 50)] * 3 == [pack(control, 0.0, 50, rate=math.inf) for _ in range(3)]


def test_what_a_pack_gives_back_is_free_again_on_a_strict_account_too():
    """Time and room."""
    control = RateControl(strict_until=1e9)
    pack(control, 0.0, 7)
    control.give_back(control.serial, 5)
    assert pack(control, 0.0, 7) == (round(2 / 14, 6), 7)


@given(
    st.sampled_from([1.0, 4.0, 14.0, 15.0, 50.0, 99.0]),
    st.lists(st.tuples(st.integers(1, 25), st.floats(0, 0.02), st.booleans()), max_size=60),
)
def test_no_window_has_more_than_the_rate_whatever_is_packed(rate, demands):
    """However late they leave, packs and single ones, and with what comes back."""
    control, account, now = RateControl(), StrictRate(), 0.0
    for wanted, late, single in demands:
        size = 1 if single else min(wanted, max(1, int(rate / 2)))
        grant = control.grant(now, size, 1, rate, 0.995, divisible=size > 1)
        now = max(now, grant.due) + late
        assert account.take(grant.recipients, rate, now)


def test_grants_of_long_ago_are_not_kept():
    """Neither on a busy account nor on a slow one."""
    control = RateControl()
    for _ in range(5_000):
        grant = take(control, 0.0, rate=500.0)
    assert len(control.sent) <= 503
    assert control.sent[0][0] >= grant.due - 1.007
    assert control.load == sum(count for _, count in control.sent)
    for _ in range(20_000):
        take(control, 100.0, rate=20_000.0)
    assert len(control.sent) <= 1_002


# --- sharing an account ----------------------------------------------------------------------------------------------


def shared(rate, controls, seconds, seed=0):
    """What each of several controls gets of one strict account, and how much of it was refused, in the last half."""
    chance, account = random.Random(seed), StrictRate()
    taken, refused = [0] * len(controls), [0] * len(controls)
    due = [chance.random() for _ in controls]
    while min(due) < seconds:
        who = due.index(min(due))
        now, control = due[who], controls[who]
        fits = account.take(1, rate, now)
        if fits:
            control.accepted(now, 1)
        else:
            control.throttled(now, 1, rate, 0.995)
        if now > seconds / 2:
            taken[who] += fits
            refused[who] += not fits
        due[who] = max(now, take(control, now, rate=rate, headroom=0.995).due) + 0.001 * chance.random()
    return [count / seconds * 2 for count in taken], [no / (yes + no) for yes, no in zip(taken, refused, strict=True)]


def test_two_of_us_who_do_not_know_each_other_share_evenly():
    """Neither starves, and the account is used."""
    taken, refused = shared(50.0, [RateControl(), RateControl()], 240.0)
    assert sum(taken) > 0.9 * 50
    assert min(taken) > 0.25 * 50
    assert max(refused) < 0.06


# --- the day ---------------------------------------------------------------------------------------------------------


def test_without_figures_there_is_no_limit():
    """Everything fits now."""
    day = DailyWindow()
    day.take(0.0, 0.0, 1_000_000)
    assert day.room_at(0.0, 1_000_000) == 0.0


def test_what_fits_fits_now_and_no_more():
    """To the last recipient; some may be kept free."""
    day = DailyWindow(quota=10)
    day.take(5.0, 5.0, 6)
    assert day.spent(5.0) == 6
    assert day.room_at(5.0, 4) == 5.0
    assert day.room_at(5.0, 5) == BUCKET + DAY
    assert day.room_at(5.0, 2, 2) == 5.0
    assert day.room_at(5.0, 2, 3) == BUCKET + DAY
    assert day.room_at(5.0, 11) == math.inf
    assert day.room_at(5.0, 10, 1) == math.inf


def test_room_comes_bucket_by_bucket():
    """Our own leave a day after the end of their minute; those of others a day after they were first seen."""
    day = DailyWindow()
    day.read(0.0, 100, 30, 0)
    day.take(10.0, 10.0, 20)
    day.take(70.0, 70.0, 20)
    day.take(70.0, 80.0, 30)
    at = [day.room_at(90.0, count) for count in (1, 30, 31, 50, 51, 100, 101)]
    assert at == [DAY, DAY, DAY + 60, DAY + 60, DAY + 120, DAY + 120, math.inf]
    assert [day.spent(now) for now in (DAY - 1, DAY, DAY + 60, DAY + 120)] == [100, 70, 50, 0]


def test_what_is_granted_for_later_counts_now_and_leaves_then():
    """A slot that waits for the window to move has its place in it."""
    day = DailyWindow(quota=10)
    day.take(0.0, 0.0, 10)
    at = day.room_at(0.0, 5)
    day.take(0.0, at, 5)
    assert day.room_at(0.0, 5) == at
    assert day.room_at(0.0, 6) == at + DAY + BUCKET
    day.take(0.0, 10.0, 1)
    assert [until for until, _ in day.ours] == [DAY + BUCKET, at + DAY + BUCKET]


def test_an_earlier_one_is_put_in_order():
    """Buckets stay sorted by when they leave."""
    day = DailyWindow()
    for at in (500.0, 0.0, 130.0, 60.0, 499.0, 1.0):
        day.take(0.0, at, 1)
    assert [count for _, count in day.ours] == [2, 1, 1, 2]
    assert [until - DAY for until, _ in day.ours] == [60.0, 120.0, 180.0, 540.0]


def test_what_is_given_back_leaves_its_bucket():
    """No more than it holds, and nothing where the bucket has gone."""
    day = DailyWindow(quota=10)
    first = day.take(0.0, 0.0, 4)
    day.take(100.0, 100.0, 4)
    day.give_back(first, 3)
    assert day.ours == [(first, 1), (DAY + 120, 4)]
    day.give_back(first, 3)
    day.give_back(-1.0, 3)
    assert day.spent(100.0) == 4
    assert day.room_at(100.0, 6) == 100.0


def test_what_ses_certainly_did_not_take_is_not_counted():
    """It goes out of the last bucket; an answer of any other kind changes nothing."""
    day = DailyWindow(quota=10)
    day.answered(3, counted=False)
    day.take(0.0, 0.0, 5)
    day.take(60.0, 60.0, 5)
    day.answered(3, counted=False)
    day.answered(3, counted=True)
    assert day.spent(60.0) == 7
    assert [count for _, count in day.ours] == [5, 2]


def test_of_what_ses_counts_the_rest_is_others():
    """What of ours is on the way may be in it or not: it is not taken for ours, to be safe."""
    day = DailyWindow()
    day.take(0.0, 0.0, 30)
    day.answered(20, counted=True)
    assert day.settled(1.0) == 20
    day.read(1.0, 100, 65, 20)
    assert day.spent(1.0) == 30 + 45
    day.answered(10, counted=True)
    day.read(2.0, 100, 75, day.settled(2.0))
    assert day.spent(2.0) == 75
    day.read(3.0, 100, 20, day.settled(3.0))
    assert day.spent(3.0) == 30


def test_what_never_answered_is_not_on_the_way_for_ever():
    """After two minutes without a grant."""
    day = DailyWindow()
    day.take(0.0, 0.0, 5)
    day.take(120.0, 120.0, 5)
    assert day.settled(120.0) == 0
    day.take(240.1, 240.1, 1)
    assert day.settled(240.1) == 10


def test_others_leave_in_the_order_they_came():
    """What is new has been sent by now; what is missing was the oldest."""
    day = DailyWindow()
    day.read(0.0, 100, 40, 0)
    day.read(900.0, 100, 60, 0)
    assert day.others == [(DAY, 40), (900 + DAY, 20)]
    day.read(1_800.0, 100, 50, 0)
    assert day.others == [(DAY, 30), (900 + DAY, 20)]
    day.read(1_801.0, 100, 20, 0)
    assert day.others == [(900 + DAY, 20)]
    day.read(1_802.0, 100, 5, 0)
    day.read(1_803.0, 100, 5, 0)
    assert day.others == [(900 + DAY, 5)]
    day.read(1_804.0, 100, 0, 0)
    assert (day.others, day.spent(1_804.0)) == ([], 0)


def test_a_refusal_says_that_the_day_is_spent():
    """For messages as heavy as that one; a reading knows better."""
    day = DailyWindow()
    day.read(0.0, 100, 10, 0)
    day.refused(5.0, 3, 1e9)
    assert day.room_at(5.0, 2) == 5.0
    assert day.room_at(5.0, 3) == DAY
    day.refused(6.0, 3, 1e9)
    assert day.spent(6.0) == 98
    day.read(70.0, 100, 50, 0)
    assert day.room_at(70.0, 50) == 70.0


def test_a_refusal_where_no_quota_is_known():
    """It stands until the moment given, or a reading."""
    day = DailyWindow()
    day.refused(0.0, 1, 900.0)
    day.refused(1.0, 1, 800.0)
    assert day.room_at(5.0, 1) == 900.0
    assert day.room_at(901.0, 1) == 901.0
    day.read(5.0, math.inf, 7, 0)
    assert day.room_at(5.0, 1) == 5.0


def test_a_refusal_against_unknown_figures_outlasts_the_window():
    """The later of the two counts."""
    day = DailyWindow(quota=10)
    day.take(0.0, 0.0, 10)
    day.shut_until = DAY * 3
    assert day.room_at(0.0, 1) == DAY * 3


kinds = st.sampled_from(["send", "back", "refused", "read"])
steps = st.lists(st.tuples(st.floats(0, 20_000), weights, kinds))


@given(steps, st.integers(0, 300))
def test_we_never_exceed_the_day(steps, before):
    """Whatever is given back, refused or read in between, SES's own count stays within the quota."""
    day, account, quota, now = DailyWindow(), DailyQuota(), 500, 0.0
    account.charge(before, now)
    day.read(now, quota, account.spent(now), 0)
    for rest, recipients, kind in steps:
        now += rest
        if kind == "read":
            day.read(now, quota, account.spent(now), day.settled(now))
        at = day.room_at(now, recipients)
        if at > now:
            continue
        bucket = day.take(now, now, recipients)
        if kind == "back":
            day.give_back(bucket, recipients)
            day.flying = 0
        elif kind == "refused":
            day.answered(recipients, counted=False)
        else:
            account.charge(recipients, now)
            day.answered(recipients, counted=True)
        assert account.spent(now) <= quota
    assert len(day.ours) <= DAY / BUCKET + 2


def load(charged, now):
    """Recipients in the window, exactly."""
    return sum(count for at, count in charged if at + DAY > now)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_waiting_for_room_never_exceeds_the_day_and_wastes_a_minute_at_most(weights):
    """Each waits until it is told, and SES agrees."""
    day, account, now, charged = DailyWindow(quota=100), DailyQuota(), 0.0, []
    for recipients in weights:
        exact = next(at for at in [now, *(at + DAY for at, _ in charged)] if load(charged, at) + recipients <= 100)
        at = day.room_at(now, recipients)
        assert exact <= at <= exact + (BUCKET if exact > now else 0)
        now = at
        day.take(now, now, recipients)
        assert account.has_room(recipients, 100, now, strict=True)
        account.charge(recipients, now)
        charged.append((now, recipients))
