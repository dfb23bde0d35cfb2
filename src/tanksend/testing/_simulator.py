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
from ._bulk import BULK_PATH, Spelling, send_bulk, struck
from ._control import SuppressionList
from ._faults import BEFORE, Faults
from ._inbox import Counts, Delivered, Event, FaultRecord, Inbox
from ._quotas import Quotas
from ._sending import TOO_FAST, TOO_MANY, send_email
from ._signatures import Credential, SignatureCheck
from ._submission import load, submission
from ._templates import TemplateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .._messages import Template

SEND_PATH = "/v2/email/outbound-emails"
# How many times the control plane's rate an action is allowed. Source: SES API v2 reference, "GetEmailTemplate".
_QUICKER = {"ses:GetEmailTemplate": 50}
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


def _stored(templates: Mapping[str, Template | Mapping[str, str]] | TemplateStore) -> TemplateStore:
    return templates if isinstance(templates, TemplateStore) else TemplateStore(templates)


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
        templates: Stored templates by name: each a `Template`, or a mapping of ``Subject``, ``Text`` and ``Html``.
        deny: IAM actions that are refused, such as ``ses:SendEmail``. Raw content needs ``ses:SendRawEmail``, a
            template ``ses:SendTemplatedEmail``, and SendBulkEmail both ``ses:SendBulkEmail`` and
            ``ses:SendBulkTemplatedEmail``.
        denied_by: ``iam`` or ``ses``: who words the denial. Both occur, with different bodies.
        sending_enabled: False: the owner has paused the account.
        enforcement: ``HEALTHY``, ``PROBATION``, or ``SHUTDOWN``: AWS has paused it.
        suspended: The account is permanently restricted.
        suppressed: Addresses on SES's own suppression list at the beginning.
        verify_signatures: Recompute Signature Version 4 and refuse what does not match.
        credentials: Access keys that are known, when signatures are verified.
        signature_code: What a mismatch is called; ``SignatureDoesNotMatch`` has been seen too.
        control_rate: Requests per second of each control-plane action; None for no limit. ``ses:GetEmailTemplate``
            is allowed 50 times as many.
        bulk_refuses: How SendBulkEmail refuses what concerns account, configuration set, template or identity:
            ``call`` with an error, ``entries`` with a status for each entry.
        bulk_spelling: How the statuses of entries are spelled: ``v2`` as version 2 of the API lists them, ``prose`` as
            it describes them, ``v1`` as version 1 has them.
        faults: What goes wrong on purpose.
        keep_bodies: Keep each accepted request's JSON, headers and data in the inbox; turn it off for big runs.
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
    templates: TemplateStore = attrs.field(factory=TemplateStore, converter=_stored)
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
    bulk_refuses: Literal["call", "entries"] = attrs.field(
        default="call", validator=attrs.validators.in_(("call", "entries"))
    )
    bulk_spelling: Spelling = attrs.field(default="v2", validator=attrs.validators.in_(("v2", "prose", "v1")))
    faults: Faults = attrs.field(factory=Faults)
    keep_bodies: bool = True

    inbox: Inbox = attrs.field(init=False, factory=Inbox)
    counts: Counts = attrs.field(init=False, factory=Counts)
    events: list[Event] = attrs.field(init=False, factory=list)
    fault_log: list[FaultRecord] = attrs.field(init=False, factory=list)
    quotas: Quotas = attrs.field(init=False, factory=Quotas)
    number: str = attrs.field(init=False, default="123456789012")
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
        return self.quotas.daily.spent(now)

    def at_send(self, number: int, action: Callable[[], object]) -> None:
        """
        Call *action*, in the simulator's thread, when the send *number* has arrived.

        Args:
            number: From 1; SendEmail and SendBulkEmail requests are counted together.
            action: It may change any setting.
        """
        self._hooks[number] = action

    def doubled(self, *, tag: str | None = None) -> dict[Any, int]:
        """Messages that were accepted more than once; see `Inbox.doubled`."""
        return self.inbox.doubled(tag=tag)

    # --- what the carrier does with it ---

    def draw_fault(self, method: str, path: str) -> str | None:
        """The fault for a request whose head has arrived; only sends have any."""
        if method != "POST" or path not in _SENDS:
            return None
        with self._lock:
            return self.faults.draw()

    def cut(self, fault: str, path: str = SEND_PATH) -> None:
        """Note a send that was cut off before its body was there, so that nobody knows whose it was."""
        with self._lock:
            self._count_send(path)
            self._note(fault, [FaultRecord(fault, accepted=False)])

    def exchange(self, request: Request, fault: str | None = None) -> Exchange:
        """Take a whole request, and say what goes back and how."""
        with self._lock:
            self.counts.requests += 1
            if fault is not None and fault in BEFORE:
                return self._before(fault, request)
            before = len(self.inbox)
            answer = self._handle(request)
            if fault is None or answer.error is not None:
                return Exchange(answer)
            return self._after(fault, request, answer, self.inbox.since(before))

    # --- faults ---

    def _before(self, fault: str, request: Request) -> Exchange:
        self._count_send(request.path)
        self._note(fault, _struck(fault, request))
        if fault in _CODED:
            refusal = _CODED[fault]
            return Exchange(self._refused(refusal, self._request_id()))
        if fault == "503-bare":
            return Exchange(_BARE)
        wire: Wire = "reset" if fault == "reset-before" else "close" if fault == "close-before" else "silent"
        return Exchange(None, wire)

    def _after(self, fault: str, request: Request, answer: Answer, taken: list[Delivered]) -> Exchange:
        if request.path == BULK_PATH:
            self._note(fault, struck(fault, request.body, [item.entry for item in taken]))
        else:
            self._note(fault, [_accepted(fault, item) for item in taken])
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

    def _note(self, fault: str, records: list[FaultRecord]) -> None:
        self.counts.faults[fault] += 1
        self.fault_log.extend(records)

    # --- requests ---

    def _start(self, now: float) -> None:
        if not self._started:
            self._started = True
            self.quotas.daily.charge(self.sent_before, now)

    def _request_id(self) -> str:
        self._number += 1
        return f"{self._number:08x}-0000-4000-8000-{self._salt}"

    def new_message_id(self, wall: float) -> str:
        """An id that no other message has, for one that is taken at *wall*."""
        self._number += 1
        return f"0100{int(wall * 1000):012x}-{self._salt}-{self._number:08x}-000000"

    def _count_send(self, path: str) -> None:
        if path == BULK_PATH:
            self.counts.bulk_sends += 1
        else:
            self.counts.sends += 1
        number = self.counts.sends + self.counts.bulk_sends
        hook = self._hooks.pop(number, None) if self._hooks else None
        if hook is not None:
            hook()

    def _handle(self, request: Request) -> Answer:
        self._start(request.monotonic)
        request_id = self._request_id()
        try:
            carry_out = _SENDS.get(request.path) if request.method == "POST" else None
            if carry_out is not None:
                self._count_send(request.path)
            self._authenticate(request)
            return success(self._control(request) if carry_out is None else carry_out(self, request), request_id)
        except Refusal as refusal:
            return self._refused(refusal, request_id)

    def _refused(self, refusal: Refusal, request_id: str) -> Answer:
        self.counts.by_code[refusal.code] += 1
        if refusal.code in _BAD_CREDENTIALS:
            self.counts.bad_signatures += 1
        elif refusal.message == TOO_FAST:
            self.counts.throttled += 1
        elif refusal.message == TOO_MANY:
            self.counts.quota_refusals += 1
        return refusal.answer(request_id)

    def _authenticate(self, request: Request) -> None:
        if self.verify_signatures:
            self._signatures.verify(request)

    def authorize(self, action: str, resource: str) -> None:
        """
        See whether the caller may do this.

        Raises:
            Refusal: It is denied.
        """
        self.counts.by_action[action] += 1
        if action not in self.deny:
            return
        user = f"arn:aws:iam::{self.number}:user/simulated"
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
        self.authorize(action, "*")
        self._pace_control(action, request.monotonic)
        return carry_out(self, request)

    def _pace_control(self, action: str, now: float) -> None:
        if self.control_rate is None:
            return
        before = self._asked.get(action)
        if before is not None and now - before < 1.0 / (self.control_rate * _QUICKER.get(action, 1)):
            raise Refusal("TooManyRequestsException", "Rate exceeded")
        self._asked[action] = now


_CODED = {
    "500": Refusal("InternalFailure", "The request processing has failed because of an unknown error."),
    "503": Refusal("ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    "throttle": Refusal("TooManyRequestsException", TOO_FAST),
}
_LOST: dict[str, Wire] = {"reset-after": "reset", "close-after": "close", "silent": "silent"}
_BARE = Answer(503, _HTML, (("Content-Type", "text/html"),), "503")
_SENDS: dict[str, Callable[[SimulatedAccount, Request], dict[str, Any]]] = {
    SEND_PATH: send_email,
    BULK_PATH: send_bulk,
}


def _accepted(fault: str, item: Delivered) -> FaultRecord:
    return FaultRecord(fault, accepted=True, recipients=item.recipients, tags=item.tags, subject=item.subject)


def _struck(fault: str, request: Request) -> list[FaultRecord]:
    """Who a request was for that nobody judged, as far as it can be read."""
    if request.path == BULK_PATH:
        return struck(fault, request.body)
    try:
        wanted = submission(load(request.body))
    except Refusal:
        return [FaultRecord(fault, accepted=False)]
    recipients = tuple(wanted.recipients)
    return [FaultRecord(fault, accepted=False, recipients=recipients, tags=wanted.tags, subject=wanted.subject)]
