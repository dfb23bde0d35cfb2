"""The simulated account without a socket: a transport on any clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._classify import parse_v2_error
from .._clock import SystemClock
from .._payload import ACCOUNT_PATH, BULK_PATH, SEND_PATH, PayloadWriter, parse_account, parse_bulk, parse_receipt
from ..exceptions import OutcomeUnknownError
from ._answers import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._results import Receipt
    from ..exceptions import SendError
    from ..typing import Account, BulkRequest, Clock, SendRequest
    from ._answers import Answer
    from ._server import SimulatedSES


class SimulatedTransport:
    """
    A `BulkTransport` and `AccountSource` that hands requests to a `SimulatedSES` in memory.

    The bodies are the ones that go on the wire, and the answers are read as those from the wire. Made by
    `SimulatedSES.transport`.

    Args:
        ses: Who takes the requests.
        clock: Whose time it is; the system's when None.
        read_timeout: Seconds after which silence is given up on.
    """

    def __init__(self, ses: SimulatedSES, clock: Clock | None = None, *, read_timeout: float = 60.0) -> None:
        self._ses = ses
        self._clock: Clock = SystemClock() if clock is None else clock
        self._read_timeout = read_timeout
        self._writer = PayloadWriter()

    def __repr__(self) -> str:
        return f"<SimulatedTransport to {self._ses!r}>"

    async def send(self, request: SendRequest) -> Receipt:
        """
        Hand one message over.

        Raises:
            SendError: The simulated SES refused it, or a fault struck.
        """
        answer = await self._ask("POST", SEND_PATH, self._writer.send_email(request))
        headers = _lowered(answer)
        if answer.status == 200:
            return parse_receipt(answer.body, headers)
        senders = (request.from_.email,)
        raise parse_v2_error(answer.status, headers, answer.body, senders=senders, region=self._ses.region)

    async def send_bulk(self, request: BulkRequest) -> Sequence[Receipt | SendError]:
        """
        Hand several templated messages over in one request.

        Raises:
            SendError: The simulated SES refused it as a whole, or a fault struck.
        """
        answer = await self._ask("POST", BULK_PATH, self._writer.send_bulk(request))
        headers = _lowered(answer)
        senders = {each.from_.email for each in request.requests}
        if answer.status == 200:
            return parse_bulk(answer.body, headers, len(request.requests), senders=senders)
        raise parse_v2_error(answer.status, headers, answer.body, senders=senders, region=self._ses.region)

    async def account(self) -> Account:
        """
        Ask for the account's quotas.

        Raises:
            SendError: The simulated SES refused to tell.
        """
        answer = await self._ask("GET", ACCOUNT_PATH, b"")
        if answer.status == 200:
            return parse_account(answer.body, _lowered(answer))
        raise parse_v2_error(answer.status, _lowered(answer), answer.body, region=self._ses.region)

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        request = Request(method, path, "", {}, body, self._clock.monotonic(), self._clock.wall())
        exchange = self._ses.exchange(request, self._ses.draw_fault(method, path))
        answer = exchange.answer
        if exchange.wire == "silent":
            await self._clock.sleep(self._read_timeout)
            raise OutcomeUnknownError(f"SES did not answer within {self._read_timeout:g} s")
        slow = len(answer.body) * self._ses.slow_step if answer is not None and exchange.wire == "slow" else 0.0
        await self._clock.sleep(self._ses.delay() + slow)
        if answer is None:
            raise OutcomeUnknownError("The connection to SES broke before an answer came")
        return answer


def _lowered(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers}
