"""What a run does with its ledger: keys, look-ups, claims and fates, and what becomes of them when the ledger fails."""

# ruff: noqa: PT012  (what comes out of the whole block is what is tested)

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from itertools import chain, pairwise

import anyio
import attrs
import pytest

from tanksend import Message, Priority, Receipt, Sender, Status, SyncSender, Template
from tanksend._engine import _books
from tanksend._messages import campaign_key, key_tag
from tanksend.exceptions import (
    ContentRejectedError,
    ElsewhereError,
    HeldError,
    IntakeError,
    InvalidMessageError,
    LedgerError,
    OutcomeUnknownError,
    SendError,
    ServiceUnavailableError,
    SettingError,
)
from tanksend.ledgers import MemoryLedger
from tanksend.limiters import TokenBucketLimiter
from tanksend.retries import ExponentialBackoff
from tanksend.suppression import MemorySuppressionStore
from tanksend.testing import FakeClock, RecordingTransport
from tanksend.typing import Allow, Claim, Demand, Drop, LedgerEntry, Replace, Retry, Slot, Suppression

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
HOURS = 10_000.0
SENT, HELD, UNKNOWN, FAILED = Status.SENT, Status.HELD, Status.UNKNOWN, Status.FAILED
ALREADY, ELSEWHERE, INVALID, SUPPRESSED = Status.ALREADY_SENT, Status.ELSEWHERE, Status.INVALID, Status.SUPPRESSED


class OddError(BaseException):
    """Like KeyboardInterrupt, but not treated by any loop as more than an exception."""


class BoomError(Exception):
    """What a consumer raises."""


def letter(key="k", **options):
    """A message that is known by its subject, which is its key, too."""
    return Message(options.pop("to", "b@example.com"), key, "text", key=key, **options)


def letters(keys):
    """Some of them, one for each letter."""
    return [letter(key) for key in keys]


async def one_by_one(messages, clock=None, pause=0.0):
    """An async iterable of them."""
    for message in messages:
        yield message
        if clock is not None:
            await clock.sleep(pause)


class Wire:
    """Does with each message, by subject, what it is told: takes its time, raises, or both in turns."""

    def __init__(self, clock, does=None, takes=0.0):
        self.clock = clock
        self.does = {name: list(steps) for name, steps in (does or {}).items()}
        self.takes = takes
        self.left = []
        self.requests = []

    @property
    def names(self):
        return [name for name, _ in self.left]

    async def send(self, request):
        name = request.message.subject
        self.left.append((name, self.clock.monotonic() - 1000))
        self.requests.append(request)
        step = self.does[name].pop(0) if self.does.get(name) else self.takes
        await self.clock.sleep(step if isinstance(step, float | int) else 0)
        if isinstance(step, BaseException):
            raise step
        return Receipt(f"id of {name}")

    async def aclose(self):
        pass


class Book:
    """One holder of a ledger, which takes its time, does what else it is told, and writes down what it is asked."""

    def __init__(self, clock, ledger=None, *, does=None, **takes):
        self.clock = clock
        self.ledger = ledger or MemoryLedger(clock=clock)
        self.takes = takes
        self.does = does or {}
        self.asked = []
        self.kept = defaultdict(list)

    def asked_for(self, method):
        return [list(keys) for name, keys in self.asked if name == method]

    async def _begin(self, method, keys):
        self.asked.append((method, tuple(keys)))
        await self.clock.sleep(self.takes.get(method, 0.0))
        if method in self.does:
            return await self.does[method](keys)
        return None

    async def lookup(self, keys):
        odd = await self._begin("lookup", keys)
        return await self.ledger.lookup(keys) if odd is None else odd

    async def claim(self, keys, *, resend_unknown=False):
        odd = await self._begin("claim", keys)
        return await self.ledger.claim(keys, resend_unknown=resend_unknown) if odd is None else odd

    async def record(self, entries):
        await self._begin("record", [entry.key for entry in entries])
        await self.ledger.record(entries)
        for entry in entries:
            self.kept[entry.key].append(entry.status)

    async def fates(self, keys):
        """What another process sees."""
        return {key: found.status for key, found in (await self.ledger.another().lookup(keys)).items()}


class Even:
    """A limiter with a slot each so many seconds, which keeps what is outstanding."""

    def __init__(self, clock, every=1.0):
        self.clock = clock
        self.every = every
        self.next = clock.monotonic()
        self.slots = {}
        self.number = 0
        self.released = []

    async def reserve(self, demand):
        now = self.clock.monotonic()
        due = max(now, self.next)
        self.next = due + self.every
        self.number += 1
        self.slots[self.number] = demand.recipients
        return Slot(due - now, demand.recipients, self.number)

    async def release(self, slot):
        self.slots[slot.token] -= slot.recipients
        self.released.append((slot.recipients, self.clock.monotonic() - 1000))

    async def feedback(self, signal):
        for token, left in self.slots.items():
            taken = min(left, signal.recipients)
            self.slots[token] -= taken
            signal = attrs.evolve(signal, recipients=signal.recipients - taken)

    @property
    def outstanding(self):
        return sum(self.slots.values())


class Ears:
    """An observer of fates, by index, each of which it must hear but once."""

    def __init__(self):
        self.fates = {}

    def on_event(self, event):
        if event.result is not None:
            assert event.index not in self.fates
            self.fates[event.index] = event.result

    @property
    def statuses(self):
        return [self.fates[index].status for index in sorted(self.fates)]


class Steady:
    """Tries again after the same while, whatever came of it."""

    def __init__(self, after=1.0):
        self.after = after

    def decide(self, attempt):
        return Retry(self.after)


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


@pytest.fixture
def book(clock):
    """A ledger's holder that is quick."""
    return Book(clock)


@pytest.fixture
def wire(clock):
    """It takes everything."""
    return Wire(clock)


@pytest.fixture
def ears():
    """Hears each fate, and that there is but one."""
    return Ears()


@pytest.fixture
def make(clock, book, wire, ears):
    """A sender of these parts."""

    def make(**options):
        parts = {"transport": wire, "ledger": book, "observers": [ears], "clock": clock, **options}
        return Sender(from_=NAME, **parts)

    return make


@contextlib.asynccontextmanager
async def cancelled(clock, seconds):
    """A block that is cancelled in a while."""

    async def cancel():
        await clock.sleep(seconds)
        scope.cancel()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            yield scope
            tasks.cancel_scope.cancel()


async def has(ledger, key, status, message_id=None):
    """Somebody else has done that with *key*."""
    await ledger.claim([key])
    if status is not None:
        await ledger.record([LedgerEntry(key, status, message_id)])


def tags(wire):
    """The tags on what has left."""
    return [dict(request.tags) for request in wire.requests]


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_a_message_is_known_by_its_key(make, wire, book):
    """In the ledger, and as a tag on the request; the second run passes both over, with their message ids."""
    report = await make().send_all(letters("ab"))
    assert report.counts[SENT] == 2
    assert [{**key_tag("a")}, {**key_tag("b")}] == tags(wire)
    assert {"a": SENT, "b": SENT} == await book.fates("ab")
    results = []
    report = await make(observers=[]).send_all(letters("ab"), on_result=results.append)
    assert [(ALREADY, "id of a"), (ALREADY, "id of b")] == [(r.status, r.message_id) for r in results]
    assert report.ok
    assert wire.names == ["a", "b"]


