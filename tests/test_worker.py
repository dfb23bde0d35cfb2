from __future__ import annotations

import threading

import anyio
import pytest

from tanksend._worker import Worker
from tanksend.exceptions import LedgerError

pytestmark = pytest.mark.anyio


def serve(jobs):
    """Give each job the number of those in its group."""
    for job in jobs:
        job.do(len(jobs))


@pytest.fixture
def worker():
    """A worker that has not started yet."""
    worker = Worker("test-worker", serve)
    yield worker
    worker.stop()
    worker.join()


async def test_it_returns_what_the_work_returns(worker):
    """And runs it in a thread of its own."""
    assert "test-worker" == await worker.ask(lambda _: threading.current_thread().name)


async def test_what_is_asked_for_meanwhile_makes_one_group(worker):
    """While the thread is busy, requests gather."""
    busy, go_on, sizes = threading.Event(), threading.Event(), []

    def first(_):
        busy.set()
        go_on.wait(60)

    async def ask():
        sizes.append(await worker.ask(lambda size: size))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.ask, first)
        while not busy.is_set():
            await anyio.sleep(0)
        for _ in range(20):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert [20] * 20 == sizes


async def test_works_in_turn_are_done_in_their_order(worker):
    """One wait for all of them; the error of one comes out, and the others are done."""
    done = []

    def fail(_):
        raise LookupError

    assert [1, 2] == await worker.ask_in_turn(lambda _: done.append("a") or 1, lambda _: done.append("b") or 2)
    with pytest.raises(LookupError):
        await worker.ask_in_turn(fail, lambda _: done.append("c"))
    assert ["a", "b"] == done[:2]


async def test_who_is_cancelled_has_asked_all_the_same(worker):
    """The work is done, the next one is served, and nobody hears of the first."""
    busy, go_on, done = threading.Event(), threading.Event(), []

    def first(_):
        busy.set()
        go_on.wait(60)
        done.append("first")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.ask, first)
        while not busy.is_set():
            await anyio.sleep(0)
        tasks.cancel_scope.cancel()
    go_on.set()
    await worker.ask(lambda _: done.append("second"))
    assert ["first", "second"] == done


async def test_an_error_of_the_group_is_everybodys(worker):
    """Each raises a copy of its own, so that tracebacks do not mix."""
    error = LedgerError("is full", code="full")

    def fail(jobs):
        raise error

    worker._serve = fail
    raised = []

    async def ask():
        with pytest.raises(LedgerError, match="is full") as caught:
            await worker.ask(lambda _: None)
        raised.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert ["full"] * 3 == [found.code for found in raised]
    assert 3 == len({id(found) for found in raised})


async def test_a_mistake_comes_through_as_it_is(worker):
    """It is not one of ours."""
    mistake = LookupError("a mistake")

    def fail(jobs):
        raise mistake

    worker._serve = fail
    with pytest.raises(LookupError) as caught:
        await worker.ask(lambda _: None)
    assert caught.value is mistake


async def test_it_starts_again_after_it_was_stopped(worker):
    """The thread ends, and with the next request there is another."""
    ended = []
    worker._rest = lambda: ended.append(True)
    first = await worker.ask(lambda _: threading.current_thread())
    worker.stop()
    worker.join()
    assert (False, [True]) == (first.is_alive(), ended)
    assert first is not await worker.ask(lambda _: threading.current_thread())


async def test_what_was_asked_before_the_end_is_done(worker):
    """Stopping forgets nothing, and what comes after it is done too."""
    busy, go_on, done = threading.Event(), threading.Event(), []

    def first(_):
        busy.set()
        go_on.wait(60)

    worker.tell(first)
    while not busy.is_set():
        await anyio.sleep(0)
    worker.tell(lambda _: done.append(1))
    worker.stop()
    worker.tell(lambda _: done.append(2))
    go_on.set()
    await worker.ask(lambda _: done.append(3))
    assert [1, 2, 3] == done


async def test_stopping_before_it_began_does_nothing(worker):
    """A ledger that was never used closes, too."""
    worker.stop()
    worker.join()
    assert 1 == await worker.ask(lambda size: size)


def test_it_serves_several_loops_at_once(worker):
    """Each waits in its own."""
    found = []

    async def ask():
        for _ in range(20):
            found.append(await worker.ask(lambda _: 1))  # noqa: PERF401  (each answer is awaited)

    threads = [threading.Thread(target=anyio.run, args=(ask,), kwargs={"backend": b}) for b in ("asyncio", "trio") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 120 == sum(found)


def test_a_loop_that_has_ended_is_no_trouble(worker):
    """Its last request is answered to nobody."""
    busy, go_on = threading.Event(), threading.Event()

    def first(_):
        busy.set()
        go_on.wait(60)

    async def leave():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.ask, first)
            while not busy.is_set():
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()

    async def ask():
        return await worker.ask(lambda _: "still here")

    for backend in ("asyncio", "trio"):
        busy.clear()
        go_on.clear()
        anyio.run(leave, backend=backend)
        go_on.set()
        assert "still here" == anyio.run(ask, backend=backend)


async def test_a_thread_that_cannot_start_leaves_nobody_waiting(worker, monkeypatch):
    """The system may have no more of them for a while; whoever asks later is answered."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await worker.ask(str)
    assert "1" == await worker.ask(str)


async def test_a_rest_that_fails_leaves_nobody_waiting():
    """The thread has to end in order, or nobody would start the next one."""

    def fail():
        raise OSError("no")

    worker = Worker("test-worker", serve, rest=fail)
    for _ in range(2):
        assert 1 == await worker.ask(lambda size: size)
        worker.stop()
        worker.join()


async def test_what_is_done_in_a_moment_wakes_no_loop(worker, monkeypatch):
    """The loop has waited for it; an error comes through as ever."""
    monkeypatch.setattr("tanksend._worker.call_soon", lambda *_: pytest.fail("nobody waits for that"))
    assert 1 == await worker.ask(lambda size: size, 60)
    with pytest.raises(ZeroDivisionError):
        await worker.ask(lambda size: size // 0, 60)


async def test_what_takes_longer_than_a_moment_holds_nobody_up(worker):
    """The loop goes on, and hears of it."""
    go_on, answers = threading.Event(), []

    async def ask():
        answers.append(await worker.ask(lambda _: go_on.wait(60), 0.001))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert [] == answers
        go_on.set()
    assert [True] == answers
