"""
`RedisLimiter`: one quota for any number of processes and hosts.

The reckoning is the script's (see `_redis_script`). What is here: asking it at the right moment, telling it what has
become of the requests, and what to do while it cannot be asked.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import uuid
from typing import TYPE_CHECKING, Any, Literal

import anyio

from .._clock import SystemClock
from .._messages import Priority
from .._pacing import Pace
from ..exceptions import (
    AccessDeniedError,
    CredentialsError,
    DailyQuotaExceededError,
    PartError,
    SettingError,
    ThrottlingError,
)
from ..typing import LimiterFigures, Slot
from ._account import FALLBACK_RATE, PAUSE_SECONDS
from ._book import READ_AGAIN, READ_EVERY, READ_SECONDS, _daily, _per_second, within
from ._redis_link import RedisLink, Unreachable
from ._redis_parts import Grant, Lease, Line, Outcomes, Place, Share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..typing import Account, AccountSource, Clock, Demand, Signal
    from ._redis_link import Answer

_LEASE_LASTS = 0.02
"""Seconds after the last moment of a lease at which nothing of it may be used, at whatever rate."""

HEADROOM = 0.99
"""
The share of the rate that several processes use together.

Each of them is late now and then on its own, so the space between two requests varies more than in one process:
measured with four of them at 50 a second, 10 ms in each second keep a strict account from throttling, and 5 do not.
"""

_LEAD = 0.02
"""Seconds, besides two round trips, by which a slot is asked for ahead of its turn: processes wake up late."""
_GLANCE = 0.1
"""Seconds between two looks, while another process asks SES for the rate for the very first time."""
_PATIENCE = 300.0
"""Seconds after which a spent quota is looked at again, where messages wait for it."""
_FIRST_BACKOFF = 0.05
_LONGEST_BACKOFF = 0.25
"""Seconds between two attempts to reach the server again, from the first one on."""
_LONGEST_ALONE = 5.0
"""The same where it goes on without the server: an attempt may hold up a slot for a second."""

log = logging.getLogger("tanksend")


class RedisLimiter:
    """
    Holds the account's quotas exactly, for all processes that give the same *name*. Works with Redis and Valkey.

    A request costs one round trip, and one more when a transactional message went before it. Nothing is leased ahead,
    except above 200 recipients a second, where it is 20 ms of the rate. Time is the server's. Learned figures, the
    pace after throttles and the rolling day are shared, and one process asks SES for all. The server should be near:
    a sender has one question under way, so a round trip has to be shorter than the space between two slots.

    It never grants twice what it may have granted: an answer that got lost counts as granted, and after the server has
    lost its memory, as at first use and after 26 hours without any, nothing goes for one second. (The day's count is
    lost then, too; with the account as its source it is read anew.)

    Args:
        url_or_client: ``redis://…``, ``rediss://…`` or ``unix://…``; or a blocking client of redis-py's. Switch off its
            retries: a question that is repeated is granted, and charged, twice.
        name: What is shared: one name for each account and region.
        rate: Recipients per second, the same in all processes; ``math.inf`` is no limit. None learns it from SES.
        headroom: The share of the rate to use, above 0 and at most 1. The rest pays for the jitter of processes.
        fallback_rate: Recipients per second while the account's own is not known.
        when_quota_spent: ``"hold"`` raises when the day's quota is spent; ``"wait"`` waits for room in `reserve`.
        reserve_for_transactional: Recipients of the day's quota that bulk mail leaves to transactional mail.
        when_unreachable: ``"hold"`` waits in `reserve` until the server is back. A number above 0 and up to 1 goes on
            with that share of the rate: for n processes, 1/n. Meanwhile the day's quota is counted, and not held.
        clock: Where time comes from.
        server_time: False tells the server the time of *clock* and blocks the event loop: for tests on a fake clock.

    Raises:
        SettingError: A setting is out of range, or redis-py is not installed.
    """

    def __init__(
        self,
        url_or_client: Any,  # noqa: ANN401  (a str, or a client; redis-py's types differ from version to version)
        name: str,
        rate: float | None = None,
        *,
        headroom: float = HEADROOM,
        fallback_rate: float = FALLBACK_RATE,
        when_quota_spent: Literal["hold", "wait"] = "hold",
        reserve_for_transactional: int = 0,
        when_unreachable: Literal["hold"] | float = "hold",
        clock: Clock | None = None,
        server_time: bool = True,
    ) -> None:
        Pace(fallback_rate)
        Pace(fallback_rate if rate is None else rate)
        if not name or not name.isprintable() or set(name) & set("{}"):
            raise SettingError("name must be some text without braces")
        if not 0 < headroom <= 1:
            raise SettingError("headroom must be above 0 and at most 1")
        if when_quota_spent not in ("hold", "wait"):
            raise SettingError('when_quota_spent must be "hold" or "wait"')
        if not reserve_for_transactional >= 0:
            raise SettingError("reserve_for_transactional must be 0 recipients or more")
        if when_unreachable != "hold" and not (isinstance(when_unreachable, int | float) and 0 < when_unreachable <= 1):
            raise SettingError('when_unreachable must be "hold", or a share of the rate above 0 and at most 1')
        self._rate = rate
        self._headroom = headroom
        self._fallback = fallback_rate
        self._waits = when_quota_spent == "wait"
        self._kept = reserve_for_transactional
        self._share = None if isinstance(when_unreachable, str) else when_unreachable
        self._clock: Clock = SystemClock() if clock is None else clock
        self._link = RedisLink(url_or_client, name, clock=self._clock, server_time=server_time)
        self._source: AccountSource | None = None
        self._begin()

    def _begin(self) -> None:
        """What belongs to this process alone. A forked child begins anew: its parent uses what it has been granted."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._line = Line()
        self._outcomes = Outcomes()
        self._lease: Lease | None = None
        self._alone: Share | None = None
        self._last: Answer | None = None
        self._seen = 0.0
        self._trip = 0.0
        self._backoff = 0.0
        self._retry_at = -math.inf
        self._warned = False

    def __repr__(self) -> str:
        figures = self.figures
        return f"<RedisLimiter rate={figures.rate:g} of {figures.granted_rate:g} ({figures.source})>"

    def learn_from(self, source: AccountSource) -> None:
        """See `LearnsAccount.learn_from`: the first one stays. With a *rate* of its own it asks for nothing."""
        if self._source is None and self._rate is None:
            self._source = source

    @property
    def figures(self) -> LimiterFigures:
        """What the server knew of the account when it was last asked."""
        last = self._last
        if last is None or not last.rate:
            rate = self._fallback if self._rate is None else self._rate
            return LimiterFigures(rate, rate * self._headroom, None, 0.0, 0, self._origin(None))
        words = json.loads(last.words) if last.words else {}
        return LimiterFigures(
            granted_rate=last.rate,
            rate=last.pace,
            daily_quota=last.quota if words else None,
            spent=last.spent,
            throttles=int(last.throttles),
            source=self._origin(words),
            **words,
        )

    def _origin(self, words: object) -> str:
        if self._rate is not None:
            return "setting"
        return "GetAccount" if words else "fallback"

    # --- slots ---

    async def reserve(self, demand: Demand) -> Slot:
        """
        Take *demand* from both quotas; see `RateLimiter.reserve`.

        A bulk demand waits here until its turn is near, so that transactional ones of all processes can go first; and
        every demand waits here for a server that has to be held out for. Cancelled, it takes nothing.

        Raises:
            DailyQuotaExceededError: The rolling 24-hour quota leaves no room and this limiter does not wait.
            PartError: The server refuses to be asked: wrong credentials, or no right to run the script.
        """
        self._look_at_process()
        while True:
            slot = self._leased(demand)
            if slot is None:
                place = await self._own_turn(demand)
                slot = await self._asked(demand, place)
            if slot is not None:
                return slot

    async def _own_turn(self, demand: Demand) -> str:
        """Wait until the turn is near, where this process has a place in the line; the name of the place."""
        if demand.priority is Priority.TRANSACTIONAL:
            return ""
        with self._lock:
            place = self._line.take(self._clock.monotonic())
        if place is None:
            return ""
        try:
            ahead = place.turn - self._lead - self._clock.monotonic()
            if ahead > 0:
                await self._clock.sleep(ahead)
        except BaseException:
            with self._lock:
                self._line.put(place)
            raise
        return place.name

    @property
    def _lead(self) -> float:
        return _LEAD + 2 * self._trip

    async def _asked(self, demand: Demand, place: str) -> Slot | None:
        """Ask the script, and do what it says; None is to ask again."""
        began = self._clock.monotonic()
        if began < self._retry_at:
            return await self._without(demand)
        bulk = demand.priority is not Priority.TRANSACTIONAL
        uncounted = min(demand.uncounted, demand.recipients)
        lane = ("bulk", self._kept) if bulk else ("transactional", 0)
        new = uuid.uuid4().hex
        least, kind = min(demand.at_least, demand.recipients), "divisible" if demand.divisible else ""
        wish = (demand.recipients, least, uncounted, *lane, self._lead, place, new, kind)
        try:
            answer = await self._call("reserve", *wish)
        except Unreachable as error:
            self._cut_off(error)
            return None
        self._trip += (self._clock.monotonic() - began - self._trip) / 8
        return await self._act(demand, answer, new)

    async def _act(self, demand: Demand, answer: Answer, place: str) -> Slot | None:
        match answer.kind:
            case "slot":
                return self._slot(demand, answer, place)
            case "later":
                with self._lock:
                    self._line.put(Place(answer.moment(0), place))
            case "unknown":
                if not await self._read_if_due():
                    await self._clock.sleep(_GLANCE)
            case _:  # spent
                if not await self._read_if_due(READ_AGAIN):
                    await self._spent(demand, answer.moment(0))
        return None

    def _slot(self, demand: Demand, answer: Answer, place: str) -> Slot:
        """What the script granted; what is more than was asked for is a lease."""
        due, given, price = answer.moment(0), int(answer.number(1)), answer.number(2)
        grant = Grant(given, int(answer.number(4)), answer.serial, answer.number(3))
        with self._lock:
            if answer.number(5):
                self._line.put(Place(answer.moment(5), place))
            if given > demand.recipients:
                self._leave_lease()
                self._lease = Lease(due, given, price, until=due + given * price + _LEASE_LASTS)
                grant = self._lease.take(demand)
                given = grant.open
        return Slot(max(0.0, due - self._clock.monotonic()), given, grant)

    def _leased(self, demand: Demand) -> Slot | None:
        """A slot of what was leased before, if that is enough."""
        with self._lock:
            lease = self._lease
            if lease is None:
                return None
            now = self._clock.monotonic()
            lease.lapse(now)
            if lease.left < demand.recipients:
                self._leave_lease()
                return None
            due = lease.due
            return Slot(max(0.0, due - now), demand.recipients, lease.take(demand))

    def _leave_lease(self) -> None:
        """What is left of it is not sent."""
        if self._lease is not None:
            self._outcomes.beside -= self._lease.end()
            self._lease = None

    async def _spent(self, demand: Demand, until: float) -> None:
        """The day has no room before *until*."""
        wait = until - self._clock.monotonic()
        if self._waits:
            await self._clock.sleep(min(wait, _PATIENCE))
            return
        text = f"The account's quota of recipients per rolling 24 hours has no room for {demand.recipients} more"
        raise DailyQuotaExceededError(text, resume_at=self._clock.wall() + wait if wait < math.inf else None)

    async def release(self, slot: Slot) -> None:
        """
        Give a slot back, whole or in part, once; its share of the day's quota too.

        Only the latest slot of all processes frees its time again. An earlier one lapses: others have been promised
        what follows it.
        """
        grant = slot.token
        if not isinstance(grant, Grant) or self._pid != os.getpid():
            return
        with self._lock:
            recipients, counted = grant.give_back(slot.recipients)
            if grant.local:
                self._outcomes.beside -= counted
            if grant.local or not recipients:
                return
            place = self._line.leave(self._clock.monotonic())
        with anyio.CancelScope(shield=True):
            await self._tell("release", grant.serial, recipients, grant.bucket, counted, place)

    # --- answers ---

    async def feedback(self, signal: Signal) -> None:
        """
        Learn how one request fared: what SES refused is told at once, all else with the next question.

        Every 15 minutes one of all processes also reads the account's figures here, within 5 seconds.
        """
        self._look_at_process()
        error = signal.error
        counted = max(0, signal.recipients - signal.uncounted)
        over = isinstance(error, DailyQuotaExceededError)
        with self._lock:
            if error is None:
                self._outcomes.took += signal.recipients
            if over or (error is not None and error.retryable and not error.maybe_sent):
                self._outcomes.missed += counted
            else:
                self._outcomes.counting += counted
        if isinstance(error, ThrottlingError):
            self._slow_down(signal.recipients, PAUSE_SECONDS if error.pause else 0.0)
            await self._tell("refuse", "pause" if error.pause else "rate", signal.recipients, PAUSE_SECONDS)
        elif over:
            await self._tell("refuse", "quota", max(1, counted), READ_EVERY)
        if self._last is not None and self._last.reading_due:
            await self._read_if_due()

    # --- the account ---

    async def _read_if_due(self, again: float | None = None) -> bool:
        """Read the account's figures for all, if they are due and no other process does; or *again* after a while."""
        source = self._source
        if source is None:
            return False
        with anyio.CancelScope(shield=True):  # others wait for what we have undertaken to find out
            claim = await self._tell("claim", "" if again is None else again)
            if claim is None or claim.kind != "ask":
                return False
            account = await within(self._clock, READ_SECONDS, source.account)
            if isinstance(account, Exception):
                await self._tell("learn", self._failed(account), "", 0, 0, 0, "")
            else:
                await self._tell("learn", READ_EVERY, *self._figures_of(account), claim.number(0), self._words(account))
        return True

    def _failed(self, error: Exception) -> float:
        """Say so; in how many seconds to ask again."""
        denied = isinstance(error, AccessDeniedError) and not isinstance(error, CredentialsError)
        if denied:
            log.warning(
                "the credentials may not read the account's quotas; going on with what is known, or %g recipients a"
                " second. Allow the action ses:GetAccount in their IAM policy to send at the account's own rate",
                self._fallback,
            )
            return math.inf
        reason = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
        log.warning("the account's quotas could not be read (%s); asking again later", reason)
        return READ_AGAIN

    @staticmethod
    def _figures_of(account: Account) -> tuple[float, float, float]:
        return _per_second(account.max_send_rate), _daily(account.max_24_hour_send), account.sent_last_24_hours

    def _words(self, account: Account) -> str:
        return json.dumps(
            {
                "read_at": self._clock.wall(),
                "production_access": account.production_access,
                "sending_enabled": account.sending_enabled,
                "enforcement_status": account.enforcement_status,
            }
        )

    # --- the server ---

    def _look_at_process(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    async def _call(self, operation: str, *arguments: object) -> Answer:
        """Run the script; with it goes what has become of requests since the last time."""
        with self._lock:
            told = self._outcomes.hand_over()
        rate = "" if self._rate is None else self._rate
        asks = "" if self._source is None else "asks"
        common = (self._seen, rate, self._fallback, asks, self._headroom)
        outcomes = (told.took, told.counting, told.missed, told.beside)

        def all_arguments(now: str) -> Sequence[object]:
            return (operation, now, *common, *outcomes, *arguments)

        try:
            answer = await self._link.call(all_arguments, self._undo)
        except BaseException:
            with self._lock:
                self._outcomes.take_back(told)
            raise
        self._back_again(answer)
        return answer

    async def _tell(self, operation: str, *arguments: object) -> Answer | None:
        """The same, where nothing is lost if it cannot be told; None then."""
        try:
            return await self._call(operation, *arguments)
        except Unreachable:
            return None
        except PartError as error:
            log.warning("%s", error)
            return None

    def _undo(self, answer: Answer) -> None:
        """Give back what was granted to somebody who had gone; blocking, in a worker thread."""
        if answer.kind != "slot":
            return
        rate = "" if self._rate is None else self._rate
        common = (answer.serial, rate, self._fallback, "", self._headroom, 0, 0, 0, 0)
        grant = (answer.serial, int(answer.number(1)), answer.number(3), int(answer.number(4)), "")
        self._link.run(lambda now: ("release", now, *common, *grant))

    def _back_again(self, answer: Answer) -> None:
        with self._lock:
            self._seen = max(self._seen, answer.serial)
            self._last = answer
            self._alone = None
            self._backoff = 0.0
            self._retry_at = -math.inf
            warned, self._warned = self._warned, False
        if warned:
            log.info("Redis can be reached again")

    def _cut_off(self, error: Unreachable) -> None:
        """The server cannot be asked now: try again a little later."""
        with self._lock:
            longest = _LONGEST_BACKOFF if self._share is None else _LONGEST_ALONE
            self._backoff = min(longest, 2 * self._backoff) or _FIRST_BACKOFF
            self._retry_at = self._clock.monotonic() + self._backoff
            warned, self._warned = self._warned, True
        if not warned:
            way = "waiting for it" if self._share is None else f"going on at {self._share:g} of the rate"
            log.warning("Redis cannot be reached (%s); %s", error, way)

    async def _without(self, demand: Demand) -> Slot | None:
        """While the server is not asked: wait, or go on alone."""
        if self._share is None:
            await self._clock.sleep(self._retry_at - self._clock.monotonic())
            return None
        with self._lock:
            now = self._clock.monotonic()
            rate = self._own_rate()
            if self._alone is None:
                self._alone = Share(now + 1.0 / rate)  # the latest slot may have been ours
            due, grant = self._alone.grant(now, demand, rate)
            self._outcomes.beside += grant.counted
        return Slot(due - now, demand.recipients, grant)

    def _own_rate(self) -> float:
        pace = self._last.pace if self._last is not None and self._last.pace else self.figures.rate
        return pace * (self._share or 1.0)

    def _slow_down(self, recipients: int, pause: float) -> None:
        with self._lock:
            if self._alone is not None:
                self._alone.refused(self._clock.monotonic(), recipients, self._own_rate(), pause)

    def close(self) -> None:
        """Close the connections; they open again when they are needed. A client that was given stays open."""
        self._link.close()