async def test_a_campaign_gives_each_message_a_key(make, wire, book):
    """Made of its name, recipients and content; a message's own key goes first; another campaign sends again."""
    messages = [Message("b@example.com", "one", "text"), letter("own"), Message("c@example.com", "two", "text")]
    report = await make().send_all(messages, campaign="2026-11")
    assert report.counts[SENT] == 3
    keys = [campaign_key("2026-11", messages[0]), "own", campaign_key("2026-11", messages[2])]
    assert [{**key_tag(key)} for key in keys] == tags(wire)
    assert dict.fromkeys(keys, SENT) == await book.fates(keys)
    async with make(observers=[]).stream(one_by_one(messages), campaign="2026-11") as results:
        assert [ALREADY] * 3 == [result.status async for result in results]
    report = await make(observers=[]).send_all(messages, campaign="2026-12")
    assert (report.counts[SENT], report.counts[ALREADY]) == (2, 1)


async def test_two_single_mails_are_two(make, wire, book):
    """Without a key, each has one that nobody has: two identical login codes are two mails."""
    code = Message("b@example.com", "code", "1234")
    sender = make(observers=[])
    assert [SENT, SENT] == [(await sender.send(code)).status for _ in range(2)]
    assert len({tag["tanksend-key"] for tag in tags(wire)}) == 2
    assert (await book.ledger.counts())[SENT] == 2
    assert book.asked_for("lookup") == []


async def test_a_single_mail_with_a_key_goes_once(make, wire, clock):
    """The second time it returns the message id of the first; also when it could not be sent any more."""
    store = MemorySuppressionStore(clock=clock)
    sender = make(observers=[], suppression=store)
    assert (await sender.send(letter())).status is SENT
    await store.add(Suppression("b@example.com", "bounce"))
    again = await sender.send(letter())
    assert (ALREADY, "id of k", 0) == (again.status, again.message_id, again.attempts)
    assert wire.names == ["k"]


@pytest.mark.parametrize(
    ("status", "error"), [(None, ElsewhereError), (UNKNOWN, OutcomeUnknownError)], ids=["elsewhere", "unknown"]
)
async def test_a_single_mail_that_others_have_raises(make, wire, book, status, error):
    """It is not known to be sent."""
    await has(book.ledger.another(), "k", status)
    with pytest.raises(error) as raised:
        await make().send(letter())
    assert raised.value.result.error is raised.value
    assert wire.left == []


async def test_a_list_without_keys_is_refused_as_a_whole(make, wire, ears):
    """One message without a key is enough, wherever it stands; nothing is taken in."""
    messages = [*letters("ab"), Message("b@example.com", "nameless", "text")]
    sender = make()
    with pytest.raises(ValueError, match="needs campaign=, or a key= for each message"):
        await sender.send_all(messages)
    async with sender.stream(tuple(messages)) as results:
        with pytest.raises(SettingError):
            await anext(results)
    assert ([], {}) == (wire.left, ears.fates)
    assert sender.last_report.total == 0


async def test_an_iterable_that_begins_without_a_key_is_refused(make, wire):
    """Nothing was sent."""
    messages = [Message("b@example.com", "nameless", "text"), letter("a")]
    with pytest.raises(ValueError, match="campaign="):
        await make().send_all(one_by_one(messages))
    assert wire.left == []


async def test_later_messages_without_a_key_are_invalid(make, wire, ears):
    """One row, and not the batch."""
    messages = [letter("a"), Message("b@example.com", "nameless", "text"), "no message", letter("b")]
    report = await make().send_all(one_by_one(messages))
    assert [SENT, INVALID, INVALID, SENT] == ears.statuses
    assert [problem.field for problem in ears.fates[1].error.problems] == ["key"]
    assert report.counts[INVALID] == 2
    assert wire.names == ["a", "b"]


@pytest.mark.parametrize("campaign", [None, "news"])
async def test_an_empty_key_is_no_key(make, wire, ears, book, campaign):
    """All messages without a name would be the same one."""
    await make().send_all([letter(""), letter("a"), letter("")], campaign=campaign)
    assert [INVALID, SENT, INVALID] == ears.statuses
    assert [problem.field for problem in ears.fates[0].error.problems] == ["key"]
    assert [["a"]] == book.asked_for("record")
    with pytest.raises(InvalidMessageError, match="key"):
        await make(observers=[]).send(letter(""))
    assert wire.names == ["a"]


async def test_what_no_key_can_be_made_of_is_one_bad_row(make, wire, ears):
    """Template data that JSON cannot carry."""
    template = Template(subject="Hi", text="Hello {{name}}")
    bad = Message.from_template(template, to="b@example.com", data={"name": object()})
    good = Message.from_template(template, to="b@example.com", data={"name": "Kim"})
    await make().send_all([bad, good], campaign="news")
    assert [INVALID, SENT] == ears.statuses
    assert ears.fates[0].error.problems[0].field.startswith("data")
    assert len(wire.left) == 1


async def test_a_message_that_a_guard_replaces_keeps_its_key(make, wire, book):
    """The key names what the caller handed in."""

    class Translator:
        async def check(self, message):
            return Replace(attrs.evolve(message, subject="translated", key="other"))

    assert (await make(guards=[Translator()]).send_all(letters("a"))).ok
    assert [{**key_tag("a")}] == tags(wire)
    assert {"a": SENT} == await book.fates(["a", "other"])


def test_a_blocking_sender_has_the_same_ledger():
    """The whole way, with a thread that pulls and another that sends."""
    wire, ledger = RecordingTransport(), MemoryLedger()
    messages = [Message(f"p{i}@example.com", "Hi", "Hello") for i in range(3)]
    with SyncSender(from_=NAME, transport=wire, ledger=ledger) as sender:
        for refused in (messages, iter(messages)):
            with pytest.raises(ValueError, match="campaign="):
                sender.send_all(refused)
        with pytest.raises(ValueError, match="campaign="), sender.stream(messages) as results:
            next(iter(results))
        assert wire.requests == []
        assert sender.send_all(messages[:2], campaign="news").counts[SENT] == 2
        with sender.stream(iter(messages), campaign="news") as results:
            assert [ALREADY, ALREADY, SENT] == [result.status for result in results]
        assert [SENT, SENT] == [sender.send(messages[0]).status for _ in range(2)]
        assert [SENT, ALREADY] == [sender.send(letter()).status for _ in range(2)]
    keys = [campaign_key("news", message) for message in messages]
    assert {**key_tag(keys[0])} == dict(wire.requests[0].tags)
    assert len({request.tags["tanksend-key"] for request in wire.requests}) == 6


# --- look-ups --------------------------------------------------------------------------------------------------------


