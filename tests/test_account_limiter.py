from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import os
import random
import threading
import time
from contextlib import contextmanager

import anyio
import attrs
import pytest

from tanksend import Message, Priority, Sender, Status
from tanksend.exceptions import (
    AccessDeniedError,
    ContentRejectedError,
    CredentialsError,
    DailyQuotaExceededError,
    OutcomeUnknownError,
    ServiceUnavailableError,
    SettingError,
    ThrottlingError,
)
from tanksend.limiters import AccountLimiter, _book
from tanksend.testing import FakeClock, SimulatedSES, check_rate_limiter
from tanksend.testing._checks import sample_request
from tanksend.typing import Account, Demand, LearnsAccount, Signal, Slot

pytestmark = pytest.mark.anyio
DAY = 86_400.0


class Source:
    """An account that says what it is told to say, and counts how often it was asked."""

    def __init__(self, rate=50.0, quota=-1.0, spent=0.0, *, error=None, **other):
        self.answer = Account(rate, quota, spent, **other)
        self.error = error
        self.asked = 0

    async def account(self):
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return self.answer

    def says(self, **changes):
        """From now on."""
        self.error = None
        self.answer = attrs.evolve(self.answer, **changes)


class Named(Source):
    """One that can name its account."""

    def __init__(self, name, *rest, **options):
        super().__init__(*rest, **options)
        self.name = name

    async def account_key(self):
        if isinstance(self.name, Exception):
            raise self.name
        return self.name


class Silent(Source):
    """Never answers."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    async def account(self):
        self.asked += 1
        await self.clock.sleep(math.inf)


def made(source=None, clock=None, **options):
    """A limiter and its clock."""
    clock = FakeClock(start=100.0) if clock is None else clock
    limiter = AccountLimiter(clock=clock, **options)
    if source is not None:
        limiter.learn_from(source)
    return limiter, clock


async def delays(limiter, *weights, **options):
    """What each of these would wait."""
    return [(await limiter.reserve(Demand(weight, weight, **options))).delay for weight in weights]


async def spend(limiter, recipients, **options):
    """Reserve, and have SES accept it."""
    slot = await limiter.reserve(Demand(recipients, recipients, **options))
    await limiter.feedback(Signal(recipients))
    return slot


# --- its contract ----------------------------------------------------------------------------------------------------


async def test_it_keeps_its_contract_at_the_fallback():
    """The check that ships for everybody's limiters."""
    clock = FakeClock()
    await check_rate_limiter(lambda rate: AccountLimiter(fallback_rate=rate, headroom=1.0, clock=clock), clock)


async def test_it_keeps_its_contract_at_the_account_s_rate():
    """With the headroom that it has by itself."""
    clock = FakeClock()
    await check_rate_limiter(lambda rate: made(Source(rate), clock)[0], clock)


async def test_it_learns_accounts():
    """The Sender can tell."""
    limiter, _ = made()
    assert isinstance(limiter, LearnsAccount)


@pytest.mark.parametrize(
    "options",
    [
        {"fallback_rate": 0},
        {"fallback_rate": math.nan},
        {"headroom": 0},
        {"headroom": 1.01},
        {"headroom": math.nan},
        {"when_quota_spent": "drop"},
        {"reserve_for_transactional": -1},
    ],
)
async def test_settings_out_of_range_are_refused(options):
    """When it is made, not when it is used."""
    with pytest.raises(SettingError):
        AccountLimiter(**options)


# --- what it learns --------------------------------------------------------------------------------------------------


async def test_it_paces_by_what_the_account_says():
    """Less the headroom."""
    limiter, _ = made(Source(10.0), headroom=0.8)
    assert await delays(limiter, 1, 1, 3, 1) == pytest.approx([0.0, 0.125, 0.25, 0.625])


async def test_without_a_source_it_goes_at_the_fallback():
    """Nobody can be asked."""
    limiter, _ = made(fallback_rate=2.0, headroom=1.0)
    assert await delays(limiter, 1, 1) == pytest.approx([0.0, 0.5])
    assert limiter.figures.source == "fallback"
    assert repr(limiter) == "<AccountLimiter rate=2 of 2 (fallback)>"


