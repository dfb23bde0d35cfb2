from __future__ import annotations

import threading
from functools import partial

import anyio
import attrs
import pytest

from tanksend import Message, Priority, Receipt, Sender, Status
from tanksend.exceptions import (
    DailyQuotaExceededError,
    HeldError,
    IdentityNotVerifiedError,
    SendError,
    ServiceUnavailableError,
)
from tanksend.limiters import TokenBucketLimiter
from tanksend.retries import NoRetry
from tanksend.testing import FakeClock, RecordingTransport
from tanksend.typing import Demand, Retry, Slot

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
BULK, FIRST = Priority.BULK, Priority.TRANSACTIONAL


def letter(name="m", *, recipients=1, priority=None):
    """A message that is known by its subject."""
    return Message([f"b{i}@example.com" for i in range(recipients)], name, "text", priority=priority)


class Wire(RecordingTransport):
    """Remembers when each message left, and how many were on the wire at once."""

    def __init__(self, clock, outcome=(), *, takes=0.0):
        super().__init__(outcome, clock=clock, delay=takes)
        self.now = clock.monotonic
        self.began = clock.monotonic()
        self.left = []
        self.at_once = 0
        self.most = 0

    async def send(self, request):
        self.left.append((request.message.subject, round(self.now() - self.began, 6)))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            return await super().send(request)
        finally:
            self.at_once -= 1


class Slots:
    """A limiter that gives slots as it is told, and writes down what is asked of it."""

    def __init__(self, *delays, clock=None, takes=0.0):
        self.delays = list(delays)
        self.clock = clock
        self.takes = takes
        self.asked = []
        self.released = []

    async def reserve(self, demand):
        self.asked.append(demand.recipients)
        if self.takes:
            await self.clock.sleep(self.takes)
        delay = self.delays.pop(0) if self.delays else 0.0
        if isinstance(delay, Exception):
            raise delay
        return Slot(delay, demand.recipients, len(self.asked))

    async def release(self, slot):
        self.released.append((slot.token, slot.recipients))

    async def feedback(self, signal):
        pass


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


async def later(clock, seconds, function, *args, **options):
    """Call *function* in a while; what it raises as a `SendError` is its answer."""
    await clock.sleep(seconds)
    try:
        return await function(*args, **options)
    except SendError as error:
        return error.result


async def test_transactional_goes_before_bulk_and_within_a_lane_the_oldest_goes_first(clock):
    """In one batch, the next slot is for the best that waits."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(1, clock=clock), clock=clock)
    letters = [
        letter("bulk 1"),
        letter("bulk 2"),
        letter("urgent 1", priority=FIRST),
        letter("urgent 2", priority=FIRST),
    ]
    report = await sender.send_all(letters)
    assert report.ok
    assert [("urgent 1", 0), ("urgent 2", 1), ("bulk 1", 2), ("bulk 2", 3)] == wire.left


async def test_a_single_send_overtakes_a_batch_of_the_same_sender(clock):
    """It takes the slot that was reserved for bulk: a slot is bound to a message only when it is due."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(1, clock=clock), clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter(f"bulk {i}") for i in range(4)])
        tasks.start_soon(later, clock, 1.5, sender.send, letter("urgent"))
    assert [("bulk 0", 0), ("bulk 1", 1), ("urgent", 2), ("bulk 2", 3), ("bulk 3", 4)] == wire.left


