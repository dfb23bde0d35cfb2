"""
Everything tanksend raises, under one root.

Catch `TanksendError` for all of it, `SendError` for what happened to a message. The text of an error says what happened
and what to do about it, and names at most a domain: never a local part, an account id, a body or a key. All pickle.

The tree::

    TanksendError
        SendError
            ThrottlingError
            DailyQuotaExceededError
            MessageRejectedError
                IdentityNotVerifiedError
                ContentRejectedError
            AccessDeniedError
                CredentialsError
            InvalidParameterError
            MailFromDomainNotVerifiedError
            AccountPausedError
            ConfigurationError
            RenderingError
            MessageTooLargeError
            ServiceUnavailableError
            ConnectionFailedError
            OutcomeUnknownError
            InvalidMessageError (ValueError)
                InvalidAddressError
            SuppressedError
            HeldError
            ElsewhereError
            GuardError
        BatchError
            IntakeError
        PartError
            StorageError
                LedgerError
        SettingError (ValueError)
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypedDict, Unpack

import attrs

from ._wording import sentence, without_local_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._report import SendReport
    from ._results import SendResult


class Category(enum.StrEnum):
    """What kind of failure it was, for counting and for choosing what to do."""

    THROTTLING = "throttling"
    QUOTA = "quota"
    IDENTITY = "identity"
    CONTENT = "content"
    ACCESS = "access"
    CREDENTIALS = "credentials"
    PARAMETER = "parameter"
    MAIL_FROM = "mail_from"
    PAUSED = "paused"
    CONFIGURATION = "configuration"
    RENDERING = "rendering"
    SIZE = "size"
    TRANSIENT = "transient"
    CONNECTION = "connection"
    OUTCOME_UNKNOWN = "outcome_unknown"
    INVALID = "invalid"
    SUPPRESSED = "suppressed"
    HELD = "held"
    ELSEWHERE = "elsewhere"
    GUARD = "guard"
    BUG = "bug"
    UNKNOWN = "unknown"
    """Refused, for a reason this version does not know."""


class Scope(enum.StrEnum):
    """Whom a failure concerns: what else would fail in the same way."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    ORIGIN = "origin"
    """Every message that shares the failed group; `SendError.origin` says which group."""
    ACCOUNT = "account"
    """Every message. A batch stops."""


class Origin(enum.StrEnum):
    """What the messages of a failed group share."""

    FROM = "from"
    CONFIGURATION_SET = "configuration_set"
    TEMPLATE = "template"
    TENANT = "tenant"


@attrs.frozen
class Problem:
    """
    One thing wrong with a message.

    Args:
        field: Which part, as the caller wrote it: ``to[2]``, ``subject``, ``headers["X-A"]``.
        reason: Why, in words a person understands, without repeating the value.
    """

    field: str
    reason: str


class TanksendError(Exception):
    """The root of everything tanksend raises."""


class _Details(TypedDict, total=False):
    """The keywords of `SendError`, for the subclasses that add one of their own."""

    code: str | None
    category: Category | None
    scope: Scope | None
    origin: Origin | None
    retryable: bool | None
    maybe_sent: bool | None
    status: int | None
    request_id: str | None
    attempts: int
    remedy: str | None
    identities: Iterable[str]
    field: str | None
    resume_at: float | None
    cause_type: str | None
    result: SendResult | None


class SendError(TanksendError):
    """
    One message was not, or perhaps not, taken by SES.

    Every argument has a default; ``None`` stands for the class's own.

    Args:
        message: What happened, in a sentence that names at most a domain.
        code: SES's own code, or the status or SMTP reply that stands for it.
        category: What kind of failure it was.
        scope: Whom it concerns.
        origin: For `Scope.ORIGIN`, what the failed group shares.
        retryable: Repeating this exact request soon is harmless (SES certainly has not taken it) and may succeed.
        maybe_sent: SES may have taken the message.
        status: HTTP status or SMTP reply code, if there was an answer.
        request_id: SES's id of the request, for AWS support.
        attempts: How many requests were made for the message.
        remedy: What to do about it.
        identities: Addresses or domains it is about. In neither ``str`` nor ``repr``: they are personal data.
        field: Which part of the message it is about.
        resume_at: Unix time in seconds at which it is worth trying again, if known.
        cause_type: Name of the exception behind it, whose text is dropped because it may carry data.
        result: The `SendResult` of the message, when raised by `Sender.send`.
    """

    what: str = "SES refused the message for a reason this version does not know"
    """The text when none is given."""
    code: str | None = None
    """Where SES gave none, the name of the class without "Error"."""
    category: Category = Category.UNKNOWN
    scope: Scope = Scope.MESSAGE
    origin: Origin | None = None
    retryable: bool = False
    maybe_sent: bool = False
    remedy: str | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__.removesuffix("Error")

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        category: Category | None = None,
        scope: Scope | None = None,
        origin: Origin | None = None,
        retryable: bool | None = None,
        maybe_sent: bool | None = None,
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 0,
        remedy: str | None = None,
        identities: Iterable[str] = (),
        field: str | None = None,
        resume_at: float | None = None,
        cause_type: str | None = None,
        result: SendResult | None = None,
    ) -> None:
        # The text alone is positional and the rest lives in __dict__: that is what makes the default pickling work.
        super().__init__(without_local_parts(message))
        self.code = self.code if code is None else code
        self.category = self.category if category is None else category
        self.scope = self.scope if scope is None else scope
        self.origin = self.origin if origin is None and scope is None else origin
        self.retryable = self.retryable if retryable is None else retryable
        self.maybe_sent = self.maybe_sent if maybe_sent is None else maybe_sent
        self.remedy = self.remedy if remedy is None else remedy
        self.status = status
        self.request_id = request_id
        self.attempts = attempts
        self.identities = tuple(identities)
        self.field = field
        self.resume_at = resume_at
        self.cause_type = cause_type
        self.result = result

    @property
    def message(self) -> str:
        """What happened, without the remedy."""
        return self.args[0] or self.what

    def __str__(self) -> str:
        happened = sentence(self.message)
        return f"{happened} {sentence(self.remedy)}" if self.remedy else happened

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.message!r}, code={self.code!r}, scope={self.scope.value!r}, "
            f"retryable={self.retryable}, maybe_sent={self.maybe_sent})"
        )


