"""
What can go wrong on the way to SES, on purpose.

Each name says when it strikes. "before" faults leave the message unaccepted; the others accept it, unless the account
refuses it by itself: then the refusal is the answer and no fault is injected. A SendBulkEmail request is struck as a
whole, and the "entry" faults strike its entries one by one.

==================  ====================================================================================
name                what happens
==================  ====================================================================================
reset-before        the connection is reset (RST) before the request is looked at
close-before        the connection is closed cleanly instead of an answer, request not looked at
silent-before       no answer, ever; the message is not accepted
500                 InternalFailure; not accepted
503                 ServiceUnavailable, by SES itself; not accepted
503-bare            503 with a page of HTML, as from a load balancer; not accepted
throttle            429 "Maximum sending rate exceeded."; not accepted, whatever the rate
reset-after         accepted, then the connection is reset and the answer lost
close-after         accepted, then the connection is closed cleanly and the answer lost
silent              accepted, and no answer ever comes
500-accepted        accepted, and InternalFailure is the answer
503-bare-accepted   accepted, and a page of HTML with 503 is the answer
garbage             accepted; 200 with a body that is no JSON
no-id               accepted; 200 without a MessageId
slow                accepted; the answer comes one byte at a time
entry-throttled     the entry has ACCOUNT_THROTTLED, whatever the rate; not accepted
entry-transient     the entry has TRANSIENT_FAILURE; not accepted
entry-failed        the entry has FAILED; not accepted
==================  ====================================================================================
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet

BEFORE = frozenset({"reset-before", "close-before", "silent-before", "500", "503", "503-bare", "throttle"})
AFTER = frozenset(
    {
        "reset-after",
        "close-after",
        "silent",
        "500-accepted",
        "503-bare-accepted",
        "garbage",
        "no-id",
        "slow",
    }
)
# What each entry fault answers: a status and a text.
ENTRY = {
    "entry-throttled": ("ACCOUNT_THROTTLED", "Maximum sending rate exceeded."),
    "entry-transient": ("TRANSIENT_FAILURE", "The request has failed due to a temporary failure of the server."),
    "entry-failed": ("FAILED", "The request processing has failed because of an unknown error."),
}
NAMES = BEFORE | AFTER | ENTRY.keys()


class Faults:
    """
    Which fault strikes which send.

    Args:
        script: One name per SendEmail or SendBulkEmail request, None for none; when it is used up, *probability*
            decides.
        probability: Chance of each fault per request; together at most 1. Of the entry faults, the chance per entry
            of SendBulkEmail requests; these too are together at most 1.
        entries: One name of an entry fault per entry of SendBulkEmail requests, None for none; when it is used up,
            *probability* decides.
        seed: Of the chances, so that a run can be repeated.

    Raises:
        ValueError: A name is unknown, or the chances exceed 1.
    """

    def __init__(
        self,
        script: Iterable[str | None] = (),
        *,
        probability: Mapping[str, float] | None = None,
        entries: Iterable[str | None] = (),
        seed: int = 0,
    ) -> None:
        given = dict(probability or {})
        for name in given:
            _known(name, NAMES)
        # Entries have chances of their own, so that the faults of whole requests do not depend on how many there are.
        self._requests = _Draw(script, given, BEFORE | AFTER, random.Random(seed))  # noqa: S311  (no secret)
        self._entries = _Draw(entries, given, ENTRY.keys(), random.Random(f"entries {seed}"))  # noqa: S311

    def draw(self) -> str | None:
        """The fault for the next send."""
        return self._requests.draw()

    def draw_entry(self) -> str | None:
        """The fault for the next entry of a SendBulkEmail request."""
        return self._entries.draw()

    def __repr__(self) -> str:
        return f"<Faults {self._requests.chances | self._entries.chances}>"


class _Draw:
    """A script, then chances."""

    def __init__(
        self, script: Iterable[str | None], given: Mapping[str, float], names: AbstractSet[str], dice: random.Random
    ) -> None:
        self._script: Iterator[str | None] = iter(script)
        self._names = names
        self._dice = dice
        self.chances = {name: chance for name, chance in given.items() if name in names}
        if not all(chance >= 0 for chance in self.chances.values()) or sum(self.chances.values()) > 1:
            raise ValueError("the chances of the faults must be positive and together at most 1")

    def draw(self) -> str | None:
        for name in self._script:
            return None if name is None else _known(name, self._names)
        return self._by_chance() if self.chances else None

    def _by_chance(self) -> str | None:
        point = self._dice.random()
        for name, chance in self.chances.items():
            point -= chance
            if point < 0:
                return name
        return None


def _known(name: str, names: AbstractSet[str]) -> str:
    if name not in names:
        raise ValueError(f"no fault is called {name!r}; there are {', '.join(sorted(names))}")
    return name
