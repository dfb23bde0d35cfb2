"""
What a key's row is, and what becomes of it: one state machine for every ledger.

A key without a row is free. From there::

                  claim                     record
    free ────────────────▶ claimed ──────────────────────────▶ SENT      (for good)
     ▲                      │    │ ──────────────────────────▶ UNKNOWN
     │   record HELD,       │    │ its lease ends, or its       │    │ claim with resend_unknown:
     └── FAILED, … ─────────┘    │ claimant is dead             │    ▼
                                 └─────▶ (UNKNOWN) ◀────────────┘  claimed, in doubt

- A claim that nobody may still be working on is not written as UNKNOWN: it *is* UNKNOWN to all who look, from the
  moment its lease ends or its claimant is seen to be dead. So nobody has to come by and tidy up.
- Its claimant stays in the row. It may be alive after all, and then knows best: it may record what came of it until
  somebody claims the key anew.
- A key that was claimed although its fate was unknown is in doubt: it may have been sent before. What the new attempt
  brings, "certainly not sent" among it, is true of that attempt only; such a key becomes SENT or UNKNOWN, never free.
- SENT is never taken back.

Everything here is pure: the time, and who is alive, are arguments. Rows are frozen; each function returns the row as it
is to be kept, or None where nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .._results import Status
from ..exceptions import SettingError
from ..typing import Claim, LedgerEntry

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection

NOT_SENT = frozenset({Status.FAILED, Status.HELD, Status.INVALID, Status.SUPPRESSED})
"""Fates that leave the key free: SES certainly has not taken the message."""

SETTLED_BY_HAND = frozenset({Status.SENT, Status.FAILED, Status.HELD})
"""What a person may say of an unknown fate."""

LEASE_SECONDS = 900.0
"""How long a claim lasts when nothing else is said: longer than any request with its retries."""

_KEPT = NOT_SENT | {Status.SENT, Status.UNKNOWN}


@attrs.frozen
class Row:
    """
    What is kept of one key.

    Attributes:
        status: Its fate; None while it is claimed.
        owner: Who claimed it, as a number; kept while it may still record what came of it.
        until: When the lease of the claim ends, in Unix time.
        doubt: It was claimed although it may have been sent before.
        message_id: SES's message id, when it was sent.
        error_code: The code of the error, when it was not.
        at: When it came to this, in Unix time.
    """

    status: Status | None
    owner: int | None = None
    until: float = 0.0
    doubt: bool = False
    message_id: str | None = None
    error_code: str | None = None
    at: float = 0.0

    def __repr__(self) -> str:
        return f"<Row {self.status.value if self.status else 'claimed'}>"


@attrs.frozen
class View:
    """
    Who looks, when, and whom it knows to be alive.

    Attributes:
        me: The number of the holder that asks.
        now: Unix time.
        alive: Whether the holder of that number may still be working; True unless it is provably dead.
        past: Numbers that it had before. Their claims are nobody's now, but it may know what came of them.
    """

    me: int
    now: float
    alive: Callable[[int], bool]
    past: Collection[int] = ()

    def has_claimed(self, row: Row) -> bool:
        """Whether the claim of *row* is, or was, one of this holder."""
        return row.owner == self.me or row.owner in self.past

    def is_open(self, row: Row) -> bool:
        """Whether *row* is a claim that somebody may be working on."""
        return row.status is None and self.now < row.until and (row.owner is None or self.alive(row.owner))

    def fate(self, row: Row) -> Status | None:
        """The fate as others see it; None only while somebody may be working on it."""
        return Status.UNKNOWN if row.status is None and not self.is_open(row) else row.status

    def entry(self, key: str, row: Row) -> LedgerEntry:
        """What a ledger tells of the key."""
        return LedgerEntry(key, self.fate(row), row.message_id, row.error_code, row.at)


def as_seconds(duration: float | dt.timedelta, *, least: float | None = None) -> float:
    """
    A duration in seconds.

    Raises:
        SettingError: It is below *least*, or, where there is none, not above 0.
    """
    found = float(duration) if isinstance(duration, int | float) else duration.total_seconds()
    if not (found > 0 if least is None else found >= least):
        raise SettingError(
            "the duration must be " + ("above 0" if least is None else f"at least {least:g}") + " seconds"
        )
    return found


def claim(row: Row | None, view: View, lease: float, *, resend_unknown: bool = False) -> tuple[Claim, Row | None]:
    """
    Ask for a key.

    An open claim is `Claim.ELSEWHERE` also to the holder that made it: within one process, too, somebody works on it.
    """
    mine = Row(None, view.me, view.now + lease, at=view.now)
    if row is None:
        return Claim.GRANTED, mine
    fate = view.fate(row)
    if fate is None:
        return Claim.ELSEWHERE, None
    if fate is Status.SENT:
        return Claim.ALREADY_SENT, None
    if fate is Status.UNKNOWN:
        return (Claim.GRANTED, attrs.evolve(mine, doubt=True)) if resend_unknown else (Claim.UNKNOWN, None)
    return Claim.GRANTED, mine


def record(row: Row | None, entry: LedgerEntry, view: View) -> Row | None:
    """
    Keep what *view.me* knows of a key.

    ``ALREADY_SENT`` and ``ELSEWHERE`` are what a ledger said itself, so they change nothing; nor does somebody else's
    word on a claim.
    """
    status = entry.status
    if status is None or status not in _KEPT or (row is not None and not _may_record(row, status, view)):
        return None
    if row is not None and row.doubt and status in NOT_SENT:
        status = Status.UNKNOWN
    owner = view.me if status is Status.UNKNOWN else None
    at = entry.at or view.now
    return Row(status, owner, message_id=entry.message_id, error_code=entry.error_code, at=at)


def _may_record(row: Row, status: Status, view: View) -> bool:
    if row.status is None:
        return view.has_claimed(row)
    if row.status is Status.UNKNOWN:
        return view.has_claimed(row) and status is Status.SENT
    return row.status is not Status.SENT


def settle(row: Row | None, status: Status, view: View, message_id: str | None = None) -> Row | None:
    """
    Decide an unknown fate by hand: it was sent, or it was not and is free again.

    Nobody's claim is settled while he may be working on it.
    """
    if row is None or view.fate(row) is not Status.UNKNOWN:
        return None
    return Row(status, message_id=message_id, at=view.now)


def prove(row: Row | None, message_id: str | None, now: float) -> Row | None:
    """SES says that it has the message: it was sent, whatever anybody thought."""
    if row is None or row.status is Status.SENT:
        return None
    return Row(Status.SENT, message_id=message_id, at=now)
