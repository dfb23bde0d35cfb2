"""
For tests of programs that send mail, and of parts written for tanksend.

`SimulatedSES` is an Amazon SES that enforces its quotas and loses answers when told to.
"""

from __future__ import annotations

from ._answers import Answer, Refusal, Request
from ._faults import Faults
from ._inbox import Counts, Delivered, Event, FaultRecord, Inbox
from ._server import SimulatedSES
from ._signatures import Credential
from ._simulator import SimulatedAccount

__all__ = [
    "Answer",
    "Counts",
    "Credential",
    "Delivered",
    "Event",
    "FaultRecord",
    "Faults",
    "Inbox",
    "Refusal",
    "Request",
    "SimulatedAccount",
    "SimulatedSES",
]
