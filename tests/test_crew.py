from __future__ import annotations

import os
import threading
import warnings

import anyio
import pytest

from tanksend.exceptions import ConnectionFailedError
from tanksend.transports._crew import Crew

pytestmark = pytest.mark.anyio


class Gate:
    """Work that stays in its thread until it is let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()

    def __call__(self):
        self.begun.release()
        self.go_on.wait(60)
        return threading.current_thread()


async def busy(gate, number):
    """Until that many threads have begun."""
    for _ in range(number):
        await anyio.to_thread.run_sync(gate.begun.acquire)


async def test_the_work_is_done_in_a_thread_of_the_crew():
    """And its result comes back."""
    crew = Crew("test-crew", 3)
    assert ("test-crew", True) == await crew.run(
        lambda: (threading.current_thread().name, threading.current_thread().daemon)
    )


async def test_what_the_work_raises_is_raised():
    """Whatever it is."""
    crew = Crew("test-crew", 1)
    for error in (ValueError("no"), SystemExit(3)):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            await crew.run(fail)
        assert error is caught.value
    assert 1 == await crew.run(lambda: 1)


@pytest.fixture
def allowed(monkeypatch):
    """How many threads the system starts for the crew, as a list that grows shorter."""
    start, left = threading.Thread.start, []

    def limited(thread):
        if thread.name == "test-crew":
            if not left:
                raise RuntimeError("can't start new thread")
            left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return left


async def test_a_thread_that_cannot_be_started_is_an_error_and_no_more(allowed):
    """The work was not begun, and the next is done."""
    crew = Crew("test-crew", 1)
    for _ in range(2):
        with pytest.raises(ConnectionFailedError, match="no more threads"):
            await crew.run(lambda: pytest.fail("begun"))
    allowed.append(1)
    assert 1 == await crew.run(lambda: 1)


async def test_the_others_do_the_work_of_one_that_cannot_be_started(allowed):
    """When they have done theirs."""
    crew, gate, found = Crew("test-crew", 2), Gate(), []

    async def ask():
        found.append(await crew.run(gate))

    allowed.append(1)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await busy(gate, 1)
        gate.go_on.set()
    assert (3, 1) == (len(found), len(set(found)))


async def test_there_are_no_more_threads_than_allowed_and_none_of_anyios():
    """The others wait, and get theirs when one is free."""
    crew, gate, found = Crew("test-crew", 2), Gate(), []

    async def ask():
        found.append(await crew.run(gate))

    async with anyio.create_task_group() as tasks:
        for _ in range(7):
            tasks.start_soon(ask)
        await busy(gate, 2)
        assert 2 == len(crew._threads)
        assert 40 == anyio.to_thread.current_default_thread_limiter().available_tokens
        gate.go_on.set()
    assert 7 == len(found)
    assert 2 == len(set(found))


async def test_a_thread_is_used_again():
    """One job after the other needs one thread."""
    crew = Crew("test-crew", 5)
    assert 1 == len({await crew.run(threading.get_ident) for _ in range(20)})


async def test_what_is_done_together_is_told_together(monkeypatch):
    """A loop that has been called and has not looked yet is not called again."""
    called = []

    def call_soon(loop, callback):
        called.append((loop, callback))
        return True

    monkeypatch.setattr("tanksend.transports._crew.call_soon", call_soon)
    crew, results = Crew("test-crew", 1, idle=0.001), []

    async def ask(number):
        results.append(await crew.run(lambda: number))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(crew.join, 60)
        ((_, callback),) = called
        callback()
    assert list(range(10)) == sorted(results)


async def test_work_that_nobody_waits_for_any_more_is_not_begun():
    """Cancelled while it waited for a thread."""
    crew, gate, done = Crew("test-crew", 1), Gate(), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crew.run, gate)
        await busy(gate, 1)
        async with anyio.create_task_group() as others:
            others.start_soon(crew.run, lambda: done.append("cancelled"))
            await anyio.wait_all_tasks_blocked()
            others.cancel_scope.cancel()
        gate.go_on.set()
        await crew.run(lambda: done.append("next"))
    assert ["next"] == done


async def test_work_that_has_begun_is_done_and_nobody_hears_of_it():
    """The task leaves at once."""
    crew, gate = Crew("test-crew", 1), Gate()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crew.run, gate)
        await busy(gate, 1)
        tasks.cancel_scope.cancel()
    gate.go_on.set()
    assert 1 == await crew.run(lambda: 1)


async def test_idle_threads_end_and_others_are_started():
    """Nothing has to be closed."""
    crew = Crew("test-crew", 2, idle=0.001)
    first = await crew.run(threading.current_thread)
    await anyio.to_thread.run_sync(crew.join, 60)
    assert not first.is_alive()
    assert set() == crew._threads
    assert (await crew.run(threading.current_thread)) is not first


def test_what_comes_as_a_thread_ends_is_not_left_lying():
    """It looks once more, when nobody can put anything."""
    crew = Crew("test-crew", 1, idle=0.0)

    class Lock:
        """Before the thread has it, somebody has put a job."""

        def __enter__(self):
            crew._queued += 1
            crew._queue.put("job")

        def __exit__(self, *_):
            pass

    crew._lock, crew._idle = Lock(), 1
    assert "job" == crew._take()
    assert (0, 0) == (crew._queued, crew._idle)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_has_ended_is_forgotten(backend):
    """Its job is done, and nothing of it stays."""
    crew, gate = Crew("test-crew", 1, idle=0.001), Gate()

    async def leave():
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(crew.run, gate)
                await busy(gate, 1)
                scope.cancel()

    anyio.run(leave, backend=backend)
    gate.go_on.set()
    crew.join(60)
    assert {} == crew._done


def test_a_forked_child_has_threads_of_its_own():
    """What waited in the parent is the parent's."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    crew = Crew("test-crew", 1)
    assert 1 == anyio.run(crew.run, lambda: 1)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # From 3.12 on Python warns of forks beside threads, which is what this is for.
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        answer = b"bad"
        try:
            answer = str(anyio.run(crew.run, os.getpid)).encode()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.waitpid(child, 0)
    assert str(child).encode() == os.read(reading, 100)
    assert 2 == anyio.run(crew.run, lambda: 2)
    os.close(reading)
    os.close(writing)
