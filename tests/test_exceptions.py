"""The tree of errors, what they say and what they keep to themselves."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given, strategies as st

from tanksend import exceptions
from tanksend._wording import at_domain
from tanksend.exceptions import (
    BatchError,
    Category,
    ConfigurationError,
    DailyQuotaExceededError,
    HeldError,
    IdentityNotVerifiedError,
    IntakeError,
    InvalidAddressError,
    InvalidMessageError,
    LedgerError,
    Origin,
    OutcomeUnknownError,
    PartError,
    Problem,
    Scope,
    SendError,
    SettingError,
    StorageError,
    TanksendError,
    ThrottlingError,
)

ALL = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, TanksendError)]
SEND_ERRORS = [kind for kind in ALL if issubclass(kind, SendError)]
by_name = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
by_send_error = pytest.mark.parametrize("kind", SEND_ERRORS, ids=lambda kind: kind.__name__)


def _tree(kind: type, depth: int = 1) -> list[str]:
    builtin = " (ValueError)" if ValueError in kind.__bases__ else ""
    children = [child for child in kind.__subclasses__() if child.__module__ == exceptions.__name__]
    below = [line for child in children for line in _tree(child, depth + 1)]
    return ["    " * depth + kind.__name__ + builtin, *below]


def test_the_docstring_shows_the_real_tree() -> None:
    """The tree in the module's docstring is the tree of the classes."""
    assert exceptions.__doc__ is not None
    written = exceptions.__doc__.partition("The tree::\n\n")[2].rstrip("\n").splitlines()

    assert sorted(written) == sorted(_tree(TanksendError))
    assert written == _tree(TanksendError)


@by_name
def test_every_error_pickles_and_copies(kind: type[TanksendError]) -> None:
    """Nothing an error knows is lost between processes."""
    error = kind("what happened")
    error.cause_type = "SSLError"  # type: ignore[attr-defined]
    error.report = ("partial",)  # type: ignore[attr-defined]

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(twin) is kind
        assert twin.args == error.args
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)


@by_name
def test_every_error_can_be_made_from_nothing(kind: type[TanksendError]) -> None:
    """All arguments have defaults, and only a bare root has no text."""
    error = kind()

    assert str(error) or kind in {TanksendError, SettingError}


@by_send_error
def test_every_send_error_knows_its_fields(kind: type[SendError]) -> None:
    """The fields of the design are there on each, with the class's own values by default."""
    error = kind()

    assert error.code == (None if kind is SendError else kind.__name__.removesuffix("Error"))
    assert error.category is kind.category
    assert error.scope is kind.scope
    assert error.origin is kind.origin
    assert error.retryable is kind.retryable
    assert error.maybe_sent is kind.maybe_sent
    assert error.remedy == kind.remedy
    assert (error.status, error.request_id, error.attempts, error.identities) == (None, None, 0, ())
    assert error.resume_at is None
    assert error.cause_type is None
    assert error.result is None


@by_send_error
def test_nothing_is_both_retryable_and_perhaps_sent(kind: type[SendError]) -> None:
    """What may have been accepted is never called safe to repeat."""
    assert not (kind.retryable and kind.maybe_sent)
    assert kind.maybe_sent is (kind is OutcomeUnknownError)


@by_send_error
def test_an_origin_is_named_only_for_that_scope(kind: type[SendError]) -> None:
    """`origin` says which group `Scope.ORIGIN` means, and nothing otherwise."""
    assert kind.origin is None or kind.scope is Scope.ORIGIN


def test_given_fields_replace_the_defaults() -> None:
    """Each keyword of the constructor is kept as given."""
    given_fields = {
        "code": "X",
        "category": Category.BUG,
        "scope": Scope.ORIGIN,
        "origin": Origin.TENANT,
        "retryable": True,
        "maybe_sent": True,
        "status": 400,
        "request_id": "r-1",
        "attempts": 3,
        "remedy": "Do this",
        "identities": ("a@example.com",),
        "field": "to",
        "resume_at": 1.5,
        "cause_type": "OSError",
    }
    error = SendError("It failed", **given_fields)

    assert {name: getattr(error, name) for name in given_fields} == given_fields
    assert (str(error), error.message) == ("It failed. Do this.", "It failed")


def test_another_scope_drops_the_default_origin() -> None:
    """A sandbox recipient's error has no From origin left over from its class."""
    assert IdentityNotVerifiedError().origin is Origin.FROM
    assert IdentityNotVerifiedError(scope=Scope.RECIPIENT).origin is None
    assert ConfigurationError(scope=Scope.ORIGIN, origin=Origin.TEMPLATE).origin is Origin.TEMPLATE