async def test_what_was_sent_is_passed_over_before_anything_else(make, wire, ears, book, clock):
    """Also when it has become invalid, or nobody may get it any more; no guard and no store is asked."""

    class Strict:
        async def check(self, message):
            raise AssertionError

        async def lookup(self, addresses):
            raise AssertionError

    for key in "abc":
        await has(book.ledger.another(), key, SENT, f"first {key}")
    messages = [letter("a", to="no address"), letter("b", to="gone@example.com"), letter("c")]
    await make(guards=[Strict()], suppression=Strict()).send_all(messages)
    assert [(ALREADY, f"first {key}", None) for key in "abc"] == [
        (result.status, result.message_id, result.error) for _, result in sorted(ears.fates.items())
    ]
    assert ([], []) == (wire.left, book.asked_for("record"))
    assert book.asked_for("claim") == []


@pytest.mark.parametrize("dead", [False, True])
async def test_what_is_unknown_stays_so_unless_it_is_to_be_sent_again(make, wire, ears, book, dead):
    """Recorded so, or claimed by a process that died since."""
    other = book.ledger.another()
    await has(other, "k", None if dead else UNKNOWN)
    if dead:
        other.crash()
    await make().send_all(letters("k"))
    assert [UNKNOWN] == ears.statuses
    assert isinstance(ears.fates[0].error, OutcomeUnknownError)
    assert wire.left == []
    ears.fates.clear()
    await make(retry=ExponentialBackoff(resend_unknown=True)).send_all(letters("k"))
    assert [SENT] == ears.statuses
    assert {"k": SENT} == await book.fates("k")


async def test_what_somebody_works_on_is_elsewhere(make, wire, ears, book):
    """It is not waited for, and not recorded."""
    await has(book.ledger.another(), "b", None)
    await make().send_all(letters("abc"))
    assert [SENT, ELSEWHERE, SENT] == ears.statuses
    assert isinstance(ears.fates[1].error, ElsewhereError)
    assert wire.names == ["a", "c"]
    assert "b" not in book.kept


@pytest.mark.parametrize("status", [HELD, FAILED, INVALID, SUPPRESSED])
async def test_every_other_fate_is_tried_again(make, wire, ears, book, status):
    """SES certainly has not taken it."""
    await has(book.ledger.another(), "k", status)
    await make().send_all(letters("k"))
    assert [SENT] == ears.statuses


@pytest.mark.parametrize("how", ["list", "async"])
@pytest.mark.parametrize(
    ("step", "first", "second"),
    [
        (0.5, SENT, ALREADY),
        (ContentRejectedError(), FAILED, FAILED),
        (OutcomeUnknownError(), UNKNOWN, UNKNOWN),
        ("invalid", INVALID, INVALID),
        ("suppressed", SUPPRESSED, SUPPRESSED),
        ("late", HELD, HELD),
        ("known", ALREADY, ALREADY),
        ("elsewhere", ELSEWHERE, ELSEWHERE),
    ],
)
async def test_a_key_that_comes_twice_is_sent_once(make, *, wire, ears, book, clock, how, step, first, second):
    """Those that follow share the fate of the first, and nobody tells the ledger twice."""
    to = {"invalid": "no address", "suppressed": "gone@example.com"}.get(step, "b@example.com")
    store = MemorySuppressionStore(clock=clock)
    await store.add(Suppression("gone@example.com", "bounce"))
    wire.does = {"k": [step if isinstance(step, float | SendError) else 0.5]}
    if step in {"known", "elsewhere"}:
        await has(book.ledger.another(), "k", SENT if step == "known" else None)
    book.takes = {"lookup": 0.1, "record": 0.2}
    messages = [letter("k", to=to), letter("other"), letter("k"), letter("k", to="no address")]
    limiter = TokenBucketLimiter(0.001, clock=clock) if step == "late" else None
    if limiter is not None:
        await limiter.reserve(Demand(1))
    sender = make(suppression=store, limiter=limiter)
    source = messages if how == "list" else one_by_one(messages)
    report = await sender.send_all(source, give_up_after=5)
    assert [first, HELD if step == "late" else SENT, second, second] == ears.statuses
    assert wire.names.count("k") == (0 if isinstance(step, str) else 1)
    assert len(book.kept["k"]) == (0 if step in {"known", "elsewhere", "late"} else 1)
    assert report.total == 4
    if step == 0.5:
        assert ears.fates[3].message_id == "id of k"


async def test_followers_of_one_that_is_cut_share_its_fate(make, wire, ears, clock):
    """By a stop, whose grace its request outlasts."""
    wire.takes = HOURS
    sender = make()
    async with cancelled(clock, 1):
        await sender.send_all([letter("a"), letter("b"), letter("a"), letter("b")])
    assert [UNKNOWN, HELD, UNKNOWN, HELD] == ears.statuses
    assert sender.last_report.total == 4


async def test_followers_of_one_that_intake_never_saw_through_share_its_fate(make, wire, ears, clock, book):
    """The look-up was cut off."""
    book.takes = {"lookup": HOURS}
    async with cancelled(clock, 1):
        await make().send_all([letter("a"), letter("a")])
    assert [HELD, HELD] == ears.statuses
    assert clock.monotonic() == 1001


async def test_a_key_that_was_free_again_is_tried_again(make, wire, ears, clock):
    """The first of it failed before the second came: nothing is kept of keys that are settled."""
    wire.does = {"k": [ContentRejectedError()]}
    await make().send_all(one_by_one([letter(), letter(), letter()], clock, 1.0))
    assert [FAILED, SENT, ALREADY] == ears.statuses


async def test_keys_are_forgotten_with_their_messages(make, wire, clock):
    """A long batch keeps those of the messages under way."""
    most = 0
    messages = (letter(str(i % 3_000)) for i in range(4_000))
    async with make(observers=[]).stream(one_by_one(messages)) as results:
        counts = Counter()
        async for result in results:
            counts[result.status] += 1
            most = max(most, len(results._run.books._live))
        assert results._run.books._live == {}
    assert {SENT: 3_000, ALREADY: 1_000} == counts
    assert most <= 1_000


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("did", "fate"), [(SENT, ALREADY), (None, ELSEWHERE), (UNKNOWN, UNKNOWN)], ids=["sent", "claimed", "unknown"]
)
async def test_a_lost_claim_hands_its_slot_to_the_next(make, *, wire, ears, book, clock, did, fate):
    """Somebody else was quicker between the look-up and the slot. No slot is wasted on it."""
    limiter = Even(clock)

    async def meanwhile():
        await clock.sleep(0.5)
        await has(book.ledger.another(), "b", did, "first")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=limiter).send_all(letters("abcd"))
    assert [SENT, fate, SENT, SENT] == ears.statuses
    assert [("a", 0), ("c", 1), ("d", 2)] == wire.left
    assert (0, []) == (limiter.outstanding, limiter.released)
    assert ears.fates[1].message_id == ("first" if did is SENT else None)
    assert "b" not in book.kept
    assert 1.0 == ears.fates[1].waited


async def test_after_a_loss_the_next_are_looked_up_again(make, wire, ears, book, clock):
    """Who works on the same batch has taken several: they need no slot. Each has one fate, stopped or not."""

    async def meanwhile():
        await clock.sleep(0.5)
        other = book.ledger.another()
        for key, status in {"b": SENT, "c": SENT, "d": None, "e": UNKNOWN, "f": HELD}.items():
            await has(other, key, status, "first")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        with anyio.move_on_after(HOURS):
            async with cancelled(clock, 1.5):
                await make(limiter=Even(clock)).send_all(letters("abcdefg"), give_up_after=5)
    assert [SENT, ALREADY, ALREADY, ELSEWHERE, UNKNOWN, SENT, HELD] == ears.statuses
    assert [("a", 0), ("f", 1)] == wire.left
    assert [list("abcdefg"), ["b"], list("cdefg")] == book.asked_for("lookup")
    assert [1.0] * 4 == [ears.fates[index].waited for index in range(1, 5)]
    assert clock.monotonic() == 1001.5


