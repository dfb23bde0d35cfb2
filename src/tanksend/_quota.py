"""
The account's two quotas, as arithmetic: how fast now, and how many still today.

Two small state machines of plain numbers. Nothing here reads a clock, waits or draws lots; every method takes the time
*now*, in seconds of any steady clock. `AccountLimiter` keeps them in memory under a lock; a limiter that shares them
between processes keeps the same numbers elsewhere, and does the same arithmetic there.

**`RateControl`** is even pacing (see `_pacing`): ``paid`` is the moment at which all that was granted is paid for, and
whoever comes next is due then. Each recipient costs one interval, so a heavy message leaves a debt. Three things bend
the interval.

*Headroom.* The pace is ``headroom * rate``. It pays for jitter: two requests an interval apart arrive a little closer
together now and then, and an account that counts strictly refuses one of them.

*Lateness.* Whoever asks for the next slot has just used the last one, so the moment of asking tells how late that was.
It is the moment of use that fills the account's second: ``sent``, the grants of the last second, are kept by it, and
a single recipient is due when fewer than the rate are in that second. So one that leaves late does not bring the one
a second later too near. In return the pace makes up for what was late by up to `LATE`; without that, a busy event
loop would lose some of the rate with each delay that is longer than an interval.

*Refusals.* A throttle says that the account is full.

- At full pace a refusal may be mere jitter. It is kept in mind (``suspect_at``); only another one, between `BURST`
  and `SUSPICION` seconds later, is a sign that somebody else uses the account.
- Then the pace is *cut*, at most once in `CUT_EVERY` seconds, since a burst of refusals tells one thing. The pace that
  was refused becomes the ``ceiling``. Where a good share of the last second or so was refused (``taken`` and
  ``refused``, which fade with `FADE`; one refusal is the price of asking), the ceiling is lower by that share; and
  where a cut has to follow another within `QUICK` seconds, by a `DIP` as well, because the first was too small. What
  was refused on the way up from a ceiling lies above what is free: then it is the middle between the two.
- From `DIP` of the ceiling the pace comes back along CUBIC's curve (RFC 9438, section 4): steeply at first, flat just
  below the ceiling, which it reaches after ``recovery`` seconds; then it probes, ``PROBE * rate * t**3`` above it. So
  it stays close to what is free, asks for more rarely, and takes all of it within some 15 s when the other has gone.
  The probe is the same for all who share an account, while the cut is in proportion: shares become equal.
- Who runs into the same ceiling again and again has a steady neighbour, and asks less often: ``recovery`` grows, from
  `RECOVERY` to `PATIENCE`. A refusal well below the ceiling is the work of a restless one, whose gaps are worth
  asking for: it starts anew.
- The pace never falls below `floor_of` the rate: a trickle has to go on, to notice that the account is free again.

*Strictness.* The documentation counts every sliding second; AWS has described a bucket that goes into debt. Even
pacing is safe under both for single recipients. A message to 40 at 50/s is not: the strict second before it must have
been nearly empty. Nobody says which kind an account is, so it is learned: when a message to several is throttled at
full pace, the account counts as strict for `STRICT_FOR` seconds. Then ``sent`` decides when a message fits, instead of
the debt; and where the demand says that fewer will do, as many are granted as fit at the earliest moment (so that a
light message passes a heavy one).

*Packs*, several messages in one request, can be split. So they go evenly, like single ones, and never more of them than
fit into a strict second, whatever the account is.

**`DailyWindow`** counts recipients in the rolling 24 hours: our own in buckets of `BUCKET` seconds, each with the
moment at which it has surely left the window, and those of others, of which only the sum is known: what `GetAccount`
says, less ours. What is new in that sum since the last reading was sent by now, so it has left the window 24 hours
from now at the latest; what is missing from it was the oldest. Every rounding is to the safe side: a moment given by
`DailyWindow.room_at` may be late by a bucket (or, for mail of others, by up to 24 hours: read again meanwhile), never
early.
"""