async def test_a_source_that_comes_late_is_used_all_the_same():
    """And a second one is not: the first stays."""
    limiter, _ = made(fallback_rate=2.0)
    await delays(limiter, 1)
    first, second = Source(10.0), Source(20.0)
    limiter.learn_from(first)
    limiter.learn_from(second)
    await delays(limiter, 1)
    assert (limiter.figures.granted_rate, first.asked, second.asked) == (10.0, 1, 0)


async def test_it_asks_every_quarter_of_an_hour():
    """After an answer of SES, when nobody waits for it."""
    source = Source(10.0)
    limiter, clock = made(source)
    await spend(limiter, 1)
    clock.advance(899.9)
    await spend(limiter, 1)
    assert source.asked == 1
    source.says(max_send_rate=20.0)
    clock.advance(0.2)
    await limiter.reserve(Demand(1))
    assert source.asked == 1
    await limiter.feedback(Signal(1))
    assert (source.asked, limiter.figures.granted_rate) == (2, 20.0)


async def test_figures_of_long_ago_are_read_before_they_are_used():
    """After a rest of half an hour."""
    source = Source(10.0)
    limiter, clock = made(source)
    await spend(limiter, 1)
    clock.advance(1_800.0)
    source.says(max_send_rate=1.0)
    await limiter.reserve(Demand(1))
    assert (source.asked, limiter.figures.granted_rate) == (2, 1.0)


async def test_minus_one_is_no_limit():
    """For both."""
    limiter, _ = made(Source(-1.0, -1.0, 1e9))
    assert await delays(limiter, 50, 50, 50) == pytest.approx([0.0, 0.0, 0.0])
    assert (limiter.figures.granted_rate, limiter.figures.daily_quota) == (math.inf, math.inf)


async def test_an_account_that_is_shut_is_tried():
    """Quotas of 0 are not a number to pace by: SES's answer says why."""
    limiter, _ = made(Source(0.0, 0.0), headroom=1.0)
    assert await delays(limiter, 1, 1) == pytest.approx([0.0, 1.0])


async def test_figures():
    """What is known, for people."""
    source = Source(50.0, 1_000.0, 400.0, production_access=False, sending_enabled=False, enforcement_status="SHUTDOWN")
    limiter, clock = made(source)
    before = limiter.figures
    assert (before.granted_rate, before.daily_quota, before.read_at) == (14.0, None, None)
    assert (before.production_access, before.sending_enabled, before.enforcement_status) == (None, None, None)
    await spend(limiter, 5)
    clock.advance(7.0)
    await limiter.feedback(Signal(1, ThrottlingError()))
    after = limiter.figures
    assert (after.granted_rate, after.rate, after.daily_quota) == (50.0, 49.75, 1_000.0)
    assert (after.source, after.spent, after.throttles) == ("GetAccount", 404.0, 1)
    assert after.read_at == clock.wall() - 7.0
    assert (after.production_access, after.sending_enabled, after.enforcement_status) == (False, False, "SHUTDOWN")


# --- when it cannot learn --------------------------------------------------------------------------------------------


async def test_a_denied_call_is_told_once_and_not_repeated(caplog):
    """By nobody in the process who has the same account; the action that would help is named."""
    source = Named("denied", error=AccessDeniedError())
    limiter, clock = made(source, fallback_rate=4.0, headroom=1.0)
    assert await delays(limiter, 1, 1) == pytest.approx([0.0, 0.25])
    for _ in range(5):
        clock.advance(4_000.0)
        await spend(limiter, 1)
    other, _ = made(source, clock)
    await spend(other, 1)
    assert source.asked == 1
    assert [record.name for record in caplog.records] == ["tanksend"]
    assert "ses:GetAccount" in caplog.text
    assert "4 recipients a second" in caplog.text


async def test_a_denial_after_an_answer_keeps_the_figures(caplog):
    """The policy may change while we send."""
    source = Source(30.0)
    limiter, clock = made(source)
    await spend(limiter, 1)
    source.error = AccessDeniedError()
    clock.advance(1_000.0)
    await spend(limiter, 1)
    assert limiter.figures.granted_rate == 30.0
    assert "last known figures" in caplog.text


