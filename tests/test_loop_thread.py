from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager

import anyio
import pytest

from tanksend import Message, SyncSender, _loop_thread, _sync, _sync_stream
from tanksend._loop_thread import Call, LoopThread, _room
from tanksend.testing import RecordingTransport

LONG = 60.0
OURS = {_loop_thread.__file__, _room.__file__, _sync.__file__, _sync_stream.__file__}


async def nothing() -> None:
    """Say goodbye to nobody."""


@pytest.fixture
def loop(monkeypatch):
    """A loop thread that has not started yet. Forks and exits wait for it, however slow the machine is."""
    monkeypatch.setattr(_loop_thread, "FORK_SECONDS", LONG)
    monkeypatch.setattr(_loop_thread, "EXIT_SECONDS", LONG)
    loop = LoopThread(nothing)
    yield loop
    loop.close()


async def echo(value: object) -> object:
    """Give it back."""
    await anyio.lowlevel.checkpoint()
    return value


async def forever(begun: threading.Event | None = None) -> None:
    """Never end by itself."""
    if begun is not None:
        begun.set()
    await anyio.sleep_forever()


def test_call_returns_and_raises_what_the_function_does(loop):
    """As if it had been called here."""
    assert 5 == loop.call(echo, 5)

    async def fail():
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        loop.call(fail)


def test_threads_that_start_it_at_once_start_one(loop):
    """The first call of each comes at the same moment."""
    barrier = threading.Barrier(12)
    seen = set()

    async def here():
        seen.add(threading.get_ident())

    def work():
        barrier.wait(LONG)
        loop.call(here)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert 1 == len(seen)


def test_threads_that_start_and_close_it_at_once_lose_no_call(loop):
    """A call comes before the end of the thread, or to the next thread."""
    done = []

    def work(number):
        for each in range(50):
            done.append(loop.call(echo, (number, each)))
            loop.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert 200 == len(set(done))


def test_uvloop_is_used_where_it_is_installed(loop, needs):
    """It halves the cost of a request."""
    needs("uvloop")
    import uvloop

    async def kind():
        return type(asyncio.get_running_loop())

    assert uvloop.Loop is loop.call(kind)


def test_without_uvloop_it_is_asyncios_own_loop(loop, monkeypatch):
    """Nothing has to be installed."""
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def kind():
        return isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)

    assert loop.call(kind)


def test_host_names_are_looked_up_by_threads_that_keep_nothing_from_ending(loop, monkeypatch):
    """The standard executor refuses once the main thread has ended, and exit waits for its threads."""
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def look_up():
        running = asyncio.get_running_loop()
        await running.getaddrinfo("127.0.0.1", 80)
        return await running.run_in_executor(None, threading.current_thread)

    thread = loop.call(look_up)
    assert ("tanksend-lookup", True) == (thread.name, thread.daemon)


def test_the_executor_works_where_no_thread_can_be_started(monkeypatch):
    """As in Python 3.12.1 while other threads than the main one are still at work."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start")))
    assert threading.current_thread() is _room._Executor().submit(threading.current_thread).result(LONG)


def test_the_executor_hands_on_errors_and_drops_what_is_cancelled():
    """As the standard one does."""
    executor = _room._Executor()
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0).result(LONG)
    blocked = threading.Event()
    assert executor.submit(blocked.wait, LONG).cancel() in {True, False}
    blocked.set()


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_stop_waits_until_the_call_has_ended(loop):
    """Whatever it does on the way out."""
    begun, cleaned = threading.Event(), []

    async def work():
        try:
            await forever(begun)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            cleaned.append(True)

    call = Call(work)
    loop.start(call)
    assert begun.wait(LONG)
    loop.stop(call)
    assert [True] == cleaned
    with pytest.raises(CancelledError):
        call.result()


def test_a_call_that_was_never_handed_over_can_be_stopped(loop):
    """Nothing is started for it."""
    call = Call(forever)
    loop.stop(call)
    assert (True, False) == (call.ended, loop.running)


def test_a_call_that_was_interrupted_on_its_way_never_begins(loop):
    """It is known to the thread and was not posted: cancelling it ends it."""
    begun = []

    async def work():
        begun.append(True)

    loop.call(echo, 1)
    call = Call(work)
    call.enter(loop._room)
    loop._room.calls.add(call)
    loop.stop(call)
    loop.call(echo, 1)
    assert ([], True, set()) == (begun, call.ended, loop._room.calls)


def test_a_call_cancelled_before_its_first_step_does_not_take_it(loop):
    """Posted and cancelled while the loop was busy."""
    begun, go_on = [], threading.Event()

    async def work():
        await anyio.lowlevel.checkpoint()
        begun.append(True)

    async def busy():
        go_on.wait(LONG)

    blocking = Call(busy)
    loop.start(blocking)
    call = Call(work)
    loop.start(call)
    call.cancel_soon()
    go_on.set()
    call.wait()
    blocking.wait()
    assert [] == begun


def test_a_second_interrupt_ends_the_wait_where_nothing_can_be_hurried(loop):
    """The call has been told to end, and does so by itself."""
    begun, held = threading.Event(), threading.Event()

    async def work():
        try:
            await forever(begun)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(held.wait, LONG)

    call = Call(work)
    loop.start(call)
    assert begun.wait(LONG)
    with pytest.raises(KeyboardInterrupt), interrupting_wait(call):
        loop.stop(call)
    assert not call.ended
    held.set()
    call.wait()


@contextmanager
def interrupting_wait(call):
    """The first wait for *call* is interrupted."""
    wait = call.wait

    def interrupted(*arguments):
        call.wait = wait
        raise KeyboardInterrupt

    call.wait = interrupted
    yield


class Interrupter:
    """Raises KeyboardInterrupt at the *nth* line of our own modules in this thread, once."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self.struck = ""

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in OURS:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # A lock is let go of without a chance for an interrupt, although tracing stops there.
        if event == "line" and line != "with self._lock:":
            self._left -= 1
            if self._left == 0:
                self.struck = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)