from __future__ import annotations

import math

import attrs

from ._pacing import Grant

BURST = 0.25
"""Seconds within which refusals at full pace are one event."""
SUSPICION = 3.0
"""Seconds for which a refusal at full pace is kept in mind."""
CUT_EVERY = 1.0
"""Seconds between two cuts: the sliding second has to pass before the first can show."""
QUICK = 1.25
"""Seconds after a cut in which another shows that it was too small."""
DIP = 0.95
"""Share of the ceiling that is left after a cut. CUBIC's 0.7 empties the queues of routers; an account has none."""
RECOVERY = 4.0
"""Seconds from a cut back to the ceiling."""
PATIENCE = 9.0
"""The same, when the ceiling has been the same for a while."""
SAME = 0.98
"""Share of the ceiling from which a refusal confirms it."""
PROBE = 0.0008
"""Share of the rate, per cubic second, by which the pace probes beyond the ceiling."""
HEAVY = 0.15
"""Share of refusals from which the ceiling is lowered by it."""
FADE = 1.0
"""Seconds in which counts of taken and refused fade by a factor of e."""
FORGET = 60.0
"""Seconds after a cut at which a rate without limit counts as unlimited again."""
STRICT_FOR = 900.0
"""Seconds for which an account counts as strict after a heavy message was throttled."""
SPAN = 1.0
"""The window, in seconds, of a strict account."""
GRAIN = 0.001
"""Seconds of grants that are one entry of `RateControl.sent`, so that it stays short at any rate."""
ROUNDING = 1e-9
"""Seconds by which sums of moments miss their mark."""
MARGIN = 0.004
"""Seconds more of jitter that are allowed for with packs, once an account has shown to be strict: it refuses all."""
PATCH = 0.01
"""Seconds that several messages wait so as not to be split into two requests."""
LATE = 0.025
"""Seconds up to which a grant may have been used late. What comes later than that is not used, or after a rest."""

DAY = 86_400.0
"""The window, in seconds, of the daily quota."""
BUCKET = 60.0
"""Seconds of our own sends that leave the daily window together."""


def floor_of(rate: float) -> float:
    """Recipients per second below which no refusal pushes the pace: a twentieth of *rate*, but 1 where that is less."""
    return min(rate, max(rate / 20.0, 1.0)) if rate < math.inf else 1.0


