from __future__ import annotations

import asyncio
import contextvars
import csv
import gc
import inspect
import threading
from collections import Counter
from functools import partial

import anyio
import pytest

from tanksend import Message, Sender, Status, SyncSender
from tanksend._sync_stream import SyncResultStream
from tanksend.exceptions import AccessDeniedError, IntakeError, InvalidMessageError, Scope, SendError
from tanksend.testing import RecordingTransport

FROM = "Tank <no-reply@yokee.co.id>"
AHEAD = 1_000
LONG = 60.0


def message(number: int = 0) -> Message:
    """One to somebody."""
    return Message(f"p{number}@example.com", "Hi", "Hello")


def messages(number: int):
    """As many, one at a time."""
    return (message(each) for each in range(number))


class Here:
    """Whether everything happens in the thread that made this."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.elsewhere = 0
        self.calls = 0

    def __call__(self, *_arguments: object) -> None:
        self.calls += 1
        self.elsewhere += threading.get_ident() != self._thread


class Gate(RecordingTransport):
    """Keeps every request on the wire until it is opened, from whichever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self._waiting: list[tuple[asyncio.AbstractEventLoop, anyio.Event]] = []
        self._is_open = False

    async def send(self, request):
        if not self._is_open:
            event = anyio.Event()
            self._waiting.append((asyncio.get_running_loop(), event))
            self.waiting.release()
            await event.wait()
        return await super().send(request)

    def open(self) -> None:
        self._is_open = True
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)


@pytest.fixture
def sender():
    """One that keeps what it is given."""
    with SyncSender(from_=FROM, transport=RecordingTransport()) as sender:
        yield sender


def settle(sender: SyncSender) -> None:
    """Return when nothing on the sender's loop has anything left to do."""
    sender._loop.call(anyio.wait_all_tasks_blocked)


# --- the same surface as Sender ---------------------------------------------------------------------------------------


def test_takes_the_same_arguments_as_sender():
    """Who knows the one knows the other."""
    assert inspect.signature(Sender) == inspect.signature(SyncSender)


@pytest.mark.parametrize(("name", "original"), [("send", "send"), ("send_all", "send_all"), ("stream", "stream")])
def test_methods_have_the_signatures_and_docstrings_of_sender(name, original):
    """They are not written twice, so they cannot differ; only what an async result is called does."""
    ours, theirs = getattr(SyncSender, name), getattr(Sender, original)
    assert inspect.signature(theirs).parameters == inspect.signature(ours).parameters
    returns = {"ResultStream": "SyncResultStream"}
    expected = inspect.signature(theirs).return_annotation
    assert returns.get(expected, expected) == inspect.signature(ours).return_annotation
    assert inspect.getdoc(theirs) == inspect.getdoc(ours)


def test_close_is_documented_as_aclose_is():
    """The text stands once."""
    assert inspect.getdoc(Sender.aclose) == inspect.getdoc(SyncSender.close)


def test_has_all_that_sender_has():
    """Nothing public is missing."""
    renamed = {"aclose": "close"}
    public = {renamed.get(name, name) for name in dir(Sender(from_=FROM)) if not name.startswith("_")}
    assert public == {name for name in dir(SyncSender(from_=FROM)) if not name.startswith("_")}


def test_parts_are_those_it_was_given(sender):
    """They are the ones of the sender underneath."""
    assert sender._sender.transport is sender.transport
    assert sender._sender.limiter is sender.limiter
    assert sender._sender.suppression is sender.suppression
    assert repr(sender).startswith("<SyncSender transport=RecordingTransport")


# --- sending ----------------------------------------------------------------------------------------------------------


def test_send_returns_the_result(sender):
    """One message, one answer, no await."""
    result = sender.send(message())
    assert (Status.SENT, 1) == (result.status, len(sender.transport.sent))


def test_send_raises_what_became_of_the_message(sender):
    """As the async one does, with the result."""
    with pytest.raises(InvalidMessageError) as caught:
        sender.send(Message("nobody", "Hi", "Hello"))
    assert Status.INVALID is caught.value.result.status


@pytest.mark.parametrize("kind", [list, tuple, iter, set])
def test_send_all_takes_any_iterable(sender, kind):
    """Walked in place or pulled, the report is the same."""
    report = sender.send_all(kind([message(number) for number in range(300)]))
    assert (300, True) == (report.counts[Status.SENT], report.ok)
    assert report is sender.last_report