class ThrottlingError(SendError):
    """
    SES says we are too fast. It has not taken the message.

    `pause`: the answer names neither the sending rate nor the quota, so wait a while instead of merely slowing down.
    """

    what = "SES throttled the request"
    category = Category.THROTTLING
    retryable = True
    remedy = "The limiter slows down by itself; lower max_parallel or ask AWS for a higher sending rate"

    def __init__(self, message: str = "", *, pause: bool = False, **details: Unpack[_Details]) -> None:
        super().__init__(message, **details)
        self.pause = pause


class DailyQuotaExceededError(SendError):
    """The rolling 24-hour quota of recipients is spent; `resume_at` says when there is room again, where known."""

    what = "The account's quota of recipients per rolling 24 hours is spent"
    category = Category.QUOTA
    scope = Scope.ACCOUNT
    remedy = "Wait until the mail of 24 hours ago leaves the window, or ask AWS for a higher daily quota"


class MessageRejectedError(SendError):
    """SES looked at the message and refused it."""

    what = "SES rejected the message"
    category = Category.CONTENT


class IdentityNotVerifiedError(MessageRejectedError):
    """The From identity is not verified in this region, or the account is in the sandbox and the recipient is not."""

    what = "An identity is not verified in this region"
    category = Category.IDENTITY
    scope = Scope.ORIGIN
    origin = Origin.FROM
    remedy = "Verify the domain in this region, or send from the region where it is verified"


class ContentRejectedError(MessageRejectedError):
    """SES does not carry this content: a virus, a blocked attachment, malformed MIME."""

    what = "SES rejected the content of the message"
    remedy = "Look at the attachments and, for raw messages, at the MIME structure"


class AccessDeniedError(SendError):
    """The credentials are good and not allowed to do this."""

    what = "The credentials are not allowed to send"
    category = Category.ACCESS
    scope = Scope.ACCOUNT
    remedy = "Allow the action ses:SendEmail in the IAM policy of these credentials"


class CredentialsError(AccessDeniedError):
    """There are no usable credentials: missing, wrong, expired, or the clock is off."""

    what = "AWS does not accept the credentials"
    category = Category.CREDENTIALS
    remedy = "Check the access key, the secret and the session token, and that they belong to this account"


class InvalidParameterError(SendError):
    """SES refused a part of the request; `field` says which, where SES did."""

    what = "SES refused a parameter of the request"
    category = Category.PARAMETER


class MailFromDomainNotVerifiedError(SendError):
    """The custom MAIL FROM domain's MX record cannot be found, and the identity is set to refuse mail then."""

    what = "The custom MAIL FROM domain of the From identity is not verified"
    category = Category.MAIL_FROM
    scope = Scope.ORIGIN
    origin = Origin.FROM
    remedy = (
        'On the MAIL FROM domain publish exactly one MX record "10 feedback-smtp.<region>.amazonses.com" '
        'and the TXT record "v=spf1 include:amazonses.com ~all"'
    )


class AccountPausedError(SendError):
    """Sending is paused: for the account by its owner or by AWS, or for one configuration set (see `scope`)."""

    what = "Sending is paused for this account"
    category = Category.PAUSED
    scope = Scope.ACCOUNT
    remedy = "Enable sending in the SES console; if AWS paused it, answer their mail and fix its cause first"


class ConfigurationError(SendError):
    """Something the request names does not exist at SES: a configuration set, a template, a tenant, a pool."""

    what = "Something that the request names does not exist at SES"
    category = Category.CONFIGURATION
    scope = Scope.ORIGIN
    remedy = "Create it in this region, or name another"