async def test_deadlines_pass_over_what_was_found_to_be_settled(make, wire, ears, book, clock):
    """It waits no more, and is not held, too."""

    async def meanwhile():
        await clock.sleep(0.5)
        for key in "bcd":
            await has(book.ledger.another(), key, SENT)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=Even(clock)).send_all(letters("abcdefg"), give_up_after=2.5)
    assert [SENT, ALREADY, ALREADY, ALREADY, SENT, SENT, HELD] == ears.statuses


async def test_a_look_up_that_meets_a_claim_of_its_own_run_says_nothing(make, wire, ears, book, clock):
    """What waited when it was asked for was taken before the answer came."""
    limiter = Even(clock, 0.1)

    async def slow(keys):
        found = {}
        if len(book.asked_for("lookup")) > 1:
            await clock.sleep(0.25)
            found = await book.ledger.lookup(keys)
            await clock.sleep(0.25)
        return found

    async def meanwhile():
        await clock.sleep(0.05)
        await has(book.ledger.another(), "b", None)

    book.does = {"lookup": slow}
    wire.takes = 0.2
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=limiter).send_all(letters("abcdefghij"))
    assert [SENT, ELSEWHERE, *[SENT] * 8] == ears.statuses
    assert sorted(wire.names) == list("acdefghij")
    assert limiter.outstanding == 0


async def test_a_slot_that_was_lost_goes_to_another_run(make, wire, ears, book, clock):
    """Runs of one sender share slots."""
    limiter = Even(clock)
    sender = make(limiter=limiter, observers=[])

    async def later():
        await clock.sleep(0.2)
        report = await sender.send_all(letters("xy"))
        assert report.counts[SENT] == 2

    async def meanwhile():
        await clock.sleep(0.5)
        await has(book.ledger.another(), "b", SENT)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(later)
        tasks.start_soon(meanwhile)
        report = await sender.send_all(letters("ab"))
    assert (report.counts[SENT], report.counts[ALREADY]) == (1, 1)
    assert [("a", 0), ("x", 1), ("y", 2)] == wire.left
    assert (0, []) == (limiter.outstanding, limiter.released)


async def test_a_slot_that_nobody_wants_is_given_back(make, wire, ears, book, clock):
    """The last that waited was lost, or the next is too heavy for it."""
    limiter = Even(clock)

    async def meanwhile():
        await clock.sleep(0.5)
        for key in "bd":
            await has(book.ledger.another(), key, None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=limiter).send_all(
            [*letters("ab"), letter("c", to="c@example.com, d@example.com"), letter("d")]
        )
    assert [SENT, ELSEWHERE, SENT, ELSEWHERE] == ears.statuses
    assert [("a", 0), ("c", 2)] == wire.left
    assert limiter.outstanding == 0
    assert [(1, 1.0)] == limiter.released