def test_send_all_takes_an_async_iterable(sender):
    """It is pulled on the loop, where an async iterable can live."""

    async def generate():
        for number in range(300):
            yield message(number)

    assert 300 == sender.send_all(generate()).counts[Status.SENT]


def test_an_empty_batch_has_a_report(sender):
    """Nothing to do is no error."""
    assert [0, 0] == [sender.send_all([]).total, sender.send_all(iter(())).total]


@pytest.mark.parametrize("wrong", [None, 5, "text", message(), {"a": 1}])
def test_what_is_no_iterable_of_messages_is_refused_at_once(sender, wrong):
    """A programmer's error is a TypeError where it was made."""
    with pytest.raises(TypeError, match="iterable of Message"):
        sender.stream(wrong)
    with pytest.raises(TypeError, match="iterable of Message"):
        sender.send_all(wrong)


def test_stream_hands_out_each_result_once(sender):
    """In bounded memory, in the order they end, with the report beside it."""
    with sender.stream(messages(2_500)) as results:
        indexes = Counter(result.index for result in results)
        assert 2_500 == results.report.total
    assert dict.fromkeys(range(2_500), 1) == indexes


def test_the_report_of_a_stream_is_there_from_the_start(sender):
    """Before the first result, and it is the sender's last one."""
    with sender.stream(messages(1)) as results:
        assert results.report is sender.last_report
        assert [Status.SENT] == [result.status for result in results]


def test_a_stream_outside_a_block_says_how_it_is_used(sender):
    """It would never end otherwise."""
    results = sender.stream(messages(1))
    with pytest.raises(RuntimeError, match=r"with sender\.stream"):
        next(results)
    with pytest.raises(RuntimeError, match="before the block"):
        _ = results.report


def test_a_stream_is_used_once(sender):
    """A second time there is nothing left to iterate over."""
    with sender.stream(messages(1)) as results:
        assert 1 == len(list(results))
        assert [] == list(results)
    with pytest.raises(RuntimeError, match="once"):
        results.__enter__()


def test_what_keeps_a_batch_from_beginning_comes_out_of_the_block():
    """And nothing goes on behind it."""
    sender = SyncSender(from_=FROM, transport=RecordingTransport())
    sender._sender._make_run = partial(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), sender.stream(messages(1)):
        pytest.fail("the block was entered")
    assert not sender._loop._room.calls
    sender.close()


# --- in whose thread --------------------------------------------------------------------------------------------------


def test_iterable_and_callbacks_stay_in_the_callers_thread(sender):
    """Cursors and database sessions live there."""
    here = Here()

    def generate():
        here()
        try:
            for number in range(2_000):
                here()
                yield message(number)
        finally:
            here()

    report = sender.send_all(generate(), on_result=here, progress=here)
    assert 2_000 == report.counts[Status.SENT]
    assert (2_002 + 2_000 + 2_000, 0) == (here.calls, here.elsewhere)


def test_an_iterables_own_iter_is_called_in_the_callers_thread(sender):
    """A query set asks its database there."""
    here = Here()

    class Lazy:
        def __iter__(self):
            here()
            return iter([message()])

    assert 1 == sender.send_all(Lazy()).total
    assert (1, 0) == (here.calls, here.elsewhere)


def test_progress_counts_up_to_the_whole(sender):
    """Called with what has its fate and what there is."""
    seen = []
    sender.send_all([message(number) for number in range(5)], progress=lambda done, total: seen.append((done, total)))
    assert [(done, 5) for done in range(1, 6)] == seen


def test_an_async_on_result_is_awaited(sender):
    """It runs on the loop; the batch waits for it."""
    seen = []

    async def on_result(result):
        await anyio.lowlevel.checkpoint()
        seen.append(result.index)

    sender.send_all(messages(50), on_result=on_result)
    assert list(range(50)) == sorted(seen)


def test_the_callers_context_comes_along():
    """Traces tell which request of the caller's a mail belongs to."""
    variable = contextvars.ContextVar("trace", default="none")
    seen = []

    class Observer:
        def on_event(self, event):
            seen.append(variable.get())

    variable.set("caller")
    with SyncSender(from_=FROM, transport=RecordingTransport(), observers=[Observer()]) as sender:
        sender.send(message())
        sender.send_all(messages(1))
    assert ["caller", "caller"] == seen


