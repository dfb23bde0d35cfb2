"""
Send mail through Amazon SES so that every message has exactly one known fate.

`Sender` is the way in for asyncio and trio, `SyncSender` for everything else. The parts that can be plugged in are in
`tanksend.transports`, `limiters`, `retries`, `suppression` and `ledgers`, their contracts in `tanksend.typing`, all
errors in `tanksend.exceptions`, work on the account in `tanksend.operations`, and a simulated SES for tests in
`tanksend.testing`.
"""

from __future__ import annotations

from ._addresses import Address
from ._messages import Attachment, Message, Priority, Template, Unsubscribe
from ._report import Row, SendReport
from ._results import Receipt, SendResult, Status
from ._sender import Sender
from ._sync import SyncSender
from ._validator import AddressValidator
from ._version import __version__
from .exceptions import SendError, TanksendError

__all__ = [
    "Address",
    "AddressValidator",
    "Attachment",
    "Message",
    "Priority",
    "Receipt",
    "Row",
    "SendError",
    "SendReport",
    "SendResult",
    "Sender",
    "Status",
    "SyncSender",
    "TanksendError",
    "Template",
    "Unsubscribe",
    "__version__",
]