@attrs.define
class RateControl:
    """
    When may the next request go?

    *rate* is what the account is granted, in recipients per second (``math.inf``: no limit), and *headroom* the share
    of it to use; both are arguments, because both can change at any time.

    Attributes:
        paid: When all that was granted is paid for.
        ceiling: Where the pace was refused; ``math.inf`` is full pace.
        cut_at: When that was.
        recovery: Seconds from then until the pace is back at the ceiling.
        suspect_at: When something was refused at full pace.
        taken: Recipients taken lately.
        refused: Recipients refused lately.
        faded_at: When these two were last faded.
        strict_until: Until when the account counts as strict.
        sent: Grants of the last second as (moment, recipients), by moment.
        load: Recipients in *sent*.
        serial: Number of the latest grant.
        open: Recipients of the latest grant, while it may be given back; 0 afterwards.
        price: Seconds that each of them cost.
        before: What *paid* was before it.
    """

    paid: float = -math.inf
    ceiling: float = math.inf
    cut_at: float = -math.inf
    recovery: float = RECOVERY
    suspect_at: float = -math.inf
    taken: float = 0.0
    refused: float = 0.0
    faded_at: float = -math.inf
    strict_until: float = -math.inf
    sent: list[tuple[float, int]] = attrs.field(factory=list)
    load: int = 0
    serial: int = 0
    open: int = 0
    price: float = 0.0
    before: float = -math.inf

    # --- the pace ---

    def pace(self, now: float, rate: float, headroom: float) -> float:
        """Recipients per second at this moment."""
        full = rate * headroom
        if self.ceiling == math.inf:
            return full
        since = now - self.cut_at - self.recovery
        if since < 0:
            pace = self.ceiling * (1.0 + (1.0 - DIP) * (since / self.recovery) ** 3)
        elif rate < math.inf:
            pace = self.ceiling + PROBE * rate * since**3
        else:
            pace = self.ceiling * (1.0 + PROBE * since**3) if since < FORGET else math.inf
        return min(full, max(floor_of(rate), pace))

    def _is_full(self, now: float, rate: float, headroom: float) -> bool:
        """Whether the pace is the full one; if it has come back to that, the ceiling is forgotten."""
        # Just after a cut it may look full because the rate was lowered meanwhile; that is no recovery.
        if now - self.cut_at >= self.recovery and self.pace(now, rate, headroom) >= rate * headroom:
            self.ceiling = math.inf
        return self.ceiling == math.inf

    # --- grants ---

    def grant(
        self, now: float, recipients: int, at_least: int, rate: float, headroom: float, *, divisible: bool = False
    ) -> Grant:
        """
        Take the next slot for *recipients*, or on a strict account for as many as fit, but *at_least* so many.

        *divisible* are several messages in one request. `serial` names the grant, for `give_back`.
        """
        self._is_full(now, rate, headroom)
        pace = self.pace(now, rate, headroom)
        strict = now < self.strict_until
        self._look_back(now, SPAN / headroom + MARGIN)
        due = self._in_order(now)
        if divisible:
            budget = pace / headroom if strict or rate == math.inf else math.ceil(rate)
            span = SPAN / headroom + (MARGIN if strict else 0.0)
            due, recipients = self._fit_pack(due, recipients, at_least, budget, span)
        elif strict:
            due, recipients = self._fit(due, recipients, at_least, pace / headroom, SPAN / headroom)
        elif recipients == 1:
            due, _ = self._fit(due, 1, 1, math.ceil(rate) if rate < math.inf else rate, SPAN / headroom)
        interval = 1.0 / pace  # 0.0 where there is no limit
        heavy = strict and not divisible  # what fits decides, and nothing else
        self.before, self.price = self.paid, 0.0 if heavy else interval
        # What came late may be made up for; a rest may not.
        begun = self.paid if due - self.paid <= LATE else due
        self.paid = begun + (interval if heavy else recipients * interval)
        self.serial += 1
        self.open = recipients
        self._note(due, recipients)
        return Grant(due, self.paid, recipients)

    def _in_order(self, now: float) -> float:
        """The moment of the next grant: when the ones before are paid for, and not before them."""
        due = max(now, self.paid)
        return max(due, self.sent[-1][0]) if self.sent else due

    def _look_back(self, now: float, span: float) -> None:
        """Forget the grants that have left the window, and see whether the last one was used late."""
        sent = self.sent
        if not sent:
            return
        if 0 < now - sent[-1][0] <= LATE + ROUNDING:
            sent[-1] = (now, sent[-1][1])
        begin = max(now, sent[-1][0])  # the next one is due no earlier
        gone = 0
        while gone < len(sent) and sent[gone][0] + span <= begin:
            self.load -= sent[gone][1]
            gone += 1
        del sent[:gone]

    def _fit(self, due: float, recipients: int, at_least: int, budget: float, span: float) -> tuple[float, int]:
        """From *due* on, when do *at_least* fit into a strict window, and how many of *recipients* fit then?"""
        load = self.load
        for moment, count in self.sent:
            if moment + span > due:
                if load + at_least <= budget or load <= 0:
                    break
                due = moment + span
            load -= count
        return due, max(at_least, int(min(recipients, budget - load)))

    def _fit_pack(self, due: float, recipients: int, at_least: int, budget: float, span: float) -> tuple[float, int]:
        """
        As `_fit`, for what can be split.

        A moment's patience keeps it in one piece where one came late before. So does more of it where the last second
        went in three times as many pieces as it need have: as it went, the next one would.
        """
        whole = int(max(at_least, min(recipients, budget)))
        full, _ = self._fit(due, whole, whole, budget, span)
        some, fitting = self._fit(due, whole, at_least, budget, span)
        if full - some <= PATCH or len(self.sent) >= 3 * math.ceil(budget / whole):
            return full, whole
        return some, fitting

    def _note(self, due: float, recipients: int) -> None:
        """Keep a grant for the window; the moments in an entry count as the last of them."""
        self.load += recipients
        if self.sent and due // GRAIN == self.sent[-1][0] // GRAIN:
            recipients += self.sent.pop()[1]
        self.sent.append((due, recipients))

    def give_back(self, serial: int, recipients: int) -> None:
        """
        Free *recipients* of the grant with that number, once.

        Only the latest grant frees its time. An earlier one lapses: others have been promised what follows it.
        """
        if serial != self.serial or not self.open:
            return
        recipients = min(recipients, self.open)
        self.paid = self.before if recipients == self.open else self.paid - recipients * self.price
        moment, count = self.sent.pop()
        if count > recipients:
            self.sent.append((moment, count - recipients))
        self.load -= recipients
        self.open = 0

    # --- what SES says ---

    def accepted(self, now: float, recipients: int) -> None:
        """SES took so many."""
        self._fade(now)
        self.taken += recipients

    def throttled(self, now: float, recipients: int, rate: float, headroom: float) -> None:
        """SES refused so many because the account is full."""
        if recipients > rate:
            # A strict account never takes that, however slow we are.
            self.strict_until = now + STRICT_FOR
            return
        self._fade(now)
        self.refused += recipients
        if self._is_full(now, rate, headroom) and self._is_harmless(now, recipients):
            return
        if now - self.cut_at >= CUT_EVERY:
            self._cut(now, self.pace(now, rate, headroom), rate)

    def _is_harmless(self, now: float, recipients: int) -> bool:
        """Whether a refusal at full pace may have come from ourselves."""
        if recipients > 1 and now >= self.strict_until:
            self.strict_until = now + STRICT_FOR
            return True
        since = now - self.suspect_at
        if since > SUSPICION:
            self.suspect_at = now
            return True
        return since < BURST

    def _cut(self, now: float, pace: float, rate: float) -> None:
        """*pace* is too much."""
        if pace == math.inf:
            pace = self.taken
        if SAME * self.ceiling <= pace:
            self.recovery = min(PATIENCE, self.recovery * 1.5)
        else:
            self.recovery = RECOVERY
        share = (self.refused - 1.0) / max(1.0, self.taken + self.refused - 1.0)
        if share >= HEAVY:
            pace *= 1.0 - share
            self.recovery = RECOVERY
        elif now - self.cut_at < QUICK:
            pace *= DIP
        elif self.ceiling < pace:
            pace = (pace + self.ceiling) / 2.0
        self.ceiling = max(pace, floor_of(rate))
        self.cut_at = now
        self.suspect_at = -math.inf
        self.taken = self.refused = 0.0

    def _fade(self, now: float) -> None:
        left = math.exp(min(0.0, self.faded_at - now) / FADE)
        self.taken *= left
        self.refused *= left
        self.faded_at = now

    def pause(self, until: float) -> None:
        """Let nothing be due before *until*."""
        self.paid = max(self.paid, until)
        self.open = 0  # its time may have passed: to free it now would shorten the wait


