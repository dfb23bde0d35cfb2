"""The control plane of the simulated account but for its templates: GetAccount, identities, its suppression list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs

from . import _template_control
from ._answers import Refusal, bad_request
from ._paging import page_size, position, token
from ._submission import load, text_at
from ._syntax import mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._answers import Request
    from ._simulator import SimulatedAccount

_REASONS = frozenset({"BOUNCE", "COMPLAINT"})
_MOST_PER_PAGE = 1_000
_ADDRESSES = "/v2/email/suppression/addresses"
_IDENTITIES = "/v2/email/identities/"

Content = dict[str, Any]


def covers(identities: Iterable[str], address: str) -> bool:
    """
    Whether an address may send: itself, its domain or a parent domain is verified.

    Source: SES Developer Guide, "Verified identities": a verified domain covers its subdomains.
    """
    if not isinstance(identities, (set, frozenset)):
        identities = set(identities)
    address = address.lower()
    domain = address.rpartition("@")[2]
    if address in identities or domain in identities:
        return True
    parents = domain.split(".")[1:]
    return any(".".join(parents[level:]) in identities for level in range(len(parents)))


def normal(address: str) -> str:
    """An address as SES keeps it in its suppression list: the domain in lower case, the local part as it is."""
    local, at, domain = address.strip().rpartition("@")
    return f"{local}{at}{domain.lower()}"


@attrs.frozen(repr=False)
class SuppressedDestination:
    """An entry of SES's own suppression list: ``BOUNCE`` or ``COMPLAINT``, since when."""

    address: str
    reason: str
    at: float

    def __repr__(self) -> str:
        return f"<SuppressedDestination {self.reason}>"

    def as_json(self) -> Content:
        """As SES writes it."""
        return {"EmailAddress": self.address, "Reason": self.reason, "LastUpdateTime": round(self.at, 3)}


class SuppressionList:
    """SES's account-level suppression list. Two spellings of a local part are two entries, as in SES."""

    def __init__(self) -> None:
        self._entries: dict[str, SuppressedDestination] = {}

    def add(self, address: str, reason: str = "BOUNCE", *, at: float = 0.0) -> None:
        """Put *address* on the list, or renew its entry."""
        key = normal(address)
        self._entries[key] = SuppressedDestination(key, reason, at)

    def remove(self, address: str) -> bool:
        """Take *address* off; False when it was not on."""
        return self._entries.pop(normal(address), None) is not None

    def get(self, address: str) -> SuppressedDestination | None:
        """The entry of *address*."""
        return self._entries.get(normal(address))

    def __contains__(self, address: str) -> bool:
        return bool(self._entries) and normal(address) in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def page(
        self, *, reasons: Iterable[str], since: float, until: float, after: str, size: int
    ) -> tuple[list[SuppressedDestination], bool]:
        """A page in the order of the addresses, beginning behind *after*; and whether more follow."""
        wanted = set(reasons) or _REASONS
        found = [
            entry
            for address, entry in sorted(self._entries.items())
            if address > after and entry.reason in wanted and since <= entry.at <= until
        ]
        return found[:size], len(found) > size


def find(request: Request) -> tuple[str, Callable[[SimulatedAccount, Request], Content]] | None:
    """The IAM action of a control-plane request and what carries it out; None for a path that SES does not know."""
    if request.path == "/v2/email/account" and request.method == "GET":
        return "ses:GetAccount", get_account
    if request.path.startswith(_IDENTITIES) and request.method == "GET":
        return "ses:GetEmailIdentity", get_identity
    if request.path.startswith(_template_control.TEMPLATES):
        return _template_control.find(request)
    if request.path == _ADDRESSES:
        return _LIST_ACTIONS.get(request.method)
    if request.path.startswith(f"{_ADDRESSES}/"):
        return _ENTRY_ACTIONS.get(request.method)
    return None


