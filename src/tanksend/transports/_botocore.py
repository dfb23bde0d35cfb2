"""SES through botocore's own client: SigV4A, and networks that only botocore's configuration gets out of."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs

from .._classify import is_expired_credentials, parse_v2_error
from .._endpoints import check_region
from .._forks import watch
from .._payload import PayloadWriter, parse_account, parse_bulk, parse_receipt
from .._version import __version__
from ..exceptions import CredentialsError, SendError, SettingError
from ._aws_session import open_session, refuse_both, unwrap_session
from ._botocore_errors import as_answer, refusal_of, translate, unusable
from ._credentials import _botocore_failed, _force, _freeze
from ._crew import Crew
from ._ses import _harmless, _seconds, _unusable
from ._settings import _parse_endpoint
from ._stored import StoredTemplates
from ._tls import client_context

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from .._http1 import Answer
    from .._messages import Template
    from .._results import Receipt
    from .._sigv4 import Credentials
    from ..typing import Account, BulkRequest, SendRequest
    from ._aws_session import AwsSession

__all__ = ["BotocoreTransport"]

T = TypeVar("T")

_OK: Final = 200
_SERVICE: Final = "sesv2"
# Requests on the wire at once. Well above what SES's usual rates need: 200 a second, each answered within 0.2 s.
_CONNECTIONS: Final = 50

_REPEATS: Final = (
    "The given client repeats requests by itself, and a repeated SendEmail is a second mail. "
    'Make the client with botocore.config.Config(retries={"total_max_attempts": 1}).'
)
_NO_CRT: Final = (
    "endpoint_id=... (a global endpoint) is signed with SigV4A, which needs the AWS Common Runtime: "
    "pip install 'botocore[crt]'."
)

# The client and the connections that a forked child got from its parent. Kept from being destroyed: another thread of
# the parent may have held one of their locks.
_inherited: list[object] = []


@attrs.define(eq=False)
class _Client:
    """
    botocore's client.

    Args:
        calls: The client itself.
        keys: Gives botocore's object that holds and refreshes the keys; None where it cannot be seen.
        users: How many threads are in a call of it.
        retired: Nobody enters any more; the last to leave closes it.
    """

    calls: Any
    keys: Callable[[], Any] | None
    users: int = 0
    retired: bool = False

    @property
    def region(self) -> str:
        found: str = self.calls.meta.region_name
        return found

    @property
    def host(self) -> str:
        return urlsplit(self.calls.meta.endpoint_url).hostname or "SES"

    def credentials(self, *, force: bool = False) -> Credentials | None:
        """
        The keys as they are now. botocore refreshes them here, and not in the middle of a call.

        Args:
            force: Have them refreshed though they look good.
        """
        if self.keys is None:
            return None
        try:
            source = self.keys()
            if force:
                _force(source)
            return _freeze(source).credentials
        except CredentialsError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, its HTTP client and its files: anything.
            raise _botocore_failed(error, None) from None

    def exchange(self, operation: str, method: str, parameters: Mapping[str, Any]) -> Answer:
        """
        Make one call; any status is an answer.

        Raises:
            SendError: There is no answer, or no call was made.
        """
        try:
            return as_answer(getattr(self.calls, method)(**parameters))
        except Exception as error:  # noqa: BLE001 - botocore, urllib3, and handlers of the caller's: anything.
            refusal = refusal_of(error, operation)
            if refusal is not None:
                return refusal
            raise translate(error, to=self.host) from None

    def call(
        self, operation: str, method: str, parameters: Mapping[str, Any], senders: Collection[str] = ()
    ) -> tuple[bytes, Mapping[str, str]]:
        """
        Make one call; gives body and headers of its success.

        Raises:
            SendError: It is none, or there is no answer.
        """
        answer = self.exchange(operation, method, parameters)
        if answer.status == _OK:
            return answer.body, answer.headers
        raise self.error(answer, senders)

    def error(self, answer: Answer, senders: Collection[str] = ()) -> SendError:
        """Make the error of an answer that is no success."""
        return parse_v2_error(answer.status, answer.headers, answer.body, senders=senders, region=self.region)


class BotocoreTransport:
    """
    Sends through botocore's client for SES, in threads.

    For what `SESTransport` does not do: SigV4A, which global endpoints need, and networks that need botocore's own
    proxies, client certificates or signing. It takes many times the processor time. Everything that botocore reads
    (environment, AWS files, roles, proxies) counts as botocore reads it. Its retries alone are off: it repeats mail
    whose answer was lost.

    Tasks, threads and event loops (asyncio and trio) may share one, and it works on in a forked child. The threads are
    its own, as many as there are requests on the wire at once; they and the connections are opened on first use.

    botocore's own debug log, if a program switches it on, holds whole messages.

    Args:
        client: A botocore or boto3 client for ``sesv2``, with its retries off. It is not closed here.
        session: A botocore or boto3 session to make a client from.
        region: Which region's SES.
        profile: A profile of the AWS files.
        endpoint_url: Another endpoint: ``https``, or ``http`` on this machine.
        endpoint_id: SES's id of a global endpoint. Needs ``botocore[crt]``.
        connect_timeout: Seconds for a new connection. A given client has its own.
        read_timeout: Seconds between two pieces of an answer. When they are over the outcome is unknown, so be
            generous. A given client has its own.
        max_connections: Requests on the wire at once, at most; further ones wait. None for 50, or for as many as the
            given client keeps connections.

    Raises:
        SettingError: An argument cannot be used, or does not go with another; the given client repeats requests, or
            has an endpoint without TLS that is not on this machine.
        TypeError: *client* or *session* is something else.

    Source: Amazon SES API v2 reference, "SendEmail"; Developer Guide, "Global endpoints".
    """

    def __init__(
        self,
        *,
        client: object | None = None,
        session: object | None = None,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        endpoint_id: str | None = None,
        connect_timeout: float | dt.timedelta = 10.0,
        read_timeout: float | dt.timedelta = 60.0,
        max_connections: int | None = None,
    ) -> None:
        refuse_both(profile, session)
        if client is not None:
            _check_client(client, session, region, profile, endpoint_url)
        if region is not None:
            check_region(region)
        if endpoint_url is not None:
            _parse_endpoint(endpoint_url, "the endpoint_url argument")
        if endpoint_id is not None and importlib.util.find_spec("awscrt") is None:
            raise SettingError(_NO_CRT)
        self._given: Any = client
        self._session = None if session is None else unwrap_session(session)
        self._region = region
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._extra = {} if endpoint_id is None else {"EndpointId": endpoint_id}
        self._timeouts = _seconds("connect_timeout", connect_timeout), _seconds("read_timeout", read_timeout)
        self._connections = _connections(client, max_connections)
        self._payloads = PayloadWriter()
        self._stored = StoredTemplates(self._ask_for_template, self._template_error)
        self._crew = Crew("tanksend-botocore", self._connections)
        self._client: _Client | None = None
        self._forked = False
        self._make_locks()
        watch(self)

    def _make_locks(self) -> None:
        self._lock = threading.Lock()  # held for a moment, also by event loops
        self._opening = threading.Lock()  # held while a client is made, by threads alone

    # --- the protocol

    async def send(self, request: SendRequest) -> Receipt:
        """
        Make one attempt.

        Raises:
            OutcomeUnknownError: The request left and no answer settles whether SES took the message.
            SendError: SES certainly has not taken it; the class says why.
        """
        return await self._run(self._send, request)

    def _send(self, client: _Client, request: SendRequest) -> Receipt:
        parameters = call_parameters(self._payloads.send_email(request)) | self._extra
        return parse_receipt(*client.call("SendEmail", "send_email", parameters, (request.from_.email,)))

    async def send_bulk(self, request: BulkRequest) -> Sequence[Receipt | SendError]:
        """
        Send several templated messages in one request; gives one outcome per entry, in order.

        Raises:
            OutcomeUnknownError: The request left and no answer settles which of them SES took.
            SendError: SES certainly has taken none of them; the class says why.
        """
        return await self._run(self._send_bulk, request)

    def _send_bulk(self, client: _Client, request: BulkRequest) -> Sequence[Receipt | SendError]:
        parameters = call_parameters(self._payloads.send_bulk(request)) | self._extra
        senders = (request.requests[0].from_.email,)
        answer = client.call("SendBulkEmail", "send_bulk_email", parameters, senders)
        return parse_bulk(*answer, len(request.requests), senders=senders)

    async def template(self, name: str) -> Template | None:
        """
        The content of a template that is stored in SES, or None where it cannot be told; as `SESTransport.template`.

        Raises:
            ConfigurationError: There is no template of that name.
        """
        return await self._stored.get(name)

    def forget_template(self, name: str) -> None:
        """Ask SES anew when the template of that *name* is next wanted: it was changed."""
        self._stored.forget(name)

    async def _ask_for_template(self, name: str) -> Answer:
        parameters = {"TemplateName": name}
        return await self._run(_Client.exchange, "GetEmailTemplate", "get_email_template", parameters)

    async def _template_error(self, answer: Answer) -> SendError:
        return await self._run(_Client.error, answer)

    async def account(self) -> Account:
        """
        Ask SES for the account's quotas and state. No cache: SES allows about one such call a second.

        Raises:
            AccessDeniedError: The credentials may not call ``ses:GetAccount``.
            SendError: As for `send`; never `OutcomeUnknownError`, because asking changes nothing.
        """
        try:
            return await self._run(lambda client: parse_account(*client.call("GetAccount", "get_account", {})))
        except SendError as error:
            raise _harmless(error) from None

    async def account_key(self) -> str:
        """Name account and region without telling them, as `SESTransport.account_key` does: the two share quotas."""
        return await self._run(_account_key)

    async def aclose(self) -> None:
        """
        Close the connections. Requests on the wire are not cut off. The next use opens new ones.

        A given client stays as it is. Threads end by themselves when they have had nothing to do for a while.
        """
        if self._given is not None:
            return
        with self._lock:
            client, self._client = self._client, None
            if client is None:
                return
            client.retired = True
            busy = client.users
        if not busy:
            client.calls.close()

    def __repr__(self) -> str:
        client = self._client
        return f"<BotocoreTransport {client.region if client else self._region or 'region not yet known'}>"

    # --- in the threads

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return await self._crew.run(functools.partial(self._do, work, *arguments))

    def _do(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it, and if AWS calls the keys expired, once more with new ones: nothing was done then."""
        with self._entered() as client:
            keys = client.credentials()
            try:
                return work(client, *arguments)
            except CredentialsError as error:
                if not (is_expired_credentials(error) and self._has_newer(client, keys)):
                    raise
        with self._entered() as client:
            client.credentials()
            return work(client, *arguments)

    def _has_newer(self, client: _Client, stale: Credentials | None) -> bool:
        """Get past keys that look good here: one thread does, the others find them new."""
        with self._opening:
            if client.retired or client.credentials() != stale:
                return True
            if self._given is not None or self._session is not None:
                return client.credentials(force=True) != stale
            # A session of our own is opened anew, which also rereads the files.
            fresh = self._open()
            if fresh.credentials() == stale:
                fresh.calls.close()
                return False
            with self._lock:
                client.retired, self._client = True, fresh
            return True

    @contextlib.contextmanager
    def _entered(self) -> Iterator[_Client]:
        client = self._enter()
        try:
            yield client
        finally:
            self._leave(client)

    def _enter(self) -> _Client:
        client = self._current()
        if client is not None:
            return client
        with self._opening:  # One makes it, the others wait for it.
            client = self._current()
            if client is None:
                client = self._open()
                with self._lock:
                    client.users, self._client = 1, client
        return client

    def _current(self) -> _Client | None:
        with self._lock:
            if self._client is not None:
                self._client.users += 1
            return self._client

    def _leave(self, client: _Client) -> None:
        with self._lock:
            client.users -= 1
            unused = client.retired and not client.users
        if unused:
            client.calls.close()

    def _open(self) -> _Client:
        if self._given is not None:
            if self._forked:
                self._given.close()  # The connections are the parent's; it opens others by itself.
            # There is no public way to the keys of a client. Unseen, botocore refreshes them in the middle of a call.
            keys = getattr(getattr(self._given, "_request_signer", None), "_credentials", None)
            return _Client(self._given, None if keys is None else lambda: keys)
        try:
            session = open_session(self._profile) if self._session is None else self._session
            _check_bundle(session.get_config_variable("ca_bundle"))
            calls = self._make_client(session)
            _parse_endpoint(calls.meta.endpoint_url, "botocore's configuration")
            return _Client(calls, session.get_credentials)
        except SettingError as error:
            raise _unusable(error) from None
        except Exception as error:  # noqa: BLE001 - botocore, and the files it reads: anything.
            raise unusable(error, self._profile) from None

    def _make_client(self, session: AwsSession) -> Any:  # noqa: ANN401 - botocore ships no types.
        from botocore.config import Config

        connect_timeout, read_timeout = self._timeouts
        config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=self._connections,
            # The mode as well: the environment may say "adaptive", which holds requests back by itself.
            retries={"total_max_attempts": 1, "mode": "standard"},
            user_agent_extra=f"tanksend/{__version__}",
        )
        region = self._region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        create: Callable[..., Any] = session.create_client  # type: ignore[attr-defined]
        return create(_SERVICE, region_name=region, endpoint_url=self._endpoint_url, config=config)

    # --- forks

    def before_fork(self) -> None:
        """Nothing: locks, threads and the client are replaced in the child."""

    def after_fork_in_parent(self) -> None:
        """Nothing: all goes on."""

    def after_fork_in_child(self) -> None:
        """Leave the client's connections to the parent."""
        self._make_locks()
        self._forked = True
        if self._client is not None:
            _inherited.append(self._client)
            self._client = None


