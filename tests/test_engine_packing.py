from __future__ import annotations

import gc
import math
from functools import partial
from types import SimpleNamespace

import anyio
import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tanksend import Attachment, Message, Priority, Receipt, Sender, Status, Template, Unsubscribe
from tanksend._engine._pools import MANY, Pool
from tanksend._engine._timers import Timers
from tanksend.exceptions import (
    AccountPausedError,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    InvalidMessageError,
    Origin,
    OutcomeUnknownError,
    Scope,
    SendError,
    ServiceUnavailableError,
    ThrottlingError,
)
from tanksend.ledgers import MemoryLedger
from tanksend.limiters import AccountLimiter, TokenBucketLimiter
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.testing import FakeClock, RecordingTransport, SimulatedSES
from tanksend.typing import Demand, LimiterFigures, Replace, Retry, Slot

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
SENT, HELD, UNKNOWN, FAILED, INVALID = Status.SENT, Status.HELD, Status.UNKNOWN, Status.FAILED, Status.INVALID
FIRST = Priority.TRANSACTIONAL
HELLO = Template(subject="Hello {{n}}", text="Dear {{n}}")
STORED = Template(name="hello")
HOURS = 10_000.0


def letter(n="m", template=HELLO, *, recipients=1, **options):
    """A templated message that is known by its data."""
    more = [f"b{i}@example.com" for i in range(1, recipients)]
    return Message.from_template(template, to=[f"{n}@example.com", *more], data={"n": str(n)}, **options)


def letters(number, template=HELLO, **options):
    """So many, known by their numbers."""
    return [letter(str(i), template, **options) for i in range(number)]


def name_of(message):
    """What `letter` called it, or its subject."""
    return message.data["n"] if message.template else message.subject


class Wire:
    """
    Writes down when what left, request by request.

    *outcome* is asked for each message, by name and number of the attempt; *whole* for each request, by its number.
    """

    def __init__(self, clock, outcome=lambda *_: None, *, whole=lambda _: None, takes=0.0):
        self.clock = clock
        self.began = clock.monotonic()
        self.outcome = outcome
        self.whole = whole
        self.takes = takes
        self.left = []
        self.packs = []
        self.attempts = {}
        self.recipients = 0
        self.at_once = self.most = 0

    async def send(self, request):
        outcome = (await self._carry([request]))[0]
        if isinstance(outcome, SendError):
            raise outcome
        return outcome

    async def send_bulk(self, request):
        assert len(request.requests) > 1
        self.packs.append(request)
        return await self._carry(request.requests)

    async def _carry(self, requests):
        names = [name_of(request.message) for request in requests]
        number = len(self.left)
        self.left.append((round(self.clock.monotonic() - self.began, 6), names))
        self.recipients += sum(len(request.recipients) for request in requests)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.clock.sleep(self.takes)
        finally:
            self.at_once -= 1
        error = self.whole(number)
        if error is not None:
            raise error
        return [self._judge(name) for name in names]

    def _judge(self, name):
        attempt = self.attempts[name] = self.attempts.get(name, 0) + 1
        return self.outcome(name, attempt) or Receipt(f"id of {name}")

    async def aclose(self):
        pass

    @property
    def names(self):
        """What each request carried."""
        return [names for _, names in self.left]

    @property
    def sizes(self):
        """How many messages each request carried."""
        return [len(names) for _, names in self.left]


class Meter:
    """A limiter that goes by a rate, and writes down what is asked, given back and heard."""

    def __init__(self, rate=math.inf, *, clock=None, takes=0.0):
        self.inner = TokenBucketLimiter(rate, clock=clock)
        self.rate = rate
        self.clock = clock
        self.takes = takes
        self.asked = []
        self.out = 0
        self.heard = []

    async def reserve(self, demand):
        self.asked.append(demand.recipients)
        slot = await self.inner.reserve(demand)
        self.out += slot.recipients
        return slot

    async def release(self, slot):
        if self.takes:
            await self.clock.sleep(self.takes)
        self.out -= slot.recipients
        await self.inner.release(slot)

    async def feedback(self, signal):
        self.heard.append((signal.recipients, type(signal.error).__name__))


class Ears:
    """An observer of fates, by name; there is one each."""

    def __init__(self):
        self.fates = {}

    def on_event(self, event):
        if event.result is not None:
            name = name_of(event.result.message)
            assert name not in self.fates
            self.fates[name] = event.result

    def counts(self):
        """How many of each."""
        statuses = [result.status for result in self.fates.values()]
        return {status: statuses.count(status) for status in statuses}


class Steady:
    """Tries again after the same while what may be tried again."""

    def __init__(self, after=1.0):
        self.after = after

    def decide(self, attempt):
        return Retry(self.after) if attempt.error.retryable else NoRetry().decide(attempt)


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


@pytest.fixture
def ears():
    """Hears each fate."""
    return Ears()


def sender_of(wire, clock, **options):
    """A sender without a pace, unless it is given one."""
    options.setdefault("limiter", Meter())
    return Sender(from_=NAME, transport=wire, clock=clock, **options)


async def later(clock, seconds, function, *args, **options):
    """Call *function* in a while; what it raises as a `SendError` is its answer."""
    await clock.sleep(seconds)
    try:
        return await function(*args, **options)
    except SendError as error:
        return error.result


# --- what shares a request


async def test_what_has_the_same_template_goes_together_fifty_at_a_time(clock):
    """In the order of the batch, and a result for each."""
    wire = Wire(clock)
    results = []
    await sender_of(wire, clock).send_all(letters(120), on_result=results.append)
    assert [[str(i) for i in range(start, min(start + 50, 120))] for start in (0, 50, 100)] == wire.names
    assert [f"id of {i}" for i in range(120)] == [result.message_id for result in results]
    assert {(SENT, 1)} == {(result.status, result.attempts) for result in results}
    assert clock.monotonic() == 1000