async def test_a_send_may_be_bulk_and_waits_for_what_is_older(clock):
    """The lane of a message of its own counts, whoever sends it."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(1, clock=clock), clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter(f"bulk {i}") for i in range(3)])
        tasks.start_soon(later, clock, 0.5, sender.send, letter("late", priority=BULK))
    assert ["bulk 0", "bulk 1", "bulk 2", "late"] == [name for name, _ in wire.left]


async def test_a_retry_keeps_its_age(clock):
    """A message that is tried again goes before those that came after it."""

    class AtOnce:
        def decide(self, attempt):
            return Retry(0.5)

    wire = Wire(clock, [ServiceUnavailableError()])
    limiter = TokenBucketLimiter(1, clock=clock)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, retry=AtOnce(), clock=clock)
    report = await sender.send_all([letter("0"), letter("1"), letter("2")])
    assert report.ok
    assert [("0", 0), ("0", 1), ("1", 2), ("2", 3)] == wire.left


async def test_what_a_heavier_message_costs_more_is_charged(clock):
    """Three recipients go in a slot that was reserved for one: two more are taken, and not waited for."""
    wire, limiter = Wire(clock), Slots(0, 2, 60, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("0"), letter("1")])
        tasks.start_soon(later, clock, 1, sender.send, letter("heavy", recipients=3))
    assert [("0", 0), ("heavy", 2), ("1", 3)] == wire.left
    assert [1, 1, 2, 1] == limiter.asked


async def test_what_a_lighter_message_costs_less_is_refunded(clock):
    """One recipient goes in a slot that was reserved for five: four come back."""
    wire, limiter = Wire(clock), Slots(2, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("heavy", recipients=5)])
        tasks.start_soon(later, clock, 1, sender.send, letter("light"))
    assert [("light", 2), ("heavy", 3)] == wire.left
    assert [5, 5] == limiter.asked
    assert [(1, 4)] == limiter.released


async def test_a_charge_that_is_refused_holds_its_message_and_leaves_the_slot_to_another(clock):
    """The slot is as good as before for the one it was reserved for."""
    wire, limiter = Wire(clock), Slots(2, DailyQuotaExceededError(resume_at=7.0))
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    heavy = []

    async def send_heavy():
        heavy.append(await later(clock, 1, sender.send, letter("heavy", recipients=3)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("light")])
        tasks.start_soon(send_heavy)
    assert [("light", 2)] == wire.left
    assert [1, 2] == limiter.asked
    assert [] == limiter.released
    assert (Status.HELD, 0) == (heavy[0].status, heavy[0].attempts)
    assert isinstance(heavy[0].error, DailyQuotaExceededError)


async def test_a_stop_while_the_difference_is_charged_sends_nothing(clock):
    """The message has not left yet, so it is held; the slot and the charge come back."""
    wire, limiter = Wire(clock), Slots(2, clock=clock)
    seen = []
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock, observers=[Ears(seen)])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.send_all, [letter("light")])
            tasks.start_soon(later, clock, 1, sender.send, letter("heavy", recipients=3))
            await clock.sleep(1.5)
            limiter.takes = 1.0
            await clock.sleep(1)
            scope.cancel()
    assert [] == wire.left
    assert {"light": Status.HELD, "heavy": Status.HELD} == dict(seen)
    assert [(1, 1), (2, 2)] == sorted(limiter.released)
    assert clock.sleepers == 0


async def test_a_deadline_that_passes_while_the_difference_is_charged_holds_the_message(clock):
    """It has not left yet, and must not any more; the slot goes to the one it was reserved for."""
    wire, limiter = Wire(clock), Slots(2, clock=clock)
    seen = []
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock, observers=[Ears(seen)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("light")])
        tasks.start_soon(later, clock, 1, sender.send, letter("heavy", recipients=3))
        await clock.sleep(1.5)
        limiter.takes = 60
    assert {"light": Status.SENT, "heavy": Status.HELD} == dict(seen)
    assert [name for name, _ in wire.left] == ["light"]
    assert [(1, 1), (2, 2)] == sorted(limiter.released)


async def test_a_charge_that_is_cut_off_puts_everything_back(clock):
    """The leader is stopped while it charges for another's message and the limiter hangs: that one still goes."""
    wire, limiter = Wire(clock), Slots(2, clock=clock)
    seen = []
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock, observers=[Ears(seen)])

    async def interfere(scope):
        await clock.sleep(1)
        limiter.takes = 1e6
        await clock.sleep(2)
        limiter.takes = 0
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later, clock, 0.5, sender.send, letter("heavy", recipients=3))
        with anyio.CancelScope() as scope:
            tasks.start_soon(interfere, scope)
            await sender.send_all([letter("light")])
    assert {"light": Status.HELD, "heavy": Status.SENT} == dict(seen)
    assert [("heavy", 8)] == wire.left
    # The slot was six seconds late by then, and made way for a fresh one.
    assert [1, 2, 3] == limiter.asked
    assert [(1, 1)] == limiter.released