def call_parameters(body: bytes) -> dict[str, Any]:
    """What botocore's client is called with to have it send *body*: it takes bytes where SES's JSON has base64."""
    parameters: dict[str, Any] = json.loads(body)
    for content in (parameters.get("Content"), parameters.get("DefaultContent")):
        for kind in (content or {}).values():
            if isinstance(kind.get("Data"), str):
                kind["Data"] = base64.b64decode(kind["Data"])
            for attachment in kind.get("Attachments", ()):
                attachment["RawContent"] = base64.b64decode(attachment["RawContent"])
    return parameters


def _account_key(client: _Client) -> str:
    credentials = client.credentials()
    endpoint = _parse_endpoint(client.calls.meta.endpoint_url, "the client")
    known = f"{endpoint.host}:{endpoint.port} {client.region} {credentials.access_key if credentials else ''}"
    return hashlib.sha256(known.encode()).hexdigest()


def _check_client(client: Any, *others: object) -> None:  # noqa: ANN401 - botocore ships no types.
    """Refuse what is no client for SES, and one that would double mail."""
    service = getattr(getattr(getattr(client, "meta", None), "service_model", None), "service_name", None)
    if service is None or inspect.iscoroutinefunction(getattr(client, "_make_api_call", None)):
        raise TypeError(f"client must be a botocore or boto3 client, not {type(client).__name__}")
    if service != _SERVICE:
        raise SettingError(f"client must be one for {_SERVICE}, not for {service}.")
    if any(other is not None for other in others):
        raise SettingError("Give either client or session, region, profile and endpoint_url: a client has its own.")
    if (client.meta.config.retries or {}).get("total_max_attempts") != 1:
        raise SettingError(_REPEATS)
    _parse_endpoint(client.meta.endpoint_url, "the given client")


def _check_bundle(bundle: str | None) -> None:
    """Refuse certificates that botocore would stumble over in each handshake, as if it were the network."""
    if not bundle:
        return
    if Path(bundle).is_dir():
        raise SettingError("AWS_CA_BUNDLE or ca_bundle of the profile names a directory, and botocore wants a file.")
    client_context(bundle)


def _connections(client: Any, wanted: int | None) -> int:  # noqa: ANN401 - as above.
    """How many requests may be on the wire. More threads than the client keeps connections would reopen them."""
    kept: int = _CONNECTIONS if client is None else client.meta.config.max_pool_connections
    if wanted is None:
        return kept
    if wanted < 1:
        raise SettingError("max_connections must be at least 1.")
    return wanted if client is None else min(wanted, kept)