async def test_equal_templates_are_one_wherever_they_were_made(clock):
    """A generator may make a new one for each message."""
    wire = Wire(clock)
    sender = sender_of(wire, clock)
    await sender.send_all([letter("0", attrs.evolve(HELLO)), letter("1", attrs.evolve(HELLO))])
    await sender.send_all([letter("2", Template(name="x")), letter("3", Template(name="x"))])
    assert wire.names == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize(
    "other",
    [
        {"template": Template(subject="Hello {{n}}", text="Dear {{n}}", html="Dear {{n}}")},
        {"template": STORED},
        {"from_": "other@example.com"},
        {"from_": "Named <a@example.com>"},
        {"reply_to": "other@example.com"},
        {"configuration_set": "other"},
        {"attachments": [Attachment("a.txt", b"text")]},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_what_a_request_says_once_must_be_the_same(clock, other):
    """Template, sender, reply address, configuration set, attachments: each kind goes for itself."""
    wire = Wire(clock)
    mixed = [letter(f"{i % 2}{i}", **(other if i % 2 else {})) for i in range(20)]
    report = await sender_of(wire, clock).send_all(mixed)
    assert report.ok
    assert sorted(wire.sizes) == [10, 10]
    assert all(len({name[0] for name in names}) == 1 for names in wire.names)


@pytest.mark.parametrize(("text", "sizes"), [("x" * 200_000, [5, 5]), ("가" * 80_000, [3, 3, 3, 1])])
async def test_a_request_holds_one_megabyte_of_data(clock, text, sizes):
    """More than SES takes would be refused for all."""
    wire = Wire(clock)
    large = [Message.from_template(HELLO, to="b@example.com", data={"n": str(i), "x": text}) for i in range(10)]
    assert (await sender_of(wire, clock).send_all(large)).ok
    assert sizes == wire.sizes


async def test_what_a_request_says_of_each_may_differ(clock):
    """Recipients, data, headers, tags, the address to unsubscribe at."""
    wire = Wire(clock)
    mixed = [
        letter("0", headers={"X-A": "1"}, tags={"t": "0"}),
        letter("1", cc="c@example.com", bcc="d@example.com", unsubscribe=Unsubscribe(url="https://example.com/1")),
        letter("2", key="k"),
    ]
    await sender_of(wire, clock).send_all(mixed)
    assert wire.names == [["0", "1", "2"]]
    first, second, _ = wire.packs[0].requests
    assert {"t": "0"} == dict(first.tags)
    assert ["1@example.com", "c@example.com", "d@example.com"] == [each.email for each in second.recipients]
    assert first.message is mixed[0]


async def test_a_message_alone_of_its_kind_goes_as_any_other(clock):
    """By the call for a single message."""
    wire = Wire(clock)
    await sender_of(wire, clock).send_all([letter("0"), letter("1", STORED)])
    assert wire.names == [["0"], ["1"]]
    assert wire.packs == []


async def test_messages_without_a_template_go_one_by_one_between_the_packs(clock):
    """Their content is their own."""
    wire = Wire(clock)
    plain = [Message("x@example.com", f"plain {i}", "text") for i in range(3)]
    await sender_of(wire, clock).send_all([*letters(3), *plain])
    assert sorted(wire.sizes) == [1, 1, 1, 3]


async def test_a_transport_that_carries_one_at_a_time_gets_one_at_a_time(clock):
    """And nothing waits for company."""

    class Plain:
        left = 0

        async def send(self, request):
            self.left += 1
            return Receipt("id")

        async def aclose(self):
            pass

    wire = Plain()
    report = await sender_of(wire, clock).send_all(letters(100))
    assert report.ok
    assert wire.left == 100
    assert clock.monotonic() == 1000


async def test_a_recording_transport_keeps_what_travels_together(clock):
    """So that users can test what they pack."""
    wire = RecordingTransport()
    await sender_of(wire, clock).send_all(letters(60))
    assert [50, 10] == [len(request.requests) for request in wire.bulk]


# --- how many


@pytest.mark.parametrize(
    ("rate", "limit"), [(0.5, 1), (1, 1), (3.9, 1), (4, 2), (14, 7), (50, 25), (99, 49), (200, 50), (math.inf, 50)]
)
async def test_a_request_takes_half_a_second_of_the_rate_at_most(clock, rate, limit):
    """One recipient at least, fifty at most."""
    wire = Wire(clock)
    sender = sender_of(wire, clock, limiter=TokenBucketLimiter(rate, clock=clock))
    await sender.send_all(letters(limit * 3))
    assert wire.sizes == [limit] * 3


class Figures(Meter):
    """A limiter that tells what it knows of the account."""

    def __init__(self, granted, rate, *, clock):
        super().__init__(rate, clock=clock)
        self.figures = LimiterFigures(granted, rate, None, 0, 0, "fallback")


@pytest.mark.parametrize(("granted", "rate", "limit"), [(14, 14 * 0.99, 7), (14, 4.5, 2), (14, 0.7, 1), (0, 0.1, 1)])
async def test_while_the_limiter_goes_slower_than_the_account_so_do_the_packs(clock, granted, rate, limit):
    """Somebody else uses the account: a full pack would never fit beside him. A little headroom does not count."""
    wire = Wire(clock)
    await sender_of(wire, clock, limiter=Figures(granted, rate, clock=clock)).send_all(letters(limit * 2))
    assert wire.sizes == [limit] * 2


async def test_beside_transactional_mail_a_request_takes_less_for_ten_seconds(clock):
    """0.15 s of the rate, so that the next urgent one does not wait for long; also what has a slot already."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    sender = sender_of(wire, clock, limiter=limiter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, letters(300))
        tasks.start_soon(later, clock, 1.7, sender.send, letter("urgent"))
    urgent = wire.names.index(["urgent"])
    at = wire.left[urgent][0]
    assert 1.7 <= at <= 1.7 + 0.5
    assert set(wire.sizes[:urgent]) == {7}
    beside = {size for (moment, _), size in zip(wire.left, wire.sizes, strict=True) if at < moment < 11.7 - 0.6}
    assert beside == {2}
    assert set(wire.sizes[-4:-1]) == {7}
    assert limiter.out == wire.recipients == 301


@pytest.mark.parametrize(("rate", "limit"), [(14, 7), (50, 25), (33, 16)])
async def test_after_transactional_mail_the_packs_are_full_again(clock, rate, limit):
    """On an account that may count strictly, single ones leave room for one at a time; that is got over."""
    ses = SimulatedSES(rate=rate, daily_quota=-1)
    transport = ses.transport(clock)
    limiter = AccountLimiter(clock=clock)
    sizes = []

    class Watched:
        account = transport.account
        send = transport.send
        aclose = transport.aclose

        async def send_bulk(self, request):
            sizes.append(len(request.requests))
            return await transport.send_bulk(request)

    sender = sender_of(Watched(), clock, limiter=limiter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, letters(rate * 30))
        for moment in (3.1, 3.2, 5.05, 7.77):
            tasks.start_soon(later, clock, moment, sender.send, letter("urgent"))
    full = [size == limit for size in sizes]
    assert full[-12:-1].count(True) >= 9
    assert ses.counts.throttled == 0
    assert ses.inbox.rate() >= 0.97 * rate


async def test_many_recipients_of_a_message_count(clock):
    """Up to the limit in all; what is heavier than that goes alone."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    weights = [1, 5, 1, 3, 4, 1, 9, 1, 7, 1]
    mixed = [letter(str(i), recipients=weight) for i, weight in enumerate(weights)]
    report = await sender_of(wire, clock, limiter=limiter).send_all(mixed)
    assert report.ok
    assert wire.names == [["0", "1", "2"], ["3", "4"], ["5"], ["6"], ["7"], ["8"], ["9"]]
    assert limiter.asked == [7, 7, 1, 9, 1, 7, 1]
    assert limiter.out == sum(weights)


class Narrow(Meter):
    """Has room for so many at most, as an account that counts strictly."""

    async def reserve(self, demand):
        fitting = max(demand.at_least, min(demand.recipients, 3))
        return await super().reserve(Demand(fitting, fitting))


async def test_a_slot_for_fewer_takes_fewer_and_light_ones_pass_heavy_ones(clock):
    """Whoever fits goes; the others wait for the next."""
    wire, limiter = Wire(clock), Narrow(14, clock=clock)
    mixed = [letter("0"), letter("1", recipients=2), letter("2", recipients=5), letter("3"), letter("4")]
    await sender_of(wire, clock, limiter=limiter).send_all(mixed)
    assert wire.names[0] == ["0", "1"]
    assert sorted(wire.names[1:3]) == [["3"], ["4"]]
    assert wire.names[3] == ["2"]
    assert limiter.out == wire.recipients


async def test_a_batch_begins_with_one_request_and_doubles(clock):
    """However many messages each carries."""
    wire = Wire(clock, takes=1)
    await sender_of(wire, clock, max_parallel=6).send_all(letters(850))
    begun = [sum(moment == second for moment, _ in wire.left) for second in range(5)]
    assert [1, 2, 4, 6, 4] == begun
    assert wire.most == 6


async def test_a_pack_of_bad_messages_is_a_good_answer(clock):
    """SES works; what it refused was the messages' own fault."""
    wire = Wire(clock, lambda name, _: ContentRejectedError() if int(name) < 50 else None, takes=1)
    await sender_of(wire, clock).send_all(letters(150))
    assert [0, 1, 1] == [moment for moment, _ in wire.left]


async def test_a_pack_of_failures_does_not_let_the_batch_grow(clock):
    """One request after the other, as long as nothing but that is heard."""
    wire = Wire(clock, lambda *_: ServiceUnavailableError(), takes=1)
    sender = sender_of(wire, clock, retry=NoRetry())
    report = await sender.send_all(letters(150))
    assert report.counts[HELD] == 150
    assert wire.most == 1


# --- how long


async def slowly(clock, messages, seconds):
    """One after the other."""
    for message in messages:
        yield message
        await clock.sleep(seconds)


async def test_nothing_waits_longer_than_half_a_second_for_company(clock):
    """A slow source: whoever came within that time goes together."""
    wire = Wire(clock)
    sender = sender_of(wire, clock)
    results = []
    await sender.send_all(slowly(clock, letters(8), 0.2), on_result=results.append)
    assert wire.left == [(0.5, ["0", "1", "2"]), (1.1, ["3", "4", "5"]), (1.6, ["6", "7"])]
    assert max(result.waited for result in results) == pytest.approx(0.5)


async def test_each_kind_has_its_own_half_second(clock):
    """And one that is full meanwhile has a new one after that."""
    wire = Wire(clock)
    sender = sender_of(wire, clock, limiter=TokenBucketLimiter(4, clock=clock))

    async def source():
        yield letter("a0")
        await clock.sleep(0.3)
        yield letter("b0", STORED)
        yield letter("a1")  # full: two are half a second of the rate
        await clock.sleep(0.1)
        yield letter("a2")
        await clock.sleep(5)

    await sender.send_all(source())
    assert wire.left == [(0.3, ["a0", "a1"]), (0.8, ["b0"]), (1.05, ["a2"])]


async def test_the_end_of_the_batch_waits_for_nobody(clock):
    """Nothing more comes: what there is goes."""
    wire = Wire(clock)

    async def source():
        yield letter("0")
        await clock.sleep(0.1)
        yield letter("1")

    await sender_of(wire, clock).send_all(source())
    assert wire.left == [(0.1, ["0", "1"])]


async def test_what_waits_for_its_slot_is_joined_by_others(clock):
    """A slot is filled when it is due and not before."""
    wire = Wire(clock)
    limiter = TokenBucketLimiter(14, clock=clock)
    await limiter.reserve(Demand(28))
    sender = sender_of(wire, clock, limiter=limiter)
    await sender.send_all(slowly(clock, letters(20), 0.05))
    assert wire.left[0] == (2.0, [str(i) for i in range(7)])


async def test_full_intake_with_many_small_pools_stalls_nothing(clock):
    """More kinds of message than fit ahead: each has two, nobody waits for a third, no time passes."""
    wire = Wire(clock)
    templates = [Template(name=f"t{i}") for i in range(450)]
    mixed = [letter(f"{i}", templates[i % 450]) for i in range(3_600)]
    report = await sender_of(wire, clock).send_all(mixed)
    assert report.ok
    assert clock.monotonic() == 1000
    assert max(wire.sizes) <= 3


async def test_full_intake_stalls_nothing_when_the_wire_becomes_idle(clock):
    """Plain messages fill it, and too few results come for more: what gathers goes as soon as the wire is empty."""
    wire = Wire(clock, takes=0.01)
    sender = sender_of(wire, clock)
    plain = [Message("x@example.com", f"plain {i}", "text") for i in range(3)]
    mixed = [*plain, *(letter(str(i), Template(name=f"t{i % 897}")) for i in range(2_000))]
    await sender.send_all(mixed)
    assert clock.monotonic() < 1000.4


async def test_a_consumer_who_takes_his_time_does_not_deadlock_with_intake(clock):
    """Results are taken one by one, and slowly."""
    wire = Wire(clock)
    sender = sender_of(wire, clock)
    taken = 0
    async with sender.stream([letter(str(i), Template(name=f"t{i % 100}")) for i in range(2_000)]) as results:
        async for _ in results:
            taken += 1
            if taken % 100 == 0:
                await clock.sleep(1)
    assert taken == 2_000


@pytest.mark.parametrize("how", ["send", "batch"])
async def test_transactional_messages_are_never_packed_and_never_wait(clock, how):
    """Templated or not, alone or in a batch that has more to come."""
    wire = Wire(clock)
    sender = sender_of(wire, clock)
    if how == "send":
        await sender.send(letter("0"))
    else:
        await sender.send_all(slowly(clock, letters(2, priority=FIRST), 1))
        assert wire.left == [(0, ["0"]), (1, ["1"])]
    assert wire.packs == []
    assert wire.left[0] == (0, ["0"])


async def test_a_single_bulk_message_waits_for_nobody(clock):
    """`send` has one message, and knows it."""
    wire = Wire(clock)
    await sender_of(wire, clock).send(letter("0", priority=Priority.BULK))
    assert wire.left == [(0, ["0"])]


async def test_an_urgent_message_takes_the_slot_of_a_pack(clock):
    """What it does not need is given back."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, letters(7))
        tasks.start_soon(later, clock, 0.9, sender.send, letter("urgent"))
    assert wire.left[0] == (1.0, ["urgent"])
    assert wire.left[1] == (pytest.approx(1 + 1 / 14), ["0", "1"])
    assert limiter.out == wire.recipients == 8


# --- outcomes


async def test_each_message_has_the_outcome_of_its_own_entry(clock, ears):
    """Bad ones cost the others nothing; only what may be tried again is, and together."""
    outcomes = {
        "3": lambda attempt: ThrottlingError() if attempt < 3 else None,
        "4": lambda attempt: ServiceUnavailableError() if attempt < 2 else None,
        "5": lambda _: ContentRejectedError(),
        "6": lambda _: OutcomeUnknownError("no answer"),
        "7": lambda attempt: ThrottlingError() if attempt < 2 else None,
    }
    wire = Wire(clock, lambda name, attempt: outcomes.get(name, lambda _: None)(attempt))
    limiter = Meter(clock=clock)
    sender = sender_of(wire, clock, limiter=limiter, retry=Steady(), observers=[ears])
    report = await sender.send_all(letters(10))
    assert wire.left == [(0, [str(i) for i in range(10)]), (1, ["3", "4", "7"]), (2, ["3"])]
    assert {SENT: 8, FAILED: 1, UNKNOWN: 1} == ears.counts()
    assert [3, 2, 1, 1, 2] == [ears.fates[str(i)].attempts for i in (3, 4, 5, 6, 7)]
    assert ears.fates["5"].error.code == "ContentRejected"
    assert report.throttled == 3
    assert limiter.heard == [
        (5, "NoneType"), (2, "ThrottlingError"), (1, "ServiceUnavailableError"), (1, "ContentRejectedError"),
        (1, "OutcomeUnknownError"), (1, "ThrottlingError"), (2, "NoneType"), (1, "NoneType"),
    ]  # fmt: skip


async def test_what_failed_together_is_tried_again_together(clock):
    """The chance in the wait is one for all of a request."""
    wire = Wire(clock, lambda _, attempt: ServiceUnavailableError() if attempt < 4 else None)
    sender = sender_of(wire, clock, retry=ExponentialBackoff())
    report = await sender.send_all(letters(50))
    assert report.ok
    assert wire.sizes == [50] * 4


async def test_a_retry_keeps_its_age_among_its_kind(clock):
    """What is tried again goes before what came after it, in its own request and as company."""
    wire = Wire(clock, lambda name, attempt: ServiceUnavailableError() if name in {"0", "2"} and attempt < 2 else None)
    sender = sender_of(wire, clock, limiter=TokenBucketLimiter(6, clock=clock), retry=Steady(0.75))
    await sender.send_all(letters(12))
    assert wire.names == [["0", "1", "2"], ["3", "4", "5"], ["0", "2", "6"], ["7", "8", "9"], ["10", "11"]]


@pytest.mark.parametrize(
    ("error", "fate", "requests"),
    [
        (ThrottlingError(), SENT, 4),
        (ConnectionFailedError("reset"), SENT, 4),
        (OutcomeUnknownError("no answer"), UNKNOWN, 3),
        (ContentRejectedError(), FAILED, 3),
        (ZeroDivisionError(), UNKNOWN, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_of_a_request_is_that_of_exactly_its_messages(clock, ears, error, fate, requests):
    """Whatever it means: tried again together, failed, or unknown."""
    wire, limiter = Wire(clock, whole=lambda number: error if number == 1 else None), Meter(clock=clock)
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])
    await sender.send_all(letters(150))
    assert wire.sizes == [50] * requests
    struck = set(wire.names[1])
    assert {fate} == {ears.fates[name].status for name in struck}
    assert {SENT} == {result.status for name, result in ears.fates.items() if name not in struck}
    assert (50, type(error).__name__ if isinstance(error, SendError) else "OutcomeUnknownError") in limiter.heard
    if fate is not SENT:
        errors = [ears.fates[name].error for name in struck]
        assert len({id(each) for each in errors}) == 50
        assert {1} == {each.attempts for each in errors}


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: None,
        lambda _: Receipt("one for all"),
        lambda number: [Receipt("id")] * (number - 1),
        lambda number: [Receipt("id")] * (number + 1),
        lambda _: [],
        lambda _: "ok",
        lambda _: {Receipt("id")},
    ],
    ids=["none", "receipt", "too few", "too many", "empty", "text", "set"],
)
async def test_an_answer_that_is_not_one_outcome_for_each_settles_nothing(clock, answer):
    """Nobody knows which is whose: all are unknown, and none is sent again."""

    class Odd(Wire):
        async def send_bulk(self, request):
            await super().send_bulk(request)
            return answer(len(request.requests))

    wire = Odd(clock)
    report = await sender_of(wire, clock, retry=Steady()).send_all(letters(5))
    assert report.counts[UNKNOWN] == 5
    assert wire.sizes == [5]


async def test_an_outcome_that_is_none_makes_its_message_unknown(clock, ears):
    """And leaves the others alone."""

    class Odd(Wire):
        async def send_bulk(self, request):
            receipts = await super().send_bulk(request)
            return (*receipts[:2], "odd", *receipts[3:])

    await sender_of(Odd(clock), clock, observers=[ears]).send_all(letters(5))
    assert {SENT: 4, UNKNOWN: 1} == ears.counts()
    assert ears.fates["2"].status is UNKNOWN


async def test_one_error_for_several_entries_is_a_copy_for_each(clock, ears):
    """Transports may keep the same object: attempts are each message's own."""
    error = ServiceUnavailableError()
    wire = Wire(clock, lambda name, attempt: error if name != "0" or attempt > 1 else ThrottlingError())
    sender = sender_of(wire, clock, observers=[ears], retry=NoRetry())
    await sender.send_all(letters(3))
    assert len({id(ears.fates[name].error) for name in "012"}) == 3


async def test_an_error_of_the_account_stops_the_batch_and_leaves_the_others_their_own_outcome(clock, ears):
    """What SES took in the same request is sent; what waits is held."""
    wire = Wire(clock, lambda name, _: AccountPausedError("paused") if name == "1" else None)
    sender = sender_of(wire, clock, observers=[ears])
    report = await sender.send_all(letters(120))
    assert wire.sizes == [50]
    assert {SENT: 49, HELD: 71} == ears.counts()
    assert "paused" in report.note


async def test_a_failed_template_holds_its_messages_and_no_others(clock, ears):
    """As with a From address: one request tells."""
    gone = ConfigurationError("gone", origin=Origin.TEMPLATE)
    wire = Wire(clock, lambda name, _: gone if int(name) % 2 else None)
    mixed = [letter(str(i), Template(name="gone") if i % 2 else STORED) for i in range(400)]
    await sender_of(wire, clock, observers=[ears]).send_all(mixed)
    assert {SENT: 200, HELD: 200} == ears.counts()
    assert sum(int(names[0]) % 2 for names in wire.names) == 1
    assert {Origin.TEMPLATE} == {ears.fates[str(i)].error.origin for i in range(1, 400, 2)}


@pytest.mark.parametrize("origin", [Origin.FROM, Origin.CONFIGURATION_SET])
async def test_a_failed_sender_or_configuration_set_holds_packs_too(clock, ears, origin):
    """All of them, whatever their template."""
    wire = Wire(clock, lambda *_: ConfigurationError("gone", scope=Scope.ORIGIN, origin=origin))
    mixed = [letter(str(i), HELLO if i % 2 else STORED, configuration_set="set") for i in range(200)]
    await sender_of(wire, clock, observers=[ears]).send_all(mixed)
    assert {HELD: 200} == ears.counts()
    assert len(wire.left) == 1


async def test_an_inline_template_is_no_origin(clock, ears):
    """It is content: an error about it holds nobody else."""
    gone = ConfigurationError("gone", origin=Origin.TEMPLATE)
    wire = Wire(clock, lambda name, _: gone if name == "0" else None)
    await sender_of(wire, clock, observers=[ears]).send_all(letters(60))
    assert {SENT: 59, HELD: 1} == ears.counts()


# --- ends


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_a_stop_gives_one_true_fate_each_wherever_they_are(clock, ears, how):
    """On the wire, ripe, waiting for another attempt, gathering: what left in time is sent, all else is held."""
    wire = Wire(clock, lambda name, _: ServiceUnavailableError() if name == "3" else None, takes=0.4)
    limiter = Meter(14, clock=clock)
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears], retry=Steady(50))

    async def source():
        for message in letters(30):
            yield message
        await clock.sleep(0.6)
        yield letter("gathers")
        await clock.sleep(HOURS)

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks, sender.stream(source()) as results:
            if how == "cancelled":
                tasks.start_soon(later, clock, 0.8, lambda: clock.sleep(scope.cancel() or 0))
                await clock.sleep(HOURS)
            async for result in results:
                if result.index == 6:
                    break
            await clock.sleep(0.4)
    assert wire.sizes == [7, 7]
    assert ears.fates["3"].status is HELD
    assert {SENT: 13, HELD: 18} == ears.counts()
    assert limiter.out == 14
    assert clock.sleepers == 0


