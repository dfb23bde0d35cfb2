"""`AccountLimiter`: the account's real quotas, learned and held."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import attrs

from .._clock import SystemClock
from .._messages import Priority
from .._pacing import Pace
from ..exceptions import DailyQuotaExceededError, SettingError, ThrottlingError
from ..typing import AccountSource, Clock, Demand, LimiterFigures, Signal, Slot
from ._book import READ_AGAIN, READ_EVERY, AccountBook, find_book

if TYPE_CHECKING:
    from .._quota import RateControl

FALLBACK_RATE = 14.0
"""Recipients per second while the account's own rate is not known: what SES usually grants a new account."""

HEADROOM = 0.995
"""
The share of the granted rate that is used.

An account that counts strictly refuses the request that comes a little less than a second after as many others as the
rate has. At 0.995 that second is 5 ms longer, whatever the rate, which is more than a sleeping event loop and the way
to SES vary by as a rule: measured at 14 to 500 a second, no request in a thousand is refused, and 0.99 of the rate is
used. Nearer to 1 the refusals cost more than they gain; at 0.99 a percent is given away for nothing.
"""

PAUSE_SECONDS = 5.0
"""How long to stop when SES throttles for another reason than the rate: by its Developer Guide, a problem of SES."""


@attrs.define(eq=False)
class _Token:
    """What a slot was charged for, so that it can be given back."""

    book: AccountBook
    control: RateControl
    serial: int
    bucket: float
    recipients: int
    counted: int
    open: bool = True


