"""Where messages come from: a list, an async iterable, or an iterable that is drained on a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint

from .._loops import soon_in_this_loop
from .._messages import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

CHUNK = 64
"""Messages prepared in one go: enough to make batched look-ups worth it, few enough to let others run in between."""

BUFFER = 100
"""Messages that a thread may have pulled beyond those taken in."""


class Source(Protocol):
    """What intake pulls from."""

    finite: bool
    """Whether all of it can be given a fate when the batch stops early."""
    known: Sequence[object]
    """What can be looked at before anything is pulled."""

    async def pull(self, limit: int) -> Sequence[object] | None:
        """Between 1 and *limit* items, as soon as there is one; None at the end. Raises what the iterable raises."""
        ...

    def rest(self) -> Sequence[object]:
        """Items pulled from the iterable and not handed over: they have been handed in and need a fate."""
        ...

    async def aclose(self) -> None:
        """Pull no more."""
        ...


class SequenceSource:
    """A list or tuple, walked in place."""

    finite = True

    def __init__(self, items: Sequence[object]) -> None:
        self.known = self._items = items
        self._position = 0

    async def pull(self, limit: int) -> Sequence[object] | None:
        await checkpoint()
        start = self._position
        chunk = self._items[start : start + min(limit, CHUNK)]
        self._position += len(chunk)
        return chunk or None

    def rest(self) -> Sequence[object]:
        return ()

    async def aclose(self) -> None:
        return


class AsyncSource:
    """An async iterable, pulled one by one: it may be slow, and nothing waits for a chunk to fill."""

    finite = False
    known: Sequence[object] = ()

    def __init__(self, items: AsyncIterable[object]) -> None:
        self._iterable = items
        self._iterator: AsyncIterator[object] | None = None
        self._until_yield = CHUNK

    async def pull(self, limit: int) -> Sequence[object] | None:
        del limit
        self._until_yield -= 1
        if not self._until_yield:
            # An iterable that never waits would keep the loop to itself.
            self._until_yield = CHUNK
            await checkpoint()
        if self._iterator is None:
            self._iterator = aiter(self._iterable)
        try:
            return (await anext(self._iterator),)
        except StopAsyncIteration:
            return None

    def rest(self) -> Sequence[object]:
        return ()

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class Feed:
    """
    A bounded buffer between a thread that pulls an iterable and the loop that sends.

    `full`, `wait_for_room`, `put` and `end` are for the thread, which makes sure of room before it pulls: an item in
    its hand would else have been handed in and be known to nobody. `pull`, `rest` and `aclose` are for the loop.
    *on_room* is called, from the loop's thread, whenever there is room again.

    An item that comes after `aclose` is not taken in. It cannot be: its ``next()`` may have been blocked for hours.
    """

    finite = False
    known: Sequence[object] = ()

    def __init__(self, on_room: Callable[[], None] | None = None) -> None:
        self._items: deque[object] = deque()
        self._changed = threading.Condition()
        self._on_room = on_room
        self._ended = False
        self._error: BaseException | None = None
        self._wake: Callable[[], None] | None = None
        self.closed = False

    def put(self, item: object) -> bool:
        """Hand *item* over; False when nobody wants it any more. Never waits."""
        with self._changed:
            if self.closed:
                return False
            self._items.append(item)
            self._wake_loop()
            return True

    def full(self) -> bool:
        """Whether to wait before the next item is pulled."""
        with self._changed:
            return len(self._items) >= BUFFER

    def wait_for_room(self) -> bool:
        """Wait until there is room for an item; False when nobody wants one any more."""
        with self._changed:
            while len(self._items) >= BUFFER and not self.closed:
                self._changed.wait()
            return not self.closed

    def end(self, error: BaseException | None = None) -> None:
        """No more comes; *error* is what the iterable raised."""
        with self._changed:
            self._ended = True
            self._error = error
            self._wake_loop()

    def _wake_loop(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    async def pull(self, limit: int) -> Sequence[object] | None:
        while True:
            with self._changed:
                if self._items:
                    return self._take(min(limit, CHUNK))
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                arrived = anyio.Event()
                self._wake = soon_in_this_loop(arrived.set)
            await arrived.wait()

    def _take(self, limit: int) -> list[object]:
        taken = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
        self._changed.notify()
        if self._on_room is not None:
            self._on_room()
        return taken

    def rest(self) -> Sequence[object]:
        with self._changed:
            self.closed = True
            return self._take(len(self._items))

    async def aclose(self) -> None:
        # No waiting for the thread: it may be blocked in the iterable, and must delay nobody.
        with self._changed:
            self.closed = True
            self._changed.notify()


class ThreadSource(Feed):
    """Any other iterable: pulled, and closed, on one thread for the whole call."""

    def __init__(self, items: Iterable[object]) -> None:
        super().__init__()
        self._iterable = items
        self._thread: threading.Thread | None = None

    async def pull(self, limit: int) -> Sequence[object] | None:
        if self._thread is None:
            # A daemon: a blocked next() must not keep the interpreter from ending.
            self._thread = threading.Thread(target=self._drain, name="tanksend-intake", daemon=True)
            self._thread.start()
        return await super().pull(limit)

    def _drain(self) -> None:
        try:
            iterator = iter(self._iterable)
            try:
                while self.wait_for_room():
                    try:
                        item = next(iterator)
                    except StopIteration:
                        break
                    self.put(item)
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # noqa: BLE001  (it comes out of pull, in the caller's task)
            self.end(error)
        else:
            self.end()


def source_of(messages: object) -> Source:
    """
    The source for what a caller handed in.

    Raises:
        TypeError: It is not an iterable of messages.
    """
    if isinstance(messages, Feed):
        return messages
    if isinstance(messages, list | tuple):
        return SequenceSource(messages)
    if isinstance(messages, AsyncIterable):
        return AsyncSource(messages)
    if isinstance(messages, Iterable) and not isinstance(messages, str | bytes | Mapping | Message):
        return ThreadSource(messages)
    msg = f"messages must be an iterable of Message, not {type(messages).__name__}"
    raise TypeError(msg)
