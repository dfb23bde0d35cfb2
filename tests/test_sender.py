from __future__ import annotations

import csv
import datetime as dt
import stat

import anyio
import anyio.lowlevel
import pytest

from tanksend import Message, Sender, Status
from tanksend.exceptions import (
    ContentRejectedError,
    HeldError,
    IntakeError,
    InvalidMessageError,
    SettingError,
    SuppressedError,
)
from tanksend.limiters import AccountLimiter, TokenBucketLimiter
from tanksend.suppression import MemorySuppressionStore
from tanksend.testing import FakeClock, RecordingTransport
from tanksend.transports import SESTransport

pytestmark = pytest.mark.anyio

NAME = "Tank <a@example.com>"


def letter(name="m", to="b@example.com"):
    """A message that is known by its subject."""
    return Message(to, name, "text")


@pytest.fixture
def wire():
    """A transport that takes everything at once."""
    return RecordingTransport()


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


def rows_of(path):
    """The lines of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- send


async def test_send_returns_when_ses_has_the_message(wire):
    """And says which message that was."""
    async with Sender(from_=NAME, transport=wire) as sender:
        message = letter()
        result = await sender.send(message)
    assert (Status.SENT, True, "recorded-1", 0) == (result.status, result.ok, result.message_id, result.index)
    assert result.message is message
    assert ("Tank", "a@example.com") == (wire.requests[0].from_.name, wire.requests[0].from_.email)
    assert wire.closed == 1


async def test_send_raises_for_every_other_fate(wire):
    """The error says why, and has the result."""
    store = MemorySuppressionStore(["gone@example.com"])
    sender = Sender(from_=NAME, transport=RecordingTransport([ContentRejectedError("a virus")]), suppression=store)
    for message, kind, status in (
        (letter(), ContentRejectedError, Status.FAILED),
        (letter(to="bad"), InvalidMessageError, Status.INVALID),
        (letter(to="gone@example.com"), SuppressedError, Status.SUPPRESSED),
    ):
        with pytest.raises(kind) as raised:
            await sender.send(message)
        assert raised.value.result.status is status
        assert raised.value.result.error is raised.value
        assert raised.value.result.message is message
    assert sender.last_report is None


async def test_send_takes_a_message_and_nothing_else(wire):
    """A mistake of the program, not of the data."""
    with pytest.raises(TypeError, match="send takes a Message, not str"):
        await Sender(from_=NAME, transport=wire).send("b@example.com")
    with pytest.raises(TypeError, match="give_up_after must be seconds or a timedelta, not str"):
        await Sender(from_=NAME, transport=wire).send(letter(), give_up_after="10")
    assert wire.sent == []


@pytest.mark.parametrize("duration", [30, 30.0, dt.timedelta(seconds=30)])
async def test_send_tries_for_as_long_as_it_is_told(clock, duration):
    """Seconds or a timedelta; without an argument, half a minute."""
    for options in ({}, {"give_up_after": duration}):
        begun = clock.monotonic()
        limiter = TokenBucketLimiter(0.001, clock=clock)
        sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=limiter, clock=clock)
        await sender.send(letter())
        with pytest.raises(HeldError):
            await sender.send(letter(), **options)
        assert clock.monotonic() - begun == 30
    result = await sender.send(letter(), give_up_after=None)
    assert result.waited == 970


async def test_a_sender_works_without_a_block_and_after_it_was_closed(wire):
    """It opens again; a notebook's cells cannot share a block."""
    sender = Sender(from_=NAME, transport=wire)
    await sender.send(letter())
    await sender.aclose()
    await sender.send(letter())
    assert (2, 1) == (len(wire.sent), wire.closed)
    assert sender._lanes == {}


def test_a_sender_serves_one_loop_after_the_other(wire):
    """It keeps nothing of a loop that has ended."""
    sender = Sender(from_=NAME, transport=wire)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(sender.send, letter(), backend=backend).ok
    assert sender._lanes == {}


# --- send_all


async def test_send_all_reports_what_became_of_each(wire, clock):
    """In counts, by domain, and in rows."""
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all([letter(), letter(to="bad"), letter(to="c@example.org")], keep=2, campaign="news")
    assert {Status.SENT: 2, Status.INVALID: 1} == {status: n for status, n in report.counts.items() if n}
    assert {"example.com", "example.org", "other"} == set(report.by_domain)
    assert (2, 1) == (len(report.rows), report.rows_cut)
    assert sender.last_report is report
    assert not report.ok


