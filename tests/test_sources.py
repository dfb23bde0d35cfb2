from __future__ import annotations

import asyncio
import threading
from collections import deque
from itertools import chain

import anyio
import pytest

from tanksend import Message, Sender, Status
from tanksend._engine import Feed, SequenceSource, source_of
from tanksend._engine._sources import BUFFER, CHUNK, AsyncSource, ThreadSource
from tanksend._loops import killed, soon_in_this_loop, this_loop
from tanksend.exceptions import IntakeError
from tanksend.testing import RecordingTransport

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
PATIENCE = 100.0
"""Seconds of real time after which a thread that was waited for is taken to be stuck."""


def letter(name="m"):
    """A message that is known by its subject."""
    return Message("b@example.com", name, "text")


async def eventually(fact):
    """Wait until *fact* holds; another thread makes it so."""
    with anyio.fail_after(PATIENCE):
        while not fact():
            await anyio.sleep(0.001)


class Items:
    """An iterator that says on which thread it was pulled and closed."""

    def __init__(self, number, *, error=None, close_error=None):
        self.left = number
        self.error = error
        self.close_error = close_error
        self.pulled = 0
        self.threads = set()
        self.closed = threading.Event()
        self.daemon = False

    def __iter__(self):
        self.threads.add(threading.current_thread())
        return self

    def __next__(self):
        self.threads.add(threading.current_thread())
        self.daemon = threading.current_thread().daemon
        if not self.left:
            if self.error is not None:
                raise self.error
            raise StopIteration
        self.left -= 1
        self.pulled += 1
        return self.pulled

    def close(self):
        self.threads.add(threading.current_thread())
        self.closed.set()
        if self.close_error is not None:
            raise self.close_error


async def drain(source, limit=1_000):
    """Everything that comes, and in which lots."""
    lots = []
    while (lot := await source.pull(limit)) is not None:
        lots.append(list(lot))
    return lots


# --- which


@pytest.mark.parametrize("messages", [[1, 2], (1, 2), []])
def test_lists_and_tuples_are_walked_in_place(messages):
    """No thread, no copy."""
    assert isinstance(source_of(messages), SequenceSource)


def test_other_iterables_are_drained_by_a_thread_and_async_ones_in_the_loop():
    """Whatever can be iterated over."""

    async def some():
        yield 1

    assert isinstance(source_of(iter([1])), ThreadSource)
    assert isinstance(source_of(deque([1])), ThreadSource)
    assert isinstance(source_of({1, 2}), ThreadSource)
    assert isinstance(source_of(some()), AsyncSource)
    feed = Feed()
    assert source_of(feed) is feed


@pytest.mark.parametrize("messages", [None, 5, "b@example.com", b"x", {"a": 1}, letter()])
def test_what_is_no_iterable_of_messages_is_refused(messages):
    """A string or a message is a mistake, though Python could go through some of them."""
    with pytest.raises(TypeError) as raised:
        source_of(messages)
    assert f"messages must be an iterable of Message, not {type(messages).__name__}" == str(raised.value)


# --- lists


async def test_a_list_comes_in_lots():
    """As large as wanted, and no larger than is good for the others."""
    source = SequenceSource(list(range(150)))
    assert source.finite
    assert [0, 1, 2] == list(await source.pull(3))
    lots = await drain(source)
    assert [CHUNK, CHUNK, 150 - 3 - 2 * CHUNK] == [len(lot) for lot in lots]
    assert list(range(3, 150)) == [*chain(*lots)]
    assert () == tuple(source.rest())
    await source.aclose()


# --- async iterables


async def test_an_async_iterable_comes_one_by_one():
    """Nothing waits for a lot to fill; and it is closed."""
    closed = []

    async def some():
        try:
            for i in range(200):
                yield i
        finally:
            closed.append(True)

    source = source_of(some())
    assert not source.finite
    assert (0,) == await source.pull(100)
    await source.aclose()
    assert closed == [True]
    assert [[i] for i in range(200)] == await drain(source_of(some()))


async def test_an_async_iterable_need_not_be_a_generator():
    """One without `aclose`, and one that was never begun, have nothing to be closed."""

    class Plain:
        def __init__(self):
            self.left = 2

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    source = source_of(Plain())
    assert [[1], [0]] == await drain(source)
    assert () == tuple(source.rest())
    await source.aclose()
    await source_of(Plain()).aclose()


async def test_an_async_iterable_that_cannot_begin_is_an_error_of_the_iterable():
    """With the report, as for any other error of it."""

    class Broken:
        def __aiter__(self):
            raise KeyError

    sender = Sender(from_=NAME, transport=RecordingTransport())
    with pytest.raises(IntakeError) as raised:
        await sender.send_all(Broken())
    assert isinstance(raised.value.__cause__, KeyError)
    assert raised.value.report.total == 0


# --- threads


async def test_any_other_iterable_is_pulled_and_closed_on_one_thread():
    """Cursors and sessions may live there; the thread does not keep the interpreter from ending."""
    items = Items(1_000)
    source = source_of(items)
    lots = await drain(source)
    assert list(range(1, 1_001)) == [*chain(*lots)]
    assert max(len(lot) for lot in lots) <= CHUNK
    await eventually(items.closed.is_set)
    assert len(items.threads) == 1
    assert threading.current_thread() not in items.threads
    assert items.daemon
    assert not source.finite


