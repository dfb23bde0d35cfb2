"""A message before the simulated account: judged, charged to the quotas, and taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._answers import Refusal
from ._control import covers
from ._inbox import Delivered, Event
from ._submission import Submission, check_addresses, check_content, check_lengths, load, submission
from ._syntax import simulated_mailbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._answers import Request
    from ._simulator import SimulatedAccount

TOO_FAST = "Maximum sending rate exceeded."
TOO_MANY = "Daily message quota exceeded."
# The harmless file that every virus scanner must find: the only way to see SES's Reject event.
EICAR = b"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$"
_PAUSED_BY_AWS = (
    "Sending paused for this account. For more information, please check the inbox of the email address"
    " associated with your AWS account."
)
_SIMULATOR_EVENTS = {
    "bounce": ("Bounce",),
    "complaint": ("Delivery", "Complaint"),
    "ooto": ("Delivery", "AutoReply"),
    "success": ("Delivery",),
    "suppressionlist": ("Bounce",),
}


def send_email(account: SimulatedAccount, request: Request) -> dict[str, Any]:
    """
    Judge and take one message.

    In SES's order: pause, shape, addresses, configuration set, lengths, template, content, identities. The quotas come
    last: only what is otherwise fine is charged to them.

    Raises:
        Refusal: It is not taken.
    """
    content = load(request.body)
    _authorize(account, content)
    check_running(account)
    wanted = submission(content)
    check_addresses(wanted)
    check_configuration_set(account, wanted.configuration_set)
    check_lengths(wanted)
    if wanted.asked is not None:
        wanted.asked.find(account.templates)
    check_content(wanted)
    check_identities(account, wanted)
    charge(account, wanted, request.monotonic)
    message_id = take(account, wanted, request)
    _record_events(account, message_id, wanted, infected=EICAR in request.body)
    return {"MessageId": message_id}


def _authorize(account: SimulatedAccount, content: Mapping[str, Any]) -> None:
    body = content.get("Content")
    action = "ses:SendEmail"
    if isinstance(body, dict):
        if body.get("Raw") is not None:
            action = "ses:SendRawEmail"
        elif body.get("Template") is not None:
            action = "ses:SendTemplatedEmail"
    account.authorize(action, identity_arn(account, content))


def identity_arn(account: SimulatedAccount, content: Mapping[str, Any]) -> str:
    """The resource that a send is authorized on."""
    return f"arn:aws:ses:{account.region}:{account.number}:identity/{content.get('FromEmailAddress')}"


def check_running(account: SimulatedAccount) -> None:
    """
    See whether the account may send at all.

    Raises:
        Refusal: Somebody has paused it.
    """
    if account.suspended:
        text = "The account's ability to send email is permanently restricted."
        raise Refusal("AccountSuspendedException", text, status="ACCOUNT_SUSPENDED")
    if account.enforcement == "SHUTDOWN":
        raise Refusal("MessageRejected", _PAUSED_BY_AWS, status="ACCOUNT_SUSPENDED")
    if not account.sending_enabled:
        raise Refusal("SendingPausedException", "Account sending is disabled.", status="ACCOUNT_SENDING_PAUSED")


def check_configuration_set(account: SimulatedAccount, name: str | None) -> None:
    """
    See whether a configuration set is there and running.

    Raises:
        Refusal: It is not.
    """
    if name is None:
        return
    if account.configuration_sets is not None and name not in account.configuration_sets:
        text = f"Configuration set <{name}> does not exist."
        raise Refusal("NotFoundException", text, status="CONFIGURATION_SET_NOT_FOUND")
    if name in account.paused_sets:
        text = f"Sending is paused for configuration set {name}"
        raise Refusal("SendingPausedException", text, status="CONFIGURATION_SET_SENDING_PAUSED")


def check_identities(account: SimulatedAccount, wanted: Submission) -> None:
    """
    See whether those are verified who have to be: the senders, and in the sandbox the recipients.

    Raises:
        Refusal: With all who are not, or the sender's MAIL FROM domain is not.
    """
    failed: list[str] = []
    if account.identities is not None:
        failed = [address for address in wanted.identities if not covers(account.identities, address)]
    if account.sandbox:
        verified = account.identities or ()
        failed += [
            address
            for address in wanted.mailboxes
            if simulated_mailbox(address) is None and not covers(verified, address)
        ]
    if failed:
        listed = ", ".join(failed)
        text = "Email address is not verified. The following identities failed the check in region"
        raise Refusal("MessageRejected", f"{text} {account.region.upper()}: {listed}", status="MESSAGE_REJECTED")
    if account.mail_from_failed and wanted.identities and covers(account.mail_from_failed, wanted.identities[0]):
        text = "Custom MAIL FROM domain is not verified."
        raise Refusal("MailFromDomainNotVerifiedException", text, status="MAIL_FROM_DOMAIN_NOT_VERIFIED")


def charge(account: SimulatedAccount, wanted: Submission, now: float) -> None:
    """
    Charge a message to both quotas.

    Raises:
        Refusal: One of them has no room for it.
    """
    full = account.quotas.take(
        len(wanted.mailboxes),
        sum([simulated_mailbox(address) is None for address in wanted.mailboxes]),
        rate=account.rate,
        quota=account.daily_quota,
        strict=account.mode == "strict",
        now=now,
    )
    if full == "day":
        raise Refusal("TooManyRequestsException", TOO_MANY, status="ACCOUNT_DAILY_QUOTA_EXCEEDED")
    if full == "rate":
        raise Refusal("TooManyRequestsException", TOO_FAST, status="ACCOUNT_THROTTLED")


def take(account: SimulatedAccount, wanted: Submission, request: Request) -> str:
    """Put a message into the inbox, under a new id."""
    message_id = account.new_message_id(request.wall)
    account.counts.accepted += 1
    account.counts.recipients += len(wanted.recipients)
    template = None if wanted.asked is None else wanted.asked.template
    if template is not None:
        data = wanted.data or {}
        wanted.failure = template.failure(data)
        wanted.subject = template.title if wanted.failure else template.subject.render(data)
    keep = account.keep_bodies
    account.inbox.add(
        Delivered(
            message_id=message_id,
            sender=wanted.sender,
            recipients=tuple(wanted.recipients),
            subject=wanted.subject,
            tags=wanted.tags,
            configuration_set=wanted.configuration_set,
            content=wanted.content if keep else None,
            at=request.monotonic,
            wall=request.wall,
            headers=wanted.headers if keep else {},
            template=None if wanted.asked is None else wanted.asked.name,
            data=wanted.data if keep else None,
            entry=wanted.entry,
            failure=wanted.failure,
            compiled=template if keep else None,
        )
    )
    return message_id


def _record_events(account: SimulatedAccount, message_id: str, wanted: Submission, *, infected: bool) -> None:
    if infected:
        account.events.extend(Event("Reject", message_id, address, "content") for address in wanted.mailboxes)
    else:
        record_events(account, message_id, wanted)


def record_events(account: SimulatedAccount, message_id: str, wanted: Submission) -> None:
    """Report what becomes of a message that was taken, where that is not a plain delivery."""
    if wanted.failure is not None:
        account.counts.rendering_failures += 1
        for address in wanted.mailboxes:
            account.events.append(Event("Rendering Failure", message_id, address, wanted.failure))
        return
    for address in wanted.mailboxes:
        simulated = simulated_mailbox(address)
        if simulated is not None:
            kinds = _SIMULATOR_EVENTS[simulated]
            account.events.extend(Event(kind, message_id, address, "simulator") for kind in kinds)
        elif address in account.suppressed:
            account.events.append(Event("Bounce", message_id, address, "suppressed"))
