"""
Messages of one run that may share a request: those of one template, sender, configuration set and attachments.

A message that is fresh from intake *gathers*, until there are enough of its kind for a full request, or for at most
half a second, or until nothing more comes. From then on it is *ripe*: it waits for a slot like every other, and
whichever gets one takes along those that are ripe, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from .._messages import MAX_INLINE_BYTES, Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from ..typing import SendRequest
    from ._entry import Entry
    from ._run import Run

GATHER_SECONDS = 0.5
"""The longest that a message waits for others to share a request with."""
MANY = 64
"""When to forget the pools that are empty, at the earliest."""


def pack_key(request: SendRequest) -> Hashable:
    """What the messages of one ``SendBulkEmail`` have in common; None for a message that goes alone."""
    message = request.message
    if message.template is None:
        return None
    return (message.template, request.from_, request.reply_to, request.configuration_set, message.attachments)


def _go_together(one: SendRequest, other: SendRequest) -> bool:
    """Whether the pack keys of two requests are the very same, which is quickly seen."""
    return (
        one.message.template is other.message.template
        and one.message.attachments is other.message.attachments
        and one.from_ is other.from_
        and one.reply_to is other.reply_to
        and one.configuration_set is other.configuration_set
    )


class Pools:
    """Those of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pools: dict[Hashable, Pool] = {}
        self._many = MANY
        self._gathering: dict[Pool, float] = {}
        """Those that gather, and until when; the first one is the first whose time is over."""
        self._timer_set = False
        self._packs = hasattr(run.parts.transport, "send_bulk")
        self._latest: tuple[SendRequest, Pool] | None = None

    def assign(self, entry: Entry) -> None:
        """Find the pool of *entry*, as it is now."""
        request = entry.request
        if not self._packs or entry.lane is not Priority.BULK or request is None:
            return
        latest = self._latest
        if latest is not None and _go_together(request, latest[0]):
            entry.pool = latest[1]
            return
        key = pack_key(request)
        if key is not None:
            entry.pool = self._pools.get(key) or self._new(key)
            self._latest = request, entry.pool

    def _new(self, key: Hashable) -> Pool:
        if len(self._pools) >= self._many:
            self._pools = {name: pool for name, pool in self._pools.items() if not pool.empty}
            self._latest = None
            self._many = max(MANY, 2 * len(self._pools))
        pool = self._pools[key] = Pool(self._run, self)
        return pool

    def begins(self, pool: Pool) -> None:
        """*pool* gathers from now on."""
        due = self._gathering[pool] = self._run.parts.clock.monotonic() + GATHER_SECONDS
        if not self._timer_set:
            self._set_timer(due)

    def ends(self, pool: Pool) -> None:
        """*pool* gathers no more."""
        self._gathering.pop(pool, None)

    def _set_timer(self, due: float) -> None:
        self._timer_set = True
        self._run.timers.at(due, self._time_is_over)

    def _time_is_over(self) -> None:
        """Those that have gathered for long enough may go; come back for the next."""
        self._timer_set = False
        now = self._run.parts.clock.monotonic()
        for pool, due in tuple(self._gathering.items()):
            if due > now:
                self._set_timer(due)
                return
            pool.ripen()

    def ripen(self) -> None:
        """Nothing more comes for now: all that gather may go."""
        for pool in tuple(self._gathering):
            pool.ripen()


class Pool:
    """Messages that may share a request."""

    __slots__ = ("_enough", "_gathering", "_pools", "_ripe", "_run", "front")

    def __init__(self, run: Run, pools: Pools) -> None:
        self._run = run
        self._pools = pools
        self._gathering: list[Entry] = []
        self._enough = 0
        self.front: Entry | None = None
        """The one that stands for all of them among those that wait for a slot: the oldest."""
        self._ripe: deque[Entry] = deque()
        """By age. Some have been taken, or held, meanwhile: what is not `Entry.available` is passed over."""

    @property
    def empty(self) -> bool:
        """Whether nobody waits here."""
        self._drop_gone()
        return not self._gathering and not self._ripe

    def gather(self, entry: Entry) -> None:
        """*entry* is new."""
        gathering = self._gathering
        if not gathering:
            self._pools.begins(self)
            self._enough = self._run.lanes.pack_limit()
        gathering.append(entry)
        if len(gathering) >= self._enough:
            self.ripen()

    def ripen(self) -> None:
        """Those that gather may go."""
        self._pools.ends(self)
        gathered, self._gathering = self._gathering, []
        self._run.make_ready(*gathered)

    def add(self, entry: Entry) -> None:
        """*entry* is ripe, and waits for a slot; perhaps not for the first time."""
        ripe = self._ripe
        if not ripe or ripe[-1].sequence < entry.sequence:
            ripe.append(entry)
            return
        place = bisect_left(ripe, entry.sequence, key=_age)
        if ripe[place] is not entry:
            ripe.insert(place, entry)

    def _drop_gone(self) -> None:
        ripe = self._ripe
        while ripe and not ripe[0].available:
            ripe.popleft()

    def oldest(self) -> Entry | None:
        """Who is to stand for them."""
        self._drop_gone()
        return self._ripe[0] if self._ripe else None

    def near(self, number: int) -> Iterable[Entry]:
        """The oldest *number*, those included that wait no more."""
        return islice(self._ripe, number)

    def load(self, limit: int) -> tuple[int, int]:
        """Recipients that would go with the next request of at most *limit*, and how many of them are uncounted."""
        self._drop_gone()
        weight = uncounted = 0
        for entry in self._ripe:
            if entry.available:
                if weight + entry.weight > limit:
                    break
                weight += entry.weight
                uncounted += entry.uncounted
        return weight, uncounted

    def fill(self, entries: list[Entry], room: int) -> None:
        """Take out those that go with *entries*, as many as have at most *room* recipients in all."""
        template = entries[0].message.template
        space = MAX_INLINE_BYTES - _size(entries[0]) - (0 if template is None else template.size)
        while room > 0:
            self._drop_gone()
            if not self._ripe:
                return
            entry = self._ripe[0]
            space -= _size(entry)
            if entry.weight > room or space < 0:
                return
            self._ripe.popleft()
            entry.available = False
            room -= entry.weight
            entries.append(entry)


def _size(entry: Entry) -> int:
    """The most bytes that its data takes in a request: 1 MB holds all of them and an inline template."""
    json = entry.message.data.json or ""
    return len(json) if json.isascii() else 4 * len(json)


def _age(entry: Entry) -> int:
    return entry.sequence