@pytest.mark.parametrize("error", [ServiceUnavailableError(), CredentialsError(), RuntimeError("not of ours")])
async def test_any_other_failure_is_tried_again_in_a_minute(error, caplog):
    """With one warning until it works; then with another."""
    source = Source(30.0, error=error)
    limiter, clock = made(source, fallback_rate=4.0)
    for seconds in (0.0, 59.0, 1.1, 60.1):
        clock.advance(seconds)
        await spend(limiter, 1)
    assert (source.asked, limiter.figures.granted_rate) == (3, 4.0)
    assert len(caplog.records) == 1
    assert type(error).__name__ in caplog.text
    assert "not of ours" not in caplog.text
    source.says()
    clock.advance(60.1)
    await spend(limiter, 1)
    assert limiter.figures.granted_rate == 30.0
    source.error = error
    clock.advance(900.1)
    await spend(limiter, 1)
    assert (limiter.figures.granted_rate, len(caplog.records)) == (30.0, 2)


async def test_a_call_that_hangs_is_cut(caplog):
    """After five seconds; whoever else wants to send does not wait for it."""
    clock = FakeClock()
    source = Silent(clock)
    limiter, _ = made(source, clock)
    began, ended = clock.monotonic(), []

    async def send():
        await limiter.reserve(Demand(1))
        ended.append(clock.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(send)
    assert (ended, source.asked) == ([0.0, 0.0, 5.0], 1)
    assert "no answer" in caplog.text
    assert clock.sleepers == 0


async def test_a_cancelled_reading_is_left_to_the_next():
    """Nothing stays behind that says somebody reads."""
    clock = FakeClock()
    source = Silent(clock)
    limiter, _ = made(source, clock)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.reserve, Demand(1))
            while not source.asked:
                await anyio.lowlevel.checkpoint()
            scope.cancel()
    await limiter.reserve(Demand(1))
    assert source.asked == 2


# --- one account, several limiters -----------------------------------------------------------------------------------


async def test_limiters_of_the_same_account_share_everything_learned():
    """One call, one pace, one day; settings are each one's own."""
    first, second = Named("shared", 10.0, 100.0), Named("shared", 99.0)
    one, clock = made(first, headroom=1.0)
    two, _ = made(second, clock, headroom=0.5)
    assert await delays(one, 1, 1) == pytest.approx([0.0, 0.1])
    assert await delays(two, 1) == pytest.approx([0.2])
    assert await delays(one, 1) == pytest.approx([0.4])
    assert (first.asked, second.asked, two.figures.spent) == (1, 0, 4)


async def test_limiters_of_the_same_source_do_so_too():
    """Where it cannot name its account, or not at the moment."""
    for source in (Source(10.0), Named(ServiceUnavailableError(), 10.0), Named(7, 10.0)):
        one, clock = made(source, headroom=1.0)
        two, _ = made(source, clock, headroom=1.0)
        assert [*await delays(one, 1), *await delays(two, 1)] == pytest.approx([0.0, 0.1])
        assert source.asked == 1


async def test_different_accounts_and_different_clocks_are_kept_apart():
    """Each has its own pace."""
    clock = FakeClock()
    for source, its in ((Named("a"), clock), (Named("b"), clock), (Named("a"), FakeClock()), (Source(), clock)):
        limiter, _ = made(source, its)
        assert await delays(limiter, 1) == pytest.approx([0.0])
        assert source.asked == 1


async def test_the_system_s_clock_is_one_clock():
    """However many objects stand for it."""
    one, two = AccountLimiter(), AccountLimiter()
    name = f"system {time.monotonic()}"
    one.learn_from(Named(name, 0.001))
    two.learn_from(Named(name, 0.001))
    assert await delays(one, 1) == pytest.approx([0.0])
    assert (await delays(two, 1))[0] > 900