class RenderingError(SendError):
    """The template and its data do not go together."""

    what = "SES cannot render the template with this data"
    category = Category.RENDERING
    remedy = "Compare the template's variables with the data given"


class MessageTooLargeError(SendError):
    """More bytes than SES takes: 40 MB after base64 (10 MB through the old API)."""

    what = "The message is larger than SES takes"
    category = Category.SIZE
    remedy = "Send a link instead of the attachment; SES takes 40 MB after base64"


class ServiceUnavailableError(SendError):
    """SES itself says it cannot take the message now."""

    what = "SES is not available at the moment"
    category = Category.TRANSIENT
    retryable = True
    remedy = "Try again later"


class ConnectionFailedError(SendError):
    """No connection, or it broke before the whole request was handed over: SES cannot have taken the message."""

    what = "SES could not be reached"
    category = Category.CONNECTION
    retryable = True
    remedy = "Check the network, the region and the endpoint"


class OutcomeUnknownError(SendError):
    """The request left, and no answer came that settles whether SES took the message."""

    what = "The request was sent and no answer tells whether SES took the message"
    category = Category.OUTCOME_UNKNOWN
    maybe_sent = True
    remedy = "Look for its events before sending it again: it may be delivered twice"


class InvalidMessageError(SendError, ValueError):
    """
    The message's data is bad; nothing was sent.

    `problems` is everything that is wrong, in the order of the message's fields; they make the text if none is given.
    """

    what = "The message cannot be sent as it is"
    category = Category.INVALID
    _default_field = "message"

    def __init__(self, message: str = "", *, problems: Iterable[Problem] = (), **details: Unpack[_Details]) -> None:
        found = tuple(problems)
        text = message or "; ".join(f"{problem.field}: {problem.reason}" for problem in found)
        if found:
            details["field"] = details.get("field") or found[0].field
        super().__init__(text, **details)
        self.problems = found or (Problem(self.field or self._default_field, self.message),)


class InvalidAddressError(InvalidMessageError):
    """An address that SES, or mail as such, does not take. The text gives the reason and never the address."""

    what = "The address is not one that mail can be sent to"
    scope = Scope.RECIPIENT
    _default_field = "address"

    @property
    def reason(self) -> str:
        """Why the address was refused."""
        return self.message


class SuppressedError(SendError):
    """Every recipient is on the suppression list; nothing was sent."""

    what = "Every recipient is suppressed"
    category = Category.SUPPRESSED
    scope = Scope.RECIPIENT
    remedy = "If that is wrong, remove the entry from the suppression store; it says why it is there"


class HeldError(SendError):
    """SES certainly has not taken the message, and nothing is wrong with it; `resume_at` says when, where known."""

    what = "The message was not sent now"
    category = Category.HELD
    retryable = True
    remedy = "Send it again later"


class ElsewhereError(SendError):
    """Another live process holds this message's key; the ledger will know what became of it."""

    what = "Another process is sending the message with this key"
    category = Category.ELSEWHERE
    remedy = "Ask the ledger for its fate"


class GuardError(SendError):
    """A guard dropped the message; nothing was sent."""

    what = "A guard dropped the message"
    category = Category.GUARD


class BatchError(TanksendError):
    """Not every message of a batch was sent; `report` is the whole `SendReport`."""

    what = "Not every message was sent."

    def __init__(self, message: str = "", *, report: SendReport | None = None) -> None:
        super().__init__(without_local_parts(message) or self.what)
        self.report = report


class IntakeError(BatchError):
    """The iterable of messages raised (raised from its error); `report` is about those taken in until then."""

    what = (
        "The iterable of messages raised an error, and is read no further. What it gave before has its fate, in .report"
    )


class PartError(TanksendError):
    """A plugged-in part (`part`: ``ledger``, ``limiter``, ``suppression``, ``guard``) failed or broke its contract."""

    def __init__(self, message: str = "", *, part: str = "part", cause_type: str | None = None) -> None:
        super().__init__(without_local_parts(message) or f"The {part} failed.")
        self.part = part
        self.cause_type = cause_type


class StorageError(PartError):
    """
    What a part keeps in a file or a database cannot be read or written; the text says what to do.

    `code`: ``locked``, ``read-only``, ``full``, ``foreign`` (not ours), ``newer``, ``damaged``, ``unreachable``.
    """

    _default_part = "part"

    def __init__(
        self, message: str = "", *, part: str = "", code: str = "unreachable", cause_type: str | None = None
    ) -> None:
        super().__init__(message, part=part or self._default_part, cause_type=cause_type)
        self.code = code


class LedgerError(StorageError):
    """The ledger cannot be read or written: nothing is sent whose intent it did not keep."""

    _default_part = "ledger"


class SettingError(TanksendError, ValueError):
    """A setting given to a constructor, or found in the environment, cannot be used."""