async def test_send_all_of_nothing_is_fine(wire):
    """Nothing to send is no failure."""
    report = await Sender(from_=NAME, transport=wire).send_all([])
    assert (0, True) == (report.total, report.ok)


async def test_results_and_progress_are_told_as_they_come(wire):
    """An async callback is awaited; the total of a list is known, that of a generator is not."""
    sender = Sender(from_=NAME, transport=wire)
    seen, progress = [], []

    async def on_result(result):
        await anyio.lowlevel.checkpoint()
        seen.append(result.index)

    def tell(done, total):
        progress.append((done, total))

    await sender.send_all([letter(), letter()], on_result=on_result, progress=tell)
    await sender.send_all((letter() for _ in range(1)), on_result=on_result, progress=tell)
    assert [0, 1, 0] == sorted(seen[:2]) + seen[2:]
    assert [(1, 2), (2, 2), (1, None)] == progress


async def test_the_latest_report_can_be_read_while_it_fills(clock):
    """From another task, in the middle of the batch."""
    wire = RecordingTransport(clock=clock, delay=1)
    sender = Sender(from_=NAME, transport=wire, max_parallel=1, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send_all, [letter(str(i)) for i in range(5)])
        await clock.sleep(2.5)
        assert sender.last_report.total == 2
    assert sender.last_report.total == 5


async def test_every_row_is_saved(wire, tmp_path):
    """In a file that only this user may read, also beyond the rows that are kept."""
    path = tmp_path / "out.csv"
    await Sender(from_=NAME, transport=wire).send_all([letter(), letter(to="bad")], save_to=path, keep=0)
    assert [("0", "sent", "recorded-1", ""), ("1", "invalid", "", "InvalidMessage")] == sorted(
        tuple(row.values()) for row in rows_of(path)
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_a_stop_settles_is_saved_as_well(clock, tmp_path):
    """Each row once: those that were handed out, those of the lot at hand, and those that nobody was there for."""
    path = tmp_path / "out.csv"
    wire = RecordingTransport(clock=clock)
    sender = Sender(from_=NAME, transport=wire, clock=clock, limiter=TokenBucketLimiter(10, clock=clock))

    async def on_result(result):
        await clock.sleep(0.35)
        if result.index == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sender.send_all([letter(str(i)) for i in range(50)], on_result=on_result, save_to=path)
    rows = rows_of(path)
    assert sorted(range(50)) == sorted(int(row["index"]) for row in rows)
    report = sender.last_report
    assert {"sent": report.counts[Status.SENT], "held": report.counts[Status.HELD]} == {
        name: sum(row["status"] == name for row in rows) for name in ("sent", "held")
    }
    assert report.counts[Status.HELD] > 30


async def test_a_file_that_cannot_be_written_stops_before_anything_is_sent(wire, tmp_path):
    """No batch without the rows that were asked for."""
    with pytest.raises(OSError, match="nowhere"):
        await Sender(from_=NAME, transport=wire).send_all([letter()], save_to=tmp_path / "nowhere" / "out.csv")
    assert wire.requests == []


async def test_what_is_no_iterable_is_refused_at_once(wire, tmp_path):
    """A mistake of the program; nothing is left behind."""
    sender = Sender(from_=NAME, transport=wire)
    with pytest.raises(TypeError, match="not Message"):
        await sender.send_all(letter(), save_to=tmp_path / "out.csv")
    with pytest.raises(TypeError, match="not NoneType"):
        async with sender.stream(None):
            pass
    assert sender._lanes == {}


async def test_an_error_of_the_iterable_has_the_report_that_send_all_would_have_returned(wire):
    """The rows saved are those of the report."""

    def broken():
        yield letter()
        raise KeyError

    sender = Sender(from_=NAME, transport=wire)
    with pytest.raises(IntakeError) as raised:
        await sender.send_all(broken())
    assert raised.value.report is sender.last_report
    assert raised.value.report.total == 1


# --- stream


async def test_stream_hands_out_results_as_they_end(wire):
    """With the report at any time."""
    sender = Sender(from_=NAME, transport=wire)
    async with sender.stream((letter(str(i)) for i in range(3)), campaign="news") as results:
        seen = [result.index async for result in results]
        assert [] == [result async for result in results]
    assert [0, 1, 2] == sorted(seen)
    assert results.report is sender.last_report
    assert results.report.ok


async def test_a_stream_is_used_in_its_block(wire):
    """Outside of it there is neither a result nor a report."""
    results = Sender(from_=NAME, transport=wire).stream([letter()])
    with pytest.raises(RuntimeError, match="use it in a block"):
        await anext(results)
    with pytest.raises(RuntimeError, match="no report before"):
        results.report  # noqa: B018
    assert wire.requests == []


# --- what it is made of


async def test_parts_are_at_hand(wire):
    """Those given, and the defaults where none was."""
    limiter, store = TokenBucketLimiter(1), MemorySuppressionStore()
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, suppression=store)
    assert (wire, limiter, store) == (sender.transport, sender.limiter, sender.suppression)
    assert "<Sender transport=RecordingTransport limiter=TokenBucketLimiter(rate=1, burst=1)>" == repr(sender)
    assert "example.com" not in repr(sender)
    sender = Sender(transport=wire)
    assert isinstance(sender.suppression, MemorySuppressionStore)


