from __future__ import annotations

import datetime as dt
import math
import threading

import anyio
import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tanksend.exceptions import DailyQuotaExceededError, OutcomeUnknownError, SettingError, ThrottlingError
from tanksend.limiters import TokenBucketLimiter
from tanksend.testing import FakeClock, check_rate_limiter
from tanksend.typing import Demand, Priority, Signal, Slot

pytestmark = pytest.mark.anyio


def limiter(rate=10.0, burst=1, **options):
    """A limiter and its clock."""
    clock = FakeClock(start=100.0)
    return TokenBucketLimiter(rate, burst, clock=clock, **options), clock


async def delays(of, *weights):
    """What each of these would wait."""
    return [(await of.reserve(Demand(weight, weight))).delay for weight in weights]


@pytest.mark.parametrize("burst", [1, 7])
async def test_it_keeps_its_contract(burst):
    """The check that ships for everybody's limiters."""
    clock = FakeClock()
    await check_rate_limiter(lambda rate: TokenBucketLimiter(rate, burst, clock=clock), clock, burst=burst)


async def test_slots_are_evenly_spaced():
    """The first now, each further one an interval later, whatever its lane."""
    bucket, clock = limiter()
    assert await delays(bucket, 1, 1, 1) == pytest.approx([0.0, 0.1, 0.2])
    clock.advance(0.25)
    slot = await bucket.reserve(Demand(1, priority=Priority.TRANSACTIONAL))
    assert (slot.delay, slot.recipients) == (pytest.approx(0.05), 1)


async def test_recipients_are_what_counts():
    """A message to five takes five; one heavier than everything leaves a debt."""
    bucket, _ = limiter(burst=3)
    assert await delays(bucket, 5, 1, 50, 1) == pytest.approx([0.0, 0.3, 0.4, 5.4])


async def test_a_rest_is_not_saved_up():
    """Beyond the burst."""
    bucket, clock = limiter(burst=2)
    await bucket.reserve(Demand(1))
    clock.advance(1_000)
    assert await delays(bucket, 1, 1, 1) == pytest.approx([0.0, 0.0, 0.1])


async def test_a_slot_due_now_has_no_delay_at_all():
    """Not a rounding away from it."""
    bucket, clock = limiter(14.0)
    for _ in range(50):
        slot = await bucket.reserve(Demand(1))
        clock.advance(slot.delay)
        clock.advance(1.0)
        assert (await bucket.reserve(Demand(1))).delay == 0.0
        clock.advance(1.0)


async def test_no_limit():
    """An infinite rate never waits, also after a throttle."""
    bucket, _ = limiter(math.inf)
    await bucket.feedback(Signal(5, ThrottlingError()))
    slot = await bucket.reserve(Demand(1_000))
    await bucket.release(slot)
    assert await delays(bucket, 50, 50) == [0.0, 0.0]
    assert repr(bucket) == "TokenBucketLimiter(rate=inf, burst=1)"


# --- release ---------------------------------------------------------------------------------------------------------


async def test_a_slot_given_back_is_free_again():
    """Whole, and with fewer recipients the part that was not used."""
    bucket, _ = limiter()
    await bucket.reserve(Demand(1))
    slot = await bucket.reserve(Demand(10))
    await bucket.release(slot)
    assert await delays(bucket, 10) == pytest.approx([0.1])
    last = await bucket.reserve(Demand(10))
    await bucket.release(attrs.evolve(last, recipients=7))
    assert await delays(bucket, 1) == pytest.approx([1.1 + 0.3])


async def test_giving_back_twice_is_giving_back_once():
    """Also when a later slot of the same size has taken its place meanwhile."""
    bucket, _ = limiter()
    first = await bucket.reserve(Demand(1))
    await bucket.release(first)
    await bucket.release(first)
    second = await bucket.reserve(Demand(1))
    assert second.token == first.token
    await bucket.release(first)
    assert await delays(bucket, 1) == pytest.approx([0.1])
    await bucket.release(first)
    await bucket.release(second)
    assert await delays(bucket, 1) == pytest.approx([0.2])


async def test_no_more_is_given_back_than_was_taken():
    """Whatever the slot says."""
    bucket, _ = limiter()
    slot = await bucket.reserve(Demand(2))
    await bucket.release(attrs.evolve(slot, recipients=1_000))
    assert await delays(bucket, 1, 1) == pytest.approx([0.0, 0.1])


async def test_an_earlier_slot_lapses():
    """Others have been promised what comes after it: to free it now would crowd them."""
    bucket, _ = limiter()
    first = await bucket.reserve(Demand(1))
    await bucket.reserve(Demand(1))
    await bucket.release(first)
    assert await delays(bucket, 1) == pytest.approx([0.2])


