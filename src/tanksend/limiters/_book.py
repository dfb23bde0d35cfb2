"""
What one process knows of one account: kept once, however many limiters, senders, loops and threads use it.

An `AccountBook` holds the figures, the pace and the daily window under a lock that is never held over an await. Of all
who find that the figures are due for a reading, one reads and the others go on with what there is. `find_book` is the
place where limiters of the same account meet.

A forked child keeps what was learned and spent, and goes at a pace of its own: it cannot see what its parent sends.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING

import anyio
import attrs

from .._clock import SystemClock
from .._quota import DailyWindow, RateControl
from ..exceptions import AccessDeniedError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from .._pacing import Grant
    from ..typing import Account, AccountSource, Clock, Demand

    T = TypeVar("T")

log = logging.getLogger("tanksend")

READ_EVERY = 900.0
"""Seconds after which the figures are read again: quotas change by the day, and others may send on the account."""
READ_AGAIN = 60.0
"""Seconds after which a failed reading is tried again, and how often a spent quota is looked at."""
READ_SECONDS = 5.0
"""How long a reading may take."""
KEPT = 16
"""Accounts whose books outlive their limiters: a sender for each web request must not ask again each time."""


_all: weakref.WeakSet[AccountBook] = weakref.WeakSet()


@attrs.define(eq=False)
class AccountBook:
    """
    The shared state. Its methods that do not await want the `lock` held, but for `read`, `forked` and `__repr__`.

    Attributes:
        clock: Whose time all of it is in.
        owner: What must live as long as the book, because its identity is the book's name.
        lock: Held for arithmetic only.
        pace: When the next request may go.
        later: The same for slots that wait for the daily quota: they must not hold up what needs no waiting.
        waiting: Grants of *later* whose moment has not come, by moment.
        day: The rolling 24 hours.
        account: What SES last said; None while it has not.
        read_at: When that was.
        next_read: When to ask again; ``math.inf`` after a denial.
        tried_at: When it was last asked for.
        reading: Whether somebody asks right now.
        warned: Whether a failure to read was told since the last success.
        throttles: Requests that SES has throttled.
    """

    clock: Clock
    owner: object = None
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    pace: RateControl = attrs.field(factory=RateControl)
    later: RateControl = attrs.field(factory=RateControl)
    waiting: list[Grant] = attrs.field(factory=list)
    day: DailyWindow = attrs.field(factory=DailyWindow)
    account: Account | None = None
    read_at: float = -math.inf
    next_read: float = -math.inf
    tried_at: float = -math.inf
    reading: bool = False
    warned: bool = False
    throttles: int = 0

    def __attrs_post_init__(self) -> None:
        _all.add(self)

    def __repr__(self) -> str:
        return f"<AccountBook {'read' if self.account else 'not read'}>"

    def forked(self) -> None:
        """Begin anew in a child, but for what was learned; another thread may have been at work on it."""
        self.lock = threading.Lock()
        self.pace, self.later, self.waiting = RateControl(), RateControl(), []
        ours, others = list(self.day.ours), list(self.day.others)
        sums = sum(count for _, count in ours), sum(count for _, count in others)
        self.day = DailyWindow(self.day.quota, ours, others, *sums)
        self.reading = False

    # --- slots that wait ---

    def wait(self, at: float, demand: Demand, rate: float, headroom: float) -> Grant:
        """Grant *demand* for the moment *at* in the future."""
        grant = self.later.grant(at, demand.recipients, demand.at_least, rate, headroom)
        self.waiting.append(grant)
        return grant

    def yield_to_waiting(self, now: float) -> None:
        """Those whose moment has come are in the way of who comes now."""
        while self.waiting and self.waiting[0].due <= max(now, self.pace.paid):
            self.pace.pause(self.waiting.pop(0).paid)

    # --- readings ---

    def claim_reading(self, due: float) -> bool:
        """Whether it is time to read, *due* being when it is, and nobody does; the caller then calls `read`."""
        if self.reading or self.next_read == math.inf or self.clock.monotonic() < due:
            return False
        self.reading = True
        return True

    async def read(self, source: AccountSource, fallback: float) -> None:
        """Ask SES, once, after `claim_reading`. Whatever goes wrong leaves the old figures."""
        try:
            with self.lock:
                self.tried_at = self.clock.monotonic()
                settled = self.day.settled(self.tried_at)
            answer = await within(self.clock, READ_SECONDS, source.account)
            with self.lock:
                if isinstance(answer, Exception):
                    self._failed(answer, fallback)
                else:
                    self._learn(answer, settled)
        finally:
            self.reading = False

    def _learn(self, account: Account, settled: float) -> None:
        now = self.clock.monotonic()
        self.day.read(now, _daily(account.max_24_hour_send), account.sent_last_24_hours, settled)
        self.account = account
        self.read_at = now
        self.next_read = now + READ_EVERY
        self.warned = False

    def _failed(self, error: Exception, fallback: float) -> None:
        denied = isinstance(error, AccessDeniedError) and not isinstance(error, CredentialsError)
        self.next_read = math.inf if denied else self.clock.monotonic() + READ_AGAIN
        if self.warned and not denied:
            return
        self.warned = True
        going_on = "its last known figures" if self.account else f"{fallback:g} recipients a second"
        if denied:
            log.warning(
                "the credentials may not read the account's quotas; going on with %s."
                " Allow the action ses:GetAccount in their IAM policy to send at the account's own rate",
                going_on,
            )
        else:
            reason = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
            log.warning(
                "the account's quotas could not be read (%s); going on with %s, asking again later", reason, going_on
            )

    def rate(self, fallback: float) -> float:
        """Recipients per second that the account may send, or *fallback* while that is not known."""
        return fallback if self.account is None else _per_second(self.account.max_send_rate)


def _per_second(value: float) -> float:
    if value < 0:
        return math.inf
    # A rate of 0 is an account that is shut: SES's answer to one request says more about it.
    return value if value > 0 else 1.0


def _daily(value: float) -> float:
    return value if value > 0 else math.inf  # 0 as above


async def within(clock: Clock, seconds: float, call: Callable[[], Awaitable[T]]) -> T | Exception:
    """What *call* answers or raises, or a TimeoutError when that takes more than *seconds* of *clock*."""
    outcome: T | Exception = TimeoutError()
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await clock.sleep(seconds)
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            outcome = await call()
        except Exception as error:  # noqa: BLE001  (whatever a source of the caller's own raises)
            outcome = error
        tasks.cancel_scope.cancel()
    return outcome


# --- where books are found -------------------------------------------------------------------------------------------


class _Shelf:
    """All books of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.books: weakref.WeakValueDictionary[object, AccountBook] = weakref.WeakValueDictionary()
        self.kept: OrderedDict[object, AccountBook] = OrderedDict()

    def find(self, name: object, clock: Clock, owner: object) -> AccountBook:
        # Whoever names its account is remembered beyond its limiters; an object is no better than its life.
        with self.lock:
            book = self.books.get(name)
            if book is None:
                book = self.books[name] = AccountBook(clock, owner)
            if owner is None:
                self.kept[name] = book
                self.kept.move_to_end(name)
                if len(self.kept) > KEPT:
                    self.kept.popitem(last=False)
            return book


_shelf = _Shelf()


def _after_fork_in_child() -> None:
    _shelf.lock = threading.Lock()
    for book in tuple(_all):
        book.forked()


if hasattr(os, "register_at_fork"):  # Not on Windows, which has no fork.
    os.register_at_fork(after_in_child=_after_fork_in_child)


async def find_book(source: AccountSource, clock: Clock) -> AccountBook:
    """The book of the account that *source* tells about, in the time of *clock*."""
    time = None if type(clock) is SystemClock else id(clock)  # the book keeps its clock alive
    ask = getattr(source, "account_key", None)
    if ask is not None:
        key = await within(clock, READ_SECONDS, ask)
        if isinstance(key, str):
            return _shelf.find((key, time), clock, None)
    return _shelf.find((id(source), time), clock, source)