def test_several_threads_share_one(sender):
    """Each gets the fates of its own messages."""
    reports = {}

    def work(number):
        reports[number] = [sender.send_all(messages(200)).total, sender.send(message()).status]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert {number: [200, Status.SENT] for number in range(6)} == reports
    assert 6 * 201 == len(sender.transport.sent)


def test_works_inside_a_running_asyncio_loop(sender):
    """As in a notebook's cell, which has one."""

    async def cell():
        with sender.stream(messages(100)) as results:
            assert 100 == sum(1 for _ in results)
        return sender.send_all(messages(100)).total, sender.send(message()).status

    assert (100, Status.SENT) == asyncio.run(cell())


def test_works_inside_a_running_trio_loop(sender):
    """The context says trio, and the loop underneath is asyncio all the same."""

    async def main():
        return sender.send_all(messages(100)).total, sender.send(message()).status

    assert (100, Status.SENT) == anyio.run(main, backend="trio")


# --- errors and stopping ----------------------------------------------------------------------------------------------


def test_what_on_result_raises_stops_the_batch(sender):
    """It comes out as it is, and the partial report is at hand."""
    pulled = 0

    def generate():
        nonlocal pulled
        while True:
            pulled += 1
            yield message(pulled)

    def on_result(result):
        if result.index == 100:
            raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        sender.send_all(generate(), on_result=on_result)
    report = sender.last_report
    assert pulled == report.total
    assert pulled == report.counts[Status.SENT] + report.counts[Status.HELD]
    assert len(sender.transport.sent) == report.counts[Status.SENT]


