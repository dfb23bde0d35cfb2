"""One message on its way through the engine, and what one request carries of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._messages import Priority
from ..exceptions import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._addresses import Address
    from .._messages import Message
    from ..exceptions import SendError
    from ..typing import SendRequest, Slot
    from ._pools import Pool
    from ._run import Run


class Entry:
    """Mutable, and touched by the run it belongs to only."""

    __slots__ = (
        "attempts",
        "available",
        "claimed",
        "claimed_at",
        "deadline",
        "error",
        "followers",
        "follows",
        "index",
        "key",
        "lane",
        "lapsed",
        "message",
        "passed_at",
        "pool",
        "queued",
        "request",
        "run",
        "sequence",
        "settled",
        "since",
        "suppressed",
        "taken_at",
        "throttles",
        "uncounted",
        "unknown",
        "waited",
        "weight",
    )

    def __init__(self, run: Run, index: int, sequence: int, message: Message, taken_at: float) -> None:
        self.run = run
        self.index = index
        self.sequence = sequence
        """Age among all entries of the lanes: the lower is the older."""
        self.message = message
        self.taken_at = taken_at
        self.since = taken_at
        """When it began to wait, this time."""
        self.lane = Priority.BULK
        self.request: SendRequest | None = None
        self.weight = 0
        self.uncounted = 0
        """How many of its recipients are SES's own, and do not count against the day's quota."""
        self.suppressed: tuple[Address, ...] = ()
        self.deadline: float | None = None
        self.passed_at: float | None = None
        """When a lighter message first went before it, because there was no room for this one."""
        self.waited = 0.0
        self.attempts = 0
        self.throttles = 0
        self.error: SendError | None = None
        """What came of the last attempt."""
        self.unknown: SendError | None = None
        """The first error after which SES may have the message; from then on it is sent or unknown."""
        self.settled = False
        self.available = False
        """It may be taken for the next slot."""
        self.queued = False
        """It has a place in the heap of those that wait, which it may not need any more."""
        self.pool: Pool | None = None
        """Those that it may share a request with."""
        self.key: str | None = None
        """Its name in the ledger."""
        self.claimed = False
        """The ledger keeps the intent to send it, and not yet what came of it."""
        self.claimed_at = 0.0
        self.lapsed = False
        """A slot came too late for it, once."""
        self.follows = False
        """An earlier message of the batch has the same key: whatever becomes of that is its fate."""
        self.followers: list[Entry] | None = None

    def is_late(self, now: float) -> bool:
        """Whether it must not be sent any more."""
        return self.deadline is not None and self.deadline <= now

    def origins(self) -> Sequence[tuple[Origin, str]]:
        """The groups it belongs to, each of which can fail as a whole."""
        request = self.request
        assert request is not None  # noqa: S101  (it was prepared, or it would not be in the lanes)
        origins = [(Origin.FROM, request.from_.key)]
        if request.configuration_set is not None:
            origins.append((Origin.CONFIGURATION_SET, request.configuration_set))
        template = request.message.template
        if template is not None and template.name is not None:
            origins.append((Origin.TEMPLATE, template.name))
        return origins

    def origin(self, error: SendError) -> tuple[Origin, str] | None:
        """The group that *error* says has failed."""
        return next((origin for origin in self.origins() if origin[0] is error.origin), None)


class Parcel:
    """What one request carries: a message, or several of one pool; and the slot that it goes with."""

    __slots__ = ("due", "entries", "run", "slot", "surcharge")

    def __init__(self, run: Run, entries: list[Entry], slot: Slot, due: float) -> None:
        self.run = run
        self.entries = entries
        self.slot = slot
        self.due = due
        self.surcharge: Slot | None = None
        """What was charged for those recipients that the slot had no room for."""

    @property
    def weight(self) -> int:
        """How many recipients it has."""
        return sum(entry.weight for entry in self.entries)

    @property
    def room(self) -> int:
        """How many recipients it may have."""
        return self.slot.recipients + (0 if self.surcharge is None else self.surcharge.recipients)
