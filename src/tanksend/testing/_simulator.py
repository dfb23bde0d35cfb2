"""
An SES account as a state machine without I/O.

`SimulatedAccount.exchange` takes a request with the time it arrived and says what goes back: an `Answer`, and what the
wire does with it. Sockets, latency and connections are the business of whoever carries it: the loopback server or the
in-memory transport. Its settings are plain attributes and may be changed at any time.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any, Literal

import attrs

from . import _control
from ._answers import Answer, Refusal, Request, success
from ._control import SuppressionList, covers
from ._faults import BEFORE, Faults
from ._inbox import Counts, Delivered, Event, FaultRecord, Inbox
from ._quotas import DailyQuota, DebtRate, StrictRate
from ._signatures import Credential, SignatureCheck
from ._submission import Submission, check_addresses, check_content, check_lengths, load, submission
from ._syntax import simulated_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SEND_PATH = "/v2/email/outbound-emails"
_TOO_FAST = "Maximum sending rate exceeded."
_TOO_MANY = "Daily message quota exceeded."
_AWS_ACCOUNT = "123456789012"
_PAUSED_BY_AWS = (
    "Sending paused for this account. For more information, please check the inbox of the email address"
    " associated with your AWS account."
)
_BAD_CREDENTIALS = frozenset(
    {
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_SIMULATOR_EVENTS = {
    "bounce": ("Bounce",),
    "complaint": ("Delivery", "Complaint"),
    "ooto": ("Delivery", "AutoReply"),
    "success": ("Delivery",),
    "suppressionlist": ("Bounce",),
}
# The harmless file that every virus scanner must find: the only way to see SES's Reject event.
_EICAR = b"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$"
_HTML = b"<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>"

Wire = Literal["answer", "reset", "close", "silent", "slow"]


@attrs.frozen
class Exchange:
    """What the carrier does: write `answer` (None: nothing) as `wire` says."""

    answer: Answer | None
    wire: Wire = "answer"


def _names(names: Iterable[str]) -> set[str]:
    return set(names)


def _names_or_none(names: Iterable[str] | None) -> set[str] | None:
    return None if names is None else set(names)


def _lowered(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}


def _lowered_or_none(names: Iterable[str] | None) -> set[str] | None:
    return None if names is None else _lowered(names)


def _listed(addresses: Iterable[str] | SuppressionList) -> SuppressionList:
    if isinstance(addresses, SuppressionList):
        return addresses
    listed = SuppressionList()
    for address in addresses:
        listed.add(address)
    return listed


# Source: SES Developer Guide, "Service quotas", for the sandbox; the others are the classic starting values.
def _usual_rate(account: SimulatedAccount) -> float:
    return 1.0 if account.sandbox else 14.0


def _usual_quota(account: SimulatedAccount) -> float:
    return 200.0 if account.sandbox else 50_000.0


def _signature_check(account: SimulatedAccount) -> SignatureCheck:
    return SignatureCheck(account.credentials, account.region, code=account.signature_code)


@attrs.define(kw_only=True, eq=False, repr=False, slots=False)
class SimulatedAccount:
    """
    The account, its quotas, its verified identities and what it has taken.

    Args:
        rate: Recipients per second, -1 for unlimited. 1 in the sandbox, otherwise 14.
        mode: How the rate is enforced: ``strict`` refuses what would put more than *rate* recipients into any sliding
            second; ``debt`` lets a request pass while its bucket is not empty, which may leave a debt.
        daily_quota: Recipients per rolling 24 hours, -1 for unlimited. 200 in the sandbox, otherwise 50,000.
        sent_before: Recipients sent just before the simulation began; they leave the window after 24 hours.
        sandbox: Only verified recipients, and the mailbox simulator, can be written to.
        region: In the texts, and the only region whose signatures count.
        identities: Verified addresses and domains; a domain covers its subdomains. None: everybody may send.
        configuration_sets: Those that exist; None: all do.
        paused_sets: Configuration sets whose sending is paused.
        mail_from_failed: Domains whose custom MAIL FROM domain has lost its MX record.
        deny: IAM actions that are refused, such as ``ses:SendEmail`` (raw content needs ``ses:SendRawEmail``).
        denied_by: ``iam`` or ``ses``: who words the denial. Both occur, with different bodies.
        sending_enabled: False: the owner has paused the account.
        enforcement: ``HEALTHY``, ``PROBATION``, or ``SHUTDOWN``: AWS has paused it.
        suspended: The account is permanently restricted.
        suppressed: Addresses on SES's own suppression list at the beginning.
        verify_signatures: Recompute Signature Version 4 and refuse what does not match.
        credentials: Access keys that are known, when signatures are verified.
        signature_code: What a mismatch is called; ``SignatureDoesNotMatch`` has been seen too.
        control_rate: Requests per second of each control-plane action; None for no limit.
        faults: What goes wrong on purpose.
        keep_bodies: Keep each accepted request's JSON in the inbox; turn it off for big runs.
    """

    sandbox: bool = False
    rate: float = attrs.field(default=attrs.Factory(_usual_rate, takes_self=True))
    mode: Literal["strict", "debt"] = attrs.field(default="strict", validator=attrs.validators.in_(("strict", "debt")))
    daily_quota: float = attrs.field(default=attrs.Factory(_usual_quota, takes_self=True))
    sent_before: int = 0
    region: str = "us-east-1"
    identities: set[str] | None = attrs.field(default=None, converter=_lowered_or_none)
    configuration_sets: set[str] | None = attrs.field(default=None, converter=_names_or_none)
    paused_sets: set[str] = attrs.field(factory=set, converter=_names)
    mail_from_failed: set[str] = attrs.field(factory=set, converter=_lowered)
    deny: set[str] = attrs.field(factory=set, converter=_names)
    denied_by: Literal["iam", "ses"] = attrs.field(default="iam", validator=attrs.validators.in_(("iam", "ses")))
    sending_enabled: bool = True
    enforcement: Literal["HEALTHY", "PROBATION", "SHUTDOWN"] = "HEALTHY"
    suspended: bool = False
    suppressed: SuppressionList = attrs.field(factory=SuppressionList, converter=_listed)
    verify_signatures: bool = False
    credentials: dict[str, Credential] = attrs.field(factory=dict)
    signature_code: str = "InvalidSignatureException"
    control_rate: float | None = None
    faults: Faults = attrs.field(factory=Faults)
    keep_bodies: bool = True

    inbox: Inbox = attrs.field(init=False, factory=Inbox)
    counts: Counts = attrs.field(init=False, factory=Counts)
    events: list[Event] = attrs.field(init=False, factory=list)
    fault_log: list[FaultRecord] = attrs.field(init=False, factory=list)
    _strict: StrictRate = attrs.field(init=False, factory=StrictRate)
    _debt: DebtRate = attrs.field(init=False, factory=DebtRate)
    _daily: DailyQuota = attrs.field(init=False, factory=DailyQuota)
    _signatures: SignatureCheck = attrs.field(init=False, default=attrs.Factory(_signature_check, takes_self=True))
    _asked: dict[str, float] = attrs.field(init=False, factory=dict)
    _hooks: dict[int, Callable[[], object]] = attrs.field(init=False, factory=dict)
    _started: bool = attrs.field(init=False, default=False)
    _number: int = attrs.field(init=False, default=0)
    _salt: str = attrs.field(init=False, factory=lambda: secrets.token_hex(6))
    _lock: threading.RLock = attrs.field(init=False, factory=threading.RLock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.rate:g}/s {self.mode} accepted={self.counts.accepted}>"

    # --- what tests do with it ---

    def sent_last_24_hours(self, now: float) -> int:
        """Recipients that count against the daily quota at *now*, by the simulator's monotonic clock."""
        self._start(now)
        return self._daily.spent(now)

    def at_send(self, number: int, action: Callable[[], object]) -> None:
        """Call *action*, in the simulator's thread, when the SendEmail request *number* (from 1) has arrived."""
        self._hooks[number] = action

    def doubled(self, *, tag: str | None = None) -> dict[Any, int]:
        """Messages that were accepted more than once; see `Inbox.doubled`."""
        return self.inbox.doubled(tag=tag)

    # --- what the carrier does with it ---

    def draw_fault(self, method: str, path: str) -> str | None:
        """The fault for a request whose head has arrived; only sends have any."""
        if path != SEND_PATH or method != "POST":
            return None
        with self._lock:
            return self.faults.draw()

    def cut(self, fault: str) -> None:
        """Note a send that was cut off before its body was there, so that nobody knows whose it was."""
        with self._lock:
            self._count_send()
            self._note(FaultRecord(fault, accepted=False))

    def exchange(self, request: Request, fault: str | None = None) -> Exchange:
        """Take a whole request, and say what goes back and how."""
        with self._lock:
            self.counts.requests += 1
            if fault is not None and fault in BEFORE:
                return self._before(fault, request)
            answer = self._handle(request)
            if fault is None or answer.error is not None:
                return Exchange(answer)
            return self._after(fault, answer)

    # --- faults ---

    def _before(self, fault: str, request: Request) -> Exchange:
        self._count_send()
        self._note(_record(fault, request.body))
        if fault in _CODED:
            refusal = _CODED[fault]
            return Exchange(self._refused(refusal, self._request_id()))
        if fault == "503-bare":
            return Exchange(_BARE)
        wire: Wire = "reset" if fault == "reset-before" else "close" if fault == "close-before" else "silent"
        return Exchange(None, wire)

    def _after(self, fault: str, answer: Answer) -> Exchange:
        item = self.inbox[-1]
        self._note(FaultRecord(fault, accepted=True, recipients=item.recipients, tags=item.tags, subject=item.subject))
        if fault in _LOST:
            return Exchange(None, _LOST[fault])
        if fault == "slow":
            return Exchange(answer, "slow")
        return Exchange(self._spoiled(fault, answer))

    def _spoiled(self, fault: str, answer: Answer) -> Answer:
        if fault == "garbage":
            return attrs.evolve(answer, body=b"\x00\xff<not json>")
        if fault == "no-id":
            return attrs.evolve(answer, body=b"{}")
        if fault == "503-bare-accepted":
            return _BARE
        return _CODED["500"].answer(self._request_id())

    def _note(self, record: FaultRecord) -> None:
        self.counts.faults[record.name] += 1
        self.fault_log.append(record)

    # --- requests ---

    def _start(self, now: float) -> None:
        if not self._started:
            self._started = True
            self._daily.charge(self.sent_before, now)

    def _request_id(self) -> str:
        self._number += 1
        return f"{self._number:08x}-0000-4000-8000-{self._salt}"

    def _count_send(self) -> None:
        self.counts.sends += 1
        hook = self._hooks.pop(self.counts.sends, None) if self._hooks else None
        if hook is not None:
            hook()

    def _handle(self, request: Request) -> Answer:
        self._start(request.monotonic)
        request_id = self._request_id()
        try:
            if request.path == SEND_PATH and request.method == "POST":
                self._count_send()
                self._authenticate(request)
                return success({"MessageId": self._send(request)}, request_id)
            self._authenticate(request)
            return success(self._control(request), request_id)
        except Refusal as refusal:
            return self._refused(refusal, request_id)

    def _refused(self, refusal: Refusal, request_id: str) -> Answer:
        self.counts.by_code[refusal.code] += 1
        if refusal.code in _BAD_CREDENTIALS:
            self.counts.bad_signatures += 1
        elif refusal.message == _TOO_FAST:
            self.counts.throttled += 1
        elif refusal.message == _TOO_MANY:
            self.counts.quota_refusals += 1
        return refusal.answer(request_id)

    def _authenticate(self, request: Request) -> None:
        if self.verify_signatures:
            self._signatures.verify(request)

    def _authorize(self, action: str, resource: str) -> None:
        self.counts.by_action[action] += 1
        if action not in self.deny:
            return
        user = f"arn:aws:iam::{_AWS_ACCOUNT}:user/simulated"
        if self.denied_by == "iam":
            text = f"User: {user} is not authorized to perform: {action} on resource: {resource}"
        else:
            text = f"User `{user}' is not authorized to perform `{action}' on resource `{resource}'"
        raise Refusal("AccessDeniedException", text, iam=self.denied_by == "iam")

    def _control(self, request: Request) -> dict[str, Any]:
        found = _control.find(request)
        if found is None:
            raise Refusal("UnknownOperationException")
        action, carry_out = found
        self._authorize(action, "*")
        self._pace_control(action, request.monotonic)
        return carry_out(self, request)

    def _pace_control(self, action: str, now: float) -> None:
        if self.control_rate is None:
            return
        before = self._asked.get(action)
        if before is not None and now - before < 1.0 / self.control_rate:
            raise Refusal("TooManyRequestsException", "Rate exceeded")
        self._asked[action] = now

    # --- SendEmail ---

    def _send(self, request: Request) -> str:
        """
        Judge and take one message.

        In SES's order: pause, shape, addresses, configuration set, lengths, content, identities. The quotas come last:
        only what is otherwise fine is charged to them.
        """
        content = load(request.body)
        self._authorize_send(content)
        self._check_running()
        wanted = submission(content)
        check_addresses(wanted)
        self._check_configuration_set(wanted.configuration_set)
        check_lengths(wanted)
        check_content(wanted)
        self._check_identities(wanted)
        self._charge(wanted, request.monotonic)
        return self._take(wanted, request)

    def _authorize_send(self, content: Mapping[str, Any]) -> None:
        body = content.get("Content")
        raw = isinstance(body, dict) and body.get("Raw") is not None
        sender = content.get("FromEmailAddress")
        resource = f"arn:aws:ses:{self.region}:{_AWS_ACCOUNT}:identity/{sender}"
        self._authorize("ses:SendRawEmail" if raw else "ses:SendEmail", resource)

    def _check_running(self) -> None:
        if self.suspended:
            raise Refusal("AccountSuspendedException", "The account's ability to send email is permanently restricted.")
        if self.enforcement == "SHUTDOWN":
            raise Refusal("MessageRejected", _PAUSED_BY_AWS)
        if not self.sending_enabled:
            raise Refusal("SendingPausedException", "Account sending is disabled.")

    def _check_configuration_set(self, name: str | None) -> None:
        if name is None:
            return
        if self.configuration_sets is not None and name not in self.configuration_sets:
            raise Refusal("NotFoundException", f"Configuration set <{name}> does not exist.")
        if name in self.paused_sets:
            raise Refusal("SendingPausedException", f"Sending is paused for configuration set {name}")

    def _check_identities(self, wanted: Submission) -> None:
        failed: list[str] = []
        if self.identities is not None:
            failed = [address for address in wanted.identities if not covers(self.identities, address)]
        if self.sandbox:
            verified = self.identities or ()
            failed += [
                address
                for address in wanted.mailboxes
                if simulated_mailbox(address) is None and not covers(verified, address)
            ]
        if failed:
            listed = ", ".join(failed)
            text = "Email address is not verified. The following identities failed the check in region"
            raise Refusal("MessageRejected", f"{text} {self.region.upper()}: {listed}")
        if self.mail_from_failed and covers(self.mail_from_failed, wanted.identities[0]):
            raise Refusal("MailFromDomainNotVerifiedException", "Custom MAIL FROM domain is not verified.")

    def _charge(self, wanted: Submission, now: float) -> None:
        counted = sum(simulated_mailbox(address) is None for address in wanted.mailboxes)
        if not self._daily.has_room(counted, self.daily_quota, now, strict=self.mode == "strict"):
            raise Refusal("TooManyRequestsException", _TOO_MANY)
        meter = self._strict if self.mode == "strict" else self._debt
        if not meter.take(len(wanted.mailboxes), self.rate, now):
            raise Refusal("TooManyRequestsException", _TOO_FAST)
        self._daily.charge(counted, now)

    def _take(self, wanted: Submission, request: Request) -> str:
        self._number += 1
        message_id = f"0100{int(request.wall * 1000):012x}-{self._salt}-{self._number:08x}-000000"
        self.counts.accepted += 1
        self.counts.recipients += len(wanted.recipients)
        self.inbox.add(
            Delivered(
                message_id=message_id,
                sender=wanted.sender,
                recipients=tuple(wanted.recipients),
                subject=wanted.subject,
                tags=wanted.tags,
                configuration_set=wanted.configuration_set,
                content=wanted.content if self.keep_bodies else None,
                at=request.monotonic,
                wall=request.wall,
            )
        )
        self._record_events(message_id, wanted, request.body)
        return message_id

    def _record_events(self, message_id: str, wanted: Submission, body: bytes) -> None:
        if _EICAR in body:
            self.events.extend(Event("Reject", message_id, address, "content") for address in wanted.mailboxes)
            return
        for address in wanted.mailboxes:
            simulated = simulated_mailbox(address)
            if simulated is not None:
                kinds = _SIMULATOR_EVENTS[simulated]
                self.events.extend(Event(kind, message_id, address, "simulator") for kind in kinds)
            elif address in self.suppressed:
                self.events.append(Event("Bounce", message_id, address, "suppressed"))


_CODED = {
    "500": Refusal("InternalFailure", "The request processing has failed because of an unknown error."),
    "503": Refusal("ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    "throttle": Refusal("TooManyRequestsException", _TOO_FAST),
}
_LOST: dict[str, Wire] = {"reset-after": "reset", "close-after": "close", "silent": "silent"}
_BARE = Answer(503, _HTML, (("Content-Type", "text/html"),), "503")


def _record(fault: str, body: bytes) -> FaultRecord:
    """Who a request was for that nobody judged, as far as it can be read."""
    try:
        wanted = submission(load(body))
    except Refusal:
        return FaultRecord(fault, accepted=False)
    recipients = tuple(wanted.recipients)
    return FaultRecord(fault, accepted=False, recipients=recipients, tags=wanted.tags, subject=wanted.subject)
