"""
Signature Version 4, and the head of a signed HTTP/1.1 request.

A signature is ``HMAC(day key, algorithm, time, scope, SHA256(canonical request))``, and of all that only the hash of
the body changes from one message of a second to the next. So whatever comes before it is hashed once, and its hash
state is copied for each request: the HMAC after time and scope (once a second), the canonical request up to the body's
hash (once a second and target). What is left for a message is the SHA-256 of its body and three short updates.

What a second shares is one object that is replaced as a whole: threads with one `Signer` see the old one or the new.

Source: AWS IAM User Guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import attrs

from ._endpoints import check_region
from .exceptions import CredentialsError, SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from hashlib import _Hash as Hash

__all__ = ["Credentials", "Signer", "request_target"]

_SERVICE: Final = "ses"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_BLOCK: Final = 64  # Bytes of a SHA-256 block: the key of an HMAC is filled up to it (RFC 2104).
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_UNRESERVED: Final = "-._~"  # Beside letters and digits; RFC 3986 section 2.3.

# What may stand in a header value without ending it, in a request target, and in a Host header.
_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
_TARGET = re.compile(r"/[A-Za-z0-9\-._~%!$&'()*+,;=:@/]*(\?[A-Za-z0-9\-._~%!$'()*+,;=:@/&]*)?\Z")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\Z")
_USER_AGENT = re.compile(r"[\x20-\x7e]+\Z")

# With these, a request without a body says so (RFC 9110 section 8.6).
_MEANT_FOR_CONTENT: Final = frozenset({"POST", "PUT", "PATCH"})


def _check_key(_: Credentials, attribute: attrs.Attribute[Any], value: str) -> None:
    """Refuse what cannot be a key and would break a header, without a word of the value."""
    if not isinstance(value, str):
        raise TypeError(f"Credentials: {attribute.name} must be text, not {type(value).__name__}")
    if not _VISIBLE.match(value):
        raise CredentialsError(
            f"The {attribute.name.replace('_', ' ')} is empty, or has a space, a line end or a letter that no key has",
            remedy="Look at how it was copied: a line end behind it is the usual cause",
        )


def _check_token(owner: Credentials, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None:
        _check_key(owner, attribute, value)


def _none_if_empty(value: str | None) -> str | None:
    """Shells say "none" with an empty AWS_SESSION_TOKEN."""
    return value or None


def _seconds(value: dt.datetime | float | None) -> float | None:
    return value.timestamp() if isinstance(value, dt.datetime) else value


@attrs.frozen(repr=False)
class Credentials:
    """
    AWS access keys. Neither ``str`` nor ``repr`` shows anything of them.

    Args:
        access_key: ``AKIA...`` for a user, ``ASIA...`` for a session.
        secret_key: The secret that belongs to it.
        token: The session token of temporary credentials.
        expires_at: When they end, in Unix seconds or as an aware ``datetime``; ``None`` if never or not known.

    Raises:
        CredentialsError: A key is empty or holds a character that no key has (a line end, a space, a letter like é).
        TypeError: A key is not text.
    """

    access_key: str = attrs.field(validator=_check_key)
    secret_key: str = attrs.field(validator=_check_key)
    token: str | None = attrs.field(default=None, validator=_check_token, converter=_none_if_empty)
    expires_at: float | None = attrs.field(default=None, kw_only=True, converter=_seconds)

    def __repr__(self) -> str:
        return f"Credentials({'with' if self.token else 'without'} a session token)"


def request_target(path: str, *segments: str, query: Mapping[str, str] | None = None) -> str:
    """
    Write a path and query as they go on the wire and into the signature.

    Args:
        path: The constant part, already in its wire form: ``/v2/email/identities``.
        segments: Further path segments, encoded here: an address, an identity.
        query: Query parameters, encoded and sorted here.

    Raises:
        ValueError: A segment is empty, ``.`` or ``..``, which servers fold away and would then sign differently.
    """
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise ValueError("a path segment must be neither empty nor made of dots")
    target = "/".join((path, *(quote(segment, safe=_UNRESERVED) for segment in segments)))
    if not query:
        return target
    pairs = sorted((quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in query.items())
    return target + "?" + "&".join(f"{name}={value}" for name, value in pairs)


@attrs.frozen
class _Target:
    """One target within a second: the canonical request up to the body's hash, and the head around the signature."""

    canonical: Hash
    before_length: bytes
    after_length: bytes
    has_length: bool


@attrs.frozen
class _Second:
    """Everything that is the same for all requests of one second with the same credentials."""

    unix_second: int
    credentials: Credentials
    amz_date: str
    scope: str
    inner: Hash
    outer: Hash
    # Filled in by whoever needs a target first; a second writer puts the same thing there.
    targets: dict[tuple[str, str, bool], _Target] = attrs.field(factory=dict)


@attrs.frozen
class _DayKey:
    """The key of one day, which outlives its seconds."""

    date: str
    credentials: Credentials
    key: bytes


