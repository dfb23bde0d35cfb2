from __future__ import annotations

import anyio
import anyio.lowlevel
import attrs
import pytest

from tanksend import AddressValidator, Message, Sender, Status
from tanksend._engine._intake import AHEAD
from tanksend._engine._sources import CHUNK
from tanksend.exceptions import GuardError, HeldError, InvalidMessageError, SuppressedError
from tanksend.limiters import TokenBucketLimiter
from tanksend.suppression import MemorySuppressionStore
from tanksend.testing import FakeClock, RecordingTransport
from tanksend.typing import Allow, Drop, Hold, Replace

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
SENT, HELD, FAILED, INVALID, SUPPRESSED = (
    Status.SENT,
    Status.HELD,
    Status.FAILED,
    Status.INVALID,
    Status.SUPPRESSED,
)


def letter(name="m", to="b@example.com", **options):
    """A message that is known by its subject."""
    return Message(to, name, "text", **options)


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


@pytest.fixture
def wire():
    """A transport that takes everything at once."""
    return RecordingTransport()


async def fates(sender, messages, **options):
    """The results of a batch, in the order of its messages."""
    results = []
    await sender.send_all(messages, on_result=results.append, **options)
    return sorted(results, key=lambda result: result.index)


def emails(addresses):
    """Who they are."""
    return [address.email for address in addresses]


# --- messages


async def test_a_bad_row_is_invalid_and_the_others_go(wire):
    """Every fault is named by its field, without the value."""
    bad = Message(["b@example.com", "no address", "x@"], "line\nbreak", "text", cc="also bad", reply_to="worse")
    results = await fates(Sender(from_=NAME, transport=wire), [letter(), bad, letter()])
    assert [SENT, INVALID, SENT] == [result.status for result in results]
    error = results[1].error
    assert isinstance(error, InvalidMessageError)
    assert ["subject", "to[1]", "to[2]", "cc[0]", "reply_to[0]"] == [problem.field for problem in error.problems]
    assert "no address" not in str(error)
    assert ((), 0, 0.0) == (results[1].recipients, results[1].attempts, results[1].waited)


@pytest.mark.parametrize("item", [None, 7, "b@example.com", {"to": "b@example.com"}])
async def test_what_is_no_message_is_an_invalid_row(wire, item):
    """It is reported in its place, and the batch goes on."""
    results = await fates(Sender(from_=NAME, transport=wire), [letter(), item, letter()])
    assert [SENT, INVALID, SENT] == [result.status for result in results]
    assert results[1].message is item
    assert f"message: is a {type(item).__name__}, not a Message" in str(results[1].error)


async def test_a_sender_without_a_from_address_takes_messages_with_one(wire):
    """Its own goes before the default; with neither, the row says so."""
    results = await fates(Sender(transport=wire), [letter(), letter(from_="c@example.com"), letter(from_="bad")])
    assert [INVALID, SENT, INVALID] == [result.status for result in results]
    assert ("from_", "from_") == (results[0].error.field, results[2].error.field)
    assert wire.requests[0].from_.email == "c@example.com"


async def test_a_person_named_twice_is_written_to_once(wire):
    """Where first named, whatever the case; SES would count, and bill, both."""
    message = letter(to=["b@example.com", "B@Example.com"], cc="b@example.com, c@example.com", bcc="C@example.com")
    [result] = await fates(Sender(from_=NAME, transport=wire), [message])
    assert ["b@example.com", "c@example.com"] == emails(result.recipients)
    assert (["b@example.com"], ["c@example.com"], []) == tuple(
        emails(group) for group in (wire.requests[0].to, wire.requests[0].cc, wire.requests[0].bcc)
    )


async def test_nobody_and_too_many_are_invalid(wire):
    """SES takes 50 recipients; a list of none is a fault of the data."""
    crowd = [f"b{i}@example.com" for i in range(51)]
    results = await fates(Sender(from_=NAME, transport=wire), [letter(to=[]), letter(to=crowd), letter(to=crowd[:50])])
    assert [INVALID, INVALID, SENT] == [result.status for result in results]
    assert "names no recipient" in str(results[0].error)
    assert "has 51 recipients" in str(results[1].error)


