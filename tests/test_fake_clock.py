from __future__ import annotations

import gc

import anyio
import anyio.lowlevel
import pytest

from tanksend._clock import SystemClock
from tanksend.testing import FakeClock, check_clock
from tanksend.typing import Clock

pytestmark = pytest.mark.anyio


async def test_it_keeps_the_contract_of_a_clock():
    """The conformance check passes on it, and on the system's clock."""
    await check_clock(FakeClock())
    await check_clock(SystemClock())
    assert isinstance(FakeClock(), Clock)


async def test_hours_pass_at_once_and_in_order():
    """Timers fire in the order of their moments, each at its moment."""
    clock = FakeClock(start=0.0)
    fired = []

    async def wait(seconds):
        await clock.sleep(seconds)
        fired.append((seconds, clock.monotonic()))

    async with anyio.create_task_group() as tasks:
        for seconds in (7200.0, 30.0, 3600.0, 30.0, 86_400.0):
            tasks.start_soon(wait, seconds)
    assert fired == [(moment, moment) for moment in (30.0, 30.0, 3600.0, 7200.0, 86_400.0)]
    assert clock.sleepers == 0


async def test_the_wall_goes_along():
    """Both times move together."""
    clock = FakeClock(start=5.0, wall=1_000.0)
    await clock.sleep(60)
    assert (clock.monotonic(), clock.wall()) == (65.0, 1_060.0)


async def test_it_does_not_jump_while_somebody_works():
    """A task that only yields is not blocked: the others' timers wait for it."""
    clock = FakeClock()
    before = clock.monotonic()
    seen = []

    async def work():
        for _ in range(500):
            await anyio.lowlevel.checkpoint()
        seen.append(clock.monotonic() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 10.0)
        tasks.start_soon(work)
    assert seen == [0.0]
    assert clock.monotonic() - before == 10.0


async def test_tasks_that_hand_things_to_each_other_are_not_blocked():
    """Work that goes from task to task keeps the time where it is."""
    clock = FakeClock()
    before = clock.monotonic()
    to_there, from_here = anyio.create_memory_object_stream[int](0)

    async def produce():
        async with to_there:
            for number in range(200):
                await to_there.send(number)

    async with anyio.create_task_group() as tasks, from_here:
        tasks.start_soon(clock.sleep, 1.0)
        tasks.start_soon(produce)
        async for _ in from_here:
            assert clock.monotonic() == before


async def test_a_cancelled_sleeper_is_gone():
    """Cancellation ends a sleep at once, and its timer does not move the time."""
    clock = FakeClock()
    before = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 100.0)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert clock.sleepers == 0
    assert clock.monotonic() == before
    await clock.sleep(1.0)
    assert clock.monotonic() == before + 1.0


async def test_a_shielded_sleeper_of_a_cancelled_scope_wakes():
    """Anyio delivers the cancellation again and again meanwhile; the clock jumps all the same."""
    clock = FakeClock()
    woken = []

    async def last_words():
        with anyio.CancelScope(shield=True):
            await clock.sleep(5.0)
            woken.append(clock.monotonic())

    before = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(last_words)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert woken == [before + 5.0]


async def test_no_time_passes_for_zero_and_less():
    """Such a sleep yields once, and cancellation is seen there."""
    clock = FakeClock()
    before = clock.monotonic()
    await clock.sleep(0)
    await clock.sleep(-3)
    assert clock.monotonic() == before
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(0)
    assert scope.cancelled_caught


async def test_by_hand():
    """Without jumping by itself, only advance moves it, past several timers if need be."""
    clock = FakeClock(start=0.0, autojump=False)
    fired = []

    async def wait(seconds):
        await clock.sleep(seconds)
        fired.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (3.0, 1.0, 2.0):
            tasks.start_soon(wait, seconds)
        await anyio.wait_all_tasks_blocked()
        assert clock.sleepers == 3
        clock.advance(2.0)
        await anyio.wait_all_tasks_blocked()
        assert sorted(fired) == [1.0, 2.0]
        assert clock.jump()
        assert clock.monotonic() == 3.0
    assert not clock.jump()
    clock.advance(0.5)
    assert clock.monotonic() == 3.5
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


async def test_several_clocks_on_one_loop():
    """None of them takes the watching of the others for work."""
    clocks = [FakeClock(start=0.0) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for seconds, clock in enumerate(clocks, 1):
            tasks.start_soon(clock.sleep, seconds)
    assert [clock.monotonic() for clock in clocks] == [1.0, 2.0, 3.0]


def run(backend, main, **options):
    """Run on one backend."""
    anyio.run(main, backend=backend, backend_options=options)


def test_one_clock_on_one_loop_after_the_other():
    """It does not hold on to a loop that is over, also when sleepers were killed with it."""
    clock = FakeClock(start=0.0)

    async def main():
        await clock.sleep(1.0)

    for backend in ("asyncio", "trio", "asyncio", "trio"):
        run(backend, main)
    assert clock.monotonic() == 4.0
    gc.collect()


def test_on_uvloop(needs):
    """A loop that hides its queue works too."""
    needs("uvloop")
    clock = FakeClock(start=0.0)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 2.0)
            tasks.start_soon(clock.sleep, 3.0)

    run("asyncio", main, use_uvloop=True)
    assert clock.monotonic() == 3.0


def test_reprs():
    """They show the time and how many sleep."""
    assert repr(FakeClock(start=1.5)) == "<FakeClock 1.500000 asleep=0>"
    assert repr(SystemClock()) == "<SystemClock>"
