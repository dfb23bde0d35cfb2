"""What the simulated SES has taken, and how often it said what."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import attrs

from ._quotas import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from ._handlebars import Program
    from ._templates import CompiledTemplate


@attrs.frozen(repr=False)
class Delivered:
    """
    One message that was accepted.

    Attributes:
        message_id: The id SES gave it, whether or not the answer arrived.
        sender: The From, as written.
        recipients: To, Cc and Bcc, as written.
        subject: As written; of a template, as rendered, and as it stands in the template when that fails.
        tags: Message tags; of an entry of SendBulkEmail, those of all under its own.
        configuration_set: The one named, or None.
        content: The whole request as parsed JSON, the same for all entries of one; None with ``keep_bodies=False``.
        at: When, by the simulator's monotonic clock, in seconds.
        wall: When, as Unix time in seconds.
        headers: The additional headers by name; of raw content, all headers. Empty with ``keep_bodies=False``.
        template: The name of the stored template, or None.
        data: What the template was rendered with, or None; None with ``keep_bodies=False``.
        entry: Its position in a SendBulkEmail request from 0, or None.
        failure: Why the template could not be rendered: the message was accepted, and dropped. None otherwise.
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    tags: Mapping[str, str]
    configuration_set: str | None
    content: Mapping[str, Any] | None
    at: float
    wall: float
    headers: Mapping[str, str] = attrs.field(factory=dict)
    template: str | None = None
    data: Mapping[str, Any] | None = None
    entry: int | None = None
    failure: str | None = None
    _compiled: CompiledTemplate | None = attrs.field(default=None, alias="compiled")

    @property
    def text(self) -> str | None:
        """The plain part as the reader sees it; None when there is none, or it was not kept."""
        return self._part("Text", "plain", None if self._compiled is None else self._compiled.text)

    @property
    def html(self) -> str | None:
        """The HTML part as the reader sees it; None when there is none, or it was not kept."""
        return self._part("Html", "html", None if self._compiled is None else self._compiled.html)

    def _part(self, member: str, subtype: str, program: Program | None) -> str | None:
        if self.content is None or self.failure is not None:
            return None
        if self._compiled is not None:
            return None if program is None else program.render(self.data or {})
        body = self.content["Content"]
        if body.get("Raw") is not None:
            from ._raw import raw_part

            return raw_part(self.content, subtype)
        part = body["Simple"]["Body"].get(member)
        return None if part is None else part["Data"]

    def __repr__(self) -> str:
        return f"<Delivered {self.message_id} recipients={len(self.recipients)}>"


@attrs.frozen(repr=False)
class Event:
    """
    What SES would report about one recipient of an accepted message, where it is not a plain delivery.

    Attributes:
        kind: ``Delivery``, ``Bounce``, ``Complaint``, ``AutoReply``, ``Reject`` or ``Rendering Failure``.
        message_id: Of the message.
        recipient: The bare address.
        reason: Why, in a word: ``simulator`` or ``suppressed``, or ``content``; of a rendering failure, SES's text.
    """

    kind: str
    message_id: str
    recipient: str
    reason: str

    def __repr__(self) -> str:
        return f"<Event {self.kind} {self.reason}>"


class Inbox:
    """Accepted messages, in the order they were accepted. A sequence, with questions that tests ask."""

    def __init__(self) -> None:
        self._items: list[Delivered] = []

    def add(self, item: Delivered) -> None:
        """Keep one."""
        self._items.append(item)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Delivered]:
        return iter(tuple(self._items))

    def __getitem__(self, position: int) -> Delivered:
        return self._items[position]

    def __repr__(self) -> str:
        return f"<Inbox {len(self._items)}>"

    def since(self, position: int) -> list[Delivered]:
        """Those from *position* on."""
        return self._items[position:]

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()

    @property
    def recipients(self) -> int:
        """Recipients of all accepted messages."""
        return sum(len(item.recipients) for item in self)

    def deliveries(self, *, tag: str | None = None) -> Counter[Hashable]:
        """
        How often each message was accepted.

        What makes two of them the same is the value of *tag*; without one, recipients and subject.
        """
        return Counter(_identity(item, tag) for item in self)

    def doubled(self, *, tag: str | None = None) -> dict[Hashable, int]:
        """Those of `deliveries` that were accepted more than once, with their number."""
        return {identity: number for identity, number in self.deliveries(tag=tag).items() if number > 1}

    def busiest(self, seconds: float = 1.0) -> int:
        """The most recipients accepted in any window of *seconds*, wherever it begins."""
        window: deque[Delivered] = deque()
        most = held = 0
        for item in self:
            window.append(item)
            held += len(item.recipients)
            while item.at - window[0].at >= seconds - ROUNDING:
                held -= len(window.popleft().recipients)
            most = max(most, held)
        return most

    def rate(self) -> float:
        """Recipients per second from the first accepted message to the last, those of the last moment not counted."""
        if len(self) < 2:
            return 0.0
        end = self[-1].at
        duration = end - self[0].at
        return sum(len(item.recipients) for item in self if item.at < end) / duration if duration > 0 else float("inf")


def _identity(item: Delivered, tag: str | None) -> Hashable:
    if tag is not None:
        return item.tags.get(tag)
    return (item.recipients, item.subject)


@attrs.frozen(repr=False)
class FaultRecord:
    """
    A message that a fault has struck. Of a SendBulkEmail request that is struck, each entry has a record of its own.

    Attributes:
        name: Which.
        accepted: The message was accepted all the same.
        recipients: Whom the message was for, as written; empty when the request was cut before it could be read.
        tags: Its message tags.
        subject: Its subject; empty where a template makes it.
        entry: Its position in a SendBulkEmail request from 0, or None.
    """

    name: str
    accepted: bool
    recipients: tuple[str, ...] = ()
    tags: Mapping[str, str] = attrs.field(factory=dict)
    subject: str = ""
    entry: int | None = None

    def __repr__(self) -> str:
        return f"<FaultRecord {self.name}{' accepted' if self.accepted else ''}>"


@attrs.define
class Counts:
    """
    Figures of one simulator.

    Attributes:
        connections: Connections accepted.
        requests: Requests of any kind that were read whole.
        sends: SendEmail requests among them.
        bulk_sends: SendBulkEmail requests among them.
        entries: Entries of those that were judged.
        accepted: Messages taken.
        recipients: Recipients of those.
        rendering_failures: Messages taken, and dropped because their template lacked data.
        throttled: Sends and entries refused for the sending rate.
        quota_refusals: Sends and entries refused for the daily quota.
        bad_signatures: Requests refused for their signature, key or token.
        by_action: Requests by IAM action.
        by_code: Refusals by code.
        by_status: Entries of SendBulkEmail requests by status, in the spelling of the API's version 2.
        faults: Injected faults by name: requests, and entries for the faults that strike single entries.
    """

    connections: int = 0
    requests: int = 0
    sends: int = 0
    bulk_sends: int = 0
    entries: int = 0
    accepted: int = 0
    recipients: int = 0
    rendering_failures: int = 0
    throttled: int = 0
    quota_refusals: int = 0
    bad_signatures: int = 0
    by_action: Counter[str] = attrs.field(factory=Counter)
    by_code: Counter[str] = attrs.field(factory=Counter)
    by_status: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return attrs.asdict(self)
