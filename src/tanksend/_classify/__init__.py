"""
What an answer of SES means: one table, for all of its ways to say no.

SES names the same failure differently in its two APIs, in the entries of a bulk answer and over SMTP, and its codes
alone do not tell enough: ``TooManyRequestsException`` is the per-second rate or the day's quota, ``MessageRejected`` an
unverified From, a sandbox recipient, a paused account or a virus. So a row of `TABLE` (in ``_table``) is chosen by
code, then by HTTP status where given, then by the text; the first that fits wins. Codes are compared without case,
underscores and the suffix "Exception", which makes ``MailFromDomainNotVerifiedException`` (v1, v2),
``MAIL_FROM_DOMAIN_NOT_VERIFIED`` (v2 bulk) and ``MailFromDomainNotVerified`` (v1 bulk) one.

Two things matter more than the rest. An error says *refused* only where SES itself said so: whatever settles nothing
(another status than 4xx and 5xx, a server error, a timeout, an answer nobody can read) is `OutcomeUnknownError`. And
SES's texts carry addresses, ARNs and account ids: none of them is repeated, each error has a text of our own, with a
domain, region, action or name taken out of SES's text by a narrow pattern.

Source: Amazon SES API v2 and v1 references, "Common Errors" and the declared errors of the send operations;
Developer Guide, "Amazon SES email sending errors" and "SMTP response codes".
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Literal

from ..exceptions import CredentialsError, SendError, ThrottlingError
from ._texts import NAME, TEXT_LIMIT, Answer, Detail, compiled, find

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ._table import Row

Phase = Literal["connect", "auth", "mail", "rcpt", "data", "content"]
"""Which SMTP command was answered; ``content`` is the message itself, after its final dot."""

_BODY_LIMIT = 1_048_576

# Replies about an address; which one depends on the command they answer.
_ADDRESS_REPLIES = frozenset({501, 550, 551, 553, 554})
# What SES writes behind an SMTP reply, and the code it means.
_SMTP_TEXTS = (
    (r"configuration set.{0,80}(?:does not|doesn't) exist", "ConfigurationSetDoesNotExist"),
    (r"throttling failure", "Throttling"),
    (r"message rejected", "MessageRejected"),
    (r"access denied", "AccessDenied"),
    (r"transaction failed", "InvalidParameterValue"),
)


@functools.cache
def _rows() -> Mapping[str, tuple[Row, ...]]:
    """The table by code; read when the first error comes, so that `import tanksend` stays quick."""
    from ._table import TABLE

    rows: dict[str, tuple[Row, ...]] = {}
    for row in TABLE:
        for code in row.codes.split():
            rows[code] = (*rows.get(code, ()), row)
    return rows


def _normal(code: str) -> str:
    return code.replace("_", "").lower().removesuffix("exception")


def _build(row: Row, answer: Answer) -> SendError:
    detail = row.refine(answer) if row.refine else Detail()
    name = find(NAME, answer.text) if "{name}" in row.message else None
    error = row.error(
        detail.get("message", row.message).replace("{name}", f" {name}" if name else ""),
        code=answer.code or None,
        category=row.category,
        scope=detail.get("scope", row.scope),
        origin=detail.get("origin", row.origin),
        status=answer.status,
        request_id=answer.request_id,
        remedy=detail.get("remedy", row.remedy),
        identities=detail.get("identities", ()),
        field=detail.get("field", row.field),
    )
    if isinstance(error, ThrottlingError):
        error.pause = row.pause
    return error


def _judge(answer: Answer, *codes: str) -> SendError:
    """Take the first row of the first of *codes* that fits; the last one, ``?``, always does."""
    candidates = (row for code in (*codes, "?") for row in _rows().get(code, ()))
    return next(
        _build(row, answer)
        for row in candidates
        if row.status in (None, answer.status) and compiled(row.pattern).search(answer.text)
    )


def _by_code(answer: Answer) -> SendError:
    if answer.status is None:
        return _judge(answer, _normal(answer.code))
    bare = f"http:{answer.status}", f"http:{answer.status // 100}xx"
    # Whatever it says, an answer that is no error has refused nothing.
    known = (_normal(answer.code),) if 400 <= answer.status < 600 else ()
    return _judge(answer, *known, *bare)


# --- the ways in ---------------------------------------------------------------------------------------------------


def _token(value: object, pattern: str) -> str:
    """Keep *value* only if it looks like what it should be: codes and ids are shown, and may hold nothing else."""
    return value if isinstance(value, str) and compiled(pattern).fullmatch(value) else ""


def _code(value: object) -> str:
    """The code in ``com.amazon#AccessDeniedException`` or ``NotFoundException:http://internal.amazon.com/``."""
    text = value.partition(":")[0].rpartition("#")[2].strip() if isinstance(value, str) else ""
    return _token(text, r"[a-z][a-z0-9_.]{0,79}")