def test_neither_text_nor_repr_names_an_identity() -> None:
    """Identities are kept for the program and not shown."""
    error = IdentityNotVerifiedError("example.com is not verified", identities=["kim.minsu@example.com"], attempts=2)

    assert error.identities == ("kim.minsu@example.com",)
    assert "minsu" not in str(error) + repr(error)
    assert repr(error) == (
        "IdentityNotVerifiedError('example.com is not verified', code='IdentityNotVerified', scope='origin', "
        "retryable=False, maybe_sent=False)"
    )


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in {TanksendError, SettingError}])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kim.minsu@example.com failed", "…@example.com failed"),
        ('to "kim minsu"@example.com', "to …@example.com"),
        ("<kim+x@example.com>, a=b@example.org", "<…@example.com>, …@example.org"),
        ("nothing before the @ sign", "nothing before the @ sign"),
    ],
)
def test_a_local_part_in_a_text_is_blotted_out(kind: type[TanksendError], text: str, shown: str) -> None:
    """Whoever composed the text: a whole address never gets into it."""
    assert kind(text).args == (shown,)


@given(local=st.text("abcxyz019._+-", min_size=1), domain=st.just("example.com"), around=st.text(max_size=20))
def test_no_plain_address_survives_in_a_text(local: str, domain: str, around: str) -> None:
    """Whatever stands around it, the local part is gone."""
    address = f"{local}@{domain}"

    assert address not in str(SendError(f"{around}{address}{around}"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("kim@Example.COM", "an address at example.com"),
        ("Kim <kim@example.com>", "an address at example.com"),
        (" kim@bücher.example ", "an address at bücher.example"),
        ('"a@b"@example.com', "an address at example.com"),
        ("kim@example.com.", "an address at example.com."),
        ("kim", "an address"),
        ("kim@", "an address"),
        ("", "an address"),
        ("kim@my secret", "an address"),
        ("kim@example..com", "an address"),
        ("kim@" + "a" * 256, "an address"),
    ],
)
def test_at_domain_names_only_a_plausible_domain(address: str, shown: str) -> None:
    """What follows the "@" is shown only if it looks like a domain."""
    assert at_domain(address) == shown


@given(st.text())
def test_at_domain_takes_any_text(text: str) -> None:
    """It never fails, and shows at most one dotted word."""
    assert re.fullmatch(r"an address(?: at [\w.-]+)?", at_domain(text))


def test_a_sentence_gets_one_full_stop() -> None:
    """Text and remedy read as sentences."""
    assert str(SendError("Why?")) == "Why?"
    assert str(HeldError("It waits.", remedy="Wait")) == "It waits. Wait."


def test_throttling_may_ask_for_a_pause() -> None:
    """`pause` is kept, and false unless said."""
    assert ThrottlingError().pause is False
    assert pickle.loads(pickle.dumps(ThrottlingError("x", pause=True, status=429))).pause is True  # noqa: S301


def test_problems_make_the_text() -> None:
    """The text lists each field with its reason, and the first is the error's field."""
    problems = [Problem("to[1]", "has no domain"), Problem("subject", "has a line break")]
    error = InvalidMessageError(problems=problems)

    assert str(error) == "to[1]: has no domain; subject: has a line break."
    assert error.problems == tuple(problems)
    assert error.field == "to[1]"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems  # noqa: S301


def test_a_given_field_and_text_win_over_the_problems() -> None:
    """What the raiser says is kept."""
    error = InvalidMessageError("It is bad", problems=[Problem("to", "x")], field="cc")

    assert (str(error), error.field) == ("It is bad.", "cc")


def test_an_invalid_message_always_has_a_problem() -> None:
    """A row's fate can name a field and a reason in every case."""
    assert InvalidMessageError("bad").problems == (Problem("message", "bad"),)
    assert InvalidAddressError("has no domain").problems == (Problem("address", "has no domain"),)
    assert InvalidAddressError("has no domain", field="to[2]").problems == (Problem("to[2]", "has no domain"),)
    assert InvalidAddressError("has no domain").reason == "has no domain"


def test_a_programmer_can_catch_value_errors() -> None:
    """Bad data and bad settings are also the built-in error."""
    for kind in (InvalidMessageError, InvalidAddressError, SettingError):
        with pytest.raises(ValueError):
            raise kind("bad")


def test_a_quota_error_says_when_to_go_on() -> None:
    """`resume_at` is a Unix time."""
    assert DailyQuotaExceededError(resume_at=1_700_000_000.0).resume_at == 1_700_000_000.0


def test_errors_about_a_batch_and_a_part() -> None:
    """They carry the report, or the part's name."""
    report = object()

    assert BatchError("2 failed", report=report).report is report
    assert str(IntakeError(report=report)).startswith("The iterable of messages raised an error")
    assert ".report" in str(IntakeError(report=report))
    assert str(BatchError()) == "Not every message was sent."
    error = PartError(part="ledger", cause_type="OSError")
    assert (str(error), error.part, error.cause_type) == ("The ledger failed.", "ledger", "OSError")


def test_what_storage_cannot_do_has_a_code() -> None:
    """A program tells a full disk from a locked file without reading the text."""
    error = LedgerError("The disk is full", code="full", cause_type="OperationalError")

    assert (str(error), error.part, error.code, error.cause_type) == (
        "The disk is full",
        "ledger",
        "full",
        "OperationalError",
    )
    assert (LedgerError().code, str(LedgerError())) == ("unreachable", "The ledger failed.")
    assert (StorageError().part, StorageError(part="suppression").part) == ("part", "suppression")
