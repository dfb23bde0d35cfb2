"""
For tests of programs that send mail, and of parts written for tanksend.

`SimulatedSES` is an Amazon SES that enforces its quotas and loses answers when told to, over HTTP or in memory;
`RecordingTransport` only keeps what it is given; `FakeClock` makes hours pass at once; each ``check_…`` function tells
whether a part keeps its contract. Nothing here needs pytest.
"""

from __future__ import annotations

from ._answers import Answer, Refusal, Request
from ._checks import check_clock, check_retry_policy, check_suppression_store
from ._clock import FakeClock
from ._control import SuppressedDestination, SuppressionList
from ._faults import Faults
from ._inbox import Counts, Delivered, Event, FaultRecord, Inbox
from ._ledger_checks import check_ledger
from ._limiter_checks import check_rate_limiter
from ._memory import SimulatedTransport
from ._proxy import TunnelProxy
from ._recording import RecordingTransport
from ._server import SimulatedSES
from ._signatures import Credential
from ._simulator import Exchange, SimulatedAccount
from ._templates import StoredTemplate, TemplateStore
from ._transport_checks import check_transport

__all__ = [
    "Answer",
    "Counts",
    "Credential",
    "Delivered",
    "Event",
    "Exchange",
    "FakeClock",
    "FaultRecord",
    "Faults",
    "Inbox",
    "RecordingTransport",
    "Refusal",
    "Request",
    "SimulatedAccount",
    "SimulatedSES",
    "SimulatedTransport",
    "StoredTemplate",
    "SuppressedDestination",
    "SuppressionList",
    "TemplateStore",
    "TunnelProxy",
    "check_clock",
    "check_ledger",
    "check_rate_limiter",
    "check_retry_policy",
    "check_suppression_store",
    "check_transport",
]
