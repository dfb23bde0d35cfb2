from __future__ import annotations

import pickle

import attrs
import pytest

from tanksend import Address, Message, Receipt, SendResult, Status
from tanksend._results import GOOD
from tanksend.exceptions import ThrottlingError

MESSAGE = Message("secret@example.com", "secret", "secret", key="secret")


def test_the_eight_fates():
    """Their names in files and events are these, and each is its own text."""
    assert [status.value for status in Status] == [
        "sent",
        "already-sent",
        "unknown",
        "suppressed",
        "invalid",
        "failed",
        "held",
        "elsewhere",
    ]
    assert f"{Status.ALREADY_SENT}" == "already-sent"
    assert Status("held") is Status.HELD


@pytest.mark.parametrize("status", Status)
def test_ok_means_that_ses_has_it(status):
    """Sent now or by an earlier run, and nothing else: not even what is unknown."""
    assert SendResult(0, MESSAGE, status).ok is (status in {Status.SENT, Status.ALREADY_SENT})
    assert frozenset({Status.SENT, Status.ALREADY_SENT}) == GOOD


def test_a_result_says_little_in_its_repr():
    """Position, fate and code: nothing of the message."""
    assert repr(SendResult(7, MESSAGE, Status.SENT, "id-1", recipients=MESSAGE.to)) == "<SendResult 7 sent>"
    failed = SendResult(8, MESSAGE, Status.HELD, error=ThrottlingError(), suppressed=MESSAGE.to)
    assert repr(failed) == "<SendResult 8 held Throttling>"


def test_a_result_is_a_value():
    """Frozen, compared by what is in it, usable in a set."""
    result = SendResult(0, MESSAGE, Status.SENT, "id-1", recipients=(Address("", "a@example.com"),))
    assert result == attrs.evolve(result)
    assert len({result, attrs.evolve(result), attrs.evolve(result, index=1)}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.status = Status.HELD


def test_the_defaults_of_a_result():
    """What is not known is nothing."""
    result = SendResult(0, MESSAGE, Status.INVALID)
    assert (result.message_id, result.error, result.attempts) == (None, None, 0)
    assert (result.recipients, result.suppressed, result.waited, result.elapsed) == ((), (), 0.0, 0.0)


def test_a_result_survives_pickling_with_its_error():
    """Also when the error holds the result, as the one that `send` raises does."""
    error = ThrottlingError("SES said no", attempts=3)
    result = SendResult(1, MESSAGE, Status.HELD, error=error, attempts=3)
    error.result = result
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert (again.message, again.status, again.error.attempts) == (MESSAGE, Status.HELD, 3)
    assert again.error.result is again
    assert pickle.loads(pickle.dumps(error)).result.index == 1  # noqa: S301


def test_receipts():
    """Two ids."""
    assert Receipt("a") == Receipt("a", None)
    assert Receipt("a", "b").request_id == "b"
    assert repr(Receipt("a")) == "Receipt(message_id='a', request_id=None)"