def interrupted_everywhere(use):
    """Call *use* with a fresh sender, interrupted at each of the lines it runs through; it then has to be whole."""
    for nth in range(1, 2_000):
        sender = SyncSender(from_="no-reply@yokee.co.id", transport=RecordingTransport())
        interrupter = Interrupter(nth)
        try:
            with interrupter:
                use(sender)
        except KeyboardInterrupt:
            pass
        yield sender, interrupter.struck
        assert sender.send(Message("a@example.com", "Hi", "Hello")).message_id, interrupter.struck
        sender.close()
        if not interrupter.struck:
            return
    pytest.fail("no end of lines")


def test_an_interrupt_at_any_line_of_a_call_leaves_nothing_running():
    """Between any two lines of ours, from before the thread starts until after the answer is there."""
    for sender, where in interrupted_everywhere(lambda sender: sender.send(Message("a@example.com", "Hi", "Hello"))):
        room = sender._loop._room
        assert room is None or not room.calls, where


def test_an_interrupt_at_any_line_of_a_batch_gives_each_message_a_fate():
    """What was pulled is in the report, once, and what SES has is what the report says."""
    pulled = 0

    def use(sender):
        nonlocal pulled
        pulled = 0
        sender.send_all(map(count, range(4)))

    def count(number):
        nonlocal pulled
        message = Message(f"p{number}@example.com", "Hi", "Hello")
        pulled += 1
        return message

    for sender, where in interrupted_everywhere(use):
        room = sender._loop._room
        assert room is None or not room.calls, where
        report = sender.last_report
        if report is None:
            assert 0 == pulled, where
        else:
            assert (pulled, len(sender.transport.sent)) == (report.total, report.counts["sent"]), where


def test_an_interrupt_at_any_line_of_an_early_end_stops_the_batch():
    """At the latest when nobody refers to the stream any more."""

    def use(sender):
        with sender.stream(Message("a@example.com", "Hi", "Hello") for _ in range(3)) as results:
            next(results)

    for sender, where in interrupted_everywhere(use):
        for call in tuple(sender._loop._room.calls) if sender._loop._room else ():
            gc.collect()
            call.wait(LONG)
            assert call.ended, where


# --- the end of the thread --------------------------------------------------------------------------------------------


def test_a_loop_that_dies_ends_its_calls_and_is_replaced(loop, caplog):
    """SystemExit from a part ends the loop; nobody may wait for it for ever."""
    begun = threading.Event()
    errors = []

    def wait():
        try:
            loop.call(forever, begun)
        except RuntimeError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(LONG)
    room = loop._room

    def die():
        raise SystemExit

    room.soon(die)
    waiting.join(LONG)
    room.thread.join(LONG)
    assert ["the event loop of this SyncSender was stopped in the middle of a call"] == errors
    assert ["the event loop of a SyncSender was ended by SystemExit"] == [record.message for record in caplog.records]
    room.soon(die)  # Goes nowhere.
    assert 1 == loop.call(echo, 1)
    assert room is not loop._room