async def test_defaults_of_the_sender_fill_what_a_message_leaves_open(wire):
    """Configuration set and tags; the message's own tags win, and a key becomes a tag that shows nothing of it."""
    sender = Sender(from_=NAME, transport=wire, configuration_set="main", tags={"team": "tank", "kind": "mail"})
    await fates(sender, [letter(), letter(configuration_set="own", tags={"kind": "news"}), letter(key="b@example.com")])
    first, second, third = wire.requests
    assert ("main", {"team": "tank", "kind": "mail"}) == (first.configuration_set, first.tags)
    assert ("own", {"team": "tank", "kind": "news"}) == (second.configuration_set, second.tags)
    assert set(third.tags) == {"team", "kind", "tanksend-key"}
    assert "@" not in third.tags["tanksend-key"]


async def test_a_validator_that_raises_costs_its_row_only(wire):
    """A validator of the caller's own has a bug: the row says which kind, and the batch goes on."""

    class Buggy(AddressValidator):
        def validate(self, text):
            if getattr(text, "email", text).startswith("x"):
                raise KeyError("x@example.com")
            return super().validate(text)

    results = await fates(Sender(from_=NAME, transport=wire, validator=Buggy()), [letter(to="x@example.com"), letter()])
    assert [INVALID, SENT] == [result.status for result in results]
    assert "message: could not be checked: KeyError" in str(results[0].error)
    assert "x@" not in str(results[0].error)


async def test_the_mailbox_simulator_is_told_to_the_limiter():
    """Its addresses do not count against the day's quota, and everybody else's do."""
    seen = []

    class Curious(TokenBucketLimiter):
        async def reserve(self, demand):
            seen.append((demand.recipients, demand.at_least, demand.uncounted))
            return await super().reserve(demand)

        async def feedback(self, signal):
            seen.append((signal.recipients, signal.uncounted))

    store = MemorySuppressionStore(["gone@example.com"])
    own = "success@simulator.amazonses.com"
    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Curious(float("inf")), suppression=store)
    await sender.send(letter(to=["b@example.com", own], cc="c@example.com", bcc="bounce@simulator.amazonses.com"))
    await sender.send(letter(to=["gone@example.com", own]))
    assert [(4, 4, 2), (4, 2), (1, 1, 1), (1, 1)] == seen


# --- suppression


async def test_the_suppressed_are_left_out(wire):
    """All of them: nothing is sent. Some: the others get it, and the result names both."""
    sender = Sender(from_=NAME, transport=wire, suppression=MemorySuppressionStore(["GONE@example.com"]))
    results = await fates(
        sender,
        [letter(to="gone@example.com"), letter(to="b@example.com, gone@example.com", bcc="Gone@example.com"), letter()],
    )
    assert [SUPPRESSED, SENT, SENT] == [result.status for result in results]
    assert isinstance(results[0].error, SuppressedError)
    assert ([], ["gone@example.com"]) == (emails(results[0].recipients), emails(results[0].suppressed))
    assert (["b@example.com"], ["gone@example.com"]) == (emails(results[1].recipients), emails(results[1].suppressed))
    assert ["b@example.com", "b@example.com"] == wire.recipients
    with pytest.raises(SuppressedError):
        await sender.send(letter(to="gone@example.com"))


async def test_suppression_is_looked_up_for_many_at_once(wire):
    """A list of 100 costs two look-ups, and a batch of invalid rows none."""
    asked = []

    class Counting(MemorySuppressionStore):
        async def lookup(self, addresses):
            asked.append(len(addresses))
            return await super().lookup(addresses)

    sender = Sender(from_=NAME, transport=wire, suppression=Counting())
    await fates(sender, [letter(to=[]), *(letter() for _ in range(100))])
    assert sum(asked) == 100
    assert len(asked) == 2
    await fates(sender, [letter(to=[])])
    assert len(asked) == 2