def _request_id(value: object) -> str | None:
    return _token(value, r"[a-z0-9-]{8,80}") or None


def classify(
    code: str,
    text: str,
    *,
    status: int | None = None,
    senders: Collection[str] = (),
    request_id: str | None = None,
    region: str | None = None,
    region_source: str | None = None,
) -> SendError:
    """
    Make an error of SES's *code* and *text*, of either API.

    Args:
        code: SES's code, with or without "Exception".
        text: SES's message, as it came; nothing of it is repeated but a domain, a region, an action or a name.
        status: HTTP status, where there is one. Without it an unknown code settles nothing.
        senders: The request's own From (and Sender, Return-Path) addresses, to tell them from recipients.
        request_id: SES's id of the request.
        region: The region asked, for the text.
        region_source: Where the region came from ("AWS_REGION", "the profile"), for the text.
    """
    answer = Answer(_code(code), text[:TEXT_LIMIT], status, _request_id(request_id), senders, region, region_source)
    return _by_code(answer)


def parse_v2_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    senders: Collection[str] = (),
    region: str | None = None,
    region_source: str | None = None,
) -> SendError:
    """
    Make an error of an HTTP answer of SES API v2 that is no success; never raises.

    Args:
        status: HTTP status.
        headers: Names in lower case.
        body: As it came: JSON, HTML of some balancer, or nothing.
        senders: As for `classify`.
        region: As for `classify`.
        region_source: As for `classify`.
    """
    fields = _json_object(body)
    code = _code(headers.get("x-amzn-errortype")) or _code(fields.get("__type")) or _code(fields.get("code"))
    # SES itself writes "message", IAM in front of it "Message".
    text = fields.get("message") or fields.get("Message")
    return classify(
        code,
        text if isinstance(text, str) else "",
        status=status,
        senders=senders,
        request_id=headers.get("x-amzn-requestid"),
        region=region,
        region_source=region_source,
    )


def _json_object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body) if len(body) <= _BODY_LIMIT else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def parse_v1_error(status: int, body: bytes, *, senders: Collection[str] = ()) -> SendError:
    """
    Make an error of an HTTP answer of SES API v1 (XML) that is no success; never raises.

    Read by patterns: three flat elements need no XML parser, nor its entity expansion.
    """
    import html

    xml = body[:_BODY_LIMIT].decode("utf-8", "replace")
    code, text, request_id = (
        html.unescape(find(rf"<{tag}>([^<]*)</{tag}>", xml) or "").strip() for tag in ("Code", "Message", "RequestId")
    )
    return classify(code, text, status=status, senders=senders, request_id=request_id)


def classify_bulk(
    status: str, text: str, *, senders: Collection[str] = (), request_id: str | None = None
) -> SendError | None:
    """Make an error of one entry's status in a bulk answer, of either API and either spelling; None for success."""
    if _normal(status) == "success":
        return None
    return classify(status, text, senders=senders, request_id=request_id)


def classify_smtp(reply_code: int, text: str, *, phase: Phase = "content", senders: Collection[str] = ()) -> SendError:
    """
    Make an error of an SMTP reply that is not the one hoped for.

    Args:
        reply_code: Its three digits.
        text: Its lines, without the digits.
        phase: Which command it answers. After ``content`` a reply that is neither 4yz nor 5yz leaves it unknown whether
            SES took the message; before, SES certainly has not.
        senders: As for `classify`.
    """
    text = text[:TEXT_LIMIT]
    means = next((code for pattern, code in _SMTP_TEXTS if compiled(pattern).search(text)), "")
    answer = Answer(means or f"SMTP{reply_code}", text, reply_code, None, senders)
    if not 400 <= reply_code < 600:
        return _judge(answer, "?" if phase == "content" else "smtp:early")
    of_phase = (f"smtp:{phase}",) if reply_code in _ADDRESS_REPLIES else ()
    return _judge(answer, _normal(means), *of_phase, f"smtp:{reply_code}", f"smtp:{reply_code // 100}xx")


def is_expired_credentials(error: SendError) -> bool:
    """Whether fresh credentials are all that *error* asks for: one more attempt with them is safe, and may succeed."""
    return isinstance(error, CredentialsError) and _normal(error.code or "") in {"expiredtoken", "tokenrefreshrequired"}
