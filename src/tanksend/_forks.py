"""
What to do when the process forks.

Threads, locks and SQLite connections do not survive `fork` in the child: its only thread is the one that forked, and
SQLite's book-keeping of POSIX locks, which a process holds once for all its connections, would be wrong there for ever.
So whatever holds such things is asked *before* the fork to come to rest and let go of them, and opens them again in
the parent as in the child when it is next used.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

_lock = threading.Lock()
_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_resting: list[Forkable] = []
_process = os.getpid()
_registered: list[bool] = []
_at_rest: list[bool] = []


class Forkable(Protocol):
    """Something that has to know of forks. All three are called in the thread that forks."""

    def before_fork(self) -> None:
        """Come to rest: nothing half done, no lock held by another thread, until one of the others is called."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Begin anew: no thread of yours exists here."""
        ...


def watch(thing: Forkable) -> None:
    """Tell *thing* of forks for as long as it lives."""
    global _process  # noqa: PLW0603  (nothing was there that an earlier fork could have broken)
    with _lock:
        if not _registered and hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
            _registered.append(True)
            _process = os.getpid()
        _watched.add(thing)


def was_forked_unseen() -> bool:
    """Whether this process was forked past Python, so that nothing could come to rest before."""
    return os.getpid() != _process


def _before() -> None:
    _lock.acquire()
    _at_rest.append(True)
    _resting.extend(_watched)
    for thing in _resting:
        thing.before_fork()


def _in_parent() -> None:
    for thing in _resting:
        thing.after_fork_in_parent()
    _at_rest.clear()
    _resting.clear()
    _lock.release()


def _in_child() -> None:
    global _process  # noqa: PLW0603  (it is the process that changed)
    if not _at_rest:
        return  # some servers that embed Python fork without `_before`, and then tell it afterwards
    _process = os.getpid()
    for thing in _resting:
        thing.after_fork_in_child()
    _at_rest.clear()
    _resting.clear()
    _lock.release()