async def test_a_pack_that_does_not_answer_within_the_grace_is_unknown(clock, ears):
    """All of it, and nothing else."""
    wire, limiter = Wire(clock, takes=HOURS), Meter(clock=clock)
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(later, clock, 1, lambda: clock.sleep(scope.cancel() or 0))
            await sender.send_all(letters(120))
    assert {UNKNOWN: 50, HELD: 70} == ears.counts()
    assert {str(i) for i in range(50)} == {n for n, result in ears.fates.items() if result.status is UNKNOWN}
    assert clock.monotonic() == 1006
    assert limiter.out == 50


async def test_a_transport_cancelled_from_elsewhere_makes_its_pack_unknown_and_the_batch_goes_on(clock, ears):
    """It awaited something that somebody else has cancelled."""

    class Patchy(Wire):
        async def send_bulk(self, request):
            if not self.packs:
                self.packs.append(request)
                raise anyio.get_cancelled_exc_class()
            return await super().send_bulk(request)

    sender = sender_of(Patchy(clock), clock, observers=[ears])
    try:
        await sender.send_all(letters(100))
    except BaseException as error:  # trio has no cancellation but its own
        if type(error).__module__.startswith("trio"):
            pytest.skip("trio does not let anybody raise its cancellation")
        raise
    assert {SENT: 50, UNKNOWN: 50} == ears.counts()


