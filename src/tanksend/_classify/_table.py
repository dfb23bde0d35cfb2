"""
The table: which code, status and text of SES is which error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..exceptions import (
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
from ._texts import (
    SYNTAX,
    Answer,
    Detail,
    mail_from_records,
    missing_action,
    missing_variable,
    refused_address,
    refused_member,
    unverified_identity,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Row:
    """
    One line of the table.

    Args:
        codes: SES's codes, blank-separated, lower case, bare; ``http:…`` and ``smtp:…`` stand for bare statuses.
        pattern: Found in the text, without regard to case; empty fits every text.
        error: What to raise; ``None`` below stands for its own default.
        message: Its text; ``{name}`` is the configuration set or template that SES names, if it does.
    """

    codes: str
    pattern: str
    error: type[SendError]
    message: str = ""
    remedy: str | None = None
    scope: Scope | None = None
    origin: Origin | None = None
    category: Category | None = None
    field: str | None = None
    pause: bool = False
    status: int | None = None
    refine: Callable[[Answer], Detail] | None = None


_THROTTLE = "throttling toomanyrequests limitexceeded http:429"
_REQUEST = "badrequest invalidparametervalue invalidparameter invalidparametercombination"
_PARAMETER = f"{_REQUEST} failed"
_GONE = r"(?:does not|doesn't) exist|not found"

_SPEED = "The account's sending rate was exceeded"
_FROM = "SES refused the From address"
_CLOSED = "The AWS account is not enabled for SES in this region"
_OPEN = "Open SES in the AWS console for this region"
_SKEW = "AWS finds the time of the request too far from its own"
_CLOCK = "Set this computer's clock: AWS accepts a difference of five minutes"
_UNREADABLE = "SES cannot read the request"
_REPORT = "This is a fault in how the request was built; please report it"
_SUPPORT = "Answer AWS's mail about it, or open a support case; sending again changes nothing"
_VERIFY = (
    "Verify the From domain in this region, or send from the region where it is verified; then publish its DKIM "
    "records (SPF counts on a custom MAIL FROM domain only)"
)
_NO_SET = "The configuration set{name} does not exist"
_NO_TEMPLATE = "The template{name} does not exist"
_DEFAULT_SET = "Give the From identity another default configuration set, or name one for each message"

TABLE = (
    # Throttled: the rate, the day's quota, and what is about neither (better pause then than hammer).
    Row(f"{_THROTTLE} failed", r"sigv2", ConfigurationError, "The SMTP credentials are of a kind AWS retired in 2019",
        "Create new SMTP credentials", Scope.ACCOUNT),
    Row(f"{_THROTTLE} failed", r"daily|24.?hour", DailyQuotaExceededError),
    Row(f"{_THROTTLE} failed", r"sending rate", ThrottlingError, _SPEED),
    Row(_THROTTLE, r"rate exceeded", ThrottlingError, "SES's limit on API calls was exceeded",
        "Call more slowly: most calls other than sending may be made once a second"),
    Row("limitexceeded", r"too many instances", ConfigurationError, "The account has as many of these as it may",
        "Delete what is no longer used, or ask AWS for a higher limit", Scope.ACCOUNT),
    Row(_THROTTLE, r"", ThrottlingError, "SES throttled the request and names neither rate nor quota",
        "Wait: AWS may have a problem of its own (see its health dashboard)", pause=True),
    Row("accountthrottled", r"", ThrottlingError, _SPEED),
    Row("accountdailyquotaexceeded", r"", DailyQuotaExceededError),

    # Rejected and paused.
    Row("messagerejected badrequest failed", r"not verified", IdentityNotVerifiedError,
        remedy=_VERIFY, field="from_", refine=unverified_identity),
    Row("configurationsetsendingpaused", r"", AccountPausedError,
        "Sending is paused for the configuration set{name}", "Enable sending for it, or use another",
        Scope.ORIGIN, Origin.CONFIGURATION_SET),
    Row("sendingpaused messagerejected failed", r"paused for (?:the )?configuration set", AccountPausedError,
        "Sending is paused for the configuration set{name}",
        "Enable sending for it, or use another", Scope.ORIGIN, Origin.CONFIGURATION_SET),
    Row("sendingpaused messagerejected failed", r"paused for (?:the |this )?tenant|tenant.{0,200}paused",
        AccountPausedError, "Sending is paused for the tenant", "Enable sending for the tenant, or use another",
        Scope.ORIGIN, Origin.TENANT),
    Row("sendingpaused accountsendingpaused", r"", AccountPausedError),
    Row("messagerejected failed", r"sending (?:is )?paused|sending is disabled", AccountPausedError,
        "AWS paused sending for this account", _SUPPORT),
    Row("accountsuspended", r"", AccountPausedError, "AWS suspended this account's sending", _SUPPORT),
    Row("messagerejected", r"", ContentRejectedError),
    Row("mailfromdomainnotverified", r"", MailFromDomainNotVerifiedError, refine=mail_from_records),

    # What the request names and SES does not have. BadRequest for a set is the From identity's own default.
    Row("badrequest", rf"configuration set.{{0,80}}(?:{_GONE})", ConfigurationError,
        "The From identity's default configuration set{name} does not exist", _DEFAULT_SET, Scope.ORIGIN, Origin.FROM),
    Row("configurationsetdoesnotexist configurationsetnotfound", r"", ConfigurationError, _NO_SET,
        scope=Scope.ORIGIN, origin=Origin.CONFIGURATION_SET),
    Row("notfound failed", r"configuration set", ConfigurationError, _NO_SET,
        scope=Scope.ORIGIN, origin=Origin.CONFIGURATION_SET),
    Row("invalidsendingpoolname", r"", ConfigurationError, "The configuration set's pool of IPs does not exist",
        scope=Scope.ORIGIN, origin=Origin.CONFIGURATION_SET),
    Row("templatedoesnotexist templatenotfound", r"", ConfigurationError, _NO_TEMPLATE,
        scope=Scope.ORIGIN, origin=Origin.TEMPLATE),
    Row("notfound badrequest failed", rf"template.{{0,80}}(?:{_GONE})", ConfigurationError, _NO_TEMPLATE,
        scope=Scope.ORIGIN, origin=Origin.TEMPLATE),
    Row("notfound failed", r"tenant", ConfigurationError, "The tenant does not exist",
        scope=Scope.ORIGIN, origin=Origin.TENANT),
    # No group of ours shares a contact list, so it concerns the message that names it.
    Row("notfound failed", r"list with name|contact list", ConfigurationError, "The contact list does not exist",
        scope=Scope.MESSAGE),
    Row("notfound", r"", ConfigurationError, scope=Scope.MESSAGE),
    Row("invalidtemplate", r"", RenderingError, "The template is not valid",
        scope=Scope.ORIGIN, origin=Origin.TEMPLATE),
    Row("invalidrenderingparameter missingrenderingattribute", r"", RenderingError, refine=missing_variable),
    Row("alreadyexists", r"", InvalidParameterError, "Something of this name exists already",
        "Change what exists, or choose another name", field="name"),

    # Who asks. A tenant's missing association wears AccessDenied too, and is no matter of IAM.
    Row("accessdenied", r"associated with (?:the |this )?tenant|tenant.{0,200}associated", ConfigurationError,
        "The tenant has no association with the identity, configuration set or template used",
        "Associate them with the tenant", Scope.ORIGIN, Origin.TENANT),
    Row("accessdenied unauthorizedoperation http:403", r"", AccessDeniedError, refine=missing_action),
    Row("expiredtoken tokenrefreshrequired", r"", CredentialsError, "The session token has expired",
        "Get fresh credentials; profiles and roles are refreshed by themselves"),
    Row("signaturedoesnotmatch invalidsignature", r"signature expired|not yet current", CredentialsError,
        _SKEW, _CLOCK),
    Row("requestexpired requesttimetooskewed", r"", CredentialsError, _SKEW, _CLOCK),
    Row("signaturedoesnotmatch invalidsignature", r"", CredentialsError, "The signature does not match",
        f"Check the secret access key, with no blank around it. {_CLOCK}"),
    Row("invalidclienttokenid unrecognizedclient invalidaccesskeyid", r"", CredentialsError,
        "AWS does not know the access key or the session token"),
    Row("incompletesignature missingauthenticationtoken", r"", CredentialsError,
        "The request is not signed as AWS wants it"),
    Row("optinrequired subscriptionrequired notauthorized", r"", CredentialsError, _CLOSED, _OPEN),

    # What the message holds.
    Row(_PARAMETER, r"validation error", InvalidParameterError, _UNREADABLE, _REPORT,
        category=Category.BUG, refine=refused_member),
    Row(_PARAMETER, r"rendering", RenderingError, refine=missing_variable),
    Row(_PARAMETER, r"message (?:length|size)|message is too long|more than \d+ bytes|exceeds.{0,80}(?:size|bytes)",
        MessageTooLargeError),
    Row("requestentitytoolarge http:413", r"", MessageTooLargeError),
    Row(_PARAMETER, r"invalid (?:mail )?from address", InvalidParameterError, _FROM, "Correct it",
        Scope.ORIGIN, Origin.FROM, field="from_"),
    Row(_PARAMETER, r"source cannot be empty|missing required header 'from'", InvalidParameterError,
        "The message has no From address", "Give from_ to the message or the Sender", field="from_"),
    Row(_PARAMETER, r"no recipients", InvalidParameterError, "The message has no recipient", "Give it one",
        field="to"),
    Row(_PARAMETER, r"recipient count|too many recipients|\b50\b.{0,40}recipients|recipients.{0,40}\b50\b",
        InvalidParameterError, "The message has more recipients than SES takes", "Send to 50 at most", field="to"),
    Row(_PARAMETER, SYNTAX, InvalidParameterError, remedy="Correct the address",
        field="address", refine=refused_address),
    Row(_PARAMETER, r"extension|file ?(?:type|name)|attachment", ContentRejectedError,
        "SES does not carry an attachment of this type", "Send a link instead, or another type"),
    Row(_PARAMETER, r"\bexpected\b.{0,80}\bgot\b|mime|boundary|content-\w|duplicate header", ContentRejectedError,
        "SES cannot read the MIME structure of the message", "Check the raw message's headers and parts"),
    Row("failed", r"", SendError, "SES could not process this message and does not say why"),
    Row(_REQUEST, r"\A\s*\Z", InvalidParameterError, "SES refused the request and does not say why",
        "Most often the From address is missing"),
    Row(_REQUEST, r"", InvalidParameterError),
    Row("serialization validation validationerror malformedquerystring unknownoperation malformedhttprequest "
        "invalidaction", r"", InvalidParameterError, _UNREADABLE, _REPORT,
        category=Category.BUG, refine=refused_member),

    # Not now, and who knows. Only SES's own code with its own status says that it has not taken the message.
    Row("serviceunavailable", r"", ServiceUnavailableError, status=503),
    Row("transientfailure", r"", ServiceUnavailableError, "SES could not take this message at the moment"),
    Row("serviceunavailable internalfailure internalserviceerror internalservererror internalerror "
        "requesttimeout requestaborted concurrentmodification", r"", OutcomeUnknownError,
        "SES failed in the middle of the request, and may have taken the message"),

    # SMTP replies without one of the codes above. RFC 5321 section 4.2.1: after 4yz and 5yz the action did not occur.
    Row("smtp:421", r"too many", ThrottlingError, "SES accepts no more SMTP connections", "Open fewer connections"),
    Row("smtp:454", r"authentication", ServiceUnavailableError, "SES cannot check the credentials at the moment"),
    Row("smtp:4xx", r"", ServiceUnavailableError),
    Row("smtp:530 smtp:534 smtp:535 smtp:538", r"not subscribed", CredentialsError, _CLOSED, _OPEN),
    Row("smtp:530 smtp:534 smtp:535 smtp:538", r"", CredentialsError, "SES does not accept the SMTP credentials",
        "SMTP has its own password, made per region from the secret key; temporary credentials cannot be used"),
    Row("smtp:552", r"", MessageTooLargeError),
    Row("smtp:mail", r"", InvalidParameterError, _FROM, "Correct it", Scope.ORIGIN, Origin.FROM, field="from_"),
    Row("smtp:501", r"mail from", InvalidParameterError, _FROM, "Correct it", Scope.ORIGIN, Origin.FROM, field="from_"),
    Row("smtp:rcpt smtp:550 smtp:551 smtp:553", SYNTAX, InvalidParameterError, "", "Correct the address",
        Scope.RECIPIENT, field="recipient", refine=refused_address),
    Row("smtp:rcpt smtp:550 smtp:551 smtp:553", r"", InvalidParameterError, "SES refused a recipient's address",
        "Correct the address", Scope.RECIPIENT, field="recipient"),
    Row("smtp:554", r"", ContentRejectedError),
    Row("smtp:500 smtp:501 smtp:502 smtp:503 smtp:504 smtp:555", r"", InvalidParameterError,
        "SES refused an SMTP command", _REPORT, category=Category.BUG),
    Row("smtp:5xx", r"", SendError),
    Row("smtp:early", r"", ConnectionFailedError,
        "The SMTP conversation went astray before the message was handed over"),

    # HTTP answers with no code, or one of which this version knows nothing.
    Row("http:401", r"", CredentialsError),
    Row("http:404", r"", ConfigurationError, "The endpoint does not know the request",
        "Check the region and the endpoint", Scope.ACCOUNT),
    Row("http:408", r"", OutcomeUnknownError),
    Row("http:4xx", r"", SendError),
    Row("http:2xx", r"", OutcomeUnknownError, "SES answered well but gave no message id that can be read"),
    Row("http:5xx", r"", OutcomeUnknownError, "The server failed, and no code tells whether SES took the message"),
    Row("?", r"", OutcomeUnknownError, "The answer does not tell whether SES took the message"),
)  # fmt: skip
