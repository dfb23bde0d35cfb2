"""
Into a worker thread and back, where the system may have none left.

A program that has as many threads as it may is refused another one, by a bare `RuntimeError`. Nothing was begun then,
and that has to be said: after an error without a meaning whoever sent a message could only take it for sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from ..exceptions import ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CapacityLimiter

__all__ = ["in_thread", "no_thread"]

T = TypeVar("T")

_LIMITS = "Look at its limits (ulimit -u, the container's limit of processes)"


def no_thread() -> ConnectionFailedError:
    """Make the error for a thread that the system does not start."""
    return ConnectionFailedError(
        "Nothing was sent: the system starts no more threads for this program",
        remedy=_LIMITS,
        cause_type="RuntimeError",
    )


async def in_thread(work: Callable[[], T], *, limiter: CapacityLimiter | None = None) -> T:
    """
    Do *work* in one of anyio's threads. Whoever is cancelled meanwhile does not wait for it.

    Raises:
        ConnectionFailedError: There is no thread for it, and it was not begun.
    """
    begun = False

    def begin() -> T:
        nonlocal begun
        begun = True
        return work()

    try:
        return await to_thread.run_sync(begin, abandon_on_cancel=True, limiter=limiter)
    except RuntimeError:
        if begun:
            raise
        raise no_thread() from None
