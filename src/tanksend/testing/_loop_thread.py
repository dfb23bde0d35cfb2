"""An event loop on a thread of its own, for servers that a test starts and stops without awaiting anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

Serve = Callable[[Callable[[], None], asyncio.Event], Awaitable[None]]


class LoopThread:
    """
    Runs a server until it is told to stop.

    Args:
        serve: Awaited with two things: call the first when the server listens; end soon after the second is set.
        name: Of the thread.
    """

    def __init__(self, serve: Serve, name: str) -> None:
        self._serve = serve
        self._loop = asyncio.SelectorEventLoop()  # Whatever the policy: what a reset looks like is known of this one.
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Return when the server listens; raise what kept it from doing so."""
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Return when the server has ended and everything is closed."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve(self._listening.set, self._stop))
        except BaseException as error:  # noqa: BLE001  (handed to the thread that started this one)
            self._error = error
        finally:
            self._loop.close()
            self._listening.set()
