"""What the engine makes of errors: whose they are, and what others are told of them."""

from __future__ import annotations

import copy

from ..exceptions import HeldError, Scope, SendError, SettingError, StorageError, ThrottlingError
from ..typing import Slot


class MissingKeyError(SettingError):
    """A batch with a ledger whose messages cannot be told apart."""

    def __init__(self) -> None:
        super().__init__("with a ledger, a batch needs campaign=, or a key= for each message")


def copy_of(error: SendError) -> SendError:
    """*error* for one more message: one object may be raised for many, and each has its own attempts and result."""
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001  (a subclass of the caller's own that cannot be copied)
        return error
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own.with_traceback(error.__traceback__)


def held_by(error: SendError) -> SendError:
    """The error of a message that was never sent because of somebody else's *error*."""
    if isinstance(error, HeldError):
        return error
    return HeldError(
        f"held back, because another message met this: {error.message}",
        code=error.code,
        scope=error.scope,
        origin=error.origin,
        remedy=error.remedy,
        resume_at=error.resume_at,
    )


def a_slot(answer: object) -> Slot:
    """
    *answer*, which a limiter of the caller's own gave.

    Raises:
        TypeError: It is no slot. Nothing can be sent with it, and who asked again would ask for ever.
    """
    if isinstance(answer, Slot):
        return answer
    raise TypeError


def limiter_error(error: Exception) -> SendError:
    """What a run stops with when its limiter cannot give a slot."""
    if isinstance(error, SendError):
        return error
    return HeldError(
        "the rate limiter failed", code="LimiterFailed", scope=Scope.ACCOUNT, cause_type=type(error).__name__
    )


def ledger_error(error: Exception) -> SendError:
    """What a run stops with when its ledger cannot be read or written."""
    if isinstance(error, SendError):
        return error
    return HeldError(
        str(error) if isinstance(error, StorageError) else "the ledger failed",
        code="LedgerFailed",
        scope=Scope.ACCOUNT,
        remedy="Then run the same batch again: what was sent is passed over",
        cause_type=type(error).__name__,
    )


def stopped() -> SendError:
    """What a message is held with that a stop was in time for."""
    return HeldError("the batch was stopped before the message was sent", code="Stopped")


def too_heavy(recipients: int, throttles: int, error: SendError) -> SendError:
    """The error of a message with more recipients than the account may send to in a second, refused for that."""
    return ThrottlingError(
        f"a message to {recipients} recipients, more than the account may send to in a second, was throttled "
        f"{throttles} times",
        code=error.code,
        status=error.status,
        request_id=error.request_id,
        attempts=error.attempts,
        retryable=False,
        remedy="Send it to fewer recipients at a time",
    )


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error behind *group*: what a part raised that nobody may catch, such as KeyboardInterrupt."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
