"""What the simulated SES has taken, and how often it said what."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import attrs

from ._quotas import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping


@attrs.frozen(repr=False)
class Delivered:
    """
    One message that was accepted.

    Attributes:
        message_id: The id SES gave it, whether or not the answer arrived.
        sender: The From, as written.
        recipients: To, Cc and Bcc, as written.
        subject: As written.
        tags: Message tags.
        configuration_set: The one named, or None.
        content: The whole request as parsed JSON; None with ``keep_bodies=False``.
        at: When, by the simulator's monotonic clock, in seconds.
        wall: When, as Unix time in seconds.
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

    def __repr__(self) -> str:
        return f"<Delivered {self.message_id} recipients={len(self.recipients)}>"


@attrs.frozen(repr=False)
class Event:
    """
    What SES would report about one recipient of an accepted message, where it is not a plain delivery.

    Attributes:
        kind: ``Delivery``, ``Bounce``, ``Complaint``, ``AutoReply`` or ``Reject``.
        message_id: Of the message.
        recipient: The bare address.
        reason: Why, in a word: ``simulator`` or ``suppressed``, or ``content``.
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
        """Recipients per second from the first accepted message to the last, the last one not counted."""
        if len(self) < 2:
            return 0.0
        duration = self[-1].at - self[0].at
        return (self.recipients - len(self[-1].recipients)) / duration if duration > 0 else float("inf")


def _identity(item: Delivered, tag: str | None) -> Hashable:
    if tag is not None:
        return item.tags.get(tag)
    return (item.recipients, item.subject)


@attrs.frozen(repr=False)
class FaultRecord:
    """
    A fault that was injected.

    Attributes:
        name: Which.
        accepted: The message was accepted all the same.
        recipients: Whom the message was for, as written; empty when the request was cut before it could be read.
        tags: Its message tags.
        subject: Its subject.
    """

    name: str
    accepted: bool
    recipients: tuple[str, ...] = ()
    tags: Mapping[str, str] = attrs.field(factory=dict)
    subject: str = ""

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
        accepted: Messages taken.
        recipients: Recipients of those.
        throttled: Sends refused for the sending rate.
        quota_refusals: Sends refused for the daily quota.
        bad_signatures: Requests refused for their signature, key or token.
        by_action: Requests by IAM action.
        by_code: Refusals by code.
        faults: Injected faults by name.
    """

    connections: int = 0
    requests: int = 0
    sends: int = 0
    accepted: int = 0
    recipients: int = 0
    throttled: int = 0
    quota_refusals: int = 0
    bad_signatures: int = 0
    by_action: Counter[str] = attrs.field(factory=Counter)
    by_code: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return attrs.asdict(self)