async def test_deadlines_hold_what_gathers_and_what_is_ripe_and_not_what_is_on_the_wire(clock, ears):
    """The rest of a pack goes on without them."""
    wire, limiter = Wire(clock, takes=3), Meter(14, clock=clock)
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])

    async def source():
        for message in letters(21):
            yield message
        await clock.sleep(0.7)
        yield letter("gathers")
        await clock.sleep(0.2)
        yield letter("later")
        await clock.sleep(1)

    await sender.send_all(source(), give_up_after=0.45)
    assert wire.sizes == [7]
    assert {SENT: 7, HELD: 16} == ears.counts()
    assert ears.fates["gathers"].waited == pytest.approx(0.45)
    assert {"Deadline"} == {result.error.code for result in ears.fates.values() if result.status is HELD}
    assert limiter.out == 7


@pytest.mark.parametrize("why", ["stop", "deadline"])
async def test_what_is_over_while_a_slot_is_cut_to_size_is_not_sent(clock, ears, why):
    """The limiter takes its time to get back what a pack does not need; the rest of the slot comes back, too."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])
    urgent = letter("urgent", priority=FIRST)

    async def slow_down():
        await clock.sleep(0.9)
        limiter.takes = 2
        await clock.sleep(0.5)
        if why == "stop":
            scope.cancel()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(slow_down)
            tasks.start_soon(later, clock, 0.5, partial(sender.send, give_up_after=1), urgent)
            await sender.send_all(letters(7))
    assert ears.fates["urgent"].status is HELD
    assert wire.recipients == (7 if why == "deadline" else 0)
    assert limiter.out == wire.recipients
    assert {HELD: 1, SENT: 7} if why == "deadline" else {HELD: 8} == ears.counts()


async def test_what_was_put_back_goes_once(clock, ears):
    """Taken for a slot, put back because one of them ran out of time meanwhile: the others go with the next, once."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])

    async def source():
        for message in letters(7):
            yield message
        await clock.sleep(0.8)
        for i in range(7, 9):
            yield letter(str(i))
        await clock.sleep(HOURS)

    async def slow_down():
        await clock.sleep(0.95)
        await sender.send(Message("x@example.com", "urgent", "text"))
        limiter.takes = 0.25

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow_down)
        with anyio.move_on_after(30):
            async with sender.stream(source(), give_up_after=1.25) as results:
                for _ in range(9):
                    await anext(results)
    assert sorted(ears.fates) == sorted([*map(str, range(9)), "urgent"])
    sent = [name for names in wire.names for name in names]
    assert sorted(sent) == sorted(name for name, result in ears.fates.items() if result.status is SENT)
    assert limiter.out == len(sent)