class AccountLimiter:
    """
    Holds the account's own quotas: recipients per second, evenly paced, and recipients per rolling 24 hours.

    It asks SES for both (``GetAccount``) at first use and every 15 minutes, once for all senders of the process on the
    same account and region: limiters that learn from the same account share pace, figures and daily count, however
    many senders, threads and event loops use them. Settings are each limiter's own, so one for newsletters may keep a
    reserve that another may use. A forked child goes on with what was learned; limiters of several processes do not
    know of each other, and share the account as with any stranger.

    While SES has not answered, and where the credentials may not ask, it goes at *fallback_rate*. When SES throttles,
    it slows down and comes back step by step (see the essay in ``tanksend/_quota.py``).

    When the day's quota is spent, `reserve` raises `DailyQuotaExceededError`, whose ``resume_at`` is on the safe side:
    up to a minute late for mail sent through here, and for mail of others 24 hours after it was first seen. The figures
    are read again meanwhile, at most once a minute, when somebody asks for a slot.

    Args:
        fallback_rate: Recipients per second while the account's own is not known; ``math.inf`` is no limit.
        headroom: The share of the rate to use, above 0 and at most 1. The default, 0.995, leaves 5 ms in each second
            for jitter, which kept strict accounts from throttling at 14 to 500 a second, in one process.
        when_quota_spent: ``"hold"`` raises when the day's quota is spent; ``"wait"`` grants slots that are due when
            there is room again, maybe hours ahead.
        reserve_for_transactional: Recipients of the day's quota that bulk mail leaves to transactional mail.
        clock: Where time comes from.

    Raises:
        SettingError: A number is out of range, or *when_quota_spent* is neither of the two.

    Source: Amazon SES Developer Guide, "Managing your sending limits".
    """

    def __init__(
        self,
        *,
        fallback_rate: float = FALLBACK_RATE,
        headroom: float = HEADROOM,
        when_quota_spent: Literal["hold", "wait"] = "hold",
        reserve_for_transactional: int = 0,
        clock: Clock | None = None,
    ) -> None:
        Pace(fallback_rate)
        if not 0 < headroom <= 1:
            raise SettingError("headroom must be above 0 and at most 1")
        if when_quota_spent not in ("hold", "wait"):
            raise SettingError('when_quota_spent must be "hold" or "wait"')
        if not reserve_for_transactional >= 0:
            raise SettingError("reserve_for_transactional must be 0 recipients or more")
        self._fallback = fallback_rate
        self._headroom = headroom
        self._waits = when_quota_spent == "wait"
        self._kept = reserve_for_transactional
        self._clock: Clock = SystemClock() if clock is None else clock
        self._source: AccountSource | None = None
        self._book = AccountBook(self._clock)
        self._found = False

    def __repr__(self) -> str:
        figures = self.figures
        return f"<AccountLimiter rate={figures.rate:g} of {figures.granted_rate:g} ({figures.source})>"

    def learn_from(self, source: AccountSource) -> None:
        """See `LearnsAccount.learn_from`: the first one stays."""
        if self._source is None:
            self._source = source

    @property
    def figures(self) -> LimiterFigures:
        """What is known of the account now."""
        book = self._book
        with book.lock:
            now = self._clock.monotonic()
            rate = book.rate(self._fallback)
            account = book.account
            return LimiterFigures(
                granted_rate=rate,
                rate=book.pace.pace(now, rate, self._headroom),
                daily_quota=None if account is None else book.day.quota,
                spent=book.day.spent(now),
                throttles=book.throttles,
                source="fallback" if account is None else "GetAccount",
                read_at=None if account is None else self._clock.wall() + book.read_at - now,
                production_access=None if account is None else account.production_access,
                sending_enabled=None if account is None else account.sending_enabled,
                enforcement_status=None if account is None else account.enforcement_status,
            )

    # --- slots ---

    async def reserve(self, demand: Demand) -> Slot:
        """
        Take *demand* from both quotas; see `RateLimiter.reserve`.

        The first call, and one that finds the day's quota spent, may wait up to 5 seconds for ``GetAccount``.

        Raises:
            DailyQuotaExceededError: The rolling 24-hour quota leaves no room and this limiter does not wait.
        """
        book = await self._open()
        # The routine reading is made after an answer, where nobody waits for it; here only if that has not happened.
        await self._read_if(book, book.next_read + (READ_EVERY if book.tried_at > -math.inf else 0.0))
        slot = self._take(book, demand, patient=False)
        if slot is None:
            await self._read_if(book, book.tried_at + READ_AGAIN)
            slot = self._take(book, demand, patient=self._waits)
        if slot is None:
            raise self._spent(book, demand)
        return slot

    async def _open(self) -> AccountBook:
        """The book of the account; until somebody says which that is, one of our own."""
        if not self._found and self._source is not None:
            self._book = await find_book(self._source, self._clock)
            self._found = True
        return self._book

    async def _read_if(self, book: AccountBook, due: float) -> None:
        """Read the account's figures, when they are *due* and nobody else does."""
        if self._source is None:
            return
        with book.lock:
            mine = book.claim_reading(due)
        if mine:
            await book.read(self._source, self._fallback)

    def _take(self, book: AccountBook, demand: Demand, *, patient: bool) -> Slot | None:
        """A slot; None when the day has no room for it now, or ever for one who is *patient*."""
        counted = max(0, demand.recipients - demand.uncounted)
        with book.lock:
            now = self._clock.monotonic()
            fits_at = book.day.room_at(now, counted, self._kept_from(demand)) if counted else now
            if fits_at > now and not (patient and fits_at < math.inf):
                return None
            rate = book.rate(self._fallback)
            if fits_at > now:
                control, grant = book.later, book.wait(fits_at, demand, rate, self._headroom)
            else:
                book.yield_to_waiting(now)
                control = book.pace
                grant = control.grant(
                    now, demand.recipients, demand.at_least, rate, self._headroom, divisible=demand.divisible
                )
            counted = min(counted, grant.recipients)
            bucket = book.day.take(now, grant.due, counted)
        token = _Token(book, control, control.serial, bucket, grant.recipients, counted)
        return Slot(grant.due - now, grant.recipients, token)

    def _kept_from(self, demand: Demand) -> int:
        return self._kept if demand.priority is not Priority.TRANSACTIONAL else 0

    def _spent(self, book: AccountBook, demand: Demand) -> DailyQuotaExceededError:
        counted = demand.recipients - demand.uncounted
        with book.lock:
            now = self._clock.monotonic()
            at = book.day.room_at(now, counted, self._kept_from(demand))
        kept = self._kept_from(demand)
        text = f"The account's quota of recipients per rolling 24 hours has no room for {counted} more"
        if kept:
            text += f" beside the {kept} kept for transactional mail"
        return DailyQuotaExceededError(text, resume_at=self._clock.wall() + at - now if at < math.inf else None)

    async def release(self, slot: Slot) -> None:
        """
        Give a slot back, whole or in part, once; its share of the day's quota too.

        Only the latest slot frees its time again. An earlier one lapses: others have been promised what follows it.
        """
        token = slot.token
        if not isinstance(token, _Token):
            return
        book = token.book
        with book.lock:
            if token.open:
                token.open = False
                recipients = min(slot.recipients, token.recipients)
                token.control.give_back(token.serial, recipients)
                book.day.give_back(token.bucket, min(recipients, token.counted))

    # --- answers ---

    async def feedback(self, signal: Signal) -> None:
        """
        Learn how one request fared: slow down when throttled, stop when the day's quota is spent.

        Every 15 minutes it also reads the account's figures, within 5 seconds.
        """
        book = self._book
        with book.lock:
            self._learn(book, signal)
        await self._read_if(book, book.next_read)

    def _learn(self, book: AccountBook, signal: Signal) -> None:
        now = self._clock.monotonic()
        error = signal.error
        counted = max(0, signal.recipients - signal.uncounted)
        # What may be repeated without harm was not taken, and so not counted. Of all else SES may think otherwise.
        refused = error is not None and error.retryable and not error.maybe_sent
        if error is None:
            book.pace.accepted(now, signal.recipients)
        elif isinstance(error, ThrottlingError):
            book.throttles += 1
            if error.pause:
                book.pace.pause(now + PAUSE_SECONDS)
            else:
                book.pace.throttled(now, signal.recipients, book.rate(self._fallback), self._headroom)
        elif isinstance(error, DailyQuotaExceededError):
            refused = True
        book.day.answered(counted, counted=not refused)
        if isinstance(error, DailyQuotaExceededError):
            book.day.refused(now, max(1, counted), now + READ_EVERY)
