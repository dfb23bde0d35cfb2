"""SES's SMTP endpoint, or a relay in front of it: for networks where HTTPS does not get out and port 587 does."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Final

import attrs
from anyio import CapacityLimiter

from .._endpoints import check_region, endpoint_host
from .._results import Receipt
from .._sigv4 import Credentials
from .._smtp_password import is_temporary, smtp_password
from ..exceptions import CredentialsError, OutcomeUnknownError, SettingError
from ._credentials import credentials_provider
from ._ses import _seconds, _unusable
from ._settings import resolve_settings
from ._smtp_link import Login, Server
from ._smtp_mail import message_id, refuse_templates
from ._smtp_pool import Attempt, LinkPool
from ._threads import in_thread
from ._tls import client_context

if TYPE_CHECKING:
    import datetime as dt

    from ..typing import SendRequest
    from ._credentials import CredentialsProvider, CredentialsSource

__all__ = ["SMTPTransport"]

_STARTTLS_PORTS: Final = frozenset({25, 587, 2587})
_TLS_PORTS: Final = frozenset({465, 2465})
_HOST = re.compile(r"(?!-)[A-Za-z0-9.:_-]{1,253}")
_SES_HOST = re.compile(r"email-smtp(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)", re.IGNORECASE)
_PRINTABLE = re.compile(r"[!-~]+")

_TEMPORARY: Final = "SMTP does not take the keys of a role or session: it has no place for their token"
_GIVE_LASTING: Final = (
    "Give the keys of an IAM user (AKIA...) or its SMTP user name and password, or use SESTransport, which takes them"
)
_NO_ID: Final = "The server took the message and named no id of SES's"
_MAYBE_RELAY: Final = (
    "If it is a relay in front of SES, say relay=True; then its own id counts. Otherwise look for the message's events"
)


@attrs.frozen
class _Way:
    """What is found out on first use: where to, with which login, and the connections."""

    server: Server
    region: str | None
    pool: LinkPool


class SMTPTransport:
    """
    Sends through Amazon SES's SMTP endpoint.

    TLS always, by STARTTLS or from the first byte, with the server's certificate verified: where that is not to be had
    nothing is sent, the password neither. Tasks, threads and event loops (asyncio and trio) may share one, and it works
    on in a forked child. The work is done by `smtplib` in worker threads, one for each message on the wire.

    As many connections are opened as messages are on the wire at once. A connection that the server has closed while it
    waited is replaced before it matters.

    What SMTP cannot do: templates (`InvalidMessageError`), asking for the account's quotas (give the limiter a rate),
    go through a proxy.
    A message with a recipient whom the server refuses is sent to nobody: it fails, and the error's `identities` are
    those who were refused.

    Args:
        host: The server; by default ``email-smtp.<region>.amazonaws.com``.
        port: 587, 2587 or 25 for STARTTLS; 465 or 2465 for TLS from the first byte.
        region: Which region's SES, for the host and for a password made of a secret key. Otherwise the host or the
            environment tells it.
        username: SMTP user name, as the SES console gives it.
        password: SMTP password, as the SES console gives it.
        credentials: An IAM user's keys instead, or a function (async or not) that fetches them; user name and password
            are made of them. With neither, keys are looked for where the AWS SDK for Python would.
        relay: The server is a relay in front of SES. Then its own id will do as message id, where otherwise only SES's
            does; and given neither user name nor credentials, there is no login.
        implicit_tls: TLS from the first byte, for other ports than those above; they are taken for STARTTLS.
        ca_bundle: A file or directory of certificates to trust instead of the system's store and ``AWS_CA_BUNDLE``.
        connect_timeout: Seconds until a new connection is ready: name, TCP, TLS and login together.
        read_timeout: Seconds for each reply, and for the network to take each 64 KB of a mail. When they are over after
            the content, the outcome is unknown, so be generous.
        max_messages: After that many a connection is closed and another one opened, so that load balancers can do
            their work.
        max_idle: Seconds after which a connection that has waited is not used again; the next message closes it.

    Raises:
        SettingError: An argument cannot be used, or both a user name and credentials were given.
        CredentialsError: The credentials are temporary.
        TypeError: *credentials* is something else.

    Source: Amazon SES Developer Guide, "Using the Amazon SES SMTP interface to send email".
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = 587,
        *,
        region: str | None = None,
        username: str | None = None,
        password: str | None = None,
        credentials: CredentialsSource | None = None,
        relay: bool = False,
        implicit_tls: bool | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        connect_timeout: float | dt.timedelta = 10.0,
        read_timeout: float | dt.timedelta = 60.0,
        max_messages: int = 100,
        max_idle: float | dt.timedelta = 15.0,
    ) -> None:
        self._host = None if host is None else _checked_host(host)
        self._port = _checked_port(port)
        self._implicit_tls = _kind_of_tls(port, implicit_tls)
        self._region = _region(region, self._host)
        self._relay = relay
        self._ca_bundle = ca_bundle
        self._timeouts = _seconds("connect_timeout", connect_timeout), _seconds("read_timeout", read_timeout)
        if max_messages < 1:
            raise SettingError("max_messages must be 1 or more.")
        self._limits = max_messages, _seconds("max_idle", max_idle)
        self._login = _given_login(username, password)
        self._credentials = self._source(credentials)
        self._made: tuple[Credentials, Login] | None = None
        self._ways: dict[None, _Way] = {}

    def _source(self, credentials: CredentialsSource | None) -> CredentialsProvider | None:
        """Where keys come from; None where none are needed."""
        if self._login is not None:
            if credentials is not None:
                raise SettingError("Give either username= and password= or credentials=, not both.")
            return None
        if credentials is None and self._relay:
            return None
        if isinstance(credentials, Credentials):
            _refuse_temporary(credentials)
        return credentials_provider(credentials, region=self._region)

    async def send(self, request: SendRequest) -> Receipt:
        """
        Make one attempt.

        Raises:
            InvalidMessageError: SMTP cannot carry it; nothing was sent.
            OutcomeUnknownError: The content left, and no reply settles whether SES took the message.
            SendError: SES certainly has not taken it; the class says why.
        """
        refuse_templates(request)
        way = self._ways.get(None) or await self._find_way()
        login = self._login if self._credentials is None else await self._log_in_with(self._credentials, way)
        way.pool.look_around()
        attempt = Attempt(way.pool, login, request)
        try:
            # A limiter for this one thread alone: the Sender has decided how many messages are on the wire.
            reply = await in_thread(attempt.run, limiter=CapacityLimiter(1))
        finally:
            attempt.abandon()
        found = message_id(reply, relay=self._relay)
        if found is None:
            raise OutcomeUnknownError(
                _NO_ID, code="NoMessageId", status=250, remedy=None if self._relay else _MAYBE_RELAY
            )
        return Receipt(found)

    async def _log_in_with(self, source: CredentialsProvider, way: _Way) -> Login:
        keys = await source.get()
        made = self._made
        if made is None or made[0] is not keys:
            _refuse_temporary(keys)
            assert way.region is not None  # noqa: S101 - `_find_way` finds it where keys are.
            made = self._made = keys, Login(keys.access_key, smtp_password(keys.secret_key, way.region))
        return made[1]

    async def _find_way(self) -> _Way:
        try:
            region, bundle = self._region, self._ca_bundle or os.environ.get("AWS_CA_BUNDLE")
            if region is None and (self._host is None or self._credentials is not None):
                settings = await resolve_settings()
                region, bundle = settings.region, bundle or settings.ca_bundle
            context = await in_thread(functools.partial(client_context, bundle))
        except SettingError as error:
            raise _unusable(error) from None
        host = self._host or endpoint_host(region or "").replace("email.", "email-smtp.", 1)
        server = Server(host, self._port, self._implicit_tls, context, *self._timeouts)
        pool = LinkPool(server, max_messages=self._limits[0], max_idle=self._limits[1])
        # Whoever was first keeps it: two of them would hold connections that nobody closes.
        return self._ways.setdefault(None, _Way(server, region, pool))

    async def aclose(self) -> None:
        """
        Close what is open. Messages on the wire are not cut off. The next use opens it again.

        Never waits, and never fails.
        """
        way = self._ways.get(None)
        if way is not None:
            way.pool.look_around()
            way.pool.close()

    def __repr__(self) -> str:
        return f"<SMTPTransport {self._host or self._region or 'region not yet known'}:{self._port}>"