async def test_a_limiter_that_thinks_of_messages_is_asked_for_the_rest(clock):
    """It gives slots for one recipient whatever it is asked for: the others are charged for."""

    class Simple(Slots):
        async def reserve(self, demand):
            slot = await super().reserve(demand)
            return Slot(slot.delay, 1, slot.token)

    wire, limiter = Wire(clock), Simple(1, 1, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    report = await sender.send_all([letter(str(i), recipients=3) for i in range(2)])
    assert report.ok
    assert [("0", 1), ("1", 2)] == wire.left
    assert [3, 2, 3, 2] == limiter.asked


async def test_a_far_slot_of_bulk_does_not_keep_an_urgent_message_waiting(clock):
    """Bulk waits for tomorrow's quota. The urgent one asks for itself, and the bulk one anew after that."""
    wire, limiter = Wire(clock), Slots(3600, 1, 5)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("bulk")])
        tasks.start_soon(later, clock, 1, sender.send, letter("urgent"))
    assert [("urgent", 2), ("bulk", 7)] == wire.left
    assert [(1, 1)] == limiter.released


class Narrow(Slots):
    """A limiter with room for so many at most."""

    room = 2

    async def reserve(self, demand):
        slot = await super().reserve(demand)
        return Slot(slot.delay, max(demand.at_least, min(demand.recipients, self.room)), slot.token)


async def test_light_messages_pass_a_heavy_one_for_which_there_is_no_room_but_not_for_ever(clock):
    """For five seconds; then they wait for it."""
    wire, limiter = Wire(clock), Narrow(*[1] * 20)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    weights = {"heavy": 9, **{f"pair {i}": 2 for i in range(3)}, **{f"single {i}": 1 for i in range(9)}}
    report = await sender.send_all([letter(name, recipients=weight) for name, weight in weights.items()])
    assert report.ok
    names = [name for name, _ in wire.left]
    assert [*(f"pair {i}" for i in range(3)), *(f"single {i}" for i in range(4)), "heavy"] == names[:8]
    assert [9] * 8 + [1] * 5 == limiter.asked


async def test_a_slot_that_is_too_small_for_all_who_are_left_is_asked_for_anew(clock):
    """The light one that it was meant for is held meanwhile, because its identity is not verified."""

    class Patchy(Wire):
        async def send(self, request):
            if request.message.subject == "bad":
                await clock.sleep(1)
            return await super().send(request)

    wire = Patchy(clock, lambda request: IdentityNotVerifiedError() if "two" in request.from_.email else None)
    limiter = Narrow(0, 0, 2, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    bad, light = (attrs.evolve(letter(name), from_="a@two.example") for name in ("bad", "light"))
    await sender.send_all([letter("good"), bad, letter("heavy", recipients=9), light])
    assert [("good", 0), ("bad", 1), ("heavy", 3)] == wire.left
    assert [1, 1, 9, 9] == limiter.asked
    assert [(3, 2)] == limiter.released


class Ears:
    """An observer of fates, by subject."""

    def __init__(self, seen):
        self.seen = seen

    def on_event(self, event):
        if event.result is not None:
            self.seen.append((event.result.message.subject, event.result.status))


async def test_a_slot_is_given_back_when_nobody_waits_any_more(clock):
    """The only message ran out of time while the batch is still open: when the slot is due, nobody wants it."""
    wire, limiter = Wire(clock), Slots(10)

    async def slow():
        yield letter("0")
        await clock.sleep(60)

    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    report = await sender.send_all(slow(), give_up_after=1)
    assert report.counts[Status.HELD] == 1
    assert [(1, 1)] == limiter.released


async def test_who_stops_waiting_for_a_far_slot_is_gone_at_once(clock):
    """An hour's slot holds nobody up, and is given back."""
    limiter = Slots(3600)
    sender = Sender(from_=NAME, transport=Wire(clock), limiter=limiter, clock=clock)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_after, clock, 1, scope)
            await sender.send(letter())
    assert scope.cancelled_caught
    assert clock.monotonic() == 1001
    assert [(1, 1)] == limiter.released


