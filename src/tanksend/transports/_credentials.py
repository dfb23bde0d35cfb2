"""
Where the keys come from: given, a callable, the environment, or a botocore session.

All of them answer `get` from memory. Temporary keys are looked at once a second; when they come near their end one
caller a second fetches new ones while the others go on with the old, and only in the last seconds does everybody wait.
Whatever may block (botocore reads files, calls STS, the container's or the instance's metadata service; a callable of
the caller's may do anything) runs in a worker thread. No lock is held over an await: the one lock here is taken by
worker threads only, so that a source is asked once and not by all of them.

Source: AWS SDKs and Tools Reference Guide, "Credential provider chain"; botocore's ``credentials``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs

from .._sigv4 import Credentials
from ..exceptions import ConnectionFailedError, CredentialsError
from ._aws_session import open_session, refuse_both, shown_profile, unwrap_session
from ._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._aws_session import AwsSession

__all__ = ["CredentialsProvider", "CredentialsSource", "credentials_provider"]

CredentialsSource: TypeAlias = Credentials | Callable[[], Credentials | Awaitable[Credentials]]
"""Keys, or a function (async or not) that fetches them."""

_LOOK_EVERY: Final = 1.0  # Seconds between two looks at how long temporary keys still last.
_URGENT: Final = 10.0  # Seconds before their end from which nobody uses the old ones.
_AHEAD: Final = 300.0  # Seconds before their end from which a callable is asked again; botocore has its own figure.
_NEVER: Final = float("inf")

_HOW_TO_GIVE: Final = (
    "Give credentials=Credentials(...), set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or use a profile or a role that botocore finds"
)
_NO_NEWER: Final = "The credentials have expired, and their source has no newer ones"


class CredentialsProvider(Protocol):
    """
    Gives the keys to sign with. Tasks, threads and event loops share one.

    Raises `CredentialsError`, or `ConnectionFailedError` where the system has no thread to ask in.
    """

    async def get(self) -> Credentials:
        """
        Give keys that are good now. Costs nothing while those in memory are.

        The same object comes back until there are new keys.
        """
        ...

    async def refresh(self, stale: Credentials) -> Credentials:
        """
        Give other keys than *stale*, which AWS has just called expired.

        Raises:
            CredentialsError: There are no others.
        """
        ...


def credentials_provider(
    credentials: CredentialsSource | None = None,
    *,
    profile: str | None = None,
    session: object | None = None,
    region: str | None = None,
) -> CredentialsProvider:
    """
    Make the provider for what the caller gave.

    Args:
        credentials: Keys, or a function that fetches them. A plain function runs in a worker thread; an async one may
            be called by several tasks at once. It is called again 5 minutes before ``expires_at``, and when AWS says
            that the keys have expired.
        profile: A profile of the AWS files. Keys in the environment do not count then, as in botocore.
        session: A botocore or boto3 session to ask.
        region: For the services that a profile needs (STS, SSO), where neither it nor the environment says a region.

    Raises:
        SettingError: Both a profile and a session.
        TypeError: *credentials* or *session* is something else.
    """
    refuse_both(profile, session)
    if isinstance(credentials, Credentials):
        return FixedCredentials(credentials)
    if callable(credentials):
        return CallableCredentials(credentials)
    if credentials is not None:
        raise TypeError(f"credentials must be Credentials or a function, not {type(credentials).__name__}")
    given = None if session is None else unwrap_session(session)
    return AwsCredentials(profile=profile, session=given, region=region)


@attrs.define(eq=False)
class _Held:
    """
    Keys in memory.

    Args:
        credentials: The keys.
        look_at: ``time.monotonic()`` from which to look whether they still last.
        lasts: Whether they last that many seconds more; ``None`` stands for the source's own margin.
        source: botocore's object behind them.
    """

    credentials: Credentials
    look_at: float = _NEVER
    lasts: Callable[[float | None], bool] = attrs.field(default=lambda _: True, repr=False)
    source: Any = attrs.field(default=None, repr=False)


class FixedCredentials:
    """Keys as given. They cannot be refreshed."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials:
        """Give the keys."""
        return self._credentials

    async def refresh(self, stale: Credentials) -> Credentials:
        """Say that there are no others."""
        if stale != self._credentials:
            return self._credentials
        raise CredentialsError(
            "The credentials have expired, and they were given as fixed keys",
            remedy="Give a function that fetches keys, a profile or a session instead, or a new sender with new keys",
        )


