from __future__ import annotations

import threading

import pytest
from anyio import to_thread

from tanksend.exceptions import ConnectionFailedError
from tanksend.transports._threads import in_thread

pytestmark = pytest.mark.anyio


async def test_what_the_work_gives_and_raises():
    """In another thread; a RuntimeError of its own is its own."""
    assert threading.current_thread() is not await in_thread(threading.current_thread)

    def fail():
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await in_thread(fail)


async def test_where_there_is_no_thread_nothing_was_begun(monkeypatch):
    """And the error says so: a message whose error says nothing would have to be taken for sent."""

    async def run_sync(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(to_thread, "run_sync", run_sync)
    with pytest.raises(ConnectionFailedError, match="no more threads") as caught:
        await in_thread(lambda: pytest.fail("begun"))
    assert (True, False) == (caught.value.retryable, caught.value.maybe_sent)
