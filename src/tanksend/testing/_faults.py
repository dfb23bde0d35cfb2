"""
What can go wrong on the way to SES, on purpose.

Each name says when it strikes. "before" faults leave the message unaccepted; the others accept it, unless the account
refuses it by itself: then the refusal is the answer and no fault is injected.

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
==================  ====================================================================================
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
NAMES = BEFORE | AFTER


class Faults:
    """
    Which fault strikes which send.

    Args:
        script: One entry per SendEmail request, None for none; when it is used up, *probability* decides.
        probability: Chance of each fault per request; together at most 1.
        seed: Of the chances, so that a run can be repeated.

    Raises:
        ValueError: A name is unknown, or the chances exceed 1.
    """

    def __init__(
        self,
        script: Iterable[str | None] = (),
        *,
        probability: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self._script: Iterator[str | None] = iter(script)
        self._chances = dict(probability or {})
        self._random = random.Random(seed)  # noqa: S311  (repeatable, no secret)
        for name in self._chances:
            _known(name)
        if not all(chance >= 0 for chance in self._chances.values()) or sum(self._chances.values()) > 1:
            raise ValueError("the chances of the faults must be positive and together at most 1")

    def draw(self) -> str | None:
        """The fault for the next send."""
        try:
            name = next(self._script)
        except StopIteration:
            return self._by_chance() if self._chances else None
        return None if name is None else _known(name)

    def _by_chance(self) -> str | None:
        point = self._random.random()
        for name, chance in self._chances.items():
            point -= chance
            if point < 0:
                return name
        return None

    def __repr__(self) -> str:
        return f"<Faults {self._chances}>"


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"no fault is called {name!r}; there are {', '.join(sorted(NAMES))}")
    return name