@attrs.define
class DailyWindow:
    """
    How many recipients fit into the rolling 24 hours, and when will more?

    Attributes:
        quota: Recipients per 24 hours; ``math.inf`` is no limit, or not known.
        ours: Our own as (moment at which they have left the window, recipients), by moment.
        others: Those of others in the same form.
        ours_sum: Recipients in *ours*.
        others_sum: Recipients in *others*.
        flying: Recipients granted of which we do not know yet whether SES has counted them.
        flew_at: When something was last granted.
        shut_until: Until when SES's word that the quota is spent stands against unknown figures.
    """

    quota: float = math.inf
    ours: list[tuple[float, int]] = attrs.field(factory=list)
    others: list[tuple[float, float]] = attrs.field(factory=list)
    ours_sum: int = 0
    others_sum: float = 0.0
    flying: int = 0
    flew_at: float = -math.inf
    shut_until: float = -math.inf

    def spent(self, now: float) -> float:
        """Recipients in the window at *now*, those granted for later included."""
        while self.ours and self.ours[0][0] <= now:
            self.ours_sum -= self.ours.pop(0)[1]
        while self.others and self.others[0][0] <= now:
            self.others_sum -= self.others.pop(0)[1]
        return self.ours_sum + self.others_sum

    def room_at(self, now: float, recipients: int, kept: int = 0) -> float:
        """
        The earliest moment, from *now* on, at which *recipients* surely fit while *kept* stay free.

        ``math.inf`` where they never will.
        """
        over = self.spent(now) + recipients + kept - self.quota
        moment = max(now, self.shut_until)
        if over <= 0:
            return moment
        for until, count in sorted([*self.ours, *self.others]):
            over -= count
            if over <= 0:
                return max(moment, until)
        return math.inf

    def take(self, now: float, at: float, recipients: int) -> float:
        """Count *recipients* that go at *at*. The answer names their bucket, for `give_back`."""
        until = (at // BUCKET + 1) * BUCKET + DAY
        if now - self.flew_at > 2 * BUCKET:
            self.flying = 0  # whatever has not answered by now never will
        self.flew_at = max(self.flew_at, at)
        self.flying += recipients
        self.ours_sum += recipients
        place = len(self.ours)
        while place and self.ours[place - 1][0] > until:
            place -= 1
        if place and self.ours[place - 1][0] == until:
            self.ours[place - 1] = (until, self.ours[place - 1][1] + recipients)
        else:
            self.ours.insert(place, (until, recipients))
        return until

    def give_back(self, until: float, recipients: int) -> None:
        """*recipients* of that bucket are not sent after all."""
        self.flying = max(0, self.flying - recipients)
        for place in range(len(self.ours) - 1, -1, -1):
            moment, count = self.ours[place]
            if moment == until:
                returned = min(count, recipients)
                self.ours[place] = (moment, count - returned)
                self.ours_sum -= returned
                return

    def answered(self, recipients: int, *, counted: bool) -> None:
        """SES has answered; not *counted* are those that it certainly did not take, which go out of the last bucket."""
        if counted:
            self.flying = max(0, self.flying - recipients)
        elif self.ours:
            self.give_back(self.ours[-1][0], recipients)

    def settled(self, now: float) -> float:
        """Our own that SES must have counted by now; keep it from before a reading is asked for, to give to `read`."""
        self.spent(now)
        return max(0, self.ours_sum - self.flying)

    def read(self, now: float, quota: float, spent: float, settled: float) -> None:
        """SES says that its *quota* has so many *spent*; *settled* of them were ours."""
        self.quota = quota
        self.shut_until = -math.inf
        self.spent(now)
        self._set_others(now, max(0.0, spent - settled))

    def refused(self, now: float, recipients: int, again: float) -> None:
        """SES says that *recipients* do not fit. Where the quota is not known, that stands until *again*."""
        if self.quota == math.inf:
            self.shut_until = max(self.shut_until, again)
            return
        missing = self.quota - recipients + 1 - self.spent(now)
        if missing > 0:
            self._set_others(now, self.others_sum + missing)

    def _set_others(self, now: float, others: float) -> None:
        """Newcomers have been sent by *now*; those who are gone were the oldest."""
        change = others - self.others_sum
        if change > 0:
            self.others.append((now + DAY, change))
        while change < 0 and self.others:
            until, count = self.others.pop(0)
            if count + change > 0:
                self.others.insert(0, (until, count + change))
            change += count
        self.others_sum = others