async def test_a_slot_of_somebody_else_is_ignored():
    """Release never raises."""
    bucket, _ = limiter()
    other, _ = limiter()
    await bucket.reserve(Demand(1))
    for slot in (Slot(0.0, 1), Slot(0.0, 1, "token"), await other.reserve(Demand(1))):
        await bucket.release(slot)
    assert await delays(bucket, 1) == pytest.approx([0.1])


async def test_a_slot_given_back_after_a_throttle_does_not_shorten_the_wait():
    """Its time has passed; what SES refused has to be waited off all the same."""
    bucket, clock = limiter()
    slot = await bucket.reserve(Demand(5))
    clock.advance(10.0)
    await bucket.feedback(Signal(5, ThrottlingError()))
    await bucket.release(slot)
    assert await delays(bucket, 1) == pytest.approx([0.5])


@given(
    st.lists(st.tuples(st.sampled_from(["use", "release", "again", "part"]), st.integers(1, 9), st.floats(0, 2))),
    st.integers(1, 5),
)
@settings(max_examples=settings().max_examples * 3 // 5)
def test_what_is_used_never_exceeds_the_rate(steps, burst):
    """Whatever is given back in between, whole, twice or in part."""

    async def run():
        bucket, clock = limiter(1.0, burst)
        used, old = [], Slot(0.0, 1)
        for kind, weight, rest in steps:
            slot = await bucket.reserve(Demand(weight))
            due = clock.monotonic() + slot.delay
            kept = {"use": weight, "part": weight // 2}.get(kind, 0)
            await bucket.release(attrs.evolve(slot, recipients=weight - kept) if kept < weight else old)
            if kind == "again":
                await bucket.release(slot)
            used.append((due, kept))
            old = slot
            clock.advance(rest)
        return used

    used = anyio.run(run)
    for first in range(len(used)):
        total = 0
        for due, recipients in used[first:]:
            assert total <= due - used[first][0] + burst - 1 + 1e-6 or not recipients
            total += recipients


# --- feedback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, OutcomeUnknownError(), DailyQuotaExceededError()])
async def test_only_throttles_slow_it_down(error):
    """The rest is the business of others."""
    bucket, _ = limiter()
    await bucket.feedback(Signal(5, error))
    assert await delays(bucket, 1) == [0.0]


async def test_what_ses_refused_is_waited_off():
    """Each refused recipient costs what a recipient costs; a burst is over."""
    bucket, _ = limiter(burst=4)
    for _ in range(3):
        await bucket.feedback(Signal(2, ThrottlingError()))
    assert await delays(bucket, 1, 1) == pytest.approx([0.6, 0.7])


@pytest.mark.parametrize("burst", [1, 5])
async def test_a_problem_of_ses_pauses_once(burst):
    """Five seconds, however many requests came back with it."""
    bucket, clock = limiter(burst=burst)
    for _ in range(100):
        await bucket.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await delays(bucket, 1) == pytest.approx([5.0])
    clock.advance(3.0)
    await bucket.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await delays(bucket, 1) == pytest.approx([5.0])


async def test_a_pause_does_not_shorten_a_longer_wait():
    """A debt is a debt."""
    bucket, _ = limiter()
    await bucket.reserve(Demand(100))
    await bucket.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await delays(bucket, 1) == pytest.approx([10.0])


# --- construction and sharing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.25, dt.timedelta(seconds=0.25)])
async def test_a_fixed_delay(seconds):
    """One recipient every so many seconds."""
    clock = FakeClock()
    bucket = TokenBucketLimiter.every(seconds, clock=clock)
    assert bucket.rate == 4.0
    assert repr(bucket) == "TokenBucketLimiter(rate=4, burst=1)"
    assert await delays(bucket, 1, 1, 1) == pytest.approx([0.0, 0.25, 0.5])


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf, dt.timedelta(0)])
async def test_a_delay_that_is_none_is_refused(seconds):
    """Zero, less, endless, no number."""
    with pytest.raises(SettingError):
        TokenBucketLimiter.every(seconds)


async def test_numbers_out_of_range_are_refused():
    """When it is made, not when it is used."""
    with pytest.raises(SettingError, match="rate"):
        TokenBucketLimiter(0)
    with pytest.raises(SettingError, match="burst"):
        TokenBucketLimiter(1, 0)


async def test_by_default_it_uses_the_system_s_time():
    """No clock need be given."""
    bucket = TokenBucketLimiter(0.001)
    first, second = await delays(bucket, 1, 1)
    assert first == 0.0
    assert 900 < second <= 1_000