async def cancel_after(clock, seconds, scope):
    """Cancel *scope* in a while."""
    await clock.sleep(seconds)
    scope.cancel()


@pytest.mark.parametrize("takes", [0.0, 5.0])
async def test_when_the_leading_run_is_stopped_another_takes_over_its_slot(clock, takes):
    """The slot was reserved on behalf of the one that leaves; it is neither lost nor reserved again."""
    wire, limiter = Wire(clock), Slots(10, clock=clock, takes=takes)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later, clock, 1, sender.send_all, [letter("stays")])
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_after, clock, 3, scope)
            await sender.send_all([letter("leaves")])
    assert [("stays", 10 + takes)] == wire.left
    assert [1] == limiter.asked


async def test_a_leader_cut_off_inside_the_limiter_does_not_take_the_lead_with_it(clock):
    """The limiter never answers its first question. After the grace, the other batch asks anew."""
    wire, limiter = Wire(clock), Slots(clock=clock, takes=1e6)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)

    async def stays():
        await clock.sleep(1)
        limiter.takes = 0
        await sender.send_all([letter("stays")])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stays)
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_after, clock, 3, scope)
            await sender.send_all([letter("leaves")])
    assert [("stays", 8)] == wire.left
    assert [1, 1] == limiter.asked


async def test_a_run_that_ends_hands_the_lead_on(clock):
    """The first batch leads for the second one too, and leaves when its own is done."""
    wire, limiter = Wire(clock), Slots(1, 1, 1, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("a0")])
        tasks.start_soon(later, clock, 0.5, sender.send_all, [letter("b0"), letter("b1"), letter("b2")])
    assert [("a0", 1), ("b0", 2), ("b1", 3), ("b2", 4)] == wire.left


async def test_a_run_leads_for_others_and_hands_them_their_messages(clock):
    """A batch with nothing but bulk waits for the slot; the urgent message of another one gets it."""
    wire, limiter = Wire(clock, takes=0.5), Slots(1, 1, 1, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter(f"bulk {i}") for i in range(2)])
        tasks.start_soon(later, clock, 0.1, sender.send, letter("urgent 1"))
        tasks.start_soon(later, clock, 1.1, sender.send_all, [letter("urgent 2", priority=FIRST)])
    assert [("urgent 1", 1), ("urgent 2", 2), ("bulk 0", 3), ("bulk 1", 4.5)] == wire.left


class Tardy(FakeClock):
    """Every nap ends a good deal too late, as in a loop that others block."""

    async def sleep(self, seconds):
        await super().sleep(seconds)
        if seconds > 0:
            self.advance(0.05)


async def test_a_slot_that_comes_too_late_lapses_but_not_twice_in_a_row():
    """It would crowd the slots that follow; but where everything is late, half of it still has to go."""
    clock = Tardy()
    wire, limiter = Wire(clock), Slots(1, 1, 1, 1)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    report = await sender.send_all([letter("0"), letter("1")])
    assert report.ok
    assert [("0", 2.1), ("1", 4.2)] == wire.left
    assert [(1, 1), (3, 1)] == limiter.released


class Hasty(FakeClock):
    """The first nap ends too early, as loops with a coarse clock do."""

    woken = 0

    async def sleep(self, seconds):
        self.woken += 1
        await super().sleep(seconds / 2 if self.woken == 1 else seconds)


