from __future__ import annotations

import attrs
import pytest

from tanksend import Address, Message, Priority, Receipt, SendResult, Status, typing as contracts
from tanksend.exceptions import OutcomeUnknownError, ThrottlingError
from tanksend.testing import FakeClock
from tanksend.typing import (
    Account,
    Allow,
    Attempt,
    BulkRequest,
    Claim,
    Clock,
    Demand,
    Drop,
    EventKind,
    GiveUp,
    Hold,
    LedgerEntry,
    Replace,
    Retry,
    SendEvent,
    SendRequest,
    Signal,
    Slot,
    Suppression,
    SuppressionReason,
)

SECRET = Address("secret", "secret@example.com")
MESSAGE = Message(SECRET, "secret", "secret", key="secret", tags={"a": "secret"}, headers={"X-A": "secret"})
REQUEST = SendRequest(MESSAGE, SECRET, (SECRET,), (SECRET,), (SECRET,), (SECRET,), "news", {"a": "secret"})
ERROR = OutcomeUnknownError("no answer", identities=["secret@example.com"])
RESULT = SendResult(3, MESSAGE, Status.UNKNOWN, error=ERROR, recipients=(SECRET,), suppressed=(SECRET,))
REPRS = [
    (REQUEST, "<SendRequest recipients=3>"),
    (BulkRequest((REQUEST, REQUEST)), "<BulkRequest requests=2>"),
    (Suppression("secret@example.com", "bounce", evidence="secret"), "<Suppression bounce>"),
    (LedgerEntry("secret", None), "<LedgerEntry claimed>"),
    (LedgerEntry("secret", Status.SENT, "id"), "<LedgerEntry sent>"),
    (Replace(MESSAGE), "Replace(message=<Message recipients=1 attachments=0>)"),
    (Demand(5), "Demand(recipients=5, at_least=1, priority=<Priority.BULK: 1>, uncounted=0)"),
    (Slot(0.5, 3), "Slot(delay=0.5, recipients=3, token=None)"),
    (Retry(1.5), "Retry(after=1.5)"),
    (GiveUp(), "GiveUp()"),
    (Allow(), "Allow()"),
    (Hold("office hours", 5.0), "Hold(reason='office hours', resume_at=5.0)"),
    (Drop("no subject"), "Drop(reason='no subject')"),
]


@pytest.mark.parametrize(("value", "expected"), REPRS, ids=[type(value).__name__ for value, _ in REPRS])
def test_reprs_show_counts_and_states(value, expected):
    """Nothing of the message, and nobody's address."""
    assert repr(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        Signal(5, ERROR),
        Attempt(1, ERROR, 0.5, 0.5),
        SendEvent(EventKind.RESULT, 3, ERROR, 1, RESULT),
        RESULT,
        Account(14.0, 50_000.0, 17.0),
        REQUEST,
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_personal_is_in_any_repr(value):
    """Also not through what a value holds."""
    assert "secret" not in repr(value)
    assert "secret" not in str(value)


VALUES = [value for name in contracts.__all__ if attrs.has(value := getattr(contracts, name))]


def test_every_value_is_frozen_and_hashable():
    """They cross threads; none can be changed by the other side."""
    for kind in VALUES:
        assert kind.__setattr__ is not object.__setattr__, kind
        assert kind.__hash__ is not None, kind
        assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind), kind
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REQUEST.to = ()
    for value, _ in REPRS:
        assert hash(value) == hash(attrs.evolve(value))
        assert value == attrs.evolve(value)


def test_requests_are_compared_with_their_tags():
    """Which do not go into the hash: a mapping has none."""
    other = attrs.evolve(REQUEST, tags={"a": "b"})
    assert (hash(other), other) != (hash(REQUEST), REQUEST)
    assert len({REQUEST, other, attrs.evolve(REQUEST)}) == 2
    assert REQUEST.recipients == (SECRET, SECRET, SECRET)


def test_the_defaults():
    """What most callers leave out."""
    assert SendRequest(MESSAGE, SECRET).recipients == ()
    assert Demand(3) == Demand(3, 1, Priority.BULK, 0)
    assert Retry() == Retry(0.0)
    assert Signal(1) == Signal(1, None, 0)
    assert Suppression("a@example.com").reason is SuppressionReason.MANUAL
    assert Attempt(1, ThrottlingError(), 0.0, 0.0).throttles == 0
    account = Account(-1, -1, 0)
    assert (account.production_access, account.sending_enabled, account.enforcement_status) == (True, True, "HEALTHY")


def test_reasons_and_claims_are_texts():
    """They stand in files and databases under these names."""
    assert [reason.value for reason in SuppressionReason] == ["bounce", "complaint", "unsubscribe", "manual"]
    assert [claim.value for claim in Claim] == ["granted", "already-sent", "unknown", "elsewhere"]
    assert [kind.value for kind in EventKind] == ["attempt-failed", "result"]
    with pytest.raises(ValueError, match="nonsense"):
        Suppression("a@example.com", "nonsense")


def test_a_clock_is_known_by_its_methods():
    """No base class is needed."""
    assert isinstance(FakeClock(), Clock)
    assert not isinstance(Receipt("a"), Clock)


def test_every_public_name_is_there():
    """And in order, for those who read the list."""
    assert sorted(contracts.__all__) == contracts.__all__
    assert all(hasattr(contracts, name) for name in contracts.__all__)