async def test_threads_and_loops_share_one_rate():
    """No slot is given twice."""
    bucket, _ = limiter(1.0)
    found = []

    async def take():
        for _ in range(200):
            found.extend(await delays(bucket, 1))

    threads = [threading.Thread(target=anyio.run, args=(take,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [float(number) for number in range(800)]


# --- the check finds what is wrong with others -----------------------------------------------------------------------


class Broken(TokenBucketLimiter):
    """A limiter that a test breaks in one place."""


class TooFast(Broken):
    async def reserve(self, demand):
        slot = await super().reserve(demand)
        return attrs.evolve(slot, delay=slot.delay * 0.9)


class Weightless(Broken):
    async def reserve(self, demand):
        return attrs.evolve(await super().reserve(Demand(1)), recipients=demand.recipients)


class Forgiving(Broken):
    """A message heavier than ten leaves no debt beyond ten."""

    async def reserve(self, demand):
        slot = await super().reserve(Demand(min(demand.recipients, 10)))
        return attrs.evolve(slot, recipients=demand.recipients)


class Endless(Broken):
    async def reserve(self, demand):
        return Slot(math.inf, demand.recipients)


class InThePast(Broken):
    async def reserve(self, demand):
        slot = await super().reserve(demand)
        return attrs.evolve(slot, delay=slot.delay - 1e-3)


class Stingy(Broken):
    async def reserve(self, demand):
        return attrs.evolve(await super().reserve(demand), recipients=0)


class Slow(Broken):
    async def reserve(self, demand):
        slot = await super().reserve(demand)
        await super().reserve(Demand(2 * demand.recipients))
        return slot


class Keeping(Broken):
    async def release(self, slot):
        pass


class ByValue(Broken):
    """Recognises a slot by its numbers, which a later one may have too."""

    async def release(self, slot):
        if slot.token == self._latest:
            await super().release(attrs.evolve(slot, token=self._latest))


class Generous(Broken):
    """Gives back more than once."""

    async def release(self, slot):
        self._latest = slot.token
        await super().release(slot)


class Choosy(Broken):
    async def release(self, slot):
        if slot.token is None:
            raise LookupError
        await super().release(slot)


class Unshielded(Broken):
    async def release(self, slot):
        await anyio.lowlevel.checkpoint()
        await super().release(slot)


class Whole(Broken):
    """Takes a part that is given back for nothing."""

    async def release(self, slot):
        if slot.token is not None and slot.recipients == getattr(slot.token, "recipients", 0):
            await super().release(slot)


class Touchy(Broken):
    async def feedback(self, signal):
        if signal.error is None:
            raise ValueError


class Stopped(Broken):
    """Never goes on after a throttle."""

    async def feedback(self, signal):
        self._paid = 1e12


class Spurred(Broken):
    """Takes a throttle for encouragement."""

    async def feedback(self, signal):
        self._paid -= 0.1


class LastComeFirstServed(Broken):
    """A heavy one is passed by whoever comes after it."""

    asked = ()

    async def reserve(self, demand):
        self.asked += (demand.recipients,)
        slot = await super().reserve(demand)
        return attrs.evolve(slot, delay=slot.delay + 0.5) if self.asked == (1, 1, 10) else slot


class Favouring(Broken):
    """The sixth who asks has his turns before all others."""

    asked, favourite = 0, None

    async def reserve(self, demand):
        task = anyio.get_current_task().id
        self.asked += 1
        if self.asked == 6:
            self.favourite = task
        slot = await super().reserve(demand)
        return slot if self.favourite in (None, task) else attrs.evolve(slot, delay=slot.delay + 1.0)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Stopped, "throttles slow a limiter down and do not stop it"),
        (Spurred, "recipients went where"),
        (LastComeFirstServed, "whoever asks first is due first"),
        (Favouring, "tasks that ask for the same get the same"),
        (TooFast, "recipients went where"),
        (Weightless, "recipients went where"),
        (Forgiving, "recipients went where"),
        (Endless, "delay is a number of seconds"),
        (InThePast, "delay is a number of seconds"),
        (Stingy, "a slot carries between at_least and recipients"),
        (Slow, "at least half of the rate"),
        (Keeping, "the time of a slot that was given back is free again"),
        (ByValue, "recipients went where"),
        (Generous, "recipients went where"),
        (Unshielded, "a release is shielded from cancellation"),
        (Whole, "the part of a slot that was not used is free again"),
        (Choosy, "release never raises, and not LookupError"),
        (Touchy, "feedback never raises, and not ValueError"),
    ],
)
async def test_the_check_finds_a_limiter_that_breaks_its_contract(broken, sentence):
    """With a sentence that says what was expected."""
    clock = FakeClock()
    with pytest.raises(AssertionError, match=sentence):
        await check_rate_limiter(lambda rate: broken(rate, clock=clock), clock)
