"""The error table: SES's codes, statuses and texts, and what they mean."""

from __future__ import annotations

import json
import pickle
from typing import Any, get_args
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, strategies as st

from tanksend._classify import (
    Phase,
    classify,
    classify_bulk,
    classify_smtp,
    is_expired_credentials,
    parse_v1_error,
    parse_v2_error,
)
from tanksend._classify._table import TABLE
from tanksend.exceptions import (
    AccessDeniedError,
    AccountPausedError,
    Category,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    CredentialsError,
    DailyQuotaExceededError,
    IdentityNotVerifiedError,
    InvalidParameterError,
    MailFromDomainNotVerifiedError,
    MessageTooLargeError,
    Origin,
    OutcomeUnknownError,
    RenderingError,
    Scope,
    SendError,
    ServiceUnavailableError,
    ThrottlingError,
)

OURS = "Tank <No-Reply@yokee.co.id>"
FROM = (Scope.ORIGIN, Origin.FROM)
SET = (Scope.ORIGIN, Origin.CONFIGURATION_SET)
TEMPLATE = (Scope.ORIGIN, Origin.TEMPLATE)
TENANT = (Scope.ORIGIN, Origin.TENANT)
ACCOUNT = (Scope.ACCOUNT, None)
MESSAGE = (Scope.MESSAGE, None)
RECIPIENT = (Scope.RECIPIENT, None)

RATE = "Maximum sending rate exceeded."
DAILY = "Daily message quota exceeded."
SIGV2 = "Maximum SigV2 SMTP sending rate exceeded"
NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region "
ENFORCED = (
    "Sending paused for this account. For more information, please check the inbox of the email address associated "
    "with your AWS account."
)
NO_SET = "Configuration set <news> does not exist."
NO_TEMPLATE = "Template welcome does not exist."
NO_ATTRIBUTE = "Attribute 'x' is not present in the rendering data."
IAM_V1 = (
    "User `arn:aws:iam::123456789012:user/kim' is not authorized to perform `ses:SendRawEmail' on resource "
    "`arn:aws:ses:eu-west-1:123456789012:identity/no-reply@yokee.co.id'"
)
IAM_V2 = "User: arn:aws:iam::123456789012:user/kim is not authorized to perform: ses:GetAccount on resource: *"
SKEWED = "Signature expired: 20261101T000000Z is now earlier than 20261101T001000Z (20261101T001500Z - 5 min.)"
MISMATCH = "The request signature we calculated does not match the signature you provided."
BAD_TOKEN = "The security token included in the request is invalid."
OLD_TOKEN = "The security token included in the request is expired"
TWO_UNKNOWN = (
    "1 validation error detected: Value at 'content.simple.headers.1.member.name' failed to satisfy constraint: "
    "Member must not be null"
)
TENANT_LIST = (
    "The resources [arn:aws:ses:eu-west-1:123456789012:configuration-set/news] are not associated with tenant acme"
)
SYNTAX = [
    "Missing final '@domain'",
    "Missing domain",
    "Missing local name",
    "Local address starts with dot",
    "Local address ends with dot",
    "Local address contains dot-dot",
    "Local address contains control or whitespace",
    "Local address contains illegal character",
    "Quote not at end of local address",
    "Unexpected quote in local address",
    "Unterminated quote",
    "Domain starts with dot",
    "Domain ends with dot",
    "Domain contains dot-dot",
    "Domain literal end not at end of domain",
    "Domain contains control or whitespace",
    "Domain contains illegal character",
    "Illegal address",
]