async def test_a_named_account_is_remembered_when_its_limiters_are_gone():
    """A sender for each request must not ask each time. An object is forgotten with its limiters."""
    clock = FakeClock()
    source, nameless = Named("remembered"), Source()
    for _ in range(3):
        for each in (source, nameless):
            limiter, _ = made(each, clock)
            await limiter.reserve(Demand(1))
            del limiter
            gc.collect()
    assert (source.asked, nameless.asked) == (1, 3)


async def test_not_all_accounts_are_remembered_for_ever():
    """Only the last few."""
    source = Named("the first")
    clock = FakeClock()
    await made(source, clock)[0].reserve(Demand(1))
    for number in range(_book.KEPT):
        await made(Named(f"number {number}"), clock)[0].reserve(Demand(1))
    gc.collect()
    await made(source, clock)[0].reserve(Demand(1))
    assert source.asked == 2


async def test_threads_and_loops_share_one_pace():
    """No slot is given twice, and one of them asks."""
    source = Named("threads", 1.0)
    clock = FakeClock(autojump=False)
    found = []

    async def take():
        limiter, _ = made(source, clock, fallback_rate=1.0, headroom=1.0)
        for _ in range(100):
            found.extend(await delays(limiter, 1))

    threads = [threading.Thread(target=anyio.run, args=(take,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [float(number) for number in range(400)]
    assert source.asked == 1


def _in_child(limiter, pipe):
    async def use():
        found = await delays(limiter, 1, 1)
        pipe.send((found, limiter.figures.granted_rate, limiter.figures.spent))

    thread = threading.Thread(target=anyio.run, args=(use,))  # this one thinks that it runs a loop already
    thread.start()
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_knows_the_figures_and_goes_at_its_own_pace(anyio_backend_name):
    """Also when another thread held the lock at that moment."""
    if anyio_backend_name != "asyncio":
        pytest.skip("a fork is a fork")
    source = Named("forked", 10.0, 100.0)
    limiter, _ = made(source, headroom=1.0)
    await delays(limiter, *[1] * 50)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with limiter._book.lock, _book._shelf.lock:
        child = context.Process(target=_in_child, args=(limiter, theirs))
        child.start()
    assert ours.poll(30)
    assert ours.recv() == ([0.0, pytest.approx(0.1)], 10.0, 52)
    child.join()


async def test_what_a_child_begins_with():
    """The same, without a fork: another thread may have been in the middle of something."""
    limiter, _ = made(Source(10.0, 100.0), headroom=1.0)
    await delays(limiter, 5, 5)
    book = limiter._book
    assert repr(book) == "<AccountBook read>"
    book.lock.acquire()
    book.reading, book.day.ours_sum, book.day.others_sum = True, 1, -1.0
    _book._after_fork_in_child()
    assert await delays(limiter, 1) == [0.0]
    assert (limiter.figures.spent, book.reading) == (11, False)


# --- slots -----------------------------------------------------------------------------------------------------------


async def test_a_slot_given_back_frees_its_time_and_its_share_of_the_day():
    """Once, whole or in part; an earlier one frees its share of the day alone."""
    limiter, _ = made(Source(10.0, 100.0), headroom=1.0)
    first = await limiter.reserve(Demand(10))
    slot = await limiter.reserve(Demand(10))
    await limiter.release(attrs.evolve(slot, recipients=4))
    await limiter.release(slot)
    assert limiter.figures.spent == 16
    assert await delays(limiter, 1) == pytest.approx([1.6])
    await limiter.release(first)
    assert limiter.figures.spent == 7
    assert await delays(limiter, 1) == pytest.approx([1.7])


async def test_a_slot_of_somebody_else_is_ignored():
    """Release never raises; one of another account goes back there."""
    limiter, _ = made(Source(10.0))
    other, _ = made(Source(10.0))
    await limiter.release(Slot(0.0, 1, "token"))
    slot = await other.reserve(Demand(5))
    await limiter.release(slot)
    assert other.figures.spent == 0


async def test_a_strict_account_gets_what_fits():
    """When a heavy message was throttled, a slot may carry fewer than asked for."""
    limiter, _ = made(Source(50.0, 1_000.0), headroom=1.0)
    await limiter.release(await limiter.reserve(Demand(40, 40)))
    await limiter.feedback(Signal(40, ThrottlingError()))
    await limiter.reserve(Demand(40, 40))
    slot = await limiter.reserve(Demand(40, 1))
    assert (slot.delay, slot.recipients) == (pytest.approx(0.02), 10)
    assert limiter.figures.spent == 50


# --- the day ---------------------------------------------------------------------------------------------------------


async def test_when_the_day_is_spent_it_says_until_when():
    """Others' mail a day after it was first seen, ours by the minute."""
    source = Source(50.0, 100.0, 40.0)
    limiter, clock = made(source)
    began = clock.wall()
    await spend(limiter, 50)
    with pytest.raises(DailyQuotaExceededError, match="no room for 11 more") as caught:
        await limiter.reserve(Demand(11, 11))
    assert caught.value.resume_at == pytest.approx(began + DAY)
    await spend(limiter, 10)
    with pytest.raises(DailyQuotaExceededError) as caught:
        await limiter.reserve(Demand(41, 41))
    assert began + DAY < caught.value.resume_at <= began + DAY + 60
    with pytest.raises(DailyQuotaExceededError) as caught:
        await limiter.reserve(Demand(101, 101))
    assert caught.value.resume_at is None
    assert source.asked == 1


async def test_a_spent_day_is_looked_at_once_a_minute():
    """By whoever asks; when the window has moved, sending goes on."""
    source = Source(50.0, 100.0, 100.0)
    limiter, clock = made(source)
    for seconds, asked in ((0.0, 1), (59.0, 1), (1.0, 2), (30.0, 2)):
        clock.advance(seconds)
        with pytest.raises(DailyQuotaExceededError):
            await limiter.reserve(Demand(1))
        assert source.asked == asked
    source.says(sent_last_24_hours=90.0)
    clock.advance(30.0)
    await spend(limiter, 10)
    with pytest.raises(DailyQuotaExceededError):
        await limiter.reserve(Demand(1))
    assert source.asked == 3


async def test_a_quota_error_from_ses_ends_the_day_after_one_request():
    """Until the figures have been read again."""
    source = Source(50.0, 100.0, 0.0)
    limiter, clock = made(source)
    slot = await limiter.reserve(Demand(5, 5))
    await limiter.feedback(Signal(5, DailyQuotaExceededError()))
    with pytest.raises(DailyQuotaExceededError) as caught:
        await limiter.reserve(Demand(5, 5))
    assert caught.value.resume_at == clock.wall() + DAY
    assert slot.recipients == 5
    source.says(sent_last_24_hours=60.0)
    clock.advance(60.0)
    await limiter.reserve(Demand(40, 40))
    assert source.asked == 2


async def test_a_quota_error_where_no_figures_can_be_read():
    """One request every quarter of an hour finds out."""
    limiter, clock = made(Source(error=AccessDeniedError()))
    await limiter.reserve(Demand(1))
    await limiter.feedback(Signal(1, DailyQuotaExceededError()))
    with pytest.raises(DailyQuotaExceededError) as caught:
        await limiter.reserve(Demand(1))
    assert caught.value.resume_at == clock.wall() + 900
    clock.advance(900.0)
    await limiter.reserve(Demand(1))


async def test_a_share_of_the_day_is_kept_for_transactional_mail():
    """Bulk stops there, and says so."""
    limiter, _ = made(Source(50.0, 100.0), reserve_for_transactional=10)
    await spend(limiter, 90)
    with pytest.raises(DailyQuotaExceededError, match="beside the 10 kept for transactional mail"):
        await limiter.reserve(Demand(1))
    await spend(limiter, 10, priority=Priority.TRANSACTIONAL)
    with pytest.raises(DailyQuotaExceededError, match=r"1 more\."):
        await limiter.reserve(Demand(1, priority=Priority.TRANSACTIONAL))


async def test_the_mailbox_simulator_does_not_count():
    """Against the day; the pace counts it."""
    limiter, _ = made(Source(10.0, 5.0), headroom=1.0)
    await spend(limiter, 5, uncounted=1)
    assert limiter.figures.spent == 4
    assert await delays(limiter, 3, 3, uncounted=3) == pytest.approx([0.5, 0.8])
    with pytest.raises(DailyQuotaExceededError, match="room for 2 more"):
        await limiter.reserve(Demand(3, 3, uncounted=1))


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (None, 3),
        (ThrottlingError(), 0),
        (ThrottlingError(pause=True), 0),
        (ServiceUnavailableError(), 0),
        (DailyQuotaExceededError(), 98),  # the day is spent for messages to three
        (ContentRejectedError(), 3),
        (OutcomeUnknownError(), 3),
    ],
)
async def test_what_ses_certainly_did_not_take_does_not_count(error, counted):
    """All else may."""
    limiter, _ = made(Source(10.0, 100.0))
    await limiter.reserve(Demand(4, 4, uncounted=1))
    await limiter.feedback(Signal(4, error, uncounted=1))
    assert limiter.figures.spent == counted


async def test_one_who_waits_gets_a_slot_for_when_there_is_room():
    """Hours ahead; meanwhile nobody else is held up, and then they follow those who waited."""
    limiter, clock = made(Source(10.0, 100.0), headroom=1.0, when_quota_spent="wait", reserve_for_transactional=20)
    await spend(limiter, 80)
    first = await limiter.reserve(Demand(5, 5))
    second = await limiter.reserve(Demand(5, 5))
    assert DAY < first.delay <= DAY + 60
    assert second.delay == pytest.approx(first.delay + 0.5)
    assert await delays(limiter, 1, priority=Priority.TRANSACTIONAL) == pytest.approx([8.0])
    clock.advance(first.delay)
    assert await delays(limiter, 1, 1) == pytest.approx([1.0, 1.1])
    with pytest.raises(DailyQuotaExceededError):
        await limiter.reserve(Demand(101, 101))


async def test_a_slot_that_waits_can_be_given_back():
    """Its place is free again."""
    limiter, _ = made(Source(10.0, 100.0), headroom=1.0, when_quota_spent="wait")
    await spend(limiter, 100)
    slot = await limiter.reserve(Demand(5, 5))
    await limiter.release(slot)
    again = await limiter.reserve(Demand(5, 5))
    assert (again.delay, limiter.figures.spent) == (slot.delay, 105)


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_feedback_before_any_slot_is_harmless():
    """It never raises."""
    limiter, _ = made()
    for error in (None, ThrottlingError(), DailyQuotaExceededError(), AccessDeniedError()):
        await limiter.feedback(Signal(1, error))


async def test_throttles_slow_it_down():
    """Two that jitter does not explain."""
    limiter, clock = made(Source(50.0))
    await spend(limiter, 1)
    await limiter.feedback(Signal(1, ThrottlingError()))
    assert limiter.figures.rate == 49.75
    clock.advance(0.5)
    await limiter.feedback(Signal(1, ThrottlingError()))
    assert limiter.figures.rate < 48
    assert limiter.figures.throttles == 2


async def test_a_problem_of_ses_pauses_once():
    """Five seconds, however many requests came back with it, and no slower afterwards."""
    limiter, _ = made(Source(50.0))
    await limiter.reserve(Demand(1))
    for _ in range(100):
        await limiter.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await delays(limiter, 1) == pytest.approx([5.0])
    assert limiter.figures.rate == 49.75


# --- through a sender ------------------------------------------------------------------------------------------------


def messages(count):
    """To so many people; a list, because the fake clock does not wait for the thread that drains anything else."""
    return [Message(f"person.{number}@example.com", "Hello", "Hello") for number in range(int(count))]


@contextmanager
def sender(ses, clock, limiter, **options):
    """A sender on the simulated account, whose limiter knows it."""
    transport = ses.transport(clock)
    limiter.learn_from(transport)
    yield Sender(from_="no-reply@example.com", transport=transport, limiter=limiter, clock=clock, **options)


async def test_a_denied_account_is_sent_through_at_the_fallback(caplog):
    """One warning, one call."""
    clock, ses = FakeClock(), SimulatedSES(rate=20, deny={"ses:GetAccount"}, latency=0.05)
    with sender(ses, clock, AccountLimiter(fallback_rate=10.0, clock=clock)) as of:
        report = await of.send_all(messages(100))
        again = await of.send_all(messages(100))
    assert report.counts[Status.SENT] == again.counts[Status.SENT] == 100
    assert ses.counts.by_action["ses:GetAccount"] == 1
    assert report.recipients_per_second == pytest.approx(10.0, rel=0.03)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "ses:GetAccount" in caplog.text


@pytest.mark.parametrize("rate", [14, 500])
async def test_the_rate_is_held_to_the_last_percent(rate):
    """On a strict account, without a throttle."""
    clock, ses = FakeClock(), SimulatedSES(rate=rate, latency=(0.04, 0.02), keep_bodies=False)
    with sender(ses, clock, AccountLimiter(clock=clock)) as of:
        report = await of.send_all(messages(6 * rate))
    assert (report.counts[Status.SENT], report.throttled) == (6 * rate, 0)
    at = [item.at for item in ses.inbox][2 * rate :]  # a batch starts slowly
    assert (len(at) - 1) / (at[-1] - at[0]) / rate >= 0.99
    assert ses.counts.by_action["ses:GetAccount"] == 1


@pytest.mark.parametrize(("mode", "heaviest", "rate"), [("strict", 40, 0.9), ("debt", 50, 0.98)])
async def test_mixed_weights(mode, heaviest, rate):
    """Nobody says how an account counts. Where it is strict, light messages pass the heavy ones that do not fit."""
    clock = FakeClock()
    ses = SimulatedSES(rate=50, mode=mode, latency=(0.04, 0.02), daily_quota=-1, keep_bodies=False)
    chance = random.Random(1)
    groups = ([f"person.{number}@example.com" for number in range(chance.randint(1, heaviest))] for _ in range(1_000))
    with sender(ses, clock, AccountLimiter(clock=clock)) as of:
        report = await of.send_all([Message(group, "Hello", "Hello") for group in groups])
    assert report.counts[Status.SENT] == 1_000
    assert report.throttled <= 2
    assert ses.inbox.rate() >= rate * 50


async def test_two_senders_of_a_process_are_one_to_the_account():
    """They share the rate and one call."""
    clock, ses = FakeClock(), SimulatedSES(rate=50, latency=(0.04, 0.02), keep_bodies=False)
    transport = ses.transport(clock)
    reports = []

    async def send():
        limiter = AccountLimiter(clock=clock)
        limiter.learn_from(transport)
        of = Sender(from_="no-reply@example.com", transport=transport, limiter=limiter, clock=clock)
        reports.append(await of.send_all(messages(250)))

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(send)
    assert [report.throttled for report in reports] == [0, 0]
    assert ses.inbox.rate() >= 49
    assert ses.counts.by_action["ses:GetAccount"] == 1


async def test_exactly_what_is_left_of_the_day_is_sent():
    """Of 1,000 with 400 spent, 600; the rest is held until those 400 have left the window."""
    clock, ses = FakeClock(), SimulatedSES(rate=200, daily_quota=1_000, sent_before=400, latency=0.05)
    began = clock.wall()
    with sender(ses, clock, AccountLimiter(clock=clock)) as of:
        report = await of.send_all(messages(700))
    assert (report.counts[Status.SENT], report.counts[Status.HELD]) == (600, 100)
    assert ses.counts.quota_refusals == 0
    held = next(row for row in report.rows if row.status is Status.HELD)
    assert held.error == "DailyQuotaExceeded"
    with pytest.raises(DailyQuotaExceededError) as caught:
        await of.send(Message("anna@example.com", "Hello", "Hello"))
    assert caught.value.resume_at == pytest.approx(began + DAY, abs=0.1)
    clock.advance(caught.value.resume_at - clock.wall())
    assert (await of.send(Message("anna@example.com", "Hello", "Hello"))).status is Status.SENT


async def test_one_who_waits_sends_all_as_the_window_moves():
    """Days of it, without SES refusing anything."""
    clock, ses = FakeClock(), SimulatedSES(rate=200, daily_quota=100, sent_before=40, latency=0.05)
    began = clock.monotonic()
    with sender(ses, clock, AccountLimiter(clock=clock, when_quota_spent="wait")) as of:
        report = await of.send_all(messages(250))
    assert report.counts[Status.SENT] == 250
    assert ses.counts.quota_refusals == 0
    assert clock.monotonic() - began < 2 * DAY + 200


async def test_a_quota_error_stops_the_batch_after_one_request():
    """Where somebody else has spent what the figures promised."""
    clock, ses = FakeClock(), SimulatedSES(rate=50, daily_quota=100, latency=0.05)
    limiter = AccountLimiter(clock=clock)
    with sender(ses, clock, limiter, max_parallel=1) as of:
        await of.send_all(messages(10))
        ses.daily_quota = 20
        report = await of.send_all(messages(50))
        assert (report.counts[Status.SENT], ses.counts.quota_refusals) == (10, 1)
        assert (await of.send_all(messages(5))).counts[Status.HELD] == 5
        assert ses.counts.quota_refusals == 1


# --- strangers on the same account -----------------------------------------------------------------------------------


@attrs.define
class Stranger:
    """Another program on the account, which neither knows of us nor repeats what was refused."""

    clock: FakeClock
    ses: SimulatedSES
    gap: object
    until: float
    taken: list = attrs.field(factory=list)

    async def run(self):
        transport = self.ses.transport(self.clock)
        async with anyio.create_task_group() as tasks:
            while self.clock.monotonic() < self.until:
                tasks.start_soon(self._send, transport)
                await self.clock.sleep(self.gap())

    async def _send(self, transport):
        at = self.clock.monotonic()
        try:
            await transport.send(sample_request())
        except ThrottlingError:
            return
        self.taken.append(at)


async def with_a_stranger(rate, gap, *, busy=50.0, after=25.0):
    """Send beside a stranger who stops after *busy* seconds, and say how it went."""
    clock, ses = FakeClock(), SimulatedSES(rate=rate, latency=(0.04, 0.02), keep_bodies=False)
    began = clock.monotonic()
    stranger = Stranger(clock, ses, gap, began + busy)
    throttled, ours = [], []

    class Watcher:
        def on_event(self, event):
            if event.error is not None:
                throttled.append(clock.monotonic() - began)
            elif event.result is not None:
                ours.append(clock.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stranger.run)
        with sender(ses, clock, AccountLimiter(clock=clock), observers=[Watcher()]) as of:
            report = await of.send_all(messages(rate * (busy + after)), give_up_after=busy + after)
    assert report.counts[Status.SENT] == len(ours)
    assert report.counts[Status.SENT] + report.counts[Status.HELD] == sum(report.counts.values())
    assert ses.counts.accepted == len(ours) + len(stranger.taken)
    late = sum(10.0 <= at - began < busy for at in stranger.taken) / (busy - 10.0)
    used = sum(10.0 <= at < busy for at in ours) / (busy - 10.0) / (rate - late)
    refused = sum(10.0 <= at < busy for at in throttled)
    share = refused / (refused + sum(10.0 <= at < busy for at in ours))
    back = sum(busy + 20.0 <= at < busy + after for at in ours) / (after - 20.0) / rate
    return used, share, back


@pytest.mark.parametrize("rate", [50, 14])
async def test_an_even_stranger_gets_half_and_leaves_again(rate):
    """Few requests are refused, what is left is used, and all of it when the stranger has gone."""
    used, refused, back = await with_a_stranger(rate, lambda: 2.0 / rate)
    assert used >= 0.85
    assert refused <= 0.03
    assert back >= 0.95


@pytest.mark.parametrize(("rate", "least"), [(50, 0.7), (14, 0.6)])
async def test_a_restless_stranger_leaves_gaps(rate, least):
    """Poisson arrivals of half the rate; at 14 a second half an account is so few that chance has the larger part."""
    chance = random.Random(3)
    used, _, back = await with_a_stranger(rate, lambda: chance.expovariate(rate / 2))
    assert used >= least
    assert back >= 0.95
