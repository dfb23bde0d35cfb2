"""
An event loop on a daemon thread, for callers without one.

Not anyio's ``start_blocking_portal``: kept in an object, that one keeps the interpreter from ending, is dead in a forked
child, and goes on with what it does when its caller is interrupted.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Call:
    """A coroutine function running on the loop thread, and the caller's hold on it."""

    def __init__(self) -> None:
        self._finished = threading.Event()
        self._scope: anyio.CancelScope | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._on_end: Callable[[], None] | None = None

    async def run(self, function: Callable[[], Awaitable[Any]]) -> None:
        """What the loop thread does."""
        try:
            with anyio.CancelScope() as self._scope:
                self._value = await function()
            if self._scope.cancelled_caught:
                self._error = CancelledError()
        except BaseException as error:  # noqa: BLE001  (it comes out of result, in the caller's thread)
            self._error = error
        finally:
            self._finished.set()
            if self._on_end is not None:
                self._on_end()

    def cancel(self) -> None:
        """For the loop thread."""
        if self._scope is not None:
            self._scope.cancel()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Have *callback* called on the loop thread at the end."""
        self._on_end = callback

    def wait(self) -> None:
        """Wait for the end, whatever it is."""
        self._finished.wait()

    def result(self) -> Any:
        """Wait for the end; what the function returned, or raised."""
        self._finished.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value


class LoopThread:
    """Starts with the first call, again in a forked child, and never has to be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._pid = 0

    def call(self, function: Callable[..., Awaitable[T]], *args: object, **kwargs: object) -> T:
        """Run *function* on the loop and wait; an interrupt of the caller cancels it, and waits for it to end."""
        call = self.start(partial(function, *args, **kwargs))
        try:
            return call.result()  # type: ignore[no-any-return]
        except BaseException:
            self.stop(call)
            raise

    def start(self, function: Callable[[], Awaitable[Any]], call: Call | None = None) -> Call:
        """Begin to run *function* on the loop, under *call* where the caller has prepared one."""
        call = call or Call()
        self.portal().start_task_soon(call.run, function)
        return call

    def stop(self, call: Call) -> None:
        """Cancel *call* and wait until it has ended: its requests on the wire have their grace."""
        self.portal().start_task_soon(_sync(call.cancel))
        call.wait()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call *callback* on the loop, without waiting."""
        self.portal().start_task_soon(_sync(callback))

    def portal(self) -> BlockingPortal:
        """The way into the loop of this process."""
        portal = self._portal
        if portal is None or self._pid != os.getpid():
            portal = self._begin()
        return portal

    def _begin(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None or self._pid != os.getpid():
                started: list[BlockingPortal] = []
                ready = threading.Event()
                thread = threading.Thread(target=_main, args=(started, ready), name="tanksend", daemon=True)
                thread.start()
                ready.wait()
                self._portal, self._pid = started[0], os.getpid()
            return self._portal


def _sync(callback: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        callback()

    return run


def _main(started: list[BlockingPortal], ready: threading.Event) -> None:
    async def serve() -> None:
        async with BlockingPortal() as portal:
            started.append(portal)
            ready.set()
            await portal.sleep_until_stopped()

    use_uvloop = importlib.util.find_spec("uvloop") is not None
    anyio.run(serve, backend="asyncio", backend_options={"use_uvloop": use_uvloop})