async def test_who_wakes_too_early_sleeps_on():
    """Nothing leaves before its slot is due."""
    clock = Hasty()
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=Slots(1), clock=clock)
    await sender.send_all([letter("0")])
    assert [("0", 1)] == wire.left


async def test_a_batch_begins_with_one_request_and_doubles(clock):
    """1, 2, 4, then what max_parallel allows."""
    wire = Wire(clock, takes=1)
    sender = Sender(from_=NAME, transport=wire, clock=clock, max_parallel=6)
    await sender.send_all([letter(str(i)) for i in range(19)])
    begun = [sum(moment == second for _, moment in wire.left) for second in range(5)]
    assert [1, 2, 4, 6, 6] == begun
    assert wire.most == 6


async def test_a_batch_does_not_grow_while_answers_are_bad(clock):
    """Nothing but failures: one request at a time."""
    wire = Wire(clock, lambda _: ServiceUnavailableError(), takes=1)
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(5)])
    assert report.counts[Status.HELD] == 5
    assert wire.most == 1


async def test_all_runs_of_a_loop_share_max_parallel(clock):
    """Three batches together have no more requests on the wire than one."""
    wire = Wire(clock, takes=1)
    sender = Sender(from_=NAME, transport=wire, clock=clock, max_parallel=2)
    async with anyio.create_task_group() as tasks:
        for run in range(3):
            tasks.start_soon(sender.send_all, [letter(f"{run}-{i}") for i in range(5)])
    assert wire.most == 2
    assert len(wire.sent) == 15


async def test_a_cut_request_leaves_its_place_to_the_other_run(clock):
    """One place on the wire, and who holds it is cut off after a stop: the other batch goes on at once."""
    times = {"hangs": 1e6}

    class Patchy(Wire):
        async def send(self, request):
            await clock.sleep(times.get(request.message.subject, 0.0))
            return await super().send(request)

    wire = Patchy(clock)
    sender = Sender(from_=NAME, transport=wire, clock=clock, max_parallel=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later, clock, 1, sender.send_all, [letter("goes")])
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_after, clock, 2, scope)
            await sender.send_all([letter("hangs")])
    assert [("goes", 7)] == wire.left


async def test_a_consumer_may_send_inside_its_loop(clock):
    """With one place on the wire, and from inside the stream's own block: nothing waits for the consumer."""
    wire = Wire(clock)
    sender = Sender(
        from_=NAME, transport=wire, clock=clock, max_parallel=1, limiter=TokenBucketLimiter(10, clock=clock)
    )
    async with sender.stream([letter(str(i)) for i in range(20)]) as results:
        async for result in results:
            inner = await sender.send(letter(f"about {result.index}"))
            assert inner.status is Status.SENT
    assert len(wire.sent) == 40


async def test_many_sends_at_once_share_the_pace(clock):
    """Each is a run of its own, and there is one slot at a time."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(10, clock=clock), clock=clock)
    async with anyio.create_task_group() as tasks:
        for i in range(20):
            tasks.start_soon(sender.send, letter(str(i)))
    assert [round(i / 10, 6) for i in range(20)] == [moment for _, moment in wire.left]


async def test_a_limiter_that_fails_stops_the_batch(clock):
    """Without a pace nothing is sent: the rest is held, and the text names the kind of error only."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=Slots(0, ValueError("b@example.com")), clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(4)])
    assert (1, 3) == (report.counts[Status.SENT], report.counts[Status.HELD])
    assert {"LimiterFailed", None} == {row.error for row in report.rows}
    sender = Sender(from_=NAME, transport=wire, limiter=Slots(ValueError("b@example.com")), clock=clock)
    with pytest.raises(HeldError) as raised:
        await sender.send(letter())
    assert raised.value.cause_type == "ValueError"
    assert "b@" not in str(raised.value)


