"""
The contracts a part can be written against, and the small values that cross them.

Everything here is a `typing.Protocol` or a frozen value: a limiter, retry policy, suppression store, ledger, guard,
observer or transport of your own needs no base class, only the methods. `tanksend.testing` has a ``check_…`` function
for each, which tells whether an implementation keeps its contract.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from ._messages import Priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from ._addresses import Address
    from ._messages import Message, Template
    from ._results import Receipt, SendResult, Status
    from .exceptions import SendError

__all__ = [
    "Account",
    "AccountSource",
    "Allow",
    "Attempt",
    "BatchingLedger",
    "BulkRequest",
    "BulkTransport",
    "Claim",
    "Clock",
    "Demand",
    "Drop",
    "EventKind",
    "GiveUp",
    "Guard",
    "GuardDecision",
    "Hold",
    "LearnsAccount",
    "Ledger",
    "LedgerEntry",
    "LimiterFigures",
    "Observer",
    "RateLimiter",
    "Replace",
    "Retry",
    "RetryPolicy",
    "SendEvent",
    "SendRequest",
    "Signal",
    "Slot",
    "Suppression",
    "SuppressionReason",
    "SuppressionStore",
    "TemplateSource",
    "Transport",
]


@runtime_checkable
class Clock(Protocol):
    """Where time comes from, so that a test can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait *seconds*; 0 or less yields once. Cancellation ends it at once."""
        ...


# --- transport -------------------------------------------------------------------------------------------------------


@attrs.frozen
class SendRequest:
    """
    One message as it goes on the wire: defaults filled in, addresses validated, suppressed recipients taken out.

    Attributes:
        message: The content; its own addresses are *not* what is sent, the fields below are.
        from_: The From address.
        to: Validated recipients; with *cc* and *bcc* at most 50, none twice.
        cc: See *to*.
        bcc: See *to*.
        reply_to: Validated Reply-To addresses.
        configuration_set: Name of the SES configuration set, or None.
        tags: SES message tags; names and values of letters, digits, ``_`` and ``-``.
    """

    message: Message
    from_: Address
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    configuration_set: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @property
    def recipients(self) -> tuple[Address, ...]:
        """To + Cc + Bcc: what SES counts against both quotas."""
        return self.to + self.cc + self.bcc if self.cc or self.bcc else self.to

    def __repr__(self) -> str:
        return f"<SendRequest recipients={len(self.recipients)}>"


@attrs.frozen
class BulkRequest:
    """
    Several templated messages for one ``SendBulkEmail`` call, at most 50.

    All have the same template, From, Reply-To, configuration set and attachments; recipients, template data, headers
    and tags differ.
    """

    requests: tuple[SendRequest, ...]

    def __repr__(self) -> str:
        return f"<BulkRequest requests={len(self.requests)}>"


class Transport(Protocol):
    """A way out: SES's HTTP API, SMTP, a folder, a test double."""

    async def send(self, request: SendRequest) -> Receipt:
        """
        Make one attempt. No retries of its own.

        Called from many tasks at once, on any event loop. Raises `SendError` only; `SendError.maybe_sent` is True
        unless the message was certainly not accepted. When it is cancelled, nothing half-used stays behind.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open. The transport opens again when it is used again."""
        ...


class BulkTransport(Transport, Protocol):
    """A transport that can carry several templated messages in one request."""

    async def send_bulk(self, request: BulkRequest) -> Sequence[Receipt | SendError]:
        """
        Make one attempt for all. One outcome per entry, in order.

        Raises `SendError` when the whole request failed; then `SendError.maybe_sent` is about all of its messages.
        """
        ...


@attrs.frozen
class Account:
    """
    What SES says about the account in one region.

    Attributes:
        max_send_rate: Recipients per second; -1 is unlimited.
        max_24_hour_send: Recipients per rolling 24 hours; -1 is unlimited.
        sent_last_24_hours: Recipients counted in the last 24 hours.
        production_access: False while the account is in the sandbox.
        sending_enabled: False while sending is paused.
        enforcement_status: ``HEALTHY``, ``PROBATION`` or ``SHUTDOWN``.
    """

    max_send_rate: float
    max_24_hour_send: float
    sent_last_24_hours: float
    production_access: bool = True
    sending_enabled: bool = True
    enforcement_status: str = "HEALTHY"