@pytest.mark.parametrize("answer", [OSError("b@example.com"), None, 5])
async def test_nobody_is_written_to_when_the_store_fails(wire, answer):
    """A mail to somebody who complained cannot be taken back: all is held, and the batch stops."""

    class Broken:
        async def lookup(self, addresses):
            if isinstance(answer, Exception):
                raise answer
            return answer

    sender = Sender(from_=NAME, transport=wire, suppression=Broken(), guards=[Says(Drop("no"))])
    results = await fates(sender, [letter(str(i)) for i in range(200)])
    assert {HELD} == {result.status for result in results}
    assert len(results) == 200
    assert {"SuppressionStoreFailed"} == {result.error.code for result in results}
    assert "b@" not in str(results[0].error)
    assert wire.requests == []
    with pytest.raises(HeldError) as raised:
        await sender.send(letter())
    assert raised.value.cause_type == type(answer).__name__ if isinstance(answer, Exception) else "TypeError"


async def test_an_async_iterable_stops_when_the_store_fails(wire):
    """It is not gone through: it may have no end."""

    class Broken:
        async def lookup(self, addresses):
            raise OSError

    async def endless():
        while True:
            yield letter()

    report = await Sender(from_=NAME, transport=wire, suppression=Broken()).send_all(endless())
    assert (1, 1) == (report.total, report.counts[HELD])


# --- guards