async def test_a_thread_pulls_only_so_far_ahead():
    """Then it waits until there is room again."""
    items = Items(10_000)
    source = source_of(items)
    first = await source.pull(1)
    await eventually(source.full)
    assert items.pulled == len(first) + BUFFER
    await source.pull(10)
    await eventually(source.full)
    assert items.pulled == len(first) + BUFFER + 10
    await source.aclose()


async def test_what_was_pulled_when_a_thread_is_stopped_is_handed_over():
    """Nothing lies in a hand: what came out of the iterable is there, and the iterable is closed on its thread."""
    items = Items(10_000)
    source = source_of(items)
    await source.pull(1)
    await eventually(source.full)
    rest = source.rest()
    assert items.pulled == 1 + len(rest)
    await source.aclose()
    await eventually(items.closed.is_set)
    assert items.pulled == 1 + len(rest)
    assert len(items.threads) == 1
    assert list(source.rest()) == []


async def test_what_an_iterable_raises_comes_out_of_the_pull():
    """After all that came before it."""
    source = source_of(Items(3, error=KeyError("x")))
    seen = []
    with pytest.raises(KeyError):  # noqa: PT012  (after all that came before)
        while True:
            seen += await source.pull(100)
    assert [1, 2, 3] == seen


async def test_what_closing_raises_comes_out_of_the_pull():
    """It is an error of the iterable like any other."""
    with pytest.raises(OSError, match="close"):
        await drain(source_of(Items(3, close_error=OSError("close"))))


async def test_an_iterable_without_close_is_fine():
    """Most have none."""
    assert [["a"]] == await drain(source_of(deque(["a"])))


async def test_a_blocked_iterable_delays_neither_cancellation_nor_exit():
    """It hangs in `next`, for as long as it likes; what it gives then is not taken in, and it is closed."""
    goes_on = threading.Event()
    entered = threading.Event()
    closed = threading.Event()

    def blocks():
        try:
            yield letter("0")
            entered.set()
            assert goes_on.wait(PATIENCE)
            yield letter("1")
        finally:
            closed.set()

    sender = Sender(from_=NAME, transport=RecordingTransport())
    async with sender.stream(blocks()) as results:
        await anext(results)
        await eventually(entered.is_set)
    assert results.report.total == 1
    assert not closed.is_set()
    with anyio.move_on_after(0.01) as scope:
        await sender.send_all(iter(Stuck(goes_on)))
    assert scope.cancelled_caught
    goes_on.set()
    await eventually(closed.is_set)
    assert results.report.total == 1


class Stuck:
    """Never gives anything before it is let."""

    def __init__(self, goes_on):
        self.goes_on = goes_on

    def __iter__(self):
        return self

    def __next__(self):
        assert self.goes_on.wait(PATIENCE)
        raise StopIteration


async def test_a_generator_is_sent_whole():
    """Slow or fast, and its errors come with the report."""

    def some(error=None):
        for i in range(500):
            yield letter(str(i))
        if error is not None:
            raise error

    wire = RecordingTransport()
    sender = Sender(from_=NAME, transport=wire)
    report = await sender.send_all(some())
    assert report.counts[Status.SENT] == 500
    boom = KeyError()
    with pytest.raises(IntakeError) as raised:
        await sender.send_all(some(boom))
    assert raised.value.__cause__ is boom
    assert raised.value.report.total == 500


async def test_an_interrupt_inside_an_iterable_comes_out_as_itself():
    """On its own thread, too: nobody may catch it."""

    class OddError(BaseException):
        pass

    sender = Sender(from_=NAME, transport=RecordingTransport())
    odd = OddError()
    with pytest.raises(OddError) as raised:
        await sender.send_all(Items(0, error=odd))
    assert raised.value is odd


# --- feeds


async def test_a_feed_takes_what_is_put_until_it_is_closed():
    """It says when there is room again, and when nobody wants more."""
    rooms = []
    feed = Feed(on_room=lambda: rooms.append(True))
    assert feed.wait_for_room()
    for i in range(BUFFER):
        assert not feed.full()
        assert feed.put(i)
    assert feed.full()
    assert list(range(10)) == list(await feed.pull(10))
    assert rooms == [True]
    assert not feed.full()
    feed.end()
    assert BUFFER - 10 == len([*chain(*await drain(feed))])
    await feed.aclose()
    assert not feed.put("late")
    assert not feed.wait_for_room()


# --- loops


async def test_a_loop_is_known_by_itself():
    """The same within one loop, whichever task asks."""
    seen = []

    async def ask():
        seen.append(this_loop())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
    assert seen == [this_loop(), this_loop()]


def test_a_loop_that_has_ended_is_not_woken(anyio_backend_name):
    """Whoever waited there is gone as well."""
    calls = []

    async def main():
        soon = soon_in_this_loop(lambda: calls.append(True))
        soon()
        await anyio.sleep(0.001)
        return soon

    soon = anyio.run(main, backend=anyio_backend_name)
    assert calls == [True]
    soon()
    assert calls == [True]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend_name(request):
    """For tests that run an event loop themselves."""
    return request.param


def test_a_task_knows_whether_it_was_cancelled_by_name():
    """That is past all scopes, and only asyncio has it."""

    async def main():
        told = [killed()]
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(1)
            finally:
                told.append(killed())
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            told.append(killed())
        return told

    assert [False, True, True] == asyncio.run(main())

    async def on_trio():
        return killed()

    assert anyio.run(on_trio, backend="trio") is False