async def test_a_deadline_of_one_lets_the_others_of_its_kind_go_when_the_slot_is_due(clock, ears):
    """The slot was for two; what is not needed any more is given back."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears])
    async with sender.stream(slowly(clock, letters(2), 0.3), give_up_after=0.9) as results:
        fates = [(result.index, result.status) async for result in results]
    assert fates == [(0, HELD), (1, SENT)]
    assert wire.left == [(1.0, ["1"])]
    assert limiter.out == 1


async def test_two_batches_share_lanes_and_no_request(clock):
    """Each has results of its own to wait for."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    sender = sender_of(wire, clock, limiter=limiter)
    async with anyio.create_task_group() as tasks:
        for batch in "ab":
            tasks.start_soon(sender.send_all, [letter(f"{batch}{i}") for i in range(20)])
    assert all(len({name[0] for name in names}) == 1 for names in wire.names)
    assert sorted(name for names in wire.names for name in names) == sorted(f"{b}{i}" for b in "ab" for i in range(20))
    assert limiter.out == 40


# --- with a ledger


class SlowLedger(MemoryLedger):
    """Its claims take as long as they are told, one after the other."""

    def __init__(self, clock, *seconds):
        super().__init__(clock=clock)
        self.clock = clock
        self.seconds = list(seconds)

    async def claim(self, keys, *, resend_unknown=False):
        await self.clock.sleep(self.seconds.pop(0) if self.seconds else 0)
        return await super().claim(keys, resend_unknown=resend_unknown)


