"""Amazon SES's own HTTP API (v2), without the AWS SDK: the default way out."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from typing import TYPE_CHECKING, Final

import attrs

from .._classify import is_expired_credentials, parse_v2_error
from .._endpoints import check_region
from .._payload import (
    ACCOUNT_PATH,
    BULK_PATH,
    SEND_PATH,
    TEMPLATES_PATH,
    PayloadWriter,
    parse_account,
    parse_bulk,
    parse_receipt,
)
from .._sigv4 import request_target
from .._version import __version__
from ..exceptions import ConfigurationError, ConnectionFailedError, OutcomeUnknownError, Scope, SettingError
from ._credentials import credentials_provider
from ._link import Route
from ._settings import _parse_endpoint, resolve_settings
from ._stored import StoredTemplates
from ._threads import in_thread
from ._tls import Trust
from ._wire import Wire

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .._http1 import Answer
    from .._messages import Template
    from .._results import Receipt
    from .._sigv4 import Signer
    from ..exceptions import SendError
    from ..typing import Account, BulkRequest, SendRequest
    from ._credentials import CredentialsProvider, CredentialsSource
    from ._settings import Settings

__all__ = ["SESTransport"]

_OK: Final = 200
# The statuses under which SES says that credentials have expired.
_ABOUT_CREDENTIALS: Final = frozenset({400, 401, 403})


@attrs.frozen
class _Way:
    """What is found out on first use: where to, how to sign, and the connections."""

    settings: Settings
    signer: Signer
    credentials: CredentialsProvider
    wire: Wire

    async def exchange(self, method: str, target: str, body: bytes) -> Answer:
        """Sign, send, and if AWS calls the credentials expired, once more with new ones: nothing was done then."""
        credentials = await self.credentials.get()
        head = self.signer.head(credentials, method, target, body, time.time())
        answer = await self.wire.exchange(head + body)
        if answer.status in _ABOUT_CREDENTIALS and is_expired_credentials(self.error(answer)):
            credentials = await self.credentials.refresh(credentials)
            head = self.signer.head(credentials, method, target, body, time.time())
            answer = await self.wire.exchange(head + body)
        return answer

    def error(self, answer: Answer, senders: Collection[str] = ()) -> SendError:
        """Make the error of an answer that is no success."""
        return parse_v2_error(
            answer.status,
            answer.headers,
            answer.body,
            senders=senders,
            region=self.settings.region,
            region_source=self.settings.region_source,
        )


class SESTransport:
    """
    Sends through Amazon SES's HTTP API.

    Tasks, threads and event loops (asyncio and trio) may share one, and it works on in a forked child. Where the
    settings and the keys come from is found out on first use, as the AWS SDK for Python would: the arguments, the
    environment, the AWS files, the machine's role. The SDK itself is loaded only when files or roles have a say.
    Requests go through the proxy that the environment names, and trust the system's certificates or ``AWS_CA_BUNDLE``.

    As many connections are opened as requests are on the wire at once. They are kept for 15 s after use.

    Args:
        region: Which region's SES.
        profile: A profile of the AWS files.
        session: A botocore or boto3 session, for settings and keys.
        credentials: `Credentials`, or a function (async or not) that fetches them.
        endpoint_url: Another endpoint: ``https``, or ``http`` on this machine.
        connect_timeout: Seconds for a new connection: name, TCP, proxy and TLS together.
        read_timeout: Seconds from the last byte of a request to the last of its answer. When they are over the outcome
            is unknown, so be generous: SES answers nearly always within one.

    Raises:
        SettingError: An argument cannot be used, or both a profile and a session were given.
        TypeError: *credentials* or *session* is something else.

    Source: Amazon SES API v2 reference, "SendEmail" and "SendBulkEmail".
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        session: object | None = None,
        credentials: CredentialsSource | None = None,
        endpoint_url: str | None = None,
        connect_timeout: float | dt.timedelta = 10.0,
        read_timeout: float | dt.timedelta = 60.0,
    ) -> None:
        if region is not None:
            check_region(region)
        if endpoint_url is not None:
            _parse_endpoint(endpoint_url, "the endpoint_url argument")
        self._region = region
        self._profile = profile
        self._session = session
        self._endpoint_url = endpoint_url
        self._connect_timeout = _seconds("connect_timeout", connect_timeout)
        self._read_timeout = _seconds("read_timeout", read_timeout)
        self._credentials = credentials_provider(credentials, profile=profile, session=session, region=region)
        self._payloads = PayloadWriter()
        self._stored = StoredTemplates(self._ask_for_template, self._error)
        self._ways: dict[None, _Way] = {}

    async def send(self, request: SendRequest) -> Receipt:
        """
        Make one attempt.

        Raises:
            OutcomeUnknownError: The request left and no answer settles whether SES took the message.
            SendError: SES certainly has not taken it; the class says why.
        """
        way = self._ways.get(None) or await self._find_way()
        answer = await way.exchange("POST", SEND_PATH, self._payloads.send_email(request))
        if answer.status == _OK:
            return parse_receipt(answer.body, answer.headers)
        raise way.error(answer, (request.from_.email,))

    async def send_bulk(self, request: BulkRequest) -> Sequence[Receipt | SendError]:
        """
        Make one attempt for all of *request*.

        Returns:
            One outcome for each, in order: SES takes some and refuses others.

        Raises:
            OutcomeUnknownError: The request left and no answer settles whether SES took any of the messages.
            SendError: SES certainly has taken none; the class says why.
        """
        way = self._ways.get(None) or await self._find_way()
        answer = await way.exchange("POST", BULK_PATH, self._payloads.send_bulk(request))
        senders = (request.requests[0].from_.email,)
        if answer.status == _OK:
            return parse_bulk(answer.body, answer.headers, len(request.requests), senders=senders)
        raise way.error(answer, senders)

    async def template(self, name: str) -> Template | None:
        """
        The content of a template that is stored in SES, or None where it cannot be told.

        SES is asked once for each name; the answer is good for five minutes. Where the credentials may not call
        ``ses:GetEmailTemplate``, that is remembered. Where SES does not answer in five seconds, is throttling or fails,
        it is None, and asked again ten seconds later: no mail has to wait for a check.

        Raises:
            ConfigurationError: There is no template of that name.
        """
        return await self._stored.get(name)

    def forget_template(self, name: str) -> None:
        """Ask SES anew when the template of that *name* is next wanted: it was changed."""
        self._stored.forget(name)

    async def _ask_for_template(self, name: str) -> Answer:
        return await self.request("GET", TEMPLATES_PATH, name)

    async def account(self) -> Account:
        """
        Ask SES for the account's quotas and state. No cache: SES allows about one such call a second.

        Raises:
            AccessDeniedError: The credentials may not call ``ses:GetAccount``.
            SendError: As for `send`; never `OutcomeUnknownError`, because asking changes nothing.
        """
        answer = await self.request("GET", ACCOUNT_PATH)
        if answer.status == _OK:
            return parse_account(answer.body, answer.headers)
        raise await self._error(answer)

    async def _error(self, answer: Answer) -> SendError:
        """Make the error of an answer to a call that sends nothing."""
        way = self._ways.get(None) or await self._find_way()
        return _harmless(way.error(answer))

    async def account_key(self) -> str:
        """
        A name for the account and region behind this transport that tells neither.

        Transports with the same name share their quotas. Two sets of keys of one account have two names: SES has no
        cheap way to tell.
        """
        way = self._ways.get(None) or await self._find_way()
        credentials = await way.credentials.get()
        endpoint = way.settings.endpoint
        known = f"{endpoint.host}:{endpoint.port} {way.settings.region} {credentials.access_key}"
        return hashlib.sha256(known.encode()).hexdigest()

    async def request(
        self, method: str, path: str, *segments: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """
        Call another operation of the API, for other parts of tanksend. Any status is an answer.

        Args:
            method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
            path: The constant part of the path.
            segments: Further segments of it, encoded here.
            query: Query parameters, encoded here.
            body: JSON, or nothing.

        Raises:
            SendError: There is no answer. Never `OutcomeUnknownError`: none of these operations sends mail.
        """
        way = self._ways.get(None) or await self._find_way()
        try:
            return await way.exchange(method, request_target(path, *segments, query=query), body)
        except OutcomeUnknownError as error:
            raise _harmless(error) from None

    async def _find_way(self) -> _Way:
        try:
            settings = await resolve_settings(
                region=self._region, profile=self._profile, session=self._session, endpoint_url=self._endpoint_url
            )
            signer = settings.signer(f"tanksend/{__version__}")
            route = Route(settings.endpoint, settings.proxy)
            trust = Trust(settings.ca_bundle, settings.proxy.ca_bundle if settings.proxy else None)
            if route.secured:
                await in_thread(trust.load)
        except SettingError as error:
            raise _unusable(error) from None
        wire = Wire(route, trust, connect_timeout=self._connect_timeout, read_timeout=self._read_timeout)
        # Whoever was first keeps it: two of them would hold connections that nobody closes.
        return self._ways.setdefault(None, _Way(settings, signer, self._credentials, wire))

    async def aclose(self) -> None:
        """
        Close what is open. Requests on the wire are not cut off. The next use opens it again.

        Connections of other event loops are closed by those as soon as they can.
        """
        way = self._ways.get(None)
        if way is not None:
            await way.wire.aclose()

    def __repr__(self) -> str:
        way = self._ways.get(None)
        region = way.settings.region if way else self._region or "region not yet known"
        return f"<SESTransport {region}>"


def _seconds(name: str, value: float | dt.timedelta) -> float:
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
    if not 0 < seconds < float("inf"):
        raise SettingError(f"{name} must be a positive number of seconds.")
    return seconds


def _unusable(error: SettingError) -> ConfigurationError:
    """A setting that nothing can be sent with, found on first use."""
    return ConfigurationError(str(error), scope=Scope.ACCOUNT, remedy="Nothing was sent", cause_type="SettingError")


def _harmless(error: SendError) -> SendError:
    """What an unknown outcome means for a call that sends no mail: it can be repeated."""
    if not isinstance(error, OutcomeUnknownError):
        return error
    return ConnectionFailedError(
        "SES gave no usable answer",
        code=error.code,
        status=error.status,
        request_id=error.request_id,
        cause_type=error.cause_type,
    )
