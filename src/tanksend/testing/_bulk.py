"""
SendBulkEmail: up to 50 messages of one template in a request, judged one by one.

The answer is a 200 with a status for each entry. What is wrong with the whole request (its shape, its sender's address,
the permission to make it) is refused as a whole; what concerns account, configuration set, template or identity is
answered one way or the other, as `SimulatedAccount.bulk_refuses` says.

Source: SES API v2 reference, "SendBulkEmail", "BulkEmailEntry" and "BulkEmailEntryResult".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from ._answers import Refusal, bad_request
from ._faults import ENTRY
from ._inbox import FaultRecord
from ._sending import (
    EICAR,
    TOO_FAST,
    charge,
    check_configuration_set,
    check_identities,
    check_running,
    identity_arn,
    record_events,
    take,
)
from ._submission import (
    MAX_HEADERS,
    Submission,
    check_attachments,
    check_headers,
    check_number,
    check_size,
    check_tags,
    destination,
    load,
    object_at,
    objects_at,
    tags_of,
    text_at,
    texts_at,
)
from ._syntax import check_length, mailbox
from ._templates import Asked, asked, check_data_length, check_inline_size, data_of, headers_of, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._answers import Request
    from ._simulator import SimulatedAccount
    from ._templates import CompiledTemplate

BULK_PATH = "/v2/email/outbound-bulk-emails"
MAX_ENTRIES = 50
Spelling = Literal["v2", "prose", "v1"]

# The API's version 2 lists the first spelling and describes the second; version 1 has the third.
_OTHERWISE = {
    "CONFIGURATION_SET_NOT_FOUND": ("CONFIGURATION_SET_DOES_NOT_EXIST", "ConfigurationSetDoesNotExist"),
    "INVALID_PARAMETER": ("INVALID_PARAMETER_VALUE", "InvalidParameterValue"),
    "TEMPLATE_NOT_FOUND": ("TEMPLATE_DOES_NOT_EXIST", "TemplateDoesNotExist"),
}


def spelled(status: str, spelling: Spelling) -> str:
    """A status of version 2 in another spelling."""
    prose, old = _OTHERWISE.get(status, (status, status.title().replace("_", "")))
    return {"v2": status, "prose": prose, "v1": old}[spelling]


@attrs.define(repr=False)
class _Common:
    """What all entries of a request share, and whom to refuse them all for."""

    content: Mapping[str, Any]
    sender: str
    configuration_set: str | None
    tags: Mapping[str, str]
    headers: Mapping[str, str]
    data: Mapping[str, Any]
    asked: Asked
    inline: CompiledTemplate | None
    identities: list[str]
    refusal: Refusal | None = None


def send_bulk(account: SimulatedAccount, request: Request) -> dict[str, Any]:
    """
    Judge the entries of one request and take those that are fine.

    Raises:
        Refusal: Of the whole request.
    """
    content = load(request.body)
    for action in ("ses:SendBulkEmail", "ses:SendBulkTemplatedEmail"):
        account.authorize(action, identity_arn(account, content))
    common, entries = _read(account, content)
    _check_entries(entries)
    infected = EICAR in request.body
    return {
        "BulkEmailEntryResults": [
            _answer(account, request, common, number, entry, infected=infected) for number, entry in enumerate(entries)
        ]
    }


def _read(account: SimulatedAccount, content: Mapping[str, Any]) -> tuple[_Common, Sequence[Mapping[str, Any]]]:
    refusal = _refusal_of_all(account, lambda: check_running(account))
    common = _common(content)
    entries = objects_at(content, "BulkEmailEntries")
    if not entries:
        raise bad_request("BulkEmailEntries must have at least one entry.")
    if len(entries) > MAX_ENTRIES:
        raise bad_request("Destination count exceeds 50.")
    common.refusal = (
        refusal
        or _refusal_of_all(account, lambda: check_configuration_set(account, common.configuration_set))
        or _refusal_of_all(account, lambda: common.asked.find(account.templates))
        or _refusal_of_all(account, lambda: check_identities(account, _nobody(common)))
        or _bad_reply_to(content)
    )
    return common, entries


def _refusal_of_all(account: SimulatedAccount, check: Callable[[], object]) -> Refusal | None:
    """What refuses every entry; raised at once where the account answers so."""
    try:
        check()
    except Refusal as refusal:
        if account.bulk_refuses == "call":
            raise
        return refusal
    return None


def _common(content: Mapping[str, Any]) -> _Common:
    """Read what the entries share; everything that is wrong here refuses the request."""
    template = object_at(object_at(content, "DefaultContent"), "Template")
    if not template:
        raise bad_request("DefaultContent.Template must be given.")
    sender = text_at(content, "FromEmailAddress")
    if not sender:
        raise bad_request("Source cannot be empty")
    text = text_at(template, "TemplateData")
    check_data_length(text, "defaultContent.template.templateData")
    headers = objects_at(template, "Headers")
    check_headers(headers, "defaultContent.template.headers")
    check_size(check_attachments(template))
    tags = tags_of(content, "DefaultEmailTags")
    check_tags(tags)
    which = asked(template)
    check_inline_size(which.template, text)
    return _Common(
        content=content,
        sender=sender,
        configuration_set=text_at(content, "ConfigurationSetName") or None,
        tags=tags,
        headers=headers_of(headers),
        data=data_of(text),
        asked=which,
        inline=which.template,
        identities=_identities(content, sender),
    )


def _identities(content: Mapping[str, Any], sender: str) -> list[str]:
    """Bare addresses of those who must be verified to send."""
    identities = [mailbox(sender)]
    check_length(sender)
    feedback = text_at(content, "FeedbackForwardingEmailAddress")
    if feedback:
        identities.append(mailbox(feedback))
    return identities


def _bad_reply_to(content: Mapping[str, Any]) -> Refusal | None:
    """A bad Reply-To refuses every entry and not the request."""
    try:
        for text in texts_at(content, "ReplyToAddresses"):
            mailbox(text)
            check_length(text)
    except Refusal as refusal:
        return refusal
    return None


def _nobody(common: _Common) -> Submission:
    """A message to nobody, for what is checked of the sender alone."""
    return _submission(common, None, [])


def _submission(common: _Common, entry: int | None, recipients: list[str]) -> Submission:
    return Submission(
        "ses:SendBulkTemplatedEmail",
        common.sender,
        recipients,
        "",
        common.tags,
        common.configuration_set,
        common.identities,
        [],
        common.content,
        common.headers,
        common.asked,
        common.data,
        entry,
    )


def _data_text(entry: Mapping[str, Any]) -> str:
    replacement = object_at(object_at(entry, "ReplacementEmailContent"), "ReplacementTemplate")
    return text_at(replacement, "ReplacementTemplateData")


def _check_entries(entries: Sequence[Mapping[str, Any]]) -> None:
    """What the API itself checks before SES sees the request: one that is wrong refuses all."""
    for number, entry in enumerate(entries, 1):
        text = _data_text(entry)
        place = f"bulkEmailEntries.{number}.member"
        check_data_length(text, f"{place}.replacementEmailContent.replacementTemplate.replacementTemplateData")
        if "ReplacementHeaders" in entry:
            check_headers(objects_at(entry, "ReplacementHeaders"), f"{place}.replacementHeaders")


def _wanted(common: _Common, number: int, entry: Mapping[str, Any]) -> Submission:
    """One entry, taken apart and put over what all share."""
    wanted = _submission(common, number, destination(entry))
    if "ReplacementTags" in entry:
        own = tags_of(entry, "ReplacementTags")
        check_tags(own)
        wanted.tags = {**common.tags, **own}
    if "ReplacementHeaders" in entry:
        wanted.headers = _headers(common, headers_of(objects_at(entry, "ReplacementHeaders")))
    text = _data_text(entry)
    check_inline_size(common.inline, text)
    wanted.data = merged(common.data, data_of(text))
    return wanted


def _headers(common: _Common, own: dict[str, str]) -> dict[str, str]:
    """An entry's headers, which replace those of the same name. Source: SES API v2, "BulkEmailEntry"."""
    if not common.headers:
        return own
    names = {name.lower() for name in own}
    both = {name: value for name, value in common.headers.items() if name.lower() not in names} | own
    if len(both) > MAX_HEADERS:
        raise bad_request(f"A message may have {MAX_HEADERS} additional headers.")
    return both