def get_account(account: SimulatedAccount, request: Request) -> Content:
    """What GetAccount says. Source: SES API v2, "GetAccount"."""
    return {
        "DedicatedIpAutoWarmupEnabled": False,
        "EnforcementStatus": account.enforcement,
        "ProductionAccessEnabled": not account.sandbox,
        "SendQuota": {
            "Max24HourSend": float(account.daily_quota),
            "MaxSendRate": float(account.rate),
            "SentLast24Hours": float(account.sent_last_24_hours(request.monotonic)),
        },
        "SendingEnabled": account.sending_enabled and account.enforcement != "SHUTDOWN",
        "SuppressionAttributes": {"SuppressedReasons": ["BOUNCE", "COMPLAINT"]},
    }


def get_identity(account: SimulatedAccount, request: Request) -> Content:
    """What GetEmailIdentity says of a verified identity; others do not exist."""
    name = unquote(request.path.removeprefix(_IDENTITIES))
    if account.identities is not None and name.lower() not in account.identities:
        raise Refusal("NotFoundException", f"Email identity {name} does not exist.")
    failed = name.lower() in account.mail_from_failed
    return {
        "IdentityType": "EMAIL_ADDRESS" if "@" in name else "DOMAIN",
        "FeedbackForwardingStatus": True,
        "VerifiedForSendingStatus": True,
        "VerificationStatus": "SUCCESS",
        "DkimAttributes": {"SigningEnabled": True, "Status": "SUCCESS", "Tokens": []},
        "MailFromAttributes": {
            "MailFromDomain": f"mail.{name.rpartition('@')[2]}",
            "MailFromDomainStatus": "FAILED" if failed else "SUCCESS",
            "BehaviorOnMxFailure": "REJECT_MESSAGE" if failed else "USE_DEFAULT_VALUE",
        },
        "Policies": {},
        "Tags": [],
    }


def _address_in(request: Request) -> str:
    return unquote(request.path.removeprefix(f"{_ADDRESSES}/"))


def _not_listed(address: str) -> Refusal:
    return Refusal("NotFoundException", f"Email address {address} does not exist on your suppression list.")


def put_suppressed(account: SimulatedAccount, request: Request) -> Content:
    """PutSuppressedDestination; refused in the sandbox. Source: SES Developer Guide, "account-level suppression"."""
    if account.sandbox:
        raise bad_request("Your account is in the sandbox; the suppression list cannot be changed.")
    content = load(request.body)
    reason = text_at(content, "Reason")
    if reason not in _REASONS:
        raise bad_request("Reason must be BOUNCE or COMPLAINT.")
    account.suppressed.add(mailbox(text_at(content, "EmailAddress")), reason, at=request.wall)
    return {}


def get_suppressed(account: SimulatedAccount, request: Request) -> Content:
    """GetSuppressedDestination."""
    address = _address_in(request)
    entry = account.suppressed.get(address)
    if entry is None:
        raise _not_listed(address)
    return {"SuppressedDestination": entry.as_json()}


def delete_suppressed(account: SimulatedAccount, request: Request) -> Content:
    """DeleteSuppressedDestination."""
    address = _address_in(request)
    if not account.suppressed.remove(address):
        raise _not_listed(address)
    return {}


def list_suppressed(account: SimulatedAccount, request: Request) -> Content:
    """ListSuppressedDestinations, by pages."""
    asked = request.arguments
    found, more = account.suppressed.page(
        reasons=asked.get("Reason", ()),
        since=_moment(asked, "StartDate", float("-inf")),
        until=_moment(asked, "EndDate", float("inf")),
        after=position(asked),
        size=page_size(asked, _MOST_PER_PAGE),
    )
    content: Content = {"SuppressedDestinationSummaries": [entry.as_json() for entry in found]}
    if more:
        content["NextToken"] = token(found[-1].address)
    return content


def _moment(asked: dict[str, list[str]], name: str, otherwise: float) -> float:
    """A date of the query: ISO 8601, or Unix seconds."""
    import datetime as dt

    if name not in asked:
        return otherwise
    text = asked[name][-1]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"{name} is not a date.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


_LIST_ACTIONS = {
    "PUT": ("ses:PutSuppressedDestination", put_suppressed),
    "GET": ("ses:ListSuppressedDestinations", list_suppressed),
}
_ENTRY_ACTIONS = {
    "GET": ("ses:GetSuppressedDestination", get_suppressed),
    "DELETE": ("ses:DeleteSuppressedDestination", delete_suppressed),
}