async def test_a_lighter_message_takes_the_slot_that_a_heavier_one_lost(make, wire, ears, book, clock):
    """What it has too much is given back."""
    limiter = Even(clock)

    async def meanwhile():
        await clock.sleep(0.5)
        await has(book.ledger.another(), "b", None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        heavy = letter("b", to=["c@example.com", "d@example.com", "e@example.com"])
        await make(limiter=limiter).send_all([letter("a"), heavy, letter("c")])
    assert [SENT, ELSEWHERE, SENT] == ears.statuses
    assert [("a", 0), ("c", 1)] == wire.left
    assert (2, 1.0) == limiter.released[0]
    assert limiter.outstanding == 0


async def test_what_was_charged_beyond_a_lost_slot_is_given_back_with_it(make, wire, ears, book, clock):
    """A heavier message came to a slot that was there, and lost its claim."""
    limiter = Even(clock)

    async def come():
        yield letter("a")
        yield letter("b")
        await clock.sleep(0.5)
        yield letter("c", to=["c@example.com", "d@example.com"], priority=Priority.TRANSACTIONAL)

    async def meanwhile():
        await clock.sleep(0.7)
        for key in "bc":
            await has(book.ledger.another(), key, None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=limiter).send_all(come())
    assert [SENT, ELSEWHERE, ELSEWHERE] == ears.statuses
    assert [("a", 0)] == wire.left
    assert limiter.outstanding == 0


async def test_a_light_message_that_is_handed_a_heavy_ones_slot_gives_the_rest_back(make, *, wire, ears, book, clock):
    """Of what was charged for the difference in weight, above all."""
    limiter = Even(clock)

    async def come():
        yield letter("a")
        yield letter("b")
        await clock.sleep(0.5)
        yield letter("c", to=["c@example.com", "d@example.com"], priority=Priority.TRANSACTIONAL)

    async def meanwhile():
        await clock.sleep(0.7)
        await has(book.ledger.another(), "c", None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(limiter=limiter).send_all(come())
    assert [SENT, SENT, ELSEWHERE] == ears.statuses
    assert [("a", 0), ("b", 1)] == wire.left
    assert limiter.outstanding == 0


async def test_messages_that_travel_together_are_lost_one_by_one(make, ears, book, clock):
    """The rest of the request goes, and takes what it needs of the slot."""
    template = Template(subject="Hi", text="Hello {{name}}")
    messages = [
        Message.from_template(template, to=f"p{key}@example.com", data={"name": key}, key=key) for key in "abcdef"
    ]
    wire, limiter = RecordingTransport(), Even(clock)

    async def meanwhile(keys):
        if len(book.asked_for("claim")) == 1:
            for key, status in {"b": SENT, "c": None, "e": UNKNOWN}.items():
                await has(book.ledger.another(), key, status, "first")

    book.does = {"claim": meanwhile}
    await make(transport=wire, limiter=limiter).send_all(messages)
    assert [SENT, ALREADY, ELSEWHERE, SENT, UNKNOWN, SENT] == ears.statuses
    assert ["pa@example.com", "pd@example.com", "pf@example.com"] == wire.recipients
    assert [3] == [len(request.requests) for request in wire.bulk]
    assert "first" == ears.fates[1].message_id
    assert [list("abcdef")] == book.asked_for("claim")
    assert limiter.outstanding == 0


async def test_a_claim_that_was_sent_by_others_needs_no_message_id(make, wire, ears, book, clock):
    """The look-up that would find it fails, or is cut off: it was sent all the same."""

    async def lose(keys):
        await has(book.ledger.another(), "a", SENT, "first")

    async def fail(keys):
        if len(book.asked_for("lookup")) == 2:
            raise LedgerError("The ledger is locked")

    book.does = {"claim": lose, "lookup": fail}
    report = await make().send_all(letters("ab"))
    assert ALREADY is ears.fates[0].status
    assert ears.fates[0].message_id is None
    assert report.total == 2
    assert "locked" in report.note


async def test_a_stop_while_it_asks_who_sent_it_costs_no_fate(make, wire, ears, book, clock):
    """The ledger has said that it was sent, and then hangs."""

    async def lose(keys):
        await has(book.ledger.another(), "a", SENT, "first")

    async def hang(keys):
        if len(book.asked_for("lookup")) == 2:
            await clock.sleep(HOURS)

    book.does = {"claim": lose, "lookup": hang}
    limiter = Even(clock)
    async with cancelled(clock, 1):
        await make(limiter=limiter).send_all(letters("ab"))
    assert [ALREADY, HELD] == ears.statuses
    assert clock.monotonic() == 1011
    assert limiter.outstanding == 0


async def test_a_stop_while_the_next_are_looked_up_gives_the_slot_back(make, wire, ears, book, clock):
    """It is nobody's by then."""

    async def lose(keys):
        await has(book.ledger.another(), "a", None)

    async def hang(keys):
        if len(book.asked_for("lookup")) == 2:
            await clock.sleep(HOURS)

    book.does = {"claim": lose, "lookup": hang}
    limiter = Even(clock)
    sender = make(limiter=limiter)
    async with cancelled(clock, 1):
        await sender.send_all(letters("abc"))
    assert [ELSEWHERE, HELD, HELD] == ears.statuses
    assert limiter.outstanding == 0
    book.does = {}
    ears.fates.clear()
    await sender.send_all(letters("bcd"))
    assert [SENT] * 3 == ears.statuses


async def test_requests_leave_when_they_are_due_though_claims_take_their_time(make, wire, book, clock):
    """The slot is taken ahead by twice what claims have taken, so the pace is kept."""
    book.takes = {"claim": 0.02}
    limiter = Even(clock, 0.1)
    await make(limiter=limiter).send_all(letters(str(i) for i in range(40)))
    moments = [moment for _, moment in wire.left]
    # At first it is not known how long they take.
    assert [0.1] * 19 == [round(b - a, 6) for a, b in pairwise(moments[20:])]
    assert round(moments[-1] * 10, 6) % 1 == 0
    assert limiter.outstanding == 0


async def test_at_a_high_rate_messages_share_what_it_costs_to_ask(make, wire, book, clock):
    """A sync for each of 500 a second is a good part of a processor; and still each leaves when it is due."""
    book.takes = {"claim": 0.002, "record": 0.002}
    wire.takes = 0.05
    limiter = Even(clock, 0.002)
    await make(limiter=limiter).send_all(letters(str(i) for i in range(600)))
    assert len(book.asked_for("claim")) < 120
    assert len(book.asked_for("record")) < 80
    moments = [moment for _, moment in wire.left]
    assert {0.002} == {round(b - a, 6) for a, b in pairwise(moments[200:])}
    assert limiter.outstanding == 0


async def test_a_single_mail_does_not_wait_for_others(make, wire, book, clock):
    """Nothing else is on its way that could share the cost."""
    for key in "ab":
        await make().send(letter(key))
        assert clock.monotonic() == 1000


async def test_no_slot_is_taken_ahead_by_more_than_a_tenth_of_a_second(make, wire, book, clock):
    """Claims that take longer let their slots lapse, once, and keep what they have claimed."""
    book.takes = {"claim": 0.5}
    limiter = Even(clock, 2.0)
    await make(limiter=limiter).send_all(letters("abcdef"))
    assert sorted(wire.names) == list("abcdef")
    # Each was claimed once, though all but the first, whose slot was due at once, needed a second slot.
    assert sorted(chain(*book.asked_for("claim"))) == list("abcdef")
    assert limiter.outstanding == 0
    assert len(limiter.released) == 5
    assert all(moment % 2.0 == 0 for _, moment in wire.left[1:])


@pytest.mark.parametrize("fails", [False, True])
async def test_what_waited_long_for_another_slot_is_claimed_anew(make, *, wire, ears, book, clock, fails):
    """The lease of a claim must not end while nothing has left; where that cannot be said, nothing does."""
    book.takes = {"claim": 0.5}
    if fails:

        async def fail(keys):
            if "b" in keys and not wire.names[1:]:
                raise LedgerError("The ledger is locked")

        book.does = {"record": fail}
    await make(limiter=Even(clock, 70.0)).send_all(letters("ab"))
    assert [SENT, HELD if fails else SENT] == ears.statuses
    assert [["a"], ["b"], ["b"]][: 2 if fails else 3] == book.asked_for("claim")
    assert {"a": [SENT]} | ({} if fails else {"b": [HELD, SENT]}) == book.kept


@pytest.mark.parametrize("end", ["deadline", "stop"])
async def test_what_ends_during_a_claim_is_held_and_free_again(make, *, wire, ears, book, clock, end):
    """By its deadline, or a stop: the claim is had, recorded as held, and the slot given back."""
    book.takes = {"claim": 3.0}
    limiter = Even(clock)
    sender = make(limiter=limiter)
    async with cancelled(clock, 1 if end == "stop" else HOURS):
        await sender.send_all(letters("ab"), give_up_after=2.0)
    assert [HELD, HELD] == ears.statuses
    assert wire.left == []
    assert [HELD] == book.kept["a"]
    assert {"a": HELD} == {key: fate for key, fate in (await book.fates("ab")).items() if key == "a"}
    assert limiter.outstanding == 0
    assert clock.monotonic() == 1003
    assert ears.fates[0].waited <= ears.fates[0].elapsed
    assert ("Deadline" if end == "deadline" else "Stopped") == ears.fates[0].error.code


async def test_a_claim_may_take_longer_than_the_grace_for_the_wire(make, wire, ears, book, clock):
    """Cut off with the requests, it would leave a key claimed that nobody sends."""
    book.takes = {"claim": 8.0}
    async with cancelled(clock, 1):
        await make().send_all(letters("ab"))
    assert [HELD, HELD] == ears.statuses
    assert {"a": HELD} == await book.fates("a")
    assert clock.monotonic() == 1008


async def test_a_ledger_that_hangs_is_left_when_its_time_is_over(make, wire, ears, book, clock):
    """5 seconds after the wire's: each has its fate."""
    book.takes = {"claim": HOURS}
    limiter = Even(clock, 0.1)
    async with cancelled(clock, 1):
        await make(limiter=limiter).send_all(letters(str(i) for i in range(30)))
    assert [HELD] * 30 == ears.statuses
    assert clock.monotonic() == 1011
    assert (0, []) == (limiter.outstanding, wire.left)
    assert clock.sleepers == 0


async def test_what_comes_while_many_claims_are_under_way_is_asked_together(make, wire, book, clock, monkeypatch):
    """One sync of a disk, or one round to a server, pays for them."""
    monkeypatch.setattr(_books, "QUESTIONS", 2)
    book.takes = {"claim": 1.0}
    await make(limiter=Even(clock, 0.1)).send_all(letters(str(i) for i in range(40)))
    asked = book.asked_for("claim")
    assert sorted(chain(*asked)) == sorted(str(i) for i in range(40))
    assert max(map(len, asked)) > 3
    assert len(wire.left) == 40


async def test_a_claim_that_failed_for_some_frees_the_others(make, *, wire, ears, book, clock, monkeypatch):
    """Those to be sent again are asked for by themselves; the ledger fails between the two."""
    monkeypatch.setattr(_books, "QUESTIONS", 1)
    wire.does = {"a": [OutcomeUnknownError()], "b": [1.0]}
    book.takes = {"claim": 0.3}

    async def fail(keys):
        if "a" in keys and len([keys for keys in book.asked_for("claim") if "a" in keys]) == 2:
            raise LedgerError("The ledger is locked")

    book.does = {"claim": fail}
    limiter = Even(clock, 0.1)
    messages = one_by_one(letters("abcdef"), clock, 0.1)
    await make(limiter=limiter, retry=Steady(0.2)).send_all(messages)
    fates = {result.message.key: result.status for result in ears.fates.values()}
    known = await book.fates("abcdef")
    assert fates["a"] is UNKNOWN is known["a"]
    assert None not in known.values()
    assert [key for key in fates if fates[key] is SENT] == [key for key in fates if known.get(key) is SENT]


def raising(error):
    """Something that a ledger does."""

    async def raises(_):
        raise error

    return raises


def answering(answer):
    """The same."""

    async def answers(_):
        return answer

    return answers


FAILURES = {
    "locked": (raising(LedgerError("The ledger is locked by another process: wait until it is done")), "is locked by"),
    "bug": (raising(ZeroDivisionError("b@example.com")), "the ledger failed"),
}
NONSENSE = {
    "nothing": answering(()),
    "a number": answering(7),
    "no fates": answering({"a": 7, "b": 7, "c": 7}),
    "no such word": answering(dict.fromkeys("abc", "perhaps")),
    "half of it": answering({"a": Claim.GRANTED}),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("method", ["lookup", "claim", "record"])
async def test_a_ledger_that_fails_stops_the_batch(make, *, wire, ears, book, clock, method, kind):
    """In its own words; nothing leaves whose intent it did not keep, and what left has its true fate."""
    fails, says = FAILURES[kind]
    book.does = {method: fails}
    limiter = Even(clock)
    report = await make(limiter=limiter).send_all(letters("abc"))
    sent = [SENT] if method == "record" else []
    assert [*sent, *[HELD] * (3 - len(sent))] == ears.statuses
    assert len(wire.left) == len(sent)
    assert says in report.note
    assert "example.com" not in report.note
    for result in [result for result in ears.fates.values() if result.status is HELD]:
        assert says in str(result.error)
        assert result.error.code == "LedgerFailed"
        assert "run the same batch again" in str(result.error)
        assert isinstance(result.error, HeldError)
    assert limiter.outstanding == 0
    if kind == "bug":
        assert ears.fates[2].error.cause_type == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("method", "kind"),
    # Who is missing in a look-up is not known to the ledger, and that is an answer.
    [
        (method, kind)
        for method in ["lookup", "claim"]
        for kind in NONSENSE
        if (method, kind) != ("lookup", "half of it")
    ],
)
async def test_a_ledger_that_answers_nonsense_has_failed(make, *, wire, ears, book, method, kind):
    """It is not taken for an answer."""
    book.does = {method: NONSENSE[kind]}
    report = await make().send_all(letters("abc"))
    if method == "claim" and kind == "half of it":
        assert [SENT, HELD, HELD] == ears.statuses
    else:
        assert [HELD] * 3 == ears.statuses
        assert wire.left == []
    assert "ledger failed" in report.note


async def test_a_ledger_may_speak_plainly(make, wire, ears, book):
    """The words of its answers are text, and as good as ours."""
    book.does = {"claim": answering({"a": "granted", "b": "elsewhere"})}
    await make().send_all(letters("ab"))
    assert [SENT, ELSEWHERE] == ears.statuses


async def test_a_single_mail_says_why_the_ledger_failed(make, wire, book):
    """As an error of its own."""
    book.does = {"claim": FAILURES["locked"][0]}
    with pytest.raises(HeldError, match="is locked by another process"):
        await make().send(letter())
    assert wire.left == []


@pytest.mark.parametrize("method", ["lookup", "claim", "record"])
async def test_what_nobody_may_catch_comes_out_of_a_ledger_as_itself(make, *, ears, clock, book, wire, method):
    """And each message has its fate."""
    odd = OddError()
    book.does = {method: raising(odd)}
    sender = make()
    with pytest.raises(OddError) as raised:
        await sender.send_all(one_by_one(letters("abc"), clock, 1.0))
    assert raised.value is odd
    assert sender.last_report.total == len(ears.fates) >= 1
    assert (ears.fates[0].status is SENT) is (method == "record")
    assert clock.sleepers == 0


# --- fates -----------------------------------------------------------------------------------------------------------


async def test_fates_are_recorded_before_they_are_handed_out(make, wire, clock, book):
    """To observers and to the consumer, however long it takes."""
    book.takes = {"record": 3.0}
    wire.does = {"b": [ContentRejectedError()], "c": [OutcomeUnknownError()]}
    heard = []

    class Witness:
        def on_event(self, event):
            if event.result is not None:
                heard.append((event.result.message.key, book.kept[event.result.message.key][-1:]))

    async with make(observers=[Witness()]).stream(letters("abc")) as results:
        async for result in results:
            assert [result.status] == book.kept[result.message.key][-1:]
    assert sorted(heard) == [("a", [SENT]), ("b", [FAILED]), ("c", [UNKNOWN])]


async def test_what_the_ledger_said_is_not_told_to_it(make, wire, book, ears):
    """Only what this run has found out."""
    await has(book.ledger.another(), "a", SENT)
    await has(book.ledger.another(), "b", None)
    await has(book.ledger.another(), "c", UNKNOWN)
    await make().send_all([*letters("abcd"), letter("d")])
    assert [ALREADY, ELSEWHERE, UNKNOWN, SENT, ALREADY] == ears.statuses
    assert {"d": [SENT]} == book.kept


async def test_what_will_not_be_sent_is_recorded_too(make, wire, book, ears, clock):
    """With the code of its error; what is held is not, unless it was claimed."""

    class Choosy:
        async def check(self, message):
            return Drop("never") if message.key == "c" else Allow()

    store = MemorySuppressionStore(clock=clock)
    await store.add(Suppression("gone@example.com", "bounce"))
    wire.does = {"d": [ContentRejectedError(code="MessageRejected")], "e": [HOURS]}
    messages = [letter("a", to="no address"), letter("b", to="gone@example.com"), *letters("cdef")]
    await make(guards=[Choosy()], suppression=store, max_parallel=1).send_all(messages, give_up_after=10)
    assert [INVALID, SUPPRESSED, FAILED, FAILED, SENT, HELD] == ears.statuses
    known = await book.ledger.lookup("abcdef")
    assert [INVALID, SUPPRESSED, FAILED, FAILED, SENT] == [known[key].status for key in "abcde"]
    assert [ears.fates[number].error.code for number in range(4)] == [known[key].error_code for key in "abcd"]
    assert "id of e" == known["e"].message_id
    assert "f" not in known


async def test_what_others_claimed_meanwhile_is_not_freed_by_a_run_that_will_not_send_it(make, wire, book, clock):
    """Two runs of one process are one to the ledger: what the one finds suppressed, the other may be sending."""

    class Slow:
        async def lookup(self, addresses):
            await clock.sleep(2)
            return addresses

    wire.takes = HOURS
    reports = {}

    async def run(name, **options):
        reports[name] = await make(observers=[], **options).send_all(letters("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run("suppressed", suppression=Slow()))
        tasks.start_soon(lambda: run("sent"))
        await clock.sleep(5)
        assert {"a": None} == await book.fates("a")
        assert reports["suppressed"].counts[SUPPRESSED] == 1
    assert reports["sent"].counts[SENT] == 1
    assert {"a": SENT} == await book.fates("a")
    assert [SENT] == book.kept["a"]


async def test_nothing_is_in_doubt_while_a_message_waits_for_another_attempt(make, wire, book, ears, clock):
    """Its process may die then, and another sends it at once; if it did not die, it finds that out."""
    wire.does = {"a": [ServiceUnavailableError(code="ServiceUnavailable")]}

    async def meanwhile():
        await clock.sleep(5)
        other = book.ledger.another()
        found = (await other.lookup("a"))["a"]
        assert (HELD, "ServiceUnavailable") == (found.status, found.error_code)
        assert {"a": Claim.GRANTED} == await other.claim("a")
        await other.record([LedgerEntry("a", SENT, "second")])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(retry=Steady(10)).send_all(letters("a"))
    assert [ALREADY] == ears.statuses
    assert "second" == ears.fates[0].message_id
    assert wire.left == [("a", 0)]


@pytest.mark.parametrize(
    ("did", "fate", "left"), [(SENT, ALREADY, 1), (None, UNKNOWN, 1), (UNKNOWN, SENT, 2)], ids=["sent", "has", "lost"]
)
async def test_what_may_have_been_sent_is_recorded_so_before_it_is_sent_again(
    make, *, wire, book, ears, clock, did, fate, left
):
    """And others may take it meanwhile, who send again what is unknown, too."""
    wire.does = {"a": [OutcomeUnknownError()]}

    async def meanwhile():
        await clock.sleep(5)
        other = book.ledger.another()
        assert {"a": UNKNOWN} == await book.fates("a")
        await other.claim(["a"], resend_unknown=True)
        if did is not None:
            await other.record([LedgerEntry("a", did, "theirs")])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await make(retry=Steady(10)).send_all(letters("a"))
    assert [fate] == ears.statuses
    assert len(wire.left) == left
    if fate is SENT:
        assert {"a": SENT} == await book.fates("a")


async def test_an_attempt_waits_until_the_ledger_knows_that_the_last_one_failed(make, wire, book, ears, clock):
    """However soon it might be made."""
    wire.does = {"a": [ServiceUnavailableError()]}
    book.takes = {"record": 3.0}
    await make(retry=Steady(0)).send_all(letters("a"))
    assert [("a", 0), ("a", 3)] == wire.left
    assert [HELD, SENT] == book.kept["a"]
    assert [["a"], ["a"]] == book.asked_for("claim")


@pytest.mark.parametrize("end", ["stop", "deadline"])
async def test_what_ends_while_it_is_being_freed_is_freed_once(make, *, wire, book, ears, clock, end):
    """A second time it might be somebody else's."""
    wire.does = {"a": [ServiceUnavailableError()]}
    book.takes = {"record": 3.0}
    async with cancelled(clock, 1 if end == "stop" else HOURS):
        await make(retry=Steady(1.5)).send_all(letters("a"), give_up_after=2)
    assert [HELD] == ears.statuses
    assert [HELD] == book.kept["a"]
    assert clock.monotonic() == 1003


@pytest.mark.parametrize("fate", [SENT, HELD])
async def test_a_ledger_that_hangs_after_a_stop_is_not_waited_for(make, *, wire, book, ears, clock, fate):
    """5 seconds after those for the wire the fates are told all the same."""
    wire.does = {"a": [ServiceUnavailableError()]} if fate is HELD else {}
    book.takes = {"record": HOURS}
    async with cancelled(clock, 1):
        await make(retry=Steady(60)).send_all([letter("a"), letter("a")])
    assert [fate, ALREADY if fate is SENT else fate] == ears.statuses
    assert clock.monotonic() == 1011
    assert clock.sleepers == 0


async def test_the_consumer_hears_of_fates_that_could_not_be_recorded(make, wire, book, clock):
    """He need not leave: the iterable has failed, and he waits for the rest."""
    book.takes = {"record": HOURS}

    async def broken():
        yield letter("a")
        await clock.sleep(1)
        yield letter("no", to="no address")
        raise KeyError

    seen = []
    with pytest.raises(IntakeError):
        async with make().stream(broken()) as results:
            async for result in results:
                seen.append((result.message.key, result.status))  # noqa: PERF401  (the last step raises)
    assert seen == [("a", SENT), ("no", INVALID)]
    assert clock.monotonic() == 1011


async def test_what_ends_after_the_ledger_was_given_up_is_told_at_once(make, wire, book, ears, clock):
    """A claim that was cut at the same time, for example; nothing waits for ever."""
    book.takes = {"record": HOURS, "claim": 0.5}
    wire.takes = 0.2

    async def slow(keys):
        if keys != ["a"]:
            await clock.sleep(HOURS)

    book.does = {"claim": slow}
    async with cancelled(clock, 2):
        await make(max_parallel=3).send_all(letters("abcd"))
    assert [SENT, HELD, HELD, HELD] == ears.statuses
    assert clock.monotonic() == 1012


# --- endings ---------------------------------------------------------------------------------------------------------


async def test_a_batch_is_finished_by_another_process(make, wire, book, ears, clock):
    """The first dies with requests on the wire: those are unknown, what was sent is passed over, the rest goes."""
    wire.does = {"c": [HOURS]}
    dead = Book(clock, book.ledger.another())

    async def die(result):
        if result.message.key == "b":
            dead.ledger.crash()
            dead.does = dict.fromkeys(["lookup", "claim", "record"], raising(OSError()))
            raise BoomError

    with pytest.raises(BoomError):
        await make(ledger=dead, observers=[], limiter=Even(clock), max_parallel=2).send_all(
            letters("abc"), on_result=die
        )
    sent = list(wire.names)
    await make().send_all(letters("abcdef"))
    statuses = dict(zip("abcdef", ears.statuses, strict=True))
    assert {"a": ALREADY, "b": ALREADY} == {key: statuses[key] for key in "ab"}
    assert statuses["c"] is (UNKNOWN if "c" in sent else SENT)
    assert [SENT] * 3 == [statuses[key] for key in "def"]
    assert max(Counter(wire.names).values()) == 1


async def test_events_settle_what_was_unknown(make, wire, book, ears):
    """By the tag that the request has carried; the next run passes it over."""
    wire.does = {"a": [OutcomeUnknownError()]}
    await make().send_all(letters("ab"))
    assert [UNKNOWN, SENT] == ears.statuses
    carried = {name: [value] for name, value in wire.requests[0].tags.items()}
    assert 1 == await book.ledger.reconcile([{"eventType": "Send", "mail": {"messageId": "m-1", "tags": carried}}])
    ears.fates.clear()
    await make().send_all(letters("ab"))
    assert [(ALREADY, "m-1"), (ALREADY, "id of b")] == [(r.status, r.message_id) for r in ears.fates.values()]
    assert wire.names == ["a", "b"]


async def test_a_transport_awaiting_something_cancelled_leaves_a_recorded_fate(make, wire, book, ears):
    """It is none of the run's business, and unknown."""

    class Cancels(Wire):
        async def send(self, request):
            if request.message.key == "a":
                if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
                    raise OutcomeUnknownError
                raise asyncio.CancelledError
            return await super().send(request)

    await make(transport=Cancels(wire.clock)).send_all(letters("ab"))
    assert [UNKNOWN, SENT] == ears.statuses
    assert {"a": UNKNOWN, "b": SENT} == await book.fates("ab")


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)
@pytest.mark.parametrize("busy", ["lookup", "claim", "record", "wire"])
def test_a_loop_that_is_torn_down_leaves_no_message_without_a_fate(busy):
    """asyncio cancels every task by name when its main one ends, also while the ledger is busy."""
    clock = FakeClock(autojump=False)
    book = Book(clock, **{busy: HOURS})
    ears, wire = Ears(), Wire(clock, takes=HOURS if busy == "wire" else 0.0)
    sender = Sender(from_=NAME, transport=wire, clock=clock, ledger=book, observers=[ears], max_parallel=2)

    async def main():
        batch = asyncio.create_task(sender.send_all([*letters("abc"), letter("a")]))
        for _ in range(200):  # Turns of the loop, and not a time in which it may have had none.
            await asyncio.sleep(0)
        assert not batch.done()

    asyncio.run(main())
    assert {"lookup": [HELD], "claim": [HELD], "record": [SENT, HELD, ALREADY], "wire": [UNKNOWN, HELD]}[busy] == list(
        dict.fromkeys(sorted(ears.statuses, key=["sent", "unknown", "held", "already-sent"].index))
    )
    assert len(ears.statuses) == 4


def test_a_writer_that_is_killed_alone_stops_the_batch():
    """Nothing more would be recorded. Only asyncio can cancel a task by name."""
    clock = FakeClock()
    book, ears = Book(clock), Ears()

    async def die(keys):
        asyncio.current_task().cancel()
        await clock.sleep(1)

    async def main():
        return await sender.send_all(letters("abc"))

    book.does = {"record": die}
    limiter = Even(clock)
    sender = Sender(from_=NAME, transport=Wire(clock), ledger=book, limiter=limiter, observers=[ears], clock=clock)
    report = asyncio.run(main())
    assert [SENT, HELD, HELD] == ears.statuses
    assert "cancelled" in report.note


async def test_what_ends_after_the_ledger_was_given_up_is_told_at_once_too(make, wire, book, ears, clock):
    """A request on the wire while its writer ended."""

    async def fail(keys):
        if "c" in keys:
            raise OddError

    book.does = {"record": fail}
    wire.does = {"b": [3.0]}
    with pytest.raises(OddError):
        await make(max_parallel=2).send_all(letters("abc"))
    assert [SENT] * 3 == ears.statuses
    assert clock.monotonic() >= 1003
    assert {"a": SENT, "b": None, "c": None} == await book.fates("abc")


async def test_what_may_wait_longer_goes_without_those_that_may_not(make, *, ears, book, clock):
    """Of several that travel together some ran out of time during the claim."""
    template = Template(subject="Hi", text="Hello {{name}}")
    messages = [
        Message.from_template(template, to=f"p{key}@example.com", data={"name": key}, key=key) for key in "abcd"
    ]
    wire, limiter = RecordingTransport(), Even(clock)
    book.takes = {"claim": 2.0}
    await make(transport=wire, limiter=limiter).send_all(one_by_one(messages, clock, 0.1), give_up_after=2.3)
    assert [HELD, HELD, SENT, SENT] == ears.statuses
    assert [2] == [len(request.requests) for request in wire.bulk]
    assert {"a": HELD, "b": HELD, "c": SENT, "d": SENT} == await book.fates("abcd")
    assert limiter.outstanding == 0


async def test_a_stop_during_the_claim_gives_all_of_the_slot_back(make, *, wire, ears, book, clock):
    """What was charged for the difference in weight, too."""
    limiter = Even(clock)

    async def come():
        yield letter("a")
        yield letter("b")
        await clock.sleep(0.5)
        book.takes = {"claim": 2.0}
        yield letter("c", to=["c@example.com", "d@example.com"], priority=Priority.TRANSACTIONAL)
        await clock.sleep(HOURS)

    async with cancelled(clock, 1.5):
        await make(limiter=limiter).send_all(come())
    assert [SENT, HELD, HELD] == ears.statuses
    assert limiter.outstanding == 0


async def test_who_waits_to_ask_is_cut_with_those_who_ask(make, *, wire, ears, book, clock, monkeypatch):
    """The ledger hangs, and what nobody has asked for is not asked for any more."""
    monkeypatch.setattr(_books, "QUESTIONS", 1)
    quick = [0.0] * 3

    async def hang(keys):
        await clock.sleep(quick.pop() if quick else HOURS)

    book.does = {"claim": hang}
    async with cancelled(clock, 1):
        await make().send_all(letters("abcdefgh"))
    assert [SENT] * 3 == ears.statuses[:3]
    assert {HELD} == set(ears.statuses[3:])
    assert len(list(chain(*book.asked_for("claim")))) < 8
    assert clock.monotonic() == 1011


@pytest.mark.parametrize("hangs", [False, True])
async def test_who_must_not_wait_asks_for_those_who_may(make, *, wire, ears, book, clock, hangs):
    """Ahead of its slot a message waits to be asked for with others; one whose slot is due comes, and asks for both."""
    delays = [0.0, 0.0, 0.0, 0.09, 0.09]

    class Listed(Even):
        async def reserve(self, demand):
            slot = await super().reserve(demand)
            return attrs.evolve(slot, delay=delays.pop(0) if delays else 0.0)

    async def claims(keys):
        await clock.sleep(0.1 if keys[0] in "abc" else HOURS if hangs else 1.0)

    book.does = {"claim": claims}
    limiter = Listed(clock, 0.0)
    async with cancelled(clock, 5.0):
        await make(limiter=limiter).send_all(one_by_one(letters("abcdef"), clock, 0.3))
    assert [["a"], ["b"], ["c"], ["d"], ["e", "f"]] == book.asked_for("claim")
    assert [SENT] * 3 + [HELD if hangs else SENT] * 3 == ears.statuses
    assert limiter.outstanding == 0


async def test_a_ledger_of_ones_own_may_say_what_the_batch_stops_with(make, *, wire, ears, book):
    """An error of sending is taken as it is."""
    book.does = {"claim": raising(HeldError("not on Sundays", code="Sunday"))}
    await make().send_all(letters("ab"))
    assert ["Sunday", "Sunday"] == [result.error.code for result in ears.fates.values()]
    assert [HELD, HELD] == ears.statuses


async def test_what_is_to_be_sent_again_and_is_refused_stays_unknown(make, *, wire, ears, book):
    """A ledger that does not know resending."""
    await has(book.ledger.another(), "a", UNKNOWN)
    book.does = {"claim": answering({"a": Claim.UNKNOWN})}
    await make(retry=ExponentialBackoff(resend_unknown=True)).send_all(letters("a"))
    assert [UNKNOWN] == ears.statuses
    assert wire.left == []