@pytest.mark.parametrize("number", [1, 3, 7, 20])
async def test_packs_whose_claim_took_too_long_get_another_slot(clock, ears, number):
    """What was claimed stays so, and everybody goes once; slots and what was given back add up."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears], ledger=SlowLedger(clock, 0.3, 0, 0.3))

    async def source():
        for i in range(number):
            yield letter(str(i), STORED if i % 3 == 1 else HELLO)
        await clock.sleep(1.05)
        yield letter("comes")

    await sender.send_all(source(), campaign="c")
    assert {SENT: number + 1} == ears.counts()
    assert sorted(name for names in wire.names for name in names) == sorted(ears.fates)
    assert limiter.out == wire.recipients == number + 1


async def test_one_that_was_put_back_keeps_its_place_before_those_who_came_meanwhile(clock):
    """It had a slot for itself alone; the next one is for all."""
    wire, limiter = Wire(clock), Meter(14, clock=clock)
    await limiter.inner.reserve(Demand(14))
    sender = sender_of(wire, clock, limiter=limiter, ledger=SlowLedger(clock, 0.6))

    async def source():
        yield letter("0")
        await clock.sleep(0.9)
        yield letter("1")
        yield letter("2")
        await clock.sleep(HOURS)

    with anyio.move_on_after(60):
        async with sender.stream(source(), campaign="c") as results:
            for _ in range(3):
                await anext(results)
    assert wire.names == [["0", "1", "2"]]
    assert limiter.out == 3


async def test_who_comes_back_before_he_was_missed_has_one_place():
    """A pool lets go of those who were taken as late as possible."""
    first, second, third = (SimpleNamespace(sequence=i, available=True, weight=1, uncounted=0) for i in (1, 2, 3))
    pool = Pool(None, None)
    for entry in (first, third, first, second, third):
        pool.add(entry)
    assert pool.load(50) == (3, 0)


# --- the day's quota


class Day(Meter):
    """A limiter with room for so many in all, today; *waits*: the rest tomorrow."""

    def __init__(self, room, *, waits=False, clock):
        super().__init__(clock=clock)
        self.room = room
        self.waits = waits

    async def reserve(self, demand):
        if self.out + demand.recipients > self.room:
            self.asked.append(demand.recipients)
            if not self.waits:
                raise DailyQuotaExceededError(resume_at=7.0)
            self.out += demand.recipients
            return Slot(80_000.0, demand.recipients)
        return await super().reserve(demand)


async def test_the_last_of_the_day_are_sent_in_smaller_packs(clock, ears):
    """Where there is no room for fifty there may be for some."""
    wire, limiter = Wire(clock), Day(70, clock=clock)
    report = await sender_of(wire, clock, limiter=limiter, observers=[ears]).send_all(letters(150))  # fmt: skip
    assert {SENT: 70, HELD: 80} == ears.counts()
    assert wire.recipients == 70
    assert {"DailyQuotaExceeded"} == {row.error for row in report.rows if row.status is HELD}


async def test_a_limiter_that_waits_for_tomorrow_is_asked_for_less_today(clock):
    """What it promised for then is given back."""
    wire, limiter = Wire(clock), Day(60, waits=True, clock=clock)
    sender = sender_of(wire, clock, limiter=limiter)
    report = await sender.send_all(letters(61), give_up_after=100)
    assert report.counts[SENT] == 60
    assert limiter.out == 60
    assert {0} == {moment for moment, _ in wire.left}


async def test_an_account_uses_its_day_to_the_last(clock):
    """With the simulated SES and its limiter: a thousand a day means a thousand."""
    ses = SimulatedSES(rate=50, daily_quota=1_000, sent_before=0)
    limiter = AccountLimiter(clock=clock)
    sender = sender_of(ses.transport(clock), clock, limiter=limiter)
    report = await sender.send_all(letters(1_100))
    assert (report.counts[SENT], report.counts[HELD]) == (1_000, 100)
    assert ses.counts.quota_refusals == 0


async def test_who_has_left_while_the_limiter_refuses_stops_nobody(clock):
    """The pack's oldest ran out of time, and with it the question: the first that is not answered at once."""

    class Slow(Day):
        async def reserve(self, demand):
            if self.asked:
                await clock.sleep(2)
            return await super().reserve(demand)

    limiter = Slow(2, clock=clock)
    sender = sender_of(Wire(clock), clock, limiter=limiter)
    async with sender.stream([]):  # keeps the lanes, and what they know of the limiter
        await sender.send_all(letters(1))
        report = await sender.send_all(letters(4), give_up_after=1)
    assert report.counts[HELD] == 4
    assert {"Deadline"} == {row.error for row in report.rows}
    assert len(limiter.asked) == 2


