"""What became of a message: `Status`, `Receipt` and `SendResult`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ._addresses import Address
    from ._messages import Message
    from .exceptions import SendError


class Status(enum.StrEnum):
    """
    The one fate of a message.

    ``SENT``, ``ALREADY_SENT`` and ``UNKNOWN`` are settled: with a ledger a batch that runs again passes them over.
    ``ELSEWHERE`` is another process's to settle. The others are certainly not with SES and may be tried again.
    """

    SENT = "sent"
    ALREADY_SENT = "already-sent"
    UNKNOWN = "unknown"
    SUPPRESSED = "suppressed"
    INVALID = "invalid"
    FAILED = "failed"
    HELD = "held"
    ELSEWHERE = "elsewhere"


GOOD = frozenset({Status.SENT, Status.ALREADY_SENT})


@attrs.frozen
class Receipt:
    """SES took the message: its id, and the id of the request for AWS support."""

    message_id: str
    request_id: str | None = None


@attrs.frozen(repr=False)
class SendResult:
    """
    What became of one message.

    Attributes:
        index: Its position in the batch, from 0.
        message: The message as it was handed in (or as a guard replaced it).
        status: Its fate.
        message_id: SES's message id, when it was sent.
        error: Why not, when it was not.
        attempts: Requests made for it.
        recipients: Whom it was sent to, or would have been.
        suppressed: Recipients left out because they are suppressed.
        waited: Seconds spent waiting for the pace and for retries.
        elapsed: Seconds from being taken in to its fate.
    """

    index: int
    message: Message
    status: Status
    message_id: str | None = None
    error: SendError | None = None
    attempts: int = 0
    recipients: tuple[Address, ...] = ()
    suppressed: tuple[Address, ...] = ()
    waited: float = 0.0
    elapsed: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether SES has the message."""
        return self.status in GOOD

    def __repr__(self) -> str:
        code = f" {self.error.code}" if self.error is not None else ""
        return f"<SendResult {self.index} {self.status.value}{code}>"