@runtime_checkable
class AccountSource(Protocol):
    """Something that can ask SES about the account; `SESTransport` is one."""

    async def account(self) -> Account:
        """
        Ask once. No cache of its own: SES allows about one such call a second, so callers keep the answer.

        Raises:
            SendError: As for sending; `AccessDeniedError` when ``ses:GetAccount`` is not allowed.
        """
        ...


@runtime_checkable
class TemplateSource(Protocol):
    """Something that knows the templates stored in SES; `SESTransport` is one."""

    async def template(self, name: str) -> Template | None:
        """
        The content stored under *name*, as an inline template; None where it cannot be told, whatever the reason.

        Called for each message, so the answer is kept. Never raises because SES cannot be asked.

        Raises:
            ConfigurationError: There is no such template; its `origin` is `Origin.TEMPLATE`.
        """
        ...


# --- pace ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Demand:
    """
    What the engine wants next.

    Attributes:
        recipients: To + Cc + Bcc of the request. SES counts recipients, not messages.
        at_least: The fewest that are of use; a single message cannot be split, so there it equals *recipients*.
        priority: The lane.
        uncounted: How many of *recipients* do not count against the daily quota: those at SES's mailbox simulator
            (``@simulator.amazonses.com``). The rate counts them like all others.
        divisible: Whether it is for several messages that can share a request, so that any number of *recipients* from
            *at_least* on is as good. Otherwise fewer mean another message.
    """

    recipients: int
    at_least: int = 1
    priority: Priority = Priority.BULK
    uncounted: int = 0
    divisible: bool = attrs.field(default=False, repr=False)


@attrs.frozen
class Slot:
    """
    Leave to send, from *delay* seconds after `RateLimiter.reserve` returned.

    Attributes:
        delay: Seconds from now until it is due; 0.0 means now.
        recipients: How many recipients it carries, between the demand's *at_least* and *recipients*.
        token: The limiter's own.
    """

    delay: float
    recipients: int
    token: object = None


@attrs.frozen
class Signal:
    """
    How one request fared, for a limiter that learns.

    Attributes:
        recipients: How many it carried.
        error: None when SES accepted it; a `ThrottlingError` or `DailyQuotaExceededError` is what matters most.
        uncounted: How many of *recipients* do not count against the daily quota, as in `Demand`.
    """

    recipients: int
    error: SendError | None = None
    uncounted: int = 0


class RateLimiter(Protocol):
    """
    Hands out leave to send. State is the limiter's; waiting is the engine's.

    Called from any task, thread and event loop; shared state stands under a lock that is never held over an await.

    How many messages share a request goes by its pace, where it has `LimiterFigures` as ``figures``, or recipients per
    second as ``rate``. With neither, fifty do.
    """

    async def reserve(self, demand: Demand) -> Slot:
        """
        Take *demand* from the budget and say when it may be used.

        Returns without waiting for the slot, unless others may still go first. Cancelled, it takes nothing.

        A demand heavier than the budget ever allows at once is granted and leaves a debt, as SES does.

        Raises:
            DailyQuotaExceededError: The rolling 24-hour quota leaves no room; `resume_at` says until when.
        """
        ...

    async def release(self, slot: Slot) -> None:
        """
        Give back a slot, or with a smaller `Slot.recipients` the part of it that was not used.

        Idempotent, shielded from cancellation, never raises.
        """
        ...

    async def feedback(self, signal: Signal) -> None:
        """Learn how one request fared. Never raises."""
        ...