# --- memory


async def test_an_endless_batch_of_templates_that_are_used_once_keeps_nothing(clock):
    """Pools are forgotten, and there is one timer for all of them."""
    most = {"pools": 0, "timers": 0}
    gc.collect()
    before = {id(each) for each in gc.get_objects() if type(each) in {Pool, Timers}}  # errors of other tests keep some

    async def source():
        for i in range(1_500):
            yield letter(str(i), Template(subject=f"Hello {i}", text="{{n}}"))
            await clock.sleep(0.01)

    def look(result):
        if result.index % 500 == 499:
            gc.collect()
            found = [each for each in gc.get_objects() if type(each) in {Pool, Timers} and id(each) not in before]
            most["pools"] = max(most["pools"], sum(type(each) is Pool for each in found))
            most["timers"] = max(most["timers"], *(len(each._heap) for each in found if type(each) is Timers))

    report = await sender_of(Wire(clock), clock).send_all(source(), on_result=look)
    assert report.ok
    assert most["pools"] <= 2 * MANY
    assert most["timers"] <= 2


async def test_pools_that_are_in_use_are_kept(clock):
    """However many there are: the second message of a kind still finds the first."""
    wire = Wire(clock)
    templates = [Template(name=f"t{i}") for i in range(3 * MANY)]
    mixed = [letter(f"{part}-{i}", template) for part in range(2) for i, template in enumerate(templates)]
    await sender_of(wire, clock).send_all(mixed)
    assert set(wire.sizes) == {2}


# --- what stored templates need


class Library(Wire):
    """Knows the templates stored in SES, or does not."""

    def __init__(self, clock, stored, **options):
        super().__init__(clock, **options)
        self.stored = stored
        self.looked = []

    async def template(self, name):
        self.looked.append(name)
        await anyio.lowlevel.checkpoint()
        found = self.stored[name]
        if isinstance(found, Exception):
            raise found
        return found


NEEDY = Template(subject="Hello {{n}}", text="{{missing}} and {{person.name}}")


async def test_data_that_a_stored_template_lacks_is_named(clock, ears):
    """Before any of it leaves; the others go. Each template is looked up once a batch."""
    wire = Library(clock, {"hello": HELLO, "needy": NEEDY})
    sender = sender_of(wire, clock, observers=[ears])
    mixed = [letter(str(i), Template(name="needy") if i % 2 else STORED) for i in range(200)]
    await sender.send_all([*mixed, letter("inline"), Message("x@example.com", "plain", "text"), None])
    assert wire.looked == ["hello", "needy"]
    assert {SENT: 102, INVALID: 101} == ears.counts() | {INVALID: 101}
    error = ears.fates["1"].error
    assert isinstance(error, InvalidMessageError)
    assert ["data[missing]", "data[person.name]"] == [problem.field for problem in error.problems]
    await sender.send(letter("again", STORED))
    assert wire.looked == ["hello", "needy", "hello"]


@pytest.mark.parametrize(
    "found", [None, "text", KeyError("b@example.com"), ConfigurationError("gone", origin=Origin.TEMPLATE)], ids=repr
)
async def test_a_look_up_that_tells_nothing_costs_no_mail(clock, found):
    """SES itself will say what it thinks of it."""
    wire = Library(clock, {"hello": found})
    report = await sender_of(wire, clock).send_all(letters(3, STORED))
    assert report.ok
    assert wire.looked == ["hello"]


async def test_what_a_guard_put_in_place_is_checked_too(clock, ears):
    """The other message has another template."""

    class Guard:
        async def check(self, message):
            return Replace(letter(name_of(message), Template(name="needy")))

    wire = Library(clock, {"hello": HELLO, "needy": NEEDY})
    sender = sender_of(wire, clock, observers=[ears], guards=[Guard()])
    await sender.send_all(letters(2, STORED))
    assert {INVALID: 2} == ears.counts()
    assert wire.left == []


async def test_contents_of_many_templates_are_not_all_kept(clock, monkeypatch):
    """A batch may use as many as SES stores."""
    monkeypatch.setattr("tanksend._engine._templates.MANY", 2)
    wire = Library(clock, {f"t{i}": HELLO for i in range(3)})
    sender = sender_of(wire, clock)
    await sender.send_all([letter("m", Template(name=f"t{i}")) for i in (0, 1, 0, 2, 0)])
    assert wire.looked == ["t0", "t1", "t2", "t0"]


async def test_a_stop_during_the_look_up_holds_what_was_taken_in(clock, ears):
    """It has not left."""

    class Stuck(Library):
        async def template(self, name):
            await clock.sleep(HOURS)

    sender = sender_of(Stuck(clock, {}), clock, observers=[ears])
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(later, clock, 1, lambda: clock.sleep(scope.cancel() or 0))
            await sender.send_all(letters(3, STORED))
    assert {HELD: 3} == ears.counts()
    assert clock.monotonic() == 1001


# --- whatever happens


TEMPLATES = (HELLO, STORED, Template(name="other"))
ENTRY_ERRORS = {
    "throttled": ThrottlingError,
    "transient": ServiceUnavailableError,
    "content": ContentRejectedError,
    "template": lambda: ConfigurationError("gone", origin=Origin.TEMPLATE),
    "account": lambda: AccountPausedError("paused"),
    "nothing known": lambda: OutcomeUnknownError("nothing known"),
}
EACH = ["ok"] * 12 + ["lost", *ENTRY_ERRORS]
NOT_TAKEN = {
    "throttled": ThrottlingError(),
    "transient": ServiceUnavailableError(),
    "unreachable": ConnectionFailedError("unreachable"),
    "not taken": OutcomeUnknownError("no answer"),
}
ALL = [*NOT_TAKEN, "lost", "too few", "too many", "bug", "odd"]


