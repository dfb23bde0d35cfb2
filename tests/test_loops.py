from __future__ import annotations

import threading

import anyio
import pytest

from tanksend._loops import call_soon, killed, soon_in_this_loop, this_loop

pytestmark = pytest.mark.anyio


async def test_a_loop_is_itself():
    """It can be kept in a mapping, and is the same for all tasks."""
    found = set()

    async def look():
        found.add(this_loop())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        tasks.start_soon(look)
    assert {this_loop()} == found


@pytest.mark.parametrize("how", ["soon", "call_soon"])
async def test_other_threads_call_into_it(how):
    """The function runs where the loop does."""
    called, where = anyio.Event(), []

    def callback():
        where.append(threading.current_thread())
        called.set()

    loop = this_loop()
    ask = soon_in_this_loop(callback) if how == "soon" else lambda: call_soon(loop, callback)
    threading.Thread(target=ask).start()
    await called.wait()
    assert [threading.current_thread()] == where


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_has_ended_is_no_trouble(backend):
    """Whoever waited there is gone, too."""

    async def leave():
        return soon_in_this_loop(lambda: pytest.fail("nobody should be called"))

    anyio.run(leave, backend=backend)()


async def test_nobody_is_killed_by_a_cancel_scope():
    """Only by a name that asyncio knows."""
    assert not killed()
    with anyio.CancelScope() as scope:  # noqa: ASYNC100  (nothing is waited for, on purpose)
        scope.cancel()
        assert not killed()


def test_a_task_that_was_cancelled_by_name_is_killed():
    """As by `asyncio.Task.cancel`."""
    import asyncio

    async def main():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return killed()

    assert asyncio.run(main())