# Every row of the master table: code of v1, code of v2, text, error, (scope, origin), and what else it must be.
# v1 answers with 400 or, where v2 does, 403 and 5xx.
MASTER: list[tuple[str, str, int, str, type[SendError], tuple[Scope, Origin | None], dict[str, Any]]] = [
    # throttling and quota
    ("Throttling", "TooManyRequestsException", 429, RATE, ThrottlingError, MESSAGE,
     {"retryable": True, "pause": False}),
    ("Throttling", "TooManyRequestsException", 429, DAILY, DailyQuotaExceededError, ACCOUNT, {"retryable": False}),
    ("Throttling", "LimitExceededException", 400, DAILY, DailyQuotaExceededError, ACCOUNT, {}),
    ("Throttling", "TooManyRequestsException", 429, "24-hour quota", DailyQuotaExceededError, ACCOUNT, {}),
    ("Throttling", "TooManyRequestsException", 429, "Rate exceeded", ThrottlingError, MESSAGE, {"pause": False}),
    ("Throttling", "ThrottlingException", 400, "Rate exceeded", ThrottlingError, MESSAGE, {"pause": False}),
    ("Throttling", "ThrottlingException", 400, RATE, ThrottlingError, MESSAGE, {"pause": False}),
    ("Throttling", "ThrottlingException", 400, DAILY, DailyQuotaExceededError, ACCOUNT, {}),
    ("Throttling", "ThrottlingException", 400, "Something new", ThrottlingError, MESSAGE, {"pause": True}),
    ("Throttling", "ThrottlingException", 400, SIGV2, ConfigurationError, ACCOUNT, {"retryable": False}),
    ("LimitExceeded", "LimitExceededException", 400, "There are too many instances of the specified resource type.",
     ConfigurationError, ACCOUNT, {}),
    ("LimitExceeded", "LimitExceededException", 400, "Something new", ThrottlingError, MESSAGE, {"pause": True}),
    # rejected
    ("MessageRejected", "MessageRejected", 400, NOT_VERIFIED + "AP-SOUTHEAST-1: no-reply@yokee.co.id, b@example.com",
     IdentityNotVerifiedError, FROM, {"field": "from_", "identities": ("no-reply@yokee.co.id", "b@example.com")}),
    ("MessageRejected", "MessageRejected", 400, NOT_VERIFIED + "US-EAST-1: b@example.com, ...",
     IdentityNotVerifiedError, RECIPIENT, {"field": "recipient", "identities": ("b@example.com",)}),
    ("MessageRejected", "MessageRejected", 400, ENFORCED, AccountPausedError, ACCOUNT, {"category": Category.PAUSED}),
    ("MessageRejected", "MessageRejected", 400, "The message contained a virus.", ContentRejectedError, MESSAGE, {}),
    # paused
    ("AccountSendingPausedException", "SendingPausedException", 400, "Account sending is disabled.", AccountPausedError,
     ACCOUNT, {}),
    ("ConfigurationSetSendingPausedException", "SendingPausedException", 400,
     "Sending is paused for configuration set news", AccountPausedError, SET, {}),
    ("AccountSendingPausedException", "SendingPausedException", 400, "", AccountPausedError, ACCOUNT, {}),
    ("MessageRejected", "SendingPausedException", 400, "Sending is paused for tenant acme", AccountPausedError,
     TENANT, {}),
    ("", "AccountSuspendedException", 400, "", AccountPausedError, ACCOUNT, {}),
    ("MailFromDomainNotVerifiedException", "MailFromDomainNotVerifiedException", 400, "",
     MailFromDomainNotVerifiedError, FROM, {}),
    # parameters
    *(
        ("InvalidParameterValue", "BadRequestException", 400, text, InvalidParameterError, MESSAGE,
         {"field": "address"})
        for text in SYNTAX
    ),
    ("InvalidParameterValue", "BadRequestException", 400, "Invalid email address<kim@example,com>.",
     InvalidParameterError, RECIPIENT, {"field": "recipient"}),
    ("InvalidParameterValue", "BadRequestException", 400,
     "Address length is more than 320 characters long: 'Tank <no-reply@yokee.co.id>'.", InvalidParameterError, FROM,
     {"field": "from_"}),
    ("InvalidParameterValue", "BadRequestException", 400, "Invalid From address provided.", InvalidParameterError, FROM,
     {"field": "from_"}),
    ("InvalidParameterValue", "BadRequestException", 400,
     "Message length is more than 10485760 bytes long: '24081986'.", MessageTooLargeError, MESSAGE, {}),
    ("InvalidParameterValue", "BadRequestException", 400, "Missing required header 'From'.", InvalidParameterError,
     MESSAGE, {"field": "from_"}),
    ("InvalidParameterValue", "BadRequestException", 400, "Source cannot be empty", InvalidParameterError, MESSAGE,
     {"field": "from_"}),
    ("InvalidParameterValue", "BadRequestException", 400, "There are no recipients specified", InvalidParameterError,
     MESSAGE, {"field": "to"}),
    ("InvalidParameterValue", "BadRequestException", 400, "Recipient count exceeds 50.", InvalidParameterError, MESSAGE,
     {"field": "to"}),
    ("InvalidParameterValue", "BadRequestException", 400, "Transaction failed: Expected disposition, got =",
     ContentRejectedError, MESSAGE, {}),
    ("InvalidParameterValue", "BadRequestException", 400, "Duplicate header 'X'.", ContentRejectedError, MESSAGE, {}),
    ("InvalidParameterValue", "BadRequestException", 400, "The file extension 'exe' is not supported.",
     ContentRejectedError, MESSAGE, {}),
    ("InvalidParameterValue", "BadRequestException", 400, "", InvalidParameterError, MESSAGE,
     {"category": Category.PARAMETER}),
    ("InvalidParameterValue", "BadRequestException", 400, "Something new", InvalidParameterError, MESSAGE, {}),
    # what is missing
    ("ConfigurationSetDoesNotExist", "NotFoundException", 404, NO_SET, ConfigurationError, SET, {}),
    ("", "BadRequestException", 400, NO_SET, ConfigurationError, FROM, {}),
    ("TemplateDoesNotExist", "NotFoundException", 404, NO_TEMPLATE, ConfigurationError, TEMPLATE, {}),
    ("InvalidTemplate", "", 400, NO_ATTRIBUTE, RenderingError, TEMPLATE, {}),
    ("InvalidRenderingParameter", "BadRequestException", 400, NO_ATTRIBUTE, RenderingError, MESSAGE,
     {"field": "data[x]"}),
    ("MissingRenderingAttribute", "BadRequestException", 400, NO_ATTRIBUTE, RenderingError, MESSAGE,
     {"field": "data[x]"}),
    ("", "BadRequestException", 400, "Attribute 'kim@example.com' is not present in the rendering data.",
     RenderingError, MESSAGE, {"field": None}),
    ("AlreadyExists", "AlreadyExistsException", 400, "Template welcome already exists.", InvalidParameterError, MESSAGE,
     {"field": "name"}),
    ("", "NotFoundException", 404, "List with name: friends doesn't exist.", ConfigurationError, MESSAGE, {}),
    ("", "NotFoundException", 404, "Tenant <acme> for AwsAccountId <123456789012> not found.", ConfigurationError,
     TENANT, {}),
    ("", "NotFoundException", 404, "", ConfigurationError, MESSAGE, {}),
    ("", "AccessDeniedException", 403, TENANT_LIST, ConfigurationError, TENANT, {}),
    # access and credentials
    ("AccessDenied", "AccessDeniedException", 403, IAM_V1, AccessDeniedError, ACCOUNT,
     {"identities": ("no-reply@yokee.co.id",)}),
    ("AccessDenied", "AccessDeniedException", 403, IAM_V2, AccessDeniedError, ACCOUNT, {"identities": ()}),
    ("AccessDenied", "AccessDeniedException", 400, "No.", AccessDeniedError, ACCOUNT, {}),
    ("InvalidClientTokenId", "UnrecognizedClientException", 403, BAD_TOKEN, CredentialsError, ACCOUNT, {}),
    ("ExpiredToken", "ExpiredTokenException", 403, OLD_TOKEN, CredentialsError, ACCOUNT, {}),
    ("SignatureDoesNotMatch", "InvalidSignatureException", 403, MISMATCH, CredentialsError, ACCOUNT, {}),
    ("SignatureDoesNotMatch", "InvalidSignatureException", 403, SKEWED, CredentialsError, ACCOUNT, {}),
    ("RequestExpired", "RequestExpired", 400, "", CredentialsError, ACCOUNT, {}),
    ("RequestTimeTooSkewed", "RequestTimeTooSkewed", 403, "", CredentialsError, ACCOUNT, {}),
    ("IncompleteSignature", "IncompleteSignature", 403, "", CredentialsError, ACCOUNT, {}),
    ("MissingAuthenticationToken", "MissingAuthenticationTokenException", 403, "", CredentialsError, ACCOUNT, {}),
    ("OptInRequired", "OptInRequired", 403, "", CredentialsError, ACCOUNT, {}),
    ("", "SubscriptionRequiredException", 403, "", CredentialsError, ACCOUNT, {}),
    ("NotAuthorized", "NotAuthorized", 401, "", CredentialsError, ACCOUNT, {}),
    # our own faults
    *(
        (code, code, status, text, InvalidParameterError, MESSAGE, {"category": Category.BUG})
        for text in (TWO_UNKNOWN, "")
        for code, status in [
            ("SerializationException", 400),
            ("ValidationException", 400),
            ("ValidationError", 400),
            ("MalformedQueryString", 404),
            ("UnknownOperationException", 404),
            ("MalformedHttpRequestException", 400),
        ]
    ),
    ("InvalidParameterValue", "BadRequestException", 400, TWO_UNKNOWN, InvalidParameterError, MESSAGE,
     {"category": Category.BUG, "field": "content.simple.headers.1.member.name"}),
    ("RequestEntityTooLarge", "RequestEntityTooLargeException", 413, "", MessageTooLargeError, MESSAGE, {}),
    # who knows
    ("RequestTimeout", "RequestTimeoutException", 408, "", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    ("RequestAborted", "RequestAbortedException", 400, "", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    ("ServiceUnavailable", "ServiceUnavailable", 503, "", ServiceUnavailableError, MESSAGE, {"retryable": True}),
    ("ServiceUnavailable", "ServiceUnavailable", 500, "", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    ("InternalFailure", "InternalFailure", 500, "", OutcomeUnknownError, MESSAGE, {"retryable": False}),
    ("InternalFailure", "InternalServiceErrorException", 500, "", OutcomeUnknownError, MESSAGE, {}),
    ("", "ConcurrentModificationException", 500, "", OutcomeUnknownError, MESSAGE, {}),
]  # fmt: skip


def _check(error: SendError, kind: type[SendError], whom: tuple[Scope, Origin | None], **more: Any) -> None:
    assert type(error) is kind
    assert (error.scope, error.origin) == whom
    assert {name: getattr(error, name) for name in more} == more
    assert error.maybe_sent is (kind is OutcomeUnknownError)
    shown = str(error) + repr(error)
    assert "123456789012" not in shown
    assert "kim" not in shown
    assert "no-reply" not in shown.lower()
    assert pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__  # noqa: S301


@pytest.mark.parametrize("row", [row for row in MASTER if row[1]], ids=lambda row: f"{row[1]}-{row[2]}-{row[3][:40]}")
def test_v2_errors(row: Any) -> None:
    """Every row of the master table, as API v2 writes it: its type in a header, its text in JSON."""
    _, code, status, text, kind, whom, more = row
    headers = {"x-amzn-errortype": code, "x-amzn-requestid": "9f1c-0001-aaaa"}

    error = parse_v2_error(status, headers, json.dumps({"message": text}).encode(), senders=[OURS])

    _check(error, kind, whom, **more, code=code, status=status, request_id="9f1c-0001-aaaa")


@pytest.mark.parametrize("row", [row for row in MASTER if row[0]], ids=lambda row: f"{row[0]}-{row[2]}-{row[3][:40]}")
def test_v1_errors(row: Any) -> None:
    """Every row of the master table, as API v1 writes it: XML, and 400 for nearly all."""
    code, _, status, text, kind, whom, more = row
    status = 400 if 404 <= status <= 429 and code != "RequestTimeout" else status
    body = (
        '<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code>\n <Message>{escape(text)}</Message></Error>"
        "<RequestId>9f1c-0001-aaaa</RequestId></ErrorResponse>"
    )

    error = parse_v1_error(status, body.encode(), senders=[OURS])

    _check(error, kind, whom, **more, code=code, status=status, request_id="9f1c-0001-aaaa")


BULK: list[tuple[str, str, type[SendError], tuple[Scope, Origin | None]]] = [
    ("MESSAGE_REJECTED MessageRejected", "The message contained a virus", ContentRejectedError, MESSAGE),
    ("MESSAGE_REJECTED MessageRejected", NOT_VERIFIED + "EU-WEST-1: yokee.co.id", IdentityNotVerifiedError, FROM),
    ("MAIL_FROM_DOMAIN_NOT_VERIFIED MailFromDomainNotVerified", "", MailFromDomainNotVerifiedError, FROM),
    ("CONFIGURATION_SET_NOT_FOUND CONFIGURATION_SET_DOES_NOT_EXIST ConfigurationSetDoesNotExist", "",
     ConfigurationError, SET),
    ("TEMPLATE_NOT_FOUND TEMPLATE_DOES_NOT_EXIST TemplateDoesNotExist", "", ConfigurationError, TEMPLATE),
    ("ACCOUNT_SUSPENDED AccountSuspended", "", AccountPausedError, ACCOUNT),
    ("ACCOUNT_THROTTLED AccountThrottled", "", ThrottlingError, MESSAGE),
    ("ACCOUNT_DAILY_QUOTA_EXCEEDED AccountDailyQuotaExceeded", "", DailyQuotaExceededError, ACCOUNT),
    ("INVALID_SENDING_POOL_NAME InvalidSendingPoolName", "", ConfigurationError, SET),
    ("ACCOUNT_SENDING_PAUSED AccountSendingPaused", "", AccountPausedError, ACCOUNT),
    ("CONFIGURATION_SET_SENDING_PAUSED ConfigurationSetSendingPaused", "", AccountPausedError, SET),
    ("INVALID_PARAMETER INVALID_PARAMETER_VALUE InvalidParameterValue", "Missing domain", InvalidParameterError,
     MESSAGE),
    ("TRANSIENT_FAILURE TransientFailure", "", ServiceUnavailableError, MESSAGE),
    ("FAILED Failed", "", SendError, MESSAGE),
    ("FAILED Failed", DAILY, DailyQuotaExceededError, ACCOUNT),
    ("FAILED Failed", RATE, ThrottlingError, MESSAGE),
    ("FAILED Failed", NOT_VERIFIED + "EU-WEST-1: b@example.com", IdentityNotVerifiedError, RECIPIENT),
    ("FAILED Failed", ENFORCED, AccountPausedError, ACCOUNT),
    ("FAILED Failed", NO_TEMPLATE, ConfigurationError, TEMPLATE),
    ("FAILED Failed", NO_SET, ConfigurationError, SET),
    ("FAILED Failed", "Missing domain", InvalidParameterError, MESSAGE),
    ("A_NEW_STATUS ANewStatus", "", OutcomeUnknownError, MESSAGE),
]  # fmt: skip


@pytest.mark.parametrize(("statuses", "text", "kind", "whom"), BULK)
def test_bulk_statuses(statuses: str, text: str, kind: type[SendError], whom: Any) -> None:
    """Every entry status, in the spellings of both APIs and of v2's prose; a new one settles nothing."""
    for status in statuses.split():
        error = classify_bulk(status, text, senders=[OURS])

        assert error is not None
        _check(error, kind, whom, code=status)


def test_the_request_of_a_bulk_status_is_named() -> None:
    """Its id is the answer's, for AWS support."""
    error = classify_bulk("FAILED", "", request_id="1a22f8ef-0b5d")
    assert error is not None
    assert error.request_id == "1a22f8ef-0b5d"


@pytest.mark.parametrize("status", ["SUCCESS", "Success"])
def test_bulk_success_is_no_error(status: str) -> None:
    """A successful entry has no error."""
    assert classify_bulk(status, "") is None


def _smtp_syntax() -> list[Any]:
    return [(554, f"Transaction failed: {text}", "content", InvalidParameterError, MESSAGE, {}) for text in SYNTAX]


SMTP: list[tuple[int, str, str, type[SendError], tuple[Scope, Origin | None], dict[str, Any]]] = [
    (421, "Too many concurrent SMTP connections", "connect", ThrottlingError, MESSAGE, {"retryable": True}),
    (421, "Service closing transmission channel", "mail", ServiceUnavailableError, MESSAGE, {"retryable": True}),
    (451, "Temporary service failure", "content", ServiceUnavailableError, MESSAGE, {"retryable": True}),
    (454, "Temporary service failure", "content", ServiceUnavailableError, MESSAGE, {"retryable": True}),
    (451, "Timeout waiting for data from client", "content", ServiceUnavailableError, MESSAGE, {"retryable": True}),
    (454, f"Throttling failure: {RATE}", "content", ThrottlingError, MESSAGE, {"code": "Throttling", "pause": False}),
    (454, f"Throttling failure: {DAILY}", "content", DailyQuotaExceededError, ACCOUNT, {}),
    (454, f"Throttling failure: {SIGV2}", "content", ConfigurationError, ACCOUNT, {}),
    (454, "Throttling failure: Something new", "content", ThrottlingError, MESSAGE, {"pause": True}),
    (454, "Temporary authentication failure", "auth", ServiceUnavailableError, MESSAGE, {"code": "SMTP454"}),
    (501, "Invalid MAIL FROM address provided", "mail", InvalidParameterError, FROM, {"field": "from_"}),
    (501, "Invalid MAIL FROM address provided", "content", InvalidParameterError, FROM, {"field": "from_"}),
    (501, "Syntax error", "auth", InvalidParameterError, MESSAGE, {"category": Category.BUG}),
    (530, "Authentication required", "mail", CredentialsError, ACCOUNT, {"code": "SMTP530"}),
    (535, "Authentication Credentials Invalid", "auth", CredentialsError, ACCOUNT, {}),
    (535, "Account not subscribed to SES", "auth", CredentialsError, ACCOUNT, {}),
    (552, "Message is too long.", "content", MessageTooLargeError, MESSAGE, {}),
    (553, "<kim@example.com> Invalid email address", "rcpt", InvalidParameterError, RECIPIENT,
     {"field": "recipient", "identities": ("kim@example.com",)}),
    (553, "<kim> address unknown", "rcpt", InvalidParameterError, RECIPIENT, {"field": "recipient"}),
    (550, "No such user", "rcpt", InvalidParameterError, RECIPIENT, {"field": "recipient"}),
    (554, "5.7.1 <kim@example.com>: Recipient address rejected", "rcpt", InvalidParameterError, RECIPIENT,
     {"field": "recipient"}),
    (554, "5.7.1 Sender address rejected", "mail", InvalidParameterError, FROM, {"field": "from_"}),
    (553, "<no-reply@yokee.co.id> address unknown", "mail", InvalidParameterError, FROM, {"field": "from_"}),
    (554, "Message rejected: " + NOT_VERIFIED + "EU-WEST-1: no-reply@yokee.co.id", "content", IdentityNotVerifiedError,
     FROM, {"code": "MessageRejected"}),
    (554, "Message rejected: " + NOT_VERIFIED + "EU-WEST-1: b@example.com", "content", IdentityNotVerifiedError,
     RECIPIENT, {}),
    (554, "Message rejected: " + ENFORCED, "content", AccountPausedError, ACCOUNT, {}),
    (554, "Access denied: " + IAM_V1, "content", AccessDeniedError, ACCOUNT,
     {"code": "AccessDenied"}),
    *_smtp_syntax(),
    (554, "Transaction failed: Expected disposition, got =", "content", ContentRejectedError, MESSAGE, {}),
    (554, "Configuration set <news> does not exist.", "content", ConfigurationError, SET, {}),
    (554, "No SMTP service here", "content", ContentRejectedError, MESSAGE, {}),
    (503, "Bad sequence of commands", "data", InvalidParameterError, MESSAGE, {"category": Category.BUG}),
    (571, "Something new", "content", SendError, MESSAGE, {"code": "SMTP571"}),
    (250, "Ok", "content", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    (354, "Go ahead", "content", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    (0, "", "content", OutcomeUnknownError, MESSAGE, {"maybe_sent": True}),
    (220, "Hello", "mail", ConnectionFailedError, MESSAGE, {"retryable": True, "maybe_sent": False}),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "text", "phase", "kind", "whom", "more"), SMTP)
def test_smtp_replies(reply: int, text: str, *, phase: Phase, kind: type[SendError], whom: Any, more: Any) -> None:
    """Every SMTP reply: what it means, whom it concerns, and whether the message may be with SES."""
    error = classify_smtp(reply, text, phase=phase, senders=[OURS])

    _check(error, kind, whom, **more, status=reply)


@pytest.mark.parametrize(
    ("status", "kind", "whom", "more"),
    [
        (200, OutcomeUnknownError, MESSAGE, {}),
        (204, OutcomeUnknownError, MESSAGE, {}),
        (100, OutcomeUnknownError, MESSAGE, {}),
        (4, OutcomeUnknownError, MESSAGE, {}),
        (302, OutcomeUnknownError, MESSAGE, {}),
        (400, SendError, MESSAGE, {"category": Category.UNKNOWN}),
        (401, CredentialsError, ACCOUNT, {}),
        (403, AccessDeniedError, ACCOUNT, {}),
        (404, ConfigurationError, ACCOUNT, {}),
        (408, OutcomeUnknownError, MESSAGE, {}),
        (409, SendError, MESSAGE, {}),
        (413, MessageTooLargeError, MESSAGE, {}),
        (429, ThrottlingError, MESSAGE, {"pause": True}),
        (500, OutcomeUnknownError, MESSAGE, {}),
        (502, OutcomeUnknownError, MESSAGE, {}),
        (503, OutcomeUnknownError, MESSAGE, {}),
        (504, OutcomeUnknownError, MESSAGE, {}),
        (600, OutcomeUnknownError, MESSAGE, {}),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>kim@example.com</html>", b'{"Message": null}', b"[1]", b"\xff\xfe"])
@pytest.mark.parametrize("code", ["", "SomethingNewException"])
def test_a_status_without_a_known_code(status: int, *, kind: Any, whom: Any, more: Any, body: bytes, code: str) -> None:
    """4xx was refused by somebody; a bare 5xx, a balancer's 503 too, and garbage with 200 settle nothing."""
    _check(parse_v2_error(status, {"x-amzn-errortype": code}, body), kind, whom, **more)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-amzn-errortype": "MessageRejected"}, {}),
        ({"x-amzn-errortype": "MessageRejected:http://internal.amazon.com/coral#x"}, {}),
        ({"x-amzn-errortype": "MessageRejected:"}, {}),
        ({"x-amzn-errortype": " MessageRejected "}, {}),
        ({}, {"__type": "MessageRejected"}),
        ({}, {"__type": "com.amazon#MessageRejected"}),
        ({}, {"code": "MessageRejected"}),
        ({"x-amzn-errortype": "kim@example.com"}, {"__type": "MessageRejected"}),
    ],
)
@pytest.mark.parametrize("key", ["message", "Message"])
def test_the_code_is_found_wherever_it_is(headers: dict[str, str], body: dict[str, str], key: str) -> None:
    """Header with suffix, `__type` with namespace, `message` or `Message`."""
    error = parse_v2_error(400, headers, json.dumps({**body, key: ENFORCED}).encode())

    _check(error, AccountPausedError, ACCOUNT, code="MessageRejected")


def test_a_status_of_429_is_told_apart_by_its_text() -> None:
    """Even where some proxy lost the code."""
    assert type(parse_v2_error(429, {}, json.dumps({"message": DAILY}).encode())) is DailyQuotaExceededError


def test_a_success_with_an_error_code_is_not_refused() -> None:
    """A 200 may be with SES, whatever else the answer says."""
    error = parse_v2_error(200, {"x-amzn-errortype": "MessageRejected"}, b"{}")

    assert type(error) is OutcomeUnknownError


def test_unavailable_without_a_status_settles_nothing() -> None:
    """Only SES's own 503 says that the message was not taken."""
    assert type(classify("ServiceUnavailable", "")) is OutcomeUnknownError
    assert type(classify("Something", "")) is OutcomeUnknownError


@pytest.mark.parametrize(
    ("listed", "senders", "whom"),
    [
        ("no-reply@yokee.co.id", [OURS], FROM),
        ("NO-REPLY@YOKEE.CO.ID", [OURS], FROM),
        ("yokee.co.id", [OURS], FROM),
        ("Tank <no-reply@yokee.co.id>", ["no-reply@yokee.co.id"], FROM),
        ("b@example.com, no-reply@yokee.co.id, ...", [OURS], FROM),
        ("other@yokee.co.id", [OURS], RECIPIENT),
        ("id", [OURS], FROM),
        ("b@example.com", [], RECIPIENT),
        ("b@localhost", [OURS], RECIPIENT),
        ("...", [OURS], FROM),
        ("", [OURS], FROM),
    ],
)
def test_an_unverified_identity_is_ours_or_a_recipients(listed: str, senders: list[str], whom: Any) -> None:
    """The sender's address or exact domain concerns all mail from it; any other is a sandbox recipient."""
    error = classify("MessageRejected", f"{NOT_VERIFIED}EU-WEST-1: {listed}", status=400, senders=senders)

    assert type(error) is IdentityNotVerifiedError
    assert (error.scope, error.origin) == whom


def test_an_unverified_identity_names_domain_and_region() -> None:
    """The text says which domain, which region, and where that came from."""
    text = NOT_VERIFIED + "AP-SOUTHEAST-1: no-reply@yokee.co.id"
    ours = classify("MessageRejected", text, senders=[OURS], region="eu-west-1", region_source="AWS_REGION")
    other = classify("MessageRejected", text, region="eu-west-1")
    bare = classify(
        "MessageRejected", "Email address is not verified.", region="eu-west-1", region_source="the profile"
    )

    assert str(ours) == (
        "SES refuses mail from yokee.co.id, which is not verified in ap-southeast-1 (region from AWS_REGION). Verify "
        "the From domain in this region, or send from the region where it is verified; then publish its DKIM records "
        "(SPF counts on a custom MAIL FROM domain only)."
    )
    assert (
        other.message == "yokee.co.id is not verified in ap-southeast-1, where the account seems to be in the sandbox"
    )
    assert other.remedy == "Ask AWS for production access here, or verify the recipient (or the From, if it is that)"
    assert bare.message == (
        "SES refuses mail from the From identity, which is not verified in eu-west-1 (region from the profile)"
    )


def test_an_access_error_names_the_action() -> None:
    """The text's action, not the operation called, in both spellings."""
    assert str(classify("AccessDenied", IAM_V1)) == (
        "The credentials are not allowed to call ses:SendRawEmail in eu-west-1. Allow the action ses:SendRawEmail for "
        "the From identity and the configuration set in the IAM policy of these credentials (in the sandbox for the "
        "recipient's identity too)."
    )
    assert classify("AccessDenied", IAM_V2).message == (
        "The credentials are not allowed to call ses:GetAccount in this region"
    )
    assert "ses:SendEmail" in str(classify("AccessDenied", "No."))


@pytest.mark.parametrize(
    ("code", "text", "what"),
    [
        ("ConfigurationSetDoesNotExist", NO_SET, "The configuration set news does not exist"),
        ("CONFIGURATION_SET_NOT_FOUND", "", "The configuration set does not exist"),
        ("NotFoundException", "Configuration set does not exist", "The configuration set does not exist"),
        ("NotFoundException", "Configuration set <123456789012> not found", "The configuration set does not exist"),
        ("NotFoundException", NO_TEMPLATE, "The template welcome does not exist"),
        ("BadRequestException", NO_SET, "The From identity's default configuration set news does not exist"),
        ("SendingPausedException", "Sending is paused for configuration set news",
         "Sending is paused for the configuration set news"),
        ("SendingPausedException", "Sending is paused for configuration set news.",
         "Sending is paused for the configuration set news"),
        ("BadRequestException", "Missing domain", "SES refused an address: nothing stands after its @"),
        ("BadRequestException", "Domain contains illegal character in <kim@a.example>",
         "SES refused an address at a.example: its domain has other characters than letters, digits, hyphens and dots"),
        ("ServiceUnavailable", "", "SES failed in the middle of the request, and may have taken the message"),
    ],
)  # fmt: skip
def test_texts(code: str, text: str, what: str) -> None:
    """What is said names a set, a template or a domain where SES does."""
    assert classify(code, text).message == what


@pytest.mark.parametrize(
    "text",
    [
        "Configuration set <kim.minsu@example.com> does not exist.",
        "Configuration set kim.minsu@example.com does not exist.",
        "Template kim.minsu@example.com does not exist.",
        "User is not authorized to perform ses:kim.minsu@example.com",
        "User is not authorized to perform `ses:kim@example.com'",
        "failed the check in region kim-minsu-1@example.com: x",
        "failed the check in region ab-kim-1@example.com: x",
        "validation error: Value at 'kim.minsu@example.com' failed",
        f'{NOT_VERIFIED}EU-WEST-1: "kim, minsu"@example.com',
        'Illegal address <"kim minsu"@example.com>',
    ],
)
@pytest.mark.parametrize(
    "code",
    ["NotFound", "TemplateDoesNotExist", "AccessDenied", "MessageRejected", "BadRequest", "Validation", "Failed"],
)
def test_no_pattern_runs_into_an_address(code: str, text: str) -> None:
    """A name, an action, a region and an identity are never the first half of somebody's address."""
    error = classify(code, text, status=400)

    assert "kim" not in f"{error} {error!r} {error.field}"
    assert "minsu" not in f"{error} {error!r}"


def test_the_mail_from_remedy_has_the_records() -> None:
    """MX and SPF to publish, with the region where it is known."""
    code = "MailFromDomainNotVerifiedException"

    assert "10 feedback-smtp.eu-west-1.amazonses.com" in str(classify(code, "", region="eu-west-1"))
    assert "v=spf1 include:amazonses.com" in str(classify(code, ""))


def test_a_skewed_clock_has_its_own_remedy() -> None:
    """Told from a wrong secret by the text."""
    skewed = classify("InvalidSignatureException", SKEWED)

    assert str(skewed).startswith("AWS finds the time of the request too far from its own. Set this computer's clock")
    assert "secret" in str(classify("InvalidSignatureException", MISMATCH))


@pytest.mark.parametrize(
    ("error", "expired"),
    [
        (classify("ExpiredToken", OLD_TOKEN), True),
        (classify("ExpiredTokenException", OLD_TOKEN, status=403), True),
        (classify("TokenRefreshRequired", ""), True),
        (classify("InvalidClientTokenId", BAD_TOKEN), False),
        (CredentialsError(), False),
        (SendError(code="ExpiredToken"), False),
    ],
)
def test_expired_credentials_are_recognised(error: SendError, expired: bool) -> None:
    """Only these are worth one more attempt with fresh ones."""
    assert is_expired_credentials(error) is expired


@pytest.mark.parametrize("shown", ["kim@example.com", "a b", "", "x" * 81, "<b>", "short"])
def test_a_request_id_is_shown_only_if_it_looks_like_one(shown: str) -> None:
    """Nothing else gets into the error by that way."""
    assert classify("Throttling", "", request_id=shown).request_id is None


def test_a_code_that_is_none_is_not_shown() -> None:
    """The class's own stands in."""
    assert classify("kim@example.com", "", status=400).code is None
    assert classify("x" * 81, "", status=429).code == "Throttling"


def test_v1_texts_are_unescaped() -> None:
    """XML's five entities, and no other."""
    body = b"<Code>InvalidParameterValue</Code><Message>Invalid email address&lt;a@example.com&gt;.</Message>"

    error = parse_v1_error(400, body)

    assert error.identities == ("a@example.com",)
    assert type(parse_v1_error(503, b"")) is OutcomeUnknownError


def test_a_huge_body_is_not_read() -> None:
    """More than SES ever writes is nobody's error."""
    body = b'{"__type": "MessageRejected", "message": "' + b"x" * 2_000_000 + b'"}'

    assert type(parse_v2_error(400, {}, body)) is SendError
    assert type(parse_v2_error(400, {}, b"[" * 100_000)) is SendError


def test_every_row_of_the_table_can_be_reached() -> None:
    """No row stands behind one that takes all of its texts."""
    taken: set[tuple[str, int | None]] = set()
    for row in TABLE:
        reached = [code for code in row.codes.split() if (code, None) not in taken and (code, row.status) not in taken]
        assert reached == row.codes.split()
        if not row.pattern:
            taken |= {(code, row.status) for code in row.codes.split()}


CODES = sorted({code for row in TABLE for code in row.codes.split()} | {"x", ""})
SECRET = "qzjxw.vkqzj"
TEXTS = st.one_of(
    st.sampled_from([row[3] for row in MASTER] + [row[1] for row in SMTP]),
    st.text(max_size=60),
)
SPLICED = st.builds(
    lambda text, at, mail: text[: at % (len(text) + 1)] + mail + text[at % (len(text) + 1) :],
    TEXTS,
    st.integers(0, 200),
    st.sampled_from(
        [f" {SECRET}@example.com ", f"<{SECRET}@example.com>", f"{SECRET}@example.com", f"'{SECRET}@example.com'"]
    ),
)
STATUSES = st.one_of(st.integers(200, 599), st.integers(-5, 1000), st.sampled_from([400, 403, 404, 429, 500, 503]))


def _silent(error: SendError | None) -> None:
    if error is not None:
        shown = f"{error} {error!r} {error.code} {error.request_id} {error.field} {error.remedy}"
        assert SECRET not in shown
        assert "qzjxw" not in shown
        assert not (error.retryable and error.maybe_sent)
        assert (error.scope is Scope.ORIGIN) is (error.origin is not None)


@given(
    status=STATUSES,
    headers=st.dictionaries(
        st.sampled_from(["x-amzn-errortype", "x-amzn-requestid", "date"]),
        st.one_of(st.sampled_from(CODES), st.text(), SPLICED),
    ),
    body=st.one_of(
        st.binary(),
        SPLICED.map(str.encode),
        st.dictionaries(
            st.sampled_from(["message", "Message", "__type", "code"]),
            st.one_of(SPLICED, st.sampled_from(CODES), st.none(), st.integers(), st.lists(st.text())),
        ).map(lambda fields: json.dumps(fields).encode()),
    ),
    senders=st.lists(st.one_of(st.just(OURS), st.text()), max_size=2),
)
@example(status=400, headers={}, body=b'{"message": 1' + b"0" * 5000 + b"}", senders=[])
@example(status=200, headers={"x-amzn-errortype": "BadRequestException"}, body=b"{}", senders=[])
def test_any_v2_answer_becomes_an_error_that_tells_no_address(
    status: int, headers: dict[str, str], body: bytes, senders: list[str]
) -> None:
    """Whatever comes: it never raises, a success is never called refused, and no address is shown."""
    error = parse_v2_error(status, headers, body, senders=senders)

    _silent(error)
    assert error.maybe_sent or 400 <= status < 600


@given(status=STATUSES, code=st.sampled_from(CODES), text=SPLICED, noise=st.binary(max_size=40))
def test_any_v1_answer_becomes_an_error_that_tells_no_address(status: int, code: str, text: str, noise: bytes) -> None:
    """The same for XML, and for bytes that are none."""
    _silent(parse_v1_error(status, f"<Code>{code}</Code><Message>{escape(text)}</Message>".encode() + noise))
    error = parse_v1_error(status, noise)
    assert error.maybe_sent or 400 <= status < 600


@given(status=st.one_of(st.sampled_from(CODES), st.text()), text=SPLICED)
def test_any_bulk_entry_becomes_an_error_that_tells_no_address(status: str, text: str) -> None:
    """The same for the entries of a bulk answer."""
    _silent(classify_bulk(status, text, senders=[OURS]))


@given(reply=st.one_of(st.integers(200, 599), st.integers()), text=SPLICED, phase=st.sampled_from(get_args(Phase)))
def test_any_smtp_reply_becomes_an_error_that_tells_no_address(reply: int, text: str, phase: Phase) -> None:
    """The same for SMTP; before the content, SES certainly has not taken the message."""
    error = classify_smtp(reply, text, phase=phase, senders=[OURS])

    _silent(error)
    assert error.maybe_sent is (phase == "content" and not 400 <= reply < 600)