class _Kept:
    """What callables and AWS's own sources share: keys in memory, watched once a second."""

    def __init__(self) -> None:
        self._held: _Held | None = None

    async def get(self) -> Credentials:
        """Give keys that are good now, mostly from memory."""
        held = self._held
        if held is not None and time.monotonic() < held.look_at:
            return held.credentials
        return await self._look(held)

    async def _look(self, held: _Held | None) -> Credentials:
        if held is None:
            return await self._fetch(None)
        if not held.lasts(_URGENT):
            return await self._fetch(held)
        # Whoever comes within this second goes on with the old keys and does not ask as well.
        held.look_at = time.monotonic() + _LOOK_EVERY
        if held.lasts(None):
            return held.credentials
        try:
            return await self._fetch(held)
        except (CredentialsError, ConnectionFailedError):
            return held.credentials  # They are still good; the next look tries again.

    async def refresh(self, stale: Credentials) -> Credentials:
        """Give other keys than *stale*."""
        held = self._held
        if held is not None and held.credentials != stale:
            return held.credentials
        fresh = await self._fetch(held, force=True)
        if fresh == stale:
            raise CredentialsError(_NO_NEWER, remedy=_HOW_TO_GIVE)
        return fresh

    async def _fetch(self, held: _Held | None, *, force: bool = False) -> Credentials:
        raise NotImplementedError  # pragma: no cover - the two below do it.

    def _keep(self, held: _Held) -> Credentials:
        old = self._held
        if old is not None and old.credentials == held.credentials:
            held.credentials = old.credentials  # The same object: a signer knows its keys by identity.
        self._held = held
        return held.credentials


class CallableCredentials(_Kept):
    """Keys from a function of the caller's, kept until they near their end or AWS calls them expired."""

    def __init__(self, function: Callable[[], Credentials | Awaitable[Credentials]]) -> None:
        super().__init__()
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__.
        )
        self._one_at_a_time = _ThreadLock()

    async def _fetch(self, held: _Held | None, *, force: bool = False) -> Credentials:
        del force  # A function is always asked anew.
        try:
            if self._is_async:
                found: object = self._function()
            else:
                (found,) = await in_thread(functools.partial(self._call, held))
            if inspect.isawaitable(found):
                found = await found
        except (CredentialsError, ConnectionFailedError):
            raise
        except Exception as error:  # noqa: BLE001 - the caller's function may raise anything, with any text.
            raise _failed("The function that fetches the credentials failed", error) from None
        return self._take(found)

    def _call(self, held: _Held | None) -> tuple[object]:
        """Ask in a worker thread. The tuple brings a coroutine home, which trio would take for a mistake."""
        with self._one_at_a_time.held():
            newer = self._held
            if newer is not None and newer is not held:
                return (newer.credentials,)
            found = self._function()
            # Kept inside the lock, so that whoever waits for it finds them.
            return (self._take(found) if isinstance(found, Credentials) else found,)

    def _take(self, found: object) -> Credentials:
        if not isinstance(found, Credentials):
            raise CredentialsError(
                f"The function that fetches the credentials gave {type(found).__name__} instead of Credentials",
                remedy="Let it return Credentials(access_key, secret_key, token)",
            )
        held = self._held
        if held is not None and held.credentials is found:
            return found
        if found.expires_at is None:
            return self._keep(_Held(found))
        return self._keep(_Held(found, 0.0, functools.partial(_lasts_until, found.expires_at)))


def _lasts_until(expires_at: float, seconds: float | None) -> bool:
    return expires_at - time.time() > (_AHEAD if seconds is None else seconds)


