"""
The engine: the only place with task groups.

A *run* is one call in progress: `Sender.send`, `send_all` or `stream`. All runs of a sender on one event loop share
*lanes*, where their messages wait for slots. The parts of a run:

- intake pulls messages from their source, at most 1,000 ahead of the results that were taken, and makes entries of
  them;
- pools bring together those that may share a request; what one request carries is a *parcel*, most often of one entry;
- workers take a parcel each when its slot is due, make one attempt, and settle fates or put entries back for later;
- the books, where there is a ledger, look keys up for intake, claim them between slot and request, and record each fate
  before its result is handed out;
- one timer wakes what waits for a time: retries, deadlines, the grace after a stop.

Who waits for the next slot? One of the idle workers, the *leader*. When the slot is due it takes the best waiting entry
of any run, names another idle worker leader, and goes to work on it itself, or hands it to the run it belongs to. So a
slot is bound to a message only when it is due (with a ledger: sooner by what a claim takes), no task is switched
between the slot and its request, and nobody waits twice. Without pacing a worker that ends becomes leader, takes an
entry and works on, and no task is switched at all.

All tasks of a run but intake are shielded: who cancels the caller reaches them by way of `Run.stop` alone, which intake
calls, and which says what becomes of what. What is cut off after that has its fate from whoever had it in hand.
"""

from __future__ import annotations

from .._loops import this_loop
from ._errors import MissingKeyError, copy_of
from ._lanes import Lanes
from ._parts import MAX_PARALLEL, Parts
from ._run import Run
from ._sources import Feed, SequenceSource, Source, source_of

__all__ = [
    "MAX_PARALLEL",
    "Feed",
    "Lanes",
    "MissingKeyError",
    "Parts",
    "Run",
    "SequenceSource",
    "Source",
    "copy_of",
    "source_of",
    "this_loop",
]