@runtime_checkable
class LearnsAccount(Protocol):
    """A limiter that wants to know the account. The `Sender` hands it its transport, if that is an `AccountSource`."""

    def learn_from(self, source: AccountSource) -> None:
        """
        Ask *source* about the account from now on, unless another one was given before. Does not ask yet.

        Where the source has a method ``async account_key() -> str`` that names account, region and credentials
        without telling them, limiters with the same key may share what they learn.
        """
        ...


@attrs.frozen
class LimiterFigures:
    """
    What a limiter knows of the account, for people and reports.

    Attributes:
        granted_rate: Recipients per second that the account may send; ``math.inf`` is unlimited.
        rate: Recipients per second at which the limiter lets go now: less than that by a headroom, and much less while
            others use the account.
        daily_quota: Recipients per rolling 24 hours; ``math.inf`` is unlimited, None not known.
        spent: Recipients counted in the last 24 hours, as far as the limiter knows.
        throttles: Requests that SES has throttled, since the limiter came to be.
        source: Where the figures come from: ``"GetAccount"``, or ``"fallback"`` while there is no answer.
        read_at: Unix time in seconds of the last answer, or None.
        production_access: False while the account is in the sandbox; None is not known.
        sending_enabled: False while sending is paused; None is not known.
        enforcement_status: ``HEALTHY``, ``PROBATION`` or ``SHUTDOWN``; None is not known.
    """

    granted_rate: float
    rate: float
    daily_quota: float | None
    spent: float
    throttles: int
    source: str
    read_at: float | None = None
    production_access: bool | None = None
    sending_enabled: bool | None = None
    enforcement_status: str | None = None


# --- retries ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Attempt:
    """
    A failed attempt, as a retry policy sees it.

    Attributes:
        number: Requests made for the message so far, this one included.
        error: What came of it.
        elapsed: Seconds since the message was taken in.
        jitter: A random number in [0, 1), so that the policy itself stays pure.
        throttles: How many of the *number* attempts ended throttled, this one included.
    """

    number: int
    error: SendError
    elapsed: float
    jitter: float
    throttles: int = 0


@attrs.frozen
class Retry:
    """Try again after *after* seconds, when the pace allows."""

    after: float = 0.0


@attrs.frozen
class GiveUp:
    """Leave it at this error."""


class RetryPolicy(Protocol):
    """Decides after each failed attempt. Pure: no clock, no randomness, no state."""

    def decide(self, attempt: Attempt) -> Retry | GiveUp:
        """
        Try again, or leave it.

        An attempt whose outcome is unknown (`SendError.maybe_sent`) may have reached the recipient; answering it with
        `Retry` is the caller's explicit choice of at-least-once.
        """
        ...


# --- suppression -----------------------------------------------------------------------------------------------------