class AwsCredentials(_Kept):
    """Keys as the AWS SDK for Python finds them: the environment first, which needs no botocore, then its chain."""

    def __init__(
        self, *, profile: str | None = None, session: AwsSession | None = None, region: str | None = None
    ) -> None:
        super().__init__()
        self._profile = profile
        self._given = session
        self._region = region
        self._own: AwsSession | None = None
        self._one_at_a_time = _ThreadLock()
        self._pid = os.getpid()
        self._hopeless: tuple[Credentials, float] | None = None

    async def _fetch(self, held: _Held | None, *, force: bool = False) -> Credentials:
        if self._given is None and self._profile is None:
            found = environment_credentials(os.environ)
            if found is not None:
                return self._keep(_Held(found))
        return await in_thread(functools.partial(self._ask, held, force))

    def _ask(self, held: _Held | None, force: bool) -> Credentials:  # noqa: FBT001 - run_sync passes by position.
        with self._one_at_a_time.held():
            self._leave_the_parents_session(held)
            newer = self._held
            if newer is not None and newer is not held:
                return newer.credentials
            if not force:
                return self._keep(self._read(held))
            return self._read_anew(held)

    def _leave_the_parents_session(self, held: _Held | None) -> None:
        """In a forked child, open a new session: the old one's locks may be held by threads that are not here."""
        if self._pid != os.getpid():
            self._pid, self._own = os.getpid(), None
            if held is not None and self._given is None:
                held.source = None

    def _read_anew(self, held: _Held | None) -> Credentials:
        """Get past what botocore has in memory; after that was in vain, not again within a second."""
        now = time.monotonic()
        stale = None if held is None else held.credentials
        if stale is not None and self._hopeless is not None and self._hopeless[0] == stale and now < self._hopeless[1]:
            return stale
        self._own = None
        fresh = self._read(held, force=True)
        if stale is not None and fresh.credentials == stale:
            self._hopeless = (stale, now + _LOOK_EVERY)
        return self._keep(fresh)

    def _read(self, held: _Held | None, *, force: bool = False) -> _Held:
        try:
            source = self._source(None if held is None or force else held.source)
            if force and self._given is not None:
                _force(source)
            return _freeze(source)
        except CredentialsError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, its HTTP client and its files: anything.
            raise _botocore_failed(error, self._profile) from None

    def _source(self, known: Any) -> Any:  # noqa: ANN401 - botocore ships no types.
        """Find botocore's object that holds and refreshes the keys."""
        if known is not None:
            return known
        if self._given is not None:
            return self._given.get_credentials()
        if self._own is None:
            self._own = open_session(self._profile)
            if self._region is not None and self._own.get_config_variable("region") is None:
                self._own.set_config_variable("region", self._region)
        return self._own.get_credentials()


def _freeze(source: Any) -> _Held:  # noqa: ANN401 - botocore ships no types.
    """Take the keys that botocore's object has now; it refreshes them first when it thinks it is time."""
    if source is None:
        raise CredentialsError("There are no AWS credentials", code="NoCredentials", remedy=_HOW_TO_GIVE)
    frozen = source.get_frozen_credentials()
    found = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
    if not hasattr(source, "refresh_needed"):
        return _Held(found, source=source)
    return _Held(found, 0.0, functools.partial(_lasts, source), source)


def _lasts(source: Any, seconds: float | None) -> bool:  # noqa: ANN401 - botocore ships no types.
    return not source.refresh_needed(seconds)


def _force(source: Any) -> None:  # noqa: ANN401 - as above.
    """
    Make a given session's keys new although they look good.

    botocore has no public way. Sessions of our own are opened anew instead, which also rereads the files.
    """
    refresh = getattr(source, "_protected_refresh", None)
    if refresh is not None:
        with getattr(source, "_refresh_lock", contextlib.nullcontext()):
            refresh(is_mandatory=True)


class _ThreadLock:
    """A lock for worker threads. A forked child gets a new one: nobody there would ever open the parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def held(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
        return self._lock


def environment_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """
    Read keys from the environment by botocore's names and order.

    Raises:
        CredentialsError: There is a key without its secret.
    """
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    if not access_key:
        return None
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if not secret_key:
        raise CredentialsError(
            "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not",
            code="PartialCredentials",
            remedy="Set both, or neither to use a profile or a role",
        )
    # The first name is what very old tools set; botocore still asks it first.
    token = environ.get("AWS_SECURITY_TOKEN") or environ.get("AWS_SESSION_TOKEN")
    return Credentials(access_key, secret_key, token)


def _failed(what: str, error: Exception, remedy: str | None = None, *, retryable: bool = False) -> CredentialsError:
    """Tell of *error* by its type alone: its text may hold account ids, role names or keys."""
    name = type(error).__name__
    return CredentialsError(f"{what} ({name})", code=name, remedy=remedy, cause_type=name, retryable=retryable)


def _botocore_failed(error: Exception, profile: str | None) -> CredentialsError:
    from botocore.exceptions import ConnectionError as Unreachable, HTTPClientError

    name = type(error).__name__
    if name == "ProfileNotFound":
        named = shown_profile(profile or os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE") or "")
        return _failed(f"There is no AWS profile {named}", error, "Name one of `aws configure list-profiles`")
    if "SSO" in name:
        return _failed("The sign-on session has ended", error, "Run `aws sso login` for this profile")
    if isinstance(error, (Unreachable, HTTPClientError)):
        what = "The service that gives the credentials could not be reached"
        return _failed(what, error, "Check the network and the role's or profile's settings", retryable=True)
    return _failed("The AWS credentials could not be loaded", error, _HOW_TO_GIVE)