async def test_a_spent_quota_holds_the_batch_until_there_is_room(clock):
    """The message that asked has the limiter's own error; the others learn what it met, and both say until when."""
    quota = DailyQuotaExceededError(resume_at=1_800_000_060.0)
    sender = Sender(from_=NAME, transport=Wire(clock), limiter=Slots(0, quota), clock=clock)
    results = []
    await sender.send_all([letter(str(i)) for i in range(3)], on_result=results.append)
    assert [Status.SENT, Status.HELD, Status.HELD] == [result.status for result in results]
    assert results[1].error is quota
    assert isinstance(results[2].error, HeldError)
    assert {"DailyQuotaExceeded"} == {result.error.code for result in results[1:]}
    assert {1_800_000_060.0} == {result.error.resume_at for result in results[1:]}
    assert results[2].error.remedy == quota.remedy


@pytest.mark.parametrize("answers", [[None], [Slot(0.0, 1), None], [Slot(0.0, 2), None]])
async def test_a_limiter_that_answers_with_no_slot_has_failed(clock, answers):
    """Also where it is asked again, and for the recipients that a slot had no room for."""

    class Forgetful(Slots):
        async def reserve(self, demand):
            self.asked.append(demand.recipients)
            assert len(self.asked) < 10
            return answers[min(len(self.asked), len(answers)) - 1]

    limiter, wire = Forgetful(), Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock, max_parallel=1)
    report = await sender.send_all([letter(str(i), recipients=2) for i in range(2)])
    sent = sum(answer == Slot(0.0, 2) for answer in answers)
    assert (sent, 2 - sent) == (report.counts[Status.SENT], report.counts[Status.HELD])
    assert [row.error for row in report.rows if row.status is Status.HELD] == ["LimiterFailed"] * (2 - sent)
    assert len(limiter.released) == (answers[0] == Slot(0.0, 1))


async def test_a_stop_does_not_wait_for_a_limiter_to_answer(clock):
    """Nothing is on the wire: who cancels, or whose time is over, is not kept for the grace."""
    limiter = Slots(clock=clock, takes=1e6)
    sender = Sender(from_=NAME, transport=Wire(clock), limiter=limiter, clock=clock)
    began = clock.monotonic()
    with pytest.raises(HeldError):
        await sender.send(letter(), give_up_after=3)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_after, clock, 2, scope)
            await sender.send_all([letter()])
    assert clock.monotonic() == began + 5
    assert sender.last_report.counts[Status.HELD] == 1


async def test_a_limiter_that_fails_for_somebody_who_has_left_changes_nothing(clock):
    """The answer, the first that takes time, comes when the message that it was for has no time left."""
    limiter = Slots(0.0, ValueError(), clock=clock)
    sender = Sender(from_=NAME, transport=Wire(clock), limiter=limiter, clock=clock)
    async with sender.stream([]) as nothing:  # keeps the lanes, and what they know of the limiter
        await sender.send(letter())
        limiter.takes = 2
        with pytest.raises(HeldError) as raised:
            await sender.send(letter(), give_up_after=1)
        assert nothing.report.total == 0
    assert raised.value.code == "Deadline"