class SuppressionReason(enum.StrEnum):
    """Why nobody may write to an address."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"


@attrs.frozen
class Suppression:
    """
    One suppressed address, with why and since when.

    Attributes:
        address: The e-mail address, any case.
        reason: Why.
        at: Unix time in seconds, or None when not known.
        evidence: Where it came from, such as an event id; shown by ``explain``.
        expires_at: Unix time in seconds after which it no longer holds, or None for good.
    """

    address: str
    reason: SuppressionReason = attrs.field(default=SuppressionReason.MANUAL, converter=SuppressionReason)
    at: float | None = None
    evidence: str | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"<Suppression {self.reason.value}>"


class SuppressionStore(Protocol):
    """Who must not be written to. Matching is per person: case-insensitive on the whole address."""

    async def lookup(self, addresses: Collection[str]) -> Mapping[str, Suppression]:
        """Those of *addresses* that are suppressed, under the spelling they were asked with."""
        ...

    async def add(self, *entries: Suppression) -> None:
        """Suppress. An entry for a known address replaces it."""
        ...

    async def remove(self, address: str) -> bool:
        """Lift a suppression; False when there was none."""
        ...

    def entries(self) -> AsyncIterator[Suppression]:
        """All that is suppressed now, in no particular order."""
        ...


# --- ledger ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class LedgerEntry:
    """
    What a ledger knows of one key.

    Attributes:
        key: The caller's name for the message.
        status: Its fate; None while it is claimed and has none.
        message_id: SES's message id, when it was sent.
        error_code: The code of the error, when it was not.
        at: Unix time in seconds.
    """

    key: str
    status: Status | None
    message_id: str | None = None
    error_code: str | None = None
    at: float = 0.0

    def __repr__(self) -> str:
        return f"<LedgerEntry {self.status.value if self.status else 'claimed'}>"


class Claim(enum.StrEnum):
    """What came of asking for a key."""

    GRANTED = "granted"
    ALREADY_SENT = "already-sent"
    UNKNOWN = "unknown"
    ELSEWHERE = "elsewhere"


class Ledger(Protocol):
    """
    The durable record of intents and fates by key.

    What is durable when a method returns survives the death of the process and of the machine. Called from any task and
    event loop. What cannot be read or written is raised as `LedgerError`, which says what to do; the batch stops then.
    """

    async def lookup(self, keys: Sequence[str]) -> Mapping[str, LedgerEntry]:
        """What is known of *keys*; unknown keys are absent. Called early, for many at once."""
        ...

    async def claim(self, keys: Sequence[str], *, resend_unknown: bool = False) -> Mapping[str, Claim]:
        """
        Take *keys* for sending: atomic, one answer for each, and durable when this returns.

        With *resend_unknown*, keys whose outcome is unknown are granted too: the caller has chosen at-least-once.
        """
        ...

    async def record(self, entries: Sequence[LedgerEntry]) -> None:
        """
        Keep fates; durable when this returns.

        ``HELD``, ``FAILED`` and the like free the key again. Who claimed a key may record what he knows at any time,
        also when the claim was taken for dead meanwhile (``UNKNOWN`` becomes ``SENT``), unless it was claimed anew.
        """
        ...

    def pending(self) -> AsyncIterator[LedgerEntry]:
        """Claims without a fate, and unknown ones."""
        ...


@runtime_checkable
class BatchingLedger(Protocol):
    """
    A `Ledger` that can record and claim with one sync of its disk, or one round to its server. The engine then does.
    """

    async def record_and_claim(
        self, entries: Sequence[LedgerEntry], keys: Sequence[str], *, resend_unknown: bool = False
    ) -> Mapping[str, Claim]:
        """As `Ledger.record` and then `Ledger.claim`: when it returns, both are durable; the claims never without."""
        ...


# --- guards and observers --------------------------------------------------------------------------------------------


@attrs.frozen
class Allow:
    """Send it."""


@attrs.frozen
class Replace:
    """Send *message* instead."""

    message: Message


@attrs.frozen
class Hold:
    """Not now; nothing is wrong with the message. *reason* is shown, *resume_at* is Unix time in seconds."""

    reason: str
    resume_at: float | None = None


@attrs.frozen
class Drop:
    """Never; *reason* is shown and must not hold personal data."""

    reason: str


GuardDecision = Allow | Replace | Hold | Drop
"""What a `Guard` says of a message."""


class Guard(Protocol):
    """A check of the caller's own, between suppression and pace."""

    async def check(self, message: Message) -> GuardDecision:
        """Judge one message. An exception from here makes the message ``FAILED`` with `GuardError`."""
        ...


class EventKind(enum.StrEnum):
    """What a `SendEvent` tells."""

    ATTEMPT_FAILED = "attempt-failed"
    RESULT = "result"


@attrs.frozen
class SendEvent:
    """
    Something an observer may count or trace.

    Attributes:
        kind: What happened.
        index: Position of the message in its batch, from 0.
        error: The error of a failed attempt or of a result; None when it was sent.
        attempt: Requests made for the message so far.
        result: The result, for `EventKind.RESULT`.
    """

    kind: EventKind
    index: int
    error: SendError | None = None
    attempt: int = 0
    result: SendResult | None = None


class Observer(Protocol):
    """Told of attempts and results, in the event loop: be quick, and do not block."""

    def on_event(self, event: SendEvent) -> None:
        """Take note. An exception from here is logged and changes nothing."""
        ...