def _answer(
    account: SimulatedAccount,
    request: Request,
    common: _Common,
    number: int,
    entry: Mapping[str, Any],
    *,
    infected: bool,
) -> dict[str, Any]:
    """Judge one entry, and say how it fared."""
    account.counts.entries += 1
    try:
        _strike(account, number, entry)
        if common.refusal is not None:
            raise common.refusal
        wanted = _judged(account, common, number, entry)
        charge(account, wanted, request.monotonic)
        if infected:
            _scan(wanted)
        message_id = take(account, wanted, request)
        record_events(account, message_id, wanted)
    except Refusal as refusal:
        return _refused(account, refusal)
    account.counts.by_status["SUCCESS"] += 1
    return {"Status": spelled("SUCCESS", account.bulk_spelling), "MessageId": message_id}


def _strike(account: SimulatedAccount, number: int, entry: Mapping[str, Any]) -> None:
    """Let an entry fault strike, if one is due."""
    fault = account.faults.draw_entry()
    if fault is None:
        return
    account.counts.faults[fault] += 1
    account.fault_log.append(_record(fault, _readable(entry), number, accepted=False))
    status, text = ENTRY[fault]
    raise Refusal("TooManyRequestsException" if text == TOO_FAST else "InternalFailure", text, status=status)


def _judged(account: SimulatedAccount, common: _Common, number: int, entry: Mapping[str, Any]) -> Submission:
    wanted = _wanted(common, number, entry)
    check_number(wanted)
    wanted.mailboxes = [mailbox(text) for text in wanted.recipients]
    for text in wanted.recipients:
        check_length(text)
    if account.sandbox:
        check_identities(account, wanted)
    return wanted