def test_one_sender_serves_several_loops_in_several_threads():
    """Each loop has lanes of its own; the parts are shared."""
    wire = RecordingTransport()
    sender = Sender(from_=NAME, transport=wire)
    reports = []

    def work(backend):
        async def main():
            reports.append(await sender.send_all([letter(str(i)) for i in range(50)]))

        anyio.run(main, backend=backend)

    threads = [threading.Thread(target=work, args=(backend,)) for backend in ("asyncio", "trio", "asyncio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [50, 50, 50] == [report.counts[Status.SENT] for report in reports]
    assert len(wire.sent) == 150
    assert sender._lanes == {}


async def test_a_limiter_that_keeps_a_slot_for_itself_delays_nobodys_exit(clock, monkeypatch):
    """Its `release` never returns: who leaves gives it a while, on the loop's own time, and goes."""

    class Miser(Slots):
        async def release(self, slot):
            await anyio.sleep_forever()

    sender = Sender(from_=NAME, transport=Wire(clock), limiter=Miser(3600), clock=clock)
    monkeypatch.setattr("tanksend._engine._parts.RELEASE_SECONDS", 0.0)
    with pytest.raises(HeldError):
        await sender.send(letter(), give_up_after=1)


async def test_a_transport_that_never_waits_still_sends_everything(clock):
    """No task is switched between its messages; each has its fate all the same."""

    class Instant:
        async def send(self, request):
            return Receipt("id")

        async def aclose(self):
            pass

    sender = Sender(from_=NAME, transport=Instant(), limiter=Slots(), clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(2_000)])
    assert report.counts[Status.SENT] == 2_000


class Queue(Slots):
    """A limiter that lets bulk stand in line for ever, and transactional mail go at once."""

    async def reserve(self, demand):
        self.asked.append(demand.priority)
        if demand.priority is Priority.BULK and len(self.asked) == 1:
            await anyio.sleep_forever()
        return Slot(0.0, demand.recipients, len(self.asked))


async def test_transactional_mail_does_not_stand_in_line_behind_bulk(clock):
    """What the limiter was asked for bulk is called off, and asked again afterwards."""
    wire, limiter = Wire(clock), Queue()
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("bulk")])
        tasks.start_soon(later, clock, 1, sender.send, letter("urgent"))
    assert [("bulk", 1), ("urgent", 1)] == sorted(wire.left)
    assert [Priority.BULK, Priority.TRANSACTIONAL, Priority.BULK] == limiter.asked


async def test_a_slot_that_is_far_off_is_asked_for_again(clock):
    """A limiter that waits for tomorrow's quota may know better a minute later."""
    wire, limiter = Wire(clock), Slots(86_400, 2)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    report = await sender.send_all([letter("0")])
    assert report.ok
    assert [("0", 62)] == wire.left
    assert [(1, 1)] == limiter.released


async def test_two_loops_that_share_a_slow_limiter_both_get_their_slots(clock):
    """Who gives a far slot back is the last in line; it waits longer the next time, so that one becomes due."""
    wire = Wire(clock)
    limiter = TokenBucketLimiter.every(100, clock=clock)
    await limiter.reserve(Demand(1))
    senders = [Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for number, sender in enumerate(senders):
            tasks.start_soon(sender.send_all, [letter(str(number))])
    assert len(wire.sent) == 3
    assert clock.monotonic() < 1000 + 3_000


async def test_a_far_slot_is_handed_over_and_not_given_back_by_who_is_stopped(clock):
    """The one who stays waits for the same slot."""
    wire, limiter = Wire(clock), Slots(3600, clock=clock)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later, clock, 1, partial(sender.send_all, [letter("stays")], give_up_after=20))
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_after, clock, 3, scope)
            await sender.send_all([letter("leaves")])
        assert [] == limiter.released
    assert [1] == limiter.asked
    assert [(1, 1)] == limiter.released


async def test_a_limiter_that_takes_its_time_to_listen_keeps_nobody_from_sending(clock):
    """It reads the account's figures, say; with one place on the wire, the next request leaves meanwhile."""

    class Slow(Slots):
        async def feedback(self, signal):
            await clock.sleep(3)

    wire = Wire(clock, [None, ServiceUnavailableError()])
    sender = Sender(from_=NAME, transport=wire, limiter=Slow(), retry=NoRetry(), max_parallel=1, clock=clock)
    await sender.send_all([letter(str(i)) for i in range(4)])
    assert [("0", 0), ("1", 0), ("2", 0), ("3", 0)] == wire.left


async def test_what_has_no_room_today_is_not_charged_to_a_slot_that_has(clock):
    """The slot for one cannot carry three when the rest would have to wait for tomorrow."""
    wire, limiter = Wire(clock), Slots(2, 86_400, 5)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter("light")])
        tasks.start_soon(later, clock, 1, sender.send, letter("heavy", recipients=3))
    assert [("heavy", 7), ("light", 7)] == sorted(wire.left)
    assert [(2, 2), (1, 1)] == limiter.released