def _checked_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise SettingError("The host must be a host name or an IP address, without a scheme or a port.")
    return host


def _checked_port(port: int) -> int:
    if not 1 <= port <= 65_535:
        raise SettingError("The port must be from 1 to 65535; SES listens on 25, 465, 587, 2465 and 2587.")
    return port


def _kind_of_tls(port: int, implicit: bool | None) -> bool:  # noqa: FBT001 - it is the argument of the same name.
    """Whether TLS is spoken from the first byte; SES's ports leave no choice."""
    if implicit is not None and port in (_STARTTLS_PORTS if implicit else _TLS_PORTS):
        raise SettingError(f"Port {port} is for {'STARTTLS' if implicit else 'TLS from the first byte'}.")
    return port in _TLS_PORTS if implicit is None else implicit


def _region(region: str | None, host: str | None) -> str | None:
    """The region as far as the arguments tell it."""
    if region is not None:
        return check_region(region)
    found = _SES_HOST.fullmatch(host or "")
    return found[1].lower() if found else None


def _given_login(username: str | None, password: str | None) -> Login | None:
    if (username is None) is not (password is None):
        raise SettingError("username and password go together.")
    if username is None or password is None:
        return None
    for name, value in (("user name", username), ("password", password)):
        if not _PRINTABLE.fullmatch(value):
            raise SettingError(
                f"The SMTP {name} is empty, or has a blank, a line end or a letter outside ASCII. "
                "Look at how it was copied."
            )
    return Login(username, password)


def _refuse_temporary(keys: Credentials) -> None:
    if is_temporary(keys.access_key, keys.token):
        raise CredentialsError(_TEMPORARY, code="TemporaryCredentials", remedy=_GIVE_LASTING)
