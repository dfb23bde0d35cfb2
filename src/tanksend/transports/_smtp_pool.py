"""
SMTP connections that wait for their next message, and the work of one message on one of them.

Connections belong to no event loop, so there is one pool. The one used last is used first, so that a quiet time shrinks
the pool from its other end. The lock is never held while anything is said on a connection.

In a forked child all of it belongs to the parent and is dropped unspoken.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from ..exceptions import ConnectionFailedError
from ._smtp_link import Link, StaleError
from ._smtp_mail import mail_of

if TYPE_CHECKING:
    from ..typing import SendRequest
    from ._smtp_link import Login, Server
    from ._smtp_mail import Mail

__all__ = ["Attempt", "LinkPool"]

# What a forked child got from its parent. It is kept from being destroyed, for its destructors would speak.
_inherited: list[object] = []


class LinkPool:
    """
    Open connections to one server, used by any thread.

    Args:
        server: Whom to speak to.
        max_messages: After that many a connection is closed.
        max_idle: Seconds after which a waiting one is.
    """

    def __init__(self, server: Server, *, max_messages: int, max_idle: float) -> None:
        self._server = server
        self._max_messages = max_messages
        self._max_idle = max_idle
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._open: set[Link] = set()
        self._generation = 0
        self._pid = os.getpid()

    def look_around(self) -> None:
        """Begin anew in a forked child. To be called before all else."""
        if self._pid == os.getpid():
            return
        links = list(self._open)
        _inherited.extend(links)
        self._start()  # First of all: another thread of the parent may have held the lock.
        for link in links:
            link.drop()

    def take(self) -> Link | None:
        """Take one that is still good."""
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                return None
            if time.monotonic() - link.idle_since < self._max_idle and link.usable():
                return link
            self.discard(link)

    def new(self) -> Link:
        """A new one, not yet opened."""
        link = Link(self._server)
        with self._lock:
            link.generation = self._generation
            self._open.add(link)
        return link

    def put(self, link: Link) -> None:
        """Put one back, and close those that have waited too long."""
        oldest = time.monotonic() - self._max_idle
        with self._lock:
            if not link.spent and link.used < self._max_messages and link.generation == self._generation:
                self._idle.append(link)
                over = []
            else:
                over = [link]
            while self._idle and self._idle[0].idle_since <= oldest:
                over.append(self._idle.pop(0))
        for each in over:
            self.discard(each)

    def discard(self, link: Link) -> None:
        """Close one."""
        with self._lock:
            self._open.discard(link)
        link.part()

    def close(self) -> None:
        """Close those that wait now, and those on the wire when they come back. Does not block."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for link in idle:
            self.discard(link)

    def __repr__(self) -> str:
        return f"<LinkPool open={len(self._open)} idle={len(self._idle)}>"


class Attempt:
    """
    One message's way out, for a worker thread.

    Args:
        pool: Where connections come from.
        login: For a new one; None where the server wants none.
        request: The message.
    """

    def __init__(self, pool: LinkPool, login: Login | None, request: SendRequest) -> None:
        self._pool = pool
        self._login = login
        self._request = request
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._abandoned = False

    def run(self) -> str:
        """
        Hand the message over, in this thread. Gives the text of the reply that says it was taken.

        Raises:
            SendError: As `Link.open` and `Link.deliver`.
        """
        mail = mail_of(self._request)
        link = self._pool.take()
        if link is not None:
            try:
                return self._over(link, mail)
            except StaleError:
                pass  # It had ended while it waited, and has not heard of this message.
        return self._over(self._pool.new(), mail)

    def _over(self, link: Link, mail: Mail) -> str:
        try:
            self._hold(link)
            if link.used == 0:
                link.open(self._login)
            return link.deliver(mail)
        except BaseException:
            link.spent = link.spent or link.used == 0
            raise
        finally:
            self._leave(link)

    def _hold(self, link: Link) -> None:
        with self._lock:
            self._link = link
            if self._abandoned:
                link.spent = True
                raise ConnectionFailedError("Nobody waits for this message any more")

    def _leave(self, link: Link) -> None:
        with self._lock:
            self._link = None
            link.spent = link.spent or self._abandoned
        self._pool.put(link)

    def abandon(self) -> None:
        """Stop it, from another thread: nobody waits any more. What is on the wire is cut; what is done stays done."""
        with self._lock:
            self._abandoned = True
            if self._link is not None:
                self._link.kill()