@attrs.frozen
class Plan:
    """What comes, and what becomes of it."""

    letters: list[tuple[int, int, bool, list[str]]]
    whole: dict[int, str]
    takes: float
    rate: float
    narrow: bool
    room: float
    slow_release: float
    pause: float | None
    stop: float | None
    give_up_after: float | None
    slow_claims: list[float] | None
    max_parallel: int | None


PLANS = st.builds(
    Plan,
    letters=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([1] * 8 + [2, 5, 9]),
            st.sampled_from([False] * 9 + [True]),
            st.lists(st.sampled_from(EACH), max_size=2),
        ),
        max_size=60,
    ),
    whole=st.dictionaries(st.integers(0, 12), st.sampled_from(ALL), max_size=4),
    takes=st.sampled_from([0, 0, 0.1, 3.0, HOURS]),
    rate=st.sampled_from([math.inf, 14, 3]),
    narrow=st.booleans(),
    room=st.sampled_from([math.inf, math.inf, 30, 5]),
    slow_release=st.sampled_from([0, 0, 0.3]),
    pause=st.sampled_from([None, 0.0, 0.03, 0.2]),
    stop=st.sampled_from([None, None, 0.1, 0.7, 2.0, 9.0]),
    give_up_after=st.sampled_from([None, 0.3, 1.0, 20.0]),
    slow_claims=st.sampled_from([None, None, [], [0.3, 0.0, 0.05], [HOURS]]),
    max_parallel=st.sampled_from([None, 1, 3]),
)


class Doubles(Wire):
    """Does as planned, and knows what it took."""

    def __init__(self, clock, plan):
        super().__init__(clock, takes=plan.takes)
        self.plan = plan
        self.taken = []
        self.largest = 0

    async def send(self, request):
        self.check([request])
        number = len(self.left)
        await self._carry([request])
        return self.answer(number, [request])

    async def send_bulk(self, request):
        self.check(request.requests)
        number = len(self.left)
        await self._carry(request.requests)
        return self.answer(number, request.requests)

    def check(self, requests):
        assert len({each.message.template for each in requests}) == 1
        if len(requests) > 1:
            self.largest = max(self.largest, sum(len(each.recipients) for each in requests))
            assert {None} == {each.message.priority for each in requests}

    def answer(self, number, requests):
        kind = self.plan.whole.get(number)
        if kind in NOT_TAKEN:
            raise NOT_TAKEN[kind]
        answers = [self.judge(name_of(each.message)) for each in requests]
        if kind == "lost":
            raise OutcomeUnknownError("no answer")
        if kind == "bug":
            raise ZeroDivisionError
        if len(requests) == 1:
            if isinstance(answers[0], SendError):
                raise answers[0]
            return answers[0]
        return {"too few": answers[1:], "too many": [*answers, answers[0]], "odd": "odd"}.get(kind, answers)

    def judge(self, name):
        attempt = self.attempts[name] = self.attempts.get(name, 0) + 1
        steps = self.plan.letters[int(name)][3]
        step = steps[attempt - 1] if attempt <= len(steps) else "ok"
        if step in {"ok", "lost"}:
            self.taken.append(name)
        if step == "ok":
            return Receipt(f"id of {name}")
        return OutcomeUnknownError("lost") if step == "lost" else ENTRY_ERRORS[step]()


class PlannedMeter(Meter):
    """Grants as planned."""

    def __init__(self, clock, plan):
        super().__init__(plan.rate, clock=clock, takes=plan.slow_release)
        self.plan = plan

    async def reserve(self, demand):
        assert 1 <= demand.at_least <= demand.recipients
        wanted = demand.recipients
        if self.plan.narrow:
            wanted = max(demand.at_least, wanted // 2)
        if self.out + wanted > self.plan.room:
            raise DailyQuotaExceededError(resume_at=7.0)
        return await super().reserve(Demand(wanted, wanted))


async def go_through(plan):
    """One batch."""
    clock, ears = FakeClock(), Ears()
    wire, limiter = Doubles(clock, plan), PlannedMeter(clock, plan)
    options = {} if plan.slow_claims is None else {"ledger": SlowLedger(clock, *plan.slow_claims)}
    sender = sender_of(wire, clock, limiter=limiter, observers=[ears], max_parallel=plan.max_parallel, **options)
    messages = [
        letter(str(i), TEMPLATES[template], recipients=weight, priority=FIRST if urgent else None)
        for i, (template, weight, urgent, _) in enumerate(plan.letters)
    ]
    handed_in = []

    async def source():
        for message in messages:
            handed_in.append(name_of(message))
            yield message
            await clock.sleep(plan.pause)

    if plan.pause is None:
        handed_in = [name_of(message) for message in messages]
    batch = messages if plan.pause is None else source()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def end():
                await clock.sleep(plan.stop)
                scope.cancel()

            if plan.stop is not None:
                tasks.start_soon(end)
            await sender.send_all(batch, give_up_after=plan.give_up_after, campaign="c" if options else None)
            tasks.cancel_scope.cancel()
    check_all(plan, wire, limiter, ears, handed_in)
    assert clock.sleepers == 0


def check_all(plan, wire, limiter, ears, handed_in):
    """What was reported is what happened."""
    taken = set(wire.taken)
    assert len(taken) == len(wire.taken)
    assert sorted(ears.fates) == sorted(handed_in)
    sent = {name for name, result in ears.fates.items() if result.status is SENT}
    unknown = {name for name, result in ears.fates.items() if result.status is UNKNOWN}
    assert sent <= taken <= sent | unknown
    assert unknown <= {name for names in wire.names for name in names}
    assert limiter.out == wire.recipients
    limit = 50 if plan.rate == math.inf else max(1, int(plan.rate / 2))
    assert wire.largest <= limit
    assert wire.most <= (plan.max_parallel or 256)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=settings().max_examples * 3 // 2)
@given(plan=PLANS)
def test_each_has_one_true_fate_whatever_is_packed(plan, backend):
    """Packs with faults of entries and of requests, slots cut short, stops and deadlines; slots all come back."""
    anyio.run(go_through, plan, backend=backend)