def test_a_call_that_never_begins_ends_with_its_loop(loop):
    """Posted to a loop that dies first."""
    loop.call(echo, 1)
    room = loop._room
    ready = threading.Event()

    def die():
        ready.wait(LONG)
        raise SystemExit

    room.soon(die)
    call = Call(lambda: echo(1))
    loop.start(call)
    ready.set()
    call.wait()
    with pytest.raises(RuntimeError, match="stopped in the middle"):
        call.result()


def test_a_thread_that_cannot_start_is_forgotten(loop, monkeypatch):
    """The next call tries again."""

    def refuse(_thread):
        raise RuntimeError("can't start")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        loop.call(echo, 1)
    assert not loop.running
    monkeypatch.undo()
    assert 1 == loop.call(echo, 1)


def test_calls_of_its_own_loop_go_to_another_thread(loop):
    """And theirs to yet another: whoever waits is never waited for."""
    before = set(threading.enumerate())

    async def depth(levels):
        return 0 if levels == 0 else 1 + current[levels].call(depth, levels - 1)

    current = {3: loop, 2: loop, 1: loop}
    assert 3 == loop.call(depth, 3)
    loop.close()
    assert not loop.running
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "tanksend"]


def test_at_exit_calls_are_stopped_and_waited_for(loop):
    """Those of threads that keep nothing from ending."""
    begun, cleaned = threading.Event(), []

    async def work():
        try:
            await forever(begun)
        finally:
            cleaned.append(True)

    call = Call(work)
    loop.start(call)
    assert begun.wait(LONG)
    _loop_thread._at_exit()
    assert ([True], True) == (cleaned, call.ended)


def test_at_exit_nothing_is_waited_for_longer_than_the_grace(loop, monkeypatch):
    """A call that does not end must not keep the interpreter from ending."""
    monkeypatch.setattr(_loop_thread, "EXIT_SECONDS", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    async def blocks():
        begun.set()
        go_on.wait(LONG)

    call = Call(blocks)
    loop.start(call)
    assert begun.wait(LONG)
    _loop_thread._at_exit()
    assert not call.ended
    go_on.set()
    call.wait()


# --- fork -------------------------------------------------------------------------------------------------------------


def test_a_loop_rests_while_another_thread_forks(loop):
    """Between two callbacks, so that it holds no lock; and goes on afterwards."""
    ticks = 0
    stop = False

    async def tick():
        nonlocal ticks
        while not stop:
            ticks += 1
            await anyio.lowlevel.checkpoint()

    call = Call(tick)
    loop.start(call)
    loop.call(echo, 1)
    _loop_thread._before_fork()
    before = ticks
    time.sleep(0)
    assert before == ticks
    _loop_thread._after_fork_in_parent()
    loop.call(echo, 1)
    assert before < ticks
    stop = True
    call.wait()


def test_a_fork_does_not_wait_for_a_loop_that_waits_for_it(loop, monkeypatch):
    """It comes to rest too late, and finds that it is over."""
    monkeypatch.setattr(_loop_thread, "FORK_SECONDS", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    async def blocks():
        begun.set()
        go_on.wait(LONG)

    call = Call(blocks)
    loop.start(call)
    assert begun.wait(LONG)
    _loop_thread._before_fork()
    _loop_thread._after_fork_in_parent()
    go_on.set()
    call.wait()
    assert 1 == loop.call(echo, 1)


def test_a_loop_that_forks_does_not_wait_for_itself(loop):
    """An observer may."""

    async def fork():
        _loop_thread._before_fork()
        _loop_thread._after_fork_in_parent()
        return True

    assert loop.call(fork)


def test_a_forked_child_has_none_of_it(loop):
    """Calls of the parent end at once for whoever waits in the child; a new thread starts with the next call."""
    begun, told = threading.Event(), []
    call = Call(lambda: forever(begun), on_end=lambda: told.append(True))
    loop.start(call)
    assert begun.wait(LONG)
    room = loop._room
    _loop_thread._before_fork()
    pauses = tuple(_loop_thread._pauses)
    _loop_thread._after_fork_in_child()
    assert ([True], False) == (told, loop.running)
    with pytest.raises(RuntimeError, match="forked"):
        call.result()
    room.soon(lambda: told.append("woken"))
    assert 1 == loop.call(echo, 1)
    # This is no child: the old thread is really there, and has to go.
    for pause in pauses:
        pause.end()
    room._lost = False
    room.soon(call._scope.cancel)
    room.end()
    room.thread.join(LONG)
    _loop_thread._inherited.clear()
    assert [True] == told
