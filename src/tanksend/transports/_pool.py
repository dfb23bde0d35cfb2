"""
Connections waiting for their next request on one event loop.

The last one used is the first one used again, so that a quiet time shrinks the pool from its other end.
"""

from __future__ import annotations

import os
import select
from typing import Final, Protocol, TypeVar

__all__ = ["IDLE_LIMIT", "Connection", "IdlePool", "drop_unspoken", "inode", "is_readable"]

IDLE_LIMIT: Final = 15.0
"""Seconds. Servers close idle connections without warning, and a request that meets that has an unknown outcome."""


class Connection(Protocol):
    """What a pool needs to know of a connection."""

    idle_since: float

    def usable(self) -> bool:
        """Nothing has come and nobody has closed it since its last answer."""
        ...

    def close(self) -> None:
        """Let go of it now, in its own event loop."""
        ...

    def drop(self) -> None:
        """Let go of it without a word, from anywhere: its event loop is gone or belongs to another process."""
        ...


C = TypeVar("C", bound=Connection)


class IdlePool(list[C]):
    """Idle connections, the longest idle first. Times are the event loop's, in seconds."""

    def take(self, now: float) -> C | None:
        """Take one that is still good."""
        while self:
            connection = self.pop()
            if now - connection.idle_since < IDLE_LIMIT and connection.usable():
                return connection
            connection.close()
        return None

    def put(self, connection: C, now: float) -> None:
        """Put one back, and close those that have waited too long."""
        while self and now - self[0].idle_since >= IDLE_LIMIT:
            self.pop(0).close()
        connection.idle_since = now
        self.append(connection)

    def close(self) -> None:
        """Close all, in their event loop."""
        while self:
            self.pop().close()


def is_readable(fd: int) -> bool:
    """Whether something came on a socket that has not been read: data, its end, or an error."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fd], [], [fd], 0)[0])  # pragma: no cover - Windows.


def inode(fd: int) -> int:
    """Which socket a descriptor stands for: no other has this number as long as it is open. 0 if it is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return 0


def drop_unspoken(fd: int, known: int) -> None:
    """
    Close a socket of which another object believes that it is open, without that object.

    The descriptor goes on to exist and leads nowhere, so that it cannot become somebody else's before the object
    closes it. In a forked child the parent's connection lives on: this sends nothing, not even the end.

    Args:
        fd: The descriptor.
        known: Its `inode` when the socket was opened; when it is another one by now, nothing is done.
    """
    if not hasattr(os, "fork"):  # pragma: no cover - Windows has no fork, and no dup2 for sockets.
        return
    if known and inode(fd) == known:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, fd, inheritable=False)
        os.close(nowhere)