async def test_a_transport_that_delivers_nothing_is_not_paced(wire):
    """A test double or a folder says so; anything else goes at the account's pace."""

    class Real:
        async def send(self, request):
            raise AssertionError

        async def aclose(self):
            pass

    assert Sender(transport=wire).limiter.rate == float("inf")
    assert isinstance(Sender(transport=Real()).limiter, AccountLimiter)


def test_the_default_transport_is_ses_in_this_region():
    """Nothing is opened, and no credentials are looked for, before something is sent."""
    sender = Sender(region="eu-west-1", endpoint_url="http://127.0.0.1:9")
    assert type(sender.transport).__name__ == "SESTransport"
    assert isinstance(sender.limiter, AccountLimiter)


async def test_a_limiter_that_learns_is_told_whom_to_ask():
    """A transport that knows the account is handed to it; one that does not is not."""
    asked = []

    class Learner(TokenBucketLimiter):
        def learn_from(self, source):
            asked.append(source)

    class Knows(RecordingTransport):
        async def account(self):
            raise AssertionError

    knows = Knows()
    Sender(transport=knows, limiter=Learner(1))
    Sender(transport=RecordingTransport(), limiter=Learner(1))
    assert [knows] == asked


async def test_parts_that_are_falsy_are_parts(wire):
    """A store of somebody's own that is empty, and says so by its length, is not replaced by another."""

    class Own(dict):
        async def lookup(self, addresses):
            return dict.fromkeys(addresses)

    class Limiter(TokenBucketLimiter):
        def __len__(self):
            return 0

    store, limiter = Own(), Limiter(5)
    sender = Sender(from_=NAME, transport=wire, suppression=store, limiter=limiter)
    assert sender.suppression is store
    assert sender.limiter is limiter
    with pytest.raises(SuppressedError):
        await sender.send(letter())


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"region": "eu-west-1"}, SettingError, "give them to transport= instead"),
        ({"endpoint_url": "https://example.com"}, SettingError, "give them to transport= instead"),
        ({"max_parallel": 0}, SettingError, "max_parallel must be at least 1"),
        ({"configuration_set": "no spaces"}, SettingError, "configuration_set must be 1 to 64"),
        ({"configuration_set": ""}, SettingError, "configuration_set must be 1 to 64"),
        ({"from_": "a@example.com, b@example.com"}, InvalidMessageError, "from_ must be one address"),
        ({"from_": ""}, InvalidMessageError, "from_ must be one address"),
        ({"from_": "nobody"}, InvalidMessageError, 'from_: there is no "@"'),
        ({"tags": {"no spaces": "x"}}, InvalidMessageError, "tags"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_when_the_sender_is_made(wire, options, kind, text):
    """Not by the first message, days later."""
    with pytest.raises(kind, match=text) as raised:
        Sender(transport=wire, **options)
    assert "b@" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"transport": "ses"}, "transport= needs an object with send, aclose, such as SESTransport\\(\\), not a str"),
        ({"transport": SESTransport}, "transport= .* not the class SESTransport"),
        ({"limiter": 14}, "limiter= .* such as TokenBucketLimiter\\(14\\), not a int"),
        ({"retry": 3}, "retry= .* not a int"),
        ({"suppression": ["a@example.com"]}, "suppression= .* not a list"),
        ({"ledger": "news.db"}, 'ledger= .* such as SQLiteLedger\\("news.db"\\), not a str'),
        ({"guards": [print]}, "guards= .* not a builtin_function_or_method"),
        ({"observers": [print]}, "observers= needs an object with on_event"),
    ],
)
def test_what_is_no_such_part_is_refused_when_the_sender_is_made(options, text):
    """Found out later it would cost messages their fates: each of them unknown, for a wrong transport."""
    with pytest.raises(TypeError, match=text):
        Sender(from_=NAME, **options)