class Says:
    """A guard with one answer, or one for each subject."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def check(self, message):
        self.asked.append(message)
        answer = self.answer.get(message.subject, Allow()) if isinstance(self.answer, dict) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_guards_allow_hold_and_drop(wire):
    """Hold is not now, drop is never; both say why."""
    guard = Says({"held": Hold("at night", resume_at=5.0), "dropped": Drop("not on the list")})
    results = await fates(
        Sender(from_=NAME, transport=wire, guards=[guard]), [letter("ok"), letter("held"), letter("dropped")]
    )
    assert [SENT, HELD, FAILED] == [result.status for result in results]
    held, dropped = results[1].error, results[2].error
    assert (HeldError, "GuardHold", "at night", 5.0) == (type(held), held.code, held.message, held.resume_at)
    assert (GuardError, "not on the list") == (type(dropped), dropped.message)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("answer", [None, True, KeyError("b@example.com")])
async def test_a_guard_that_does_not_answer_says_no(wire, answer):
    """What it would have said is not known, and a mail cannot be taken back."""
    results = await fates(Sender(from_=NAME, transport=wire, guards=[Says(answer)]), [letter("0"), letter("1")])
    assert [FAILED, FAILED] == [result.status for result in results]
    assert isinstance(results[0].error, GuardError)
    assert type(answer).__name__ in str(results[0].error)
    assert "b@" not in str(results[0].error)
    assert wire.requests == []


async def test_what_a_guard_replaces_is_checked_again(wire):
    """Validated, its suppressed taken out, and seen by the guards that follow."""
    store = MemorySuppressionStore(["gone@example.com"])
    swaps = {
        "to another": Replace(letter("other", to="c@example.com", priority=0)),
        "to nobody": Replace(letter("nobody", to=[])),
        "to the suppressed": Replace(letter("gone", to="gone@example.com")),
        "to some": Replace(letter("some", to="gone@example.com, d@example.com")),
        "to no message": Replace("c@example.com"),
        "away from the suppressed": Replace(letter("free", to="e@example.com")),
    }
    last = Says(Allow())
    sender = Sender(from_=NAME, transport=wire, suppression=store, guards=[Says(swaps), last])
    messages = [letter(name, to="b@example.com, gone@example.com") for name in swaps]
    results = await fates(sender, messages)
    assert [SENT, INVALID, SUPPRESSED, SENT, INVALID, SENT] == [result.status for result in results]
    assert sorted(wire.recipients) == ["c@example.com", "d@example.com", "e@example.com"]
    assert ["other", "some", "free"] == [message.subject for message in last.asked]
    assert results[0].message.subject == "other"
    assert ([], ["gone@example.com"], []) == tuple(emails(results[i].suppressed) for i in (0, 3, 5))


async def test_a_store_that_fails_for_a_replacement_stops_the_batch(wire):
    """The guards that follow are not asked any more, and nothing is sent."""

    class Failing(MemorySuppressionStore):
        async def lookup(self, addresses):
            if "c@example.com" in addresses:
                raise OSError
            return await super().lookup(addresses)

    last = Says(Allow())
    guards = [Says({"0": Replace(letter("new", to="c@example.com"))}), last]
    sender = Sender(from_=NAME, transport=wire, suppression=Failing(), guards=guards)
    results = await fates(sender, [letter("0"), letter("1")])
    assert [HELD, HELD] == [result.status for result in results]
    assert last.asked == []
    assert wire.requests == []


async def test_a_stop_while_a_guard_thinks_holds_what_it_had(clock, wire):
    """The message has neither a place in the lanes nor a fate yet; it gets one."""

    class Slow:
        async def check(self, message):
            await clock.sleep(3600)

    sender = Sender(from_=NAME, transport=wire, guards=[Slow()], clock=clock)
    async with sender.stream([letter(str(i)) for i in range(3)] + [letter(to=[])]) as results:
        await clock.sleep(1)
    assert (3, 1) == (results.report.counts[HELD], results.report.counts[INVALID])
    assert {"Stopped", "InvalidMessage"} == {row.error for row in results.report.rows}
    assert clock.monotonic() == 1001


async def test_what_a_failed_batch_pulled_last_is_held_for_the_same_reason(clock):
    """Its iterable is cut off while a guard thinks about the next ones."""

    class Slow:
        async def check(self, message):
            await clock.sleep(1)
            return Allow()

    async def some():
        for i in range(9):
            yield letter(str(i))

    class Refuses(TokenBucketLimiter):
        async def reserve(self, demand):
            raise ValueError

    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Refuses(1), guards=[Slow()], clock=clock)
    results = await fates(sender, some())
    assert [HELD, HELD] == [result.status for result in results]
    assert ["LimiterFailed", "LimiterFailed"] == [result.error.code for result in results]


# --- how far ahead


@pytest.mark.parametrize("kind", ["async", "list"])
async def test_no_more_than_so_many_are_taken_in_ahead_of_the_results(clock, wire, kind):
    """A consumer that does not take its results stops the intake, and one that takes them sets it going again."""
    taken = 0

    async def endless():
        nonlocal taken
        while True:
            taken += 1
            yield letter()

    sender = Sender(from_=NAME, transport=wire, clock=clock)
    messages = endless() if kind == "async" else [letter() for _ in range(5_000)]
    async with sender.stream(messages) as results:
        await clock.sleep(10)
        assert AHEAD - CHUNK < results.report.total <= AHEAD
        for _ in range(300):
            await anext(results)
        await clock.sleep(10)
        assert AHEAD < results.report.total <= AHEAD + 300
    if kind == "async":
        assert taken <= AHEAD + 301


async def test_results_that_are_being_used_count_as_not_taken_yet(clock, wire):
    """`send_all` gives its callback one by one what it got in a lot: what lies in the lot is not forgotten."""
    taken = seen = 0
    ahead = []

    async def some():
        nonlocal taken
        for _ in range(4_000):
            taken += 1
            yield letter()

    async def slow(result):
        nonlocal seen
        seen += 1
        if seen % 100 == 0:
            await clock.sleep(1)
            ahead.append(taken - seen)

    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all(some(), on_result=slow)
    assert report.counts[SENT] == 4_000
    assert max(ahead) <= AHEAD + 1


async def test_a_source_that_never_waits_lets_others_run(clock, wire):
    """Intake gives way now and then, though its iterable does not."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async def some():
        for _ in range(640):
            yield letter(to=[])

    sender = Sender(from_=NAME, transport=wire, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        report = await sender.send_all(some())
        tasks.cancel_scope.cancel()
    assert report.counts[INVALID] == 640
    assert turns >= 8


async def test_messages_are_not_changed(wire):
    """What comes back in a result is what was handed in."""
    message = letter()
    before = attrs.asdict(message)
    [result] = await fates(Sender(from_=NAME, transport=wire), [message])
    assert result.message is message
    assert before == attrs.asdict(message)