def _derive_key(secret_key: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, _SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical_query(query: str) -> str:
    return "&".join("=".join(pair) for pair in sorted(_pair(part) for part in query.split("&"))) if query else ""


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _is_target(target: str) -> bool:
    """Whether it is a path (and query) that nobody between here and the service folds into another one."""
    path = target.partition("?")[0]
    return bool(_TARGET.match(target)) and "//" not in path and {".", ".."}.isdisjoint(path.split("/"))


class Signer:
    """
    Writes signed request heads for one host. Threads may share it.

    Args:
        region: The region in the signature; with an endpoint of your own, the region it stands for.
        host: The Host header: a name or address, with ``:port`` unless it is the scheme's own.
        base_path: What an endpoint of your own puts before every path, without a slash at its end.
        user_agent: The User-Agent header.

    Raises:
        SettingError: One of them cannot stand in a request head.
    """

    def __init__(self, region: str, host: str, *, base_path: str = "", user_agent: str = "tanksend") -> None:
        self.region = check_region(region)
        if not _HOST.match(host) or not _is_target(base_path + "/") or not _USER_AGENT.match(user_agent):
            raise SettingError("The host, its base path or the user agent has characters that no request head has.")
        # Servers compare signatures over the lower-case name.
        self.host = host.lower()
        self._base_path = base_path
        self._constant = f"Host: {self.host}\r\nUser-Agent: {user_agent}\r\nAccept-Encoding: identity\r\n"
        self._second: _Second | None = None
        self._day: _DayKey | None = None

    def head(self, credentials: Credentials, method: str, target: str, body: bytes, unix_time: float) -> bytes:
        """
        Write everything before *body*: request line, headers with the signature, and the empty line.

        Args:
            credentials: Sign with these.
            method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
            target: Path and query in wire form, as `request_target` writes them.
            body: The JSON that follows the head; empty for none.
            unix_time: Now, in seconds. SES refuses a signature more than five minutes off.

        Raises:
            ValueError: *method* or *target* is not in wire form.
        """
        second = self._second
        unix_second = int(unix_time)
        if second is None or second.unix_second != unix_second or second.credentials is not credentials:
            second = self._begin_second(credentials, unix_second)
        prepared = second.targets.get((method, target, not body)) or self._prepare(second, method, target, body)
        canonical = prepared.canonical.copy()
        canonical.update(hashlib.sha256(body).hexdigest().encode())
        inner = second.inner.copy()
        inner.update(canonical.hexdigest().encode())
        outer = second.outer.copy()
        outer.update(inner.digest())
        length = b"%d" % len(body) if prepared.has_length else b""
        return b"".join(
            (prepared.before_length, length, prepared.after_length, outer.hexdigest().encode(), b"\r\n\r\n")
        )

    def _begin_second(self, credentials: Credentials, unix_second: int) -> _Second:
        amz_date = dt.datetime.fromtimestamp(unix_second, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{amz_date[:8]}/{self.region}/{_SERVICE}/aws4_request"
        key = self._key_of_day(credentials, amz_date[:8]).ljust(_BLOCK, b"\0")
        inner = hashlib.sha256(key.translate(_INNER))
        inner.update(f"{_ALGORITHM}\n{amz_date}\n{scope}\n".encode())
        outer = hashlib.sha256(key.translate(_OUTER))
        self._second = second = _Second(unix_second, credentials, amz_date, scope, inner, outer)
        return second

    def _key_of_day(self, credentials: Credentials, date: str) -> bytes:
        day = self._day
        if day is None or day.date != date or day.credentials is not credentials:
            key = _derive_key(credentials.secret_key, date, self.region)
            self._day = day = _DayKey(date, credentials, key)
        return day.key

    def _prepare(self, second: _Second, method: str, target: str, body: bytes) -> _Target:
        if not (method.isascii() and method.isalpha() and method.isupper()):
            raise ValueError("an HTTP method must be upper-case letters")
        if not _is_target(target):
            # No word of the value: a suppression list's paths carry addresses.
            raise ValueError("a request target must be an absolute, percent-encoded path without dot segments")
        target_on_wire = self._base_path + target
        signed = self._signed_headers(second, has_body=bool(body))
        names = ";".join(signed)
        has_length = bool(body) or method in _MEANT_FOR_CONTENT
        prepared = _Target(
            canonical=_canonical_start(method, target_on_wire, signed, names),
            before_length=self._before_length(method, target_on_wire, signed, has_length=has_length),
            after_length=_after_length(second, names, has_length=has_length),
            has_length=has_length,
        )
        second.targets[method, target, not body] = prepared
        return prepared

    def _signed_headers(self, second: _Second, *, has_body: bool) -> dict[str, str]:
        """Name the headers under the signature, in the order of their names."""
        headers = {"content-type": "application/json"} if has_body else {}
        headers["host"] = self.host
        headers["x-amz-date"] = second.amz_date
        if second.credentials.token:
            headers["x-amz-security-token"] = second.credentials.token
        return headers

    def _before_length(self, method: str, target: str, signed: Mapping[str, str], *, has_length: bool) -> bytes:
        lines = [f"{method} {target} HTTP/1.1\r\n", self._constant]
        lines += [f"{name.title()}: {value}\r\n" for name, value in signed.items() if name != "host"]
        if has_length:
            lines.append("Content-Length: ")
        return "".join(lines).encode()


def _canonical_start(method: str, target: str, signed: Mapping[str, str], names: str) -> Hash:
    path, _, query = target.partition("?")
    # All services but S3 sign the path encoded once more than it is on the wire.
    lines = [method, quote(path, safe="/" + _UNRESERVED), _canonical_query(query)]
    lines += [f"{name}:{value}" for name, value in signed.items()]
    lines += ["", names, ""]
    return hashlib.sha256("\n".join(lines).encode())


def _after_length(second: _Second, names: str, *, has_length: bool) -> bytes:
    authorization = (
        f"Authorization: {_ALGORITHM} Credential={second.credentials.access_key}/{second.scope}, "
        f"SignedHeaders={names}, Signature="
    )
    return ("\r\n" * has_length + authorization).encode()