def test_the_file_has_all_rows_of_a_batch_that_was_stopped(sender, tmp_path):
    """Who sends the rest tomorrow must know what left today, also what was given its fate by the stop."""
    path = tmp_path / "rows.csv"

    def on_result(result):
        if result.index == 10:
            raise LookupError("stop")

    with pytest.raises(LookupError):
        sender.send_all(messages(500), on_result=on_result, save_to=path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    report = sender.last_report
    assert {str(index) for index in range(report.total)} == {row["index"] for row in rows}
    assert len(rows) == report.total
    assert report.counts[Status.SENT] == sum(row["status"] == "sent" for row in rows)


def test_an_error_of_the_file_stops_the_batch(sender, tmp_path, monkeypatch):
    """A full disk is not passed over."""
    monkeypatch.setattr("tanksend._report.RowFile.write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        sender.send_all(messages(5), save_to=tmp_path / "rows.csv")


def test_an_error_of_the_iterable_is_an_intake_error(sender):
    """With the report, and the iterable's own error as the cause; what it gave before has its fates."""
    own = LookupError("row 7 is bad")

    def generate():
        yield from messages(7)
        raise own

    seen = []
    with pytest.raises(IntakeError) as caught:
        sender.send_all(generate(), on_result=lambda result: seen.append(result.index))
    assert own is caught.value.__cause__
    assert 7 == caught.value.report.total
    assert caught.value.report is sender.last_report
    assert list(range(7)) == sorted(seen)


def test_an_error_of_iter_is_an_intake_error(sender):
    """The iterable raises it as well as its iterator does."""

    class Broken:
        def __iter__(self):
            raise LookupError("no connection")

    with pytest.raises(IntakeError) as caught, sender.stream(Broken()) as results:
        list(results)
    assert isinstance(caught.value.__cause__, LookupError)


def test_leaving_a_stream_early_stops_the_batch(sender):
    """The rest is held, and the iterable is closed where it lives."""
    here = Here()

    def generate():
        try:
            while True:
                yield message()
        finally:
            here()

    with sender.stream(generate()) as results:
        for _ in results:
            break
    assert (1, 0) == (here.calls, here.elsewhere)
    report = sender.last_report
    assert report.total == report.counts[Status.SENT] + report.counts[Status.HELD]
    assert not sender._loop._room.calls


def test_requests_on_the_wire_end_before_a_stop_does():
    """They are answered and counted as sent; only what waits is held."""
    gate = Gate()

    class Opens:
        """An observer that opens the gate as soon as the stop has held something."""

        def on_event(self, event):
            if event.result is not None and event.result.status is Status.HELD:
                gate.open()

    with SyncSender(from_=FROM, transport=gate, observers=[Opens()]) as sender:

        def generate():
            yield from messages(5)
            assert gate.waiting.acquire(timeout=LONG)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sender.send_all(generate())
        counts = sender.last_report.counts
        assert (1, 4) == (counts[Status.SENT], counts[Status.HELD])
        assert 1 == len(gate.sent)


def test_a_second_interrupt_ends_the_grace_of_what_is_on_the_wire(monkeypatch):
    """The request that hangs is unknown, and the report adds up all the same."""
    gate = Gate()
    with SyncSender(from_=FROM, transport=gate) as sender:
        with sender.stream(messages(3)) as results:
            results._handed.fetch()
            assert gate.waiting.acquire(timeout=LONG)
            call = results._batch.call
            wait, interrupts = call.wait, iter([KeyboardInterrupt()])

            def interrupted_once(*arguments):
                for interrupt in interrupts:
                    raise interrupt
                wait(*arguments)

            call.wait = interrupted_once
            with pytest.raises(KeyboardInterrupt):
                results.__exit__(None, None, None)
        assert {Status.UNKNOWN: 1} == {status: n for status, n in sender.last_report.counts.items() if n}


def test_an_interrupt_of_the_iterable_comes_out_as_it_is(sender):
    """It is not the iterable's own error."""

    def generate():
        yield from messages(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sender.send_all(generate())
    assert 3 == sender.last_report.total


def test_a_message_pulled_while_the_batch_fails_has_a_fate():
    """The account was refused while the iterable was thinking; what it then gave was handed in."""
    denied = AccessDeniedError("no", scope=Scope.ACCOUNT)
    told = threading.Event()

    class Observer:
        def on_event(self, event):
            told.set()

    with SyncSender(from_=FROM, transport=RecordingTransport(lambda _: denied), observers=[Observer()]) as sender:

        def generate():
            yield message(1)
            assert told.wait(LONG)
            settle(sender)
            yield message(2)
            pytest.fail("pulled although nothing more is sent")

        report = sender.send_all(generate())
    assert {Status.HELD: 2} == {status: number for status, number in report.counts.items() if number}


def test_a_batch_whose_account_fails_ends(sender):
    """An endless iterable too."""

    def endless():
        while True:
            yield message()

    refusing = RecordingTransport(lambda _: AccessDeniedError("no", scope=Scope.ACCOUNT))
    with SyncSender(from_=FROM, transport=refusing) as other:
        report = other.send_all(endless())
    assert (0, 1) == (report.counts[Status.SENT], len(refusing.requests))


# --- back-pressure ----------------------------------------------------------------------------------------------------


def test_an_iterable_is_pulled_at_most_a_thousand_ahead(sender):
    """However slow the consumer is."""
    pulled = ahead = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield message(pulled)

    with sender.stream(endless()) as results:
        for used, _ in enumerate(results):
            ahead = max(ahead, pulled - used)
            if used % 997 == 0:
                settle(sender)
                ahead = max(ahead, pulled - used)
            if used == 5_000:
                break
    assert ahead <= AHEAD


def test_an_async_iterable_is_pulled_at_most_a_thousand_ahead(sender):
    """Although it is pulled on the loop, which has nothing else to do."""
    pulled = ahead = 0

    async def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield message(pulled)

    with sender.stream(endless()) as results:
        for used, _ in enumerate(results):
            if used % 997 == 0:
                settle(sender)
            ahead = max(ahead, pulled - used)
            if used == 5_000:
                break
    assert ahead <= AHEAD


def test_a_slow_iterable_holds_up_nothing():
    """Each message leaves when it is there; nothing waits for a chunk to fill."""
    gate = Gate()
    gate.open()
    with SyncSender(from_=FROM, transport=gate) as sender:

        def generate():
            for number in range(5):
                yield message(number)
                settle(sender)
                assert number + 1 == len(gate.sent)

        assert 5 == sender.send_all(generate()).total


# --- nested use -------------------------------------------------------------------------------------------------------


def test_on_result_may_send(sender):
    """The batch waits meanwhile, and holds nothing that the other needs."""
    extra = sender.send_all(messages(300), on_result=lambda _: sender.send(message()), keep=0)
    assert (300, 600) == (extra.total, len(sender.transport.sent))


def test_a_loop_over_a_stream_may_send_and_run_batches(sender):
    """Also when only one request may be on the wire."""
    with SyncSender(from_=FROM, transport=RecordingTransport(), max_parallel=1) as narrow:
        with narrow.stream(messages(100)) as results:
            for number, _ in enumerate(results):
                narrow.send(message())
                if number % 10 == 0:
                    assert 5 == narrow.send_all(messages(5)).total
        assert 100 + 100 + 50 == len(narrow.transport.sent)


def test_the_iterable_may_send(sender):
    """It runs in the caller's thread like everything else."""

    def generate():
        for number in range(50):
            sender.send(message())
            yield message(number)

    assert 50 == sender.send_all(generate()).total


def test_an_observer_may_send(sender):
    """It runs on the loop, which then waits: another thread does it."""
    alarms = []

    class Alarm:
        def on_event(self, event):
            if not alarms:
                alarms.append(None)
                alarms.append(own.send(message(1)).status)

    with SyncSender(from_=FROM, transport=RecordingTransport(), observers=[Alarm()]) as own:
        own.send(message(0))
        assert [None, Status.SENT] == alarms
        assert 2 == len(own.transport.sent)
    assert not own._loop.running


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_closing_what_was_never_used_starts_nothing():
    """There is nothing to close."""
    before = set(threading.enumerate())
    sender = SyncSender(from_=FROM, transport=RecordingTransport())
    sender.close()
    assert set() == set(threading.enumerate()) - before
    assert (False, 0) == (sender._loop.running, sender.transport.closed)


def test_close_ends_the_thread_and_closes_the_transport():
    """No thread is left behind, which matters to who forks afterwards."""
    before = set(threading.enumerate())
    sender = SyncSender(from_=FROM, transport=RecordingTransport())
    sender.send(message())
    assert {sender._loop._room.thread} == set(threading.enumerate()) - before
    sender.close()
    sender.close()
    assert set() == set(threading.enumerate()) - before
    assert 1 == sender.transport.closed


def test_it_opens_again_when_it_is_used_again():
    """Close is not an end."""
    with SyncSender(from_=FROM, transport=RecordingTransport()) as sender:
        sender.send(message())
    sender.send(message())
    sender.close()
    assert (2, 2) == (len(sender.transport.sent), sender.transport.closed)


def test_close_leaves_the_thread_to_others_who_use_it():
    """Their batch goes on; the last one to close ends the thread."""
    gate = Gate()
    sender = SyncSender(from_=FROM, transport=gate)
    reports = []
    other = threading.Thread(target=lambda: reports.append(sender.send_all(messages(3))))
    other.start()
    assert gate.waiting.acquire(timeout=LONG)
    sender.close()
    assert sender._loop.running
    gate.open()
    other.join(LONG)
    assert [3] == [report.counts[Status.SENT] for report in reports]
    sender.close()
    assert not sender._loop.running


def test_one_that_nobody_refers_to_any_more_ends_its_thread():
    """A sender made for each request of a web server leaves no threads, although nobody closed it."""
    transport = RecordingTransport()
    sender = SyncSender(from_=FROM, transport=transport)
    sender.send(message())
    thread = sender._loop._room.thread
    del sender
    gc.collect()
    thread.join(LONG)
    assert (False, 1) == (thread.is_alive(), transport.closed)


def test_a_stream_keeps_the_thread_of_its_sender():
    """Also when it is all that is left of it."""
    gate = Gate()
    gate.open()
    with SyncSender(from_=FROM, transport=gate).stream(messages(1_500)) as results:
        gc.collect()
        assert 1_500 == sum(1 for _ in results)


def test_send_does_not_take_what_is_no_message(sender):
    """A programmer's error, as in the async one."""
    with pytest.raises(TypeError, match="takes a Message"):
        sender.send("text")


def test_send_all_never_raises_for_one_message(sender):
    """Bad rows have a fate of their own."""
    report = sender.send_all([message(), Message("nobody", "Hi", "Hello"), "text"])
    assert (1, 2) == (report.counts[Status.SENT], report.counts[Status.INVALID])


def test_a_failed_message_raises_a_send_error_of_its_own():
    """With its own result, also when the transport raises one object for all."""
    shared = InvalidMessageError("too bad")
    with SyncSender(from_=FROM, transport=RecordingTransport(lambda _: shared)) as sender:
        with pytest.raises(SendError) as caught:
            sender.send(message())
        assert caught.value.result.error is caught.value


def test_the_stream_is_what_stream_returns(sender):
    """Its class has a name for annotations."""
    assert isinstance(sender.stream([]), SyncResultStream)
