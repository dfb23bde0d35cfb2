"""
The wire: requests out, answers in, on whichever event loop asks.

Connections belong to the event loop that opened them, so there is one pool for each. Loops come and go in notebooks and
tests: a pool is held as long as its loop, and those of closed loops are let go of when the next loop appears. In a
forked child all of it belongs to the parent and is dropped unspoken.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .._http1 import Answer
    from ._link import Route
    from ._tls import Trust

__all__ = ["Wire"]


class _Pool(Protocol):
    """The connections of one event loop."""

    async def exchange(self, request: bytes) -> Answer: ...
    def close(self) -> None: ...
    def close_soon(self) -> None: ...
    def drop(self) -> None: ...
    @property
    def gone(self) -> bool: ...
    async def settle(self) -> None: ...


# What a forked child got from its parent. It is kept from being destroyed: its destructors would reach into the
# parent's event loop.
_inherited: list[object] = []


class Wire:
    """
    HTTP exchanges with one endpoint. Tasks, threads and event loops may share it.

    Args:
        route: Where to, and through which proxy.
        trust: Whom to trust, loaded.
        connect_timeout: Seconds for a new connection: name, TCP, proxy and TLS together.
        read_timeout: Seconds from the last byte of a request to the last of its answer.
    """

    def __init__(self, route: Route, trust: Trust, *, connect_timeout: float, read_timeout: float) -> None:
        self._route = route
        self._trust = trust
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._start()

    def _start(self) -> None:
        self._pools: MutableMapping[object, _Pool] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    async def exchange(self, request: bytes) -> Answer:
        """
        Send a request, head and body, and give its answer.

        Raises:
            ConnectionFailedError: The request was not handed over as a whole.
            OutcomeUnknownError: It was, and no answer came.
        """
        if self._pid != os.getpid():
            self._forked()
        loop = _running_asyncio() or _running_trio()
        pool = self._pools.get(loop)
        return await (pool or self._new_pool(loop)).exchange(request)

    def _forked(self) -> None:
        pools = list(self._pools.values())
        _inherited.extend(pools)
        self._start()  # First of all: another thread of the parent may have held the lock.
        for pool in pools:
            pool.drop()

    def _new_pool(self, loop: object) -> _Pool:
        pool: _Pool
        settings = (self._route, self._trust, self._connect_timeout, self._read_timeout)
        if _running_asyncio() is None:
            from ._wire_trio import TrioPool

            pool = TrioPool(*settings)
        else:
            from ._wire_asyncio import AsyncioPool

            pool = AsyncioPool(*settings)
        with self._lock:
            self._let_go()
            self._pools[loop] = pool
        return pool

    def _let_go(self) -> None:
        """Let go of the pools whose event loops are closed; under the lock."""
        for loop, pool in list(self._pools.items()):
            if pool.gone:
                del self._pools[loop]
                pool.drop()

    async def aclose(self) -> None:
        """Close all connections; those of other event loops soon. The next request opens new ones."""
        if self._pid != os.getpid():
            self._forked()
        with self._lock:
            self._let_go()
            own = self._pools.pop(_running_asyncio() or _running_trio(), None)
            others = list(self._pools.values())
        for other in others:
            other.close_soon()
        if own is not None:
            own.close()
            await own.settle()


def _running_asyncio() -> object | None:
    """The asyncio event loop that runs this task, if one does."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        # Where trio is a guest of an asyncio loop, there is a loop and no task of it.
        task = asyncio.current_task()
    except RuntimeError:
        return None
    loop: object | None = None if task is None else task.get_loop()
    return loop


def _running_trio() -> object:
    import trio

    return trio.lowlevel.current_trio_token()