def _scan(wanted: Submission) -> None:
    """Look for the virus in one message. It is charged to the quotas all the same."""
    template = wanted.asked.template if wanted.asked is not None else None
    data = wanted.data or {}
    if template is None or template.failure(data) is not None:
        return
    parts = (part.render(data).encode() for part in (template.subject, template.text, template.html) if part)
    if any(EICAR in part for part in parts):
        text = "The message was rejected because it contained a virus."
        raise Refusal("MessageRejected", text, status="MESSAGE_REJECTED")


def _refused(account: SimulatedAccount, refusal: Refusal) -> dict[str, Any]:
    counts = account.counts
    counts.by_status[refusal.status] += 1
    if refusal.status == "ACCOUNT_THROTTLED":
        counts.throttled += 1
    elif refusal.status == "ACCOUNT_DAILY_QUOTA_EXCEEDED":
        counts.quota_refusals += 1
    return {"Status": spelled(refusal.status, account.bulk_spelling), "Error": refusal.message}


# --- for the fault log ---


def struck(fault: str, body: bytes, accepted: Iterable[int | None] = ()) -> list[FaultRecord]:
    """
    Records of the entries of a request that a fault has struck as a whole, as far as it can be read.

    Args:
        fault: Its name.
        body: The request's.
        accepted: Positions of the entries that were taken.
    """
    taken = set(accepted)
    try:
        content = load(body)
        entries = objects_at(content, "BulkEmailEntries")
        tags = tags_of(content, "DefaultEmailTags")
    except Refusal:
        return [FaultRecord(fault, accepted=False)]
    return [
        _record(fault, _readable(entry, tags), number, accepted=number in taken) for number, entry in enumerate(entries)
    ]


def _readable(
    entry: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Recipients and tags of an entry that nobody has judged."""
    try:
        return tuple(destination(entry)), {**(tags or {}), **tags_of(entry, "ReplacementTags")}
    except Refusal:
        return (), {}


def _record(
    fault: str, readable: tuple[tuple[str, ...], Mapping[str, str]], number: int, *, accepted: bool
) -> FaultRecord:
    return FaultRecord(fault, accepted=accepted, recipients=readable[0], tags=readable[1], entry=number)
