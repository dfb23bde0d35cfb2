"""
Signature Version 4, from the receiver's side.

Recomputed from the request as it arrived, following AWS's description step by step. It shares nothing with this
package's signer on purpose: what one of them gets wrong, the other one shows.

Source: AWS IAM User Guide, "Create a signed AWS API request" and "Troubleshoot signed requests".
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import attrs

from ._answers import Refusal

if TYPE_CHECKING:
    from ._answers import Request

_ALGORITHM = "AWS4-HMAC-SHA256"
_SKEW = 300
_STAMP = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION = re.compile(
    _ALGORITHM + r"\s+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]{64})\s*"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided."
    " Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_INVALID_TOKEN = "The security token included in the request is invalid."  # noqa: S105


@attrs.define(repr=False)
class Credential:
    """
    What the simulated AWS knows of one access key.

    Args:
        secret: The secret key.
        token: The session token that must come with it, None for a long-term key.
        expires_at: Unix time in seconds from which it is refused as expired, None for never.
    """

    secret: str
    token: str | None = attrs.field(default=None, kw_only=True)
    expires_at: float | None = attrs.field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return f"<Credential {'temporary' if self.token else 'long-term'}>"


@attrs.frozen
class _Claim:
    access_key: str
    day: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str


class SignatureCheck:
    """
    Verifies requests against a table of credentials.

    Args:
        credentials: By access key; may change at any time.
        region: The only region whose signatures count.
        code: What SES calls a mismatch; `SignatureDoesNotMatch` has been seen too.
    """

    def __init__(self, credentials: dict[str, Credential], region: str, *, code: str) -> None:
        self._credentials = credentials
        self._region = region
        self._code = code
        self._keys: dict[tuple[str, str, str], bytes] = {}

    def verify(self, request: Request) -> None:
        """
        Raise unless the request is signed by a known, living key within five minutes of now.

        Raises:
            Refusal: With AWS's code and text.
        """
        claim = _claim(request)
        credential = self._credential(claim, request)
        self._check_scope(claim)
        stamp = request.headers.get("x-amz-date", "")
        _check_signed(claim, request, self._code)
        expected = self._signature(claim, credential, request, stamp)
        if not hmac.compare_digest(expected, claim.signature):
            raise Refusal(self._code, _MISMATCH)
        self._check_time(claim, stamp, request.wall)

    def _credential(self, claim: _Claim, request: Request) -> Credential:
        credential = self._credentials.get(claim.access_key)
        token = request.headers.get("x-amz-security-token")
        if credential is None or token != credential.token:
            raise Refusal("UnrecognizedClientException", _INVALID_TOKEN)
        if credential.expires_at is not None and request.wall >= credential.expires_at:
            raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
        return credential

    def _check_scope(self, claim: _Claim) -> None:
        if claim.region != self._region:
            raise Refusal(self._code, f"Credential should be scoped to a valid region, not '{claim.region}'.")
        if claim.service != "ses":
            raise Refusal(self._code, "Credential should be scoped to correct service: 'ses'.")

    def _signature(self, claim: _Claim, credential: Credential, request: Request, stamp: str) -> str:
        hashed = hashlib.sha256(_canonical(claim, request).encode()).hexdigest()
        scope = f"{claim.day}/{claim.region}/{claim.service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashed}"
        return _hmac(self._key(claim, credential.secret), text).hex()

    def _key(self, claim: _Claim, secret: str) -> bytes:
        name = (secret, claim.day, claim.region)
        key = self._keys.get(name)
        if key is None:
            key = f"AWS4{secret}".encode()
            for part in (claim.day, claim.region, claim.service, "aws4_request"):
                key = _hmac(key, part)
            self._keys[name] = key
        return key

    def _check_time(self, claim: _Claim, stamp: str, wall: float) -> None:
        try:
            signed_at = calendar.timegm(time.strptime(stamp, _STAMP))
        except ValueError:
            text = f"Date must be in ISO-8601 'basic format'. Got '{stamp}'."
            raise Refusal("IncompleteSignatureException", text) from None
        if not stamp.startswith(claim.day):
            raise Refusal(self._code, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date")
        now = _stamp(wall)
        if signed_at < wall - _SKEW:
            limit = f"{_stamp(wall - _SKEW)} ({now} - 5 min.)"
            raise Refusal(self._code, f"Signature expired: {stamp} is now earlier than {limit}")
        if signed_at > wall + _SKEW:
            limit = f"{_stamp(wall + _SKEW)} ({now} + 5 min.)"
            raise Refusal(self._code, f"Signature not yet current: {stamp} is still later than {limit}")


def _stamp(wall: float) -> str:
    return time.strftime(_STAMP, time.gmtime(wall))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _claim(request: Request) -> _Claim:
    """What the Authorization header says."""
    header = request.headers.get("authorization")
    if header is None:
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(header)
    scope = match[1].rsplit("/", 4) if match else []
    if match is None or len(scope) != 5 or scope[4] != "aws4_request":
        raise Refusal("IncompleteSignatureException", "The request signature does not conform to AWS standards.")
    key, day, region, service, _ = scope
    return _Claim(key, day, region, service, tuple(match[2].split(";")), match[3])


def _check_signed(claim: _Claim, request: Request, code: str) -> None:
    """The host and everything AWS-specific must be under the signature."""
    needed = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
    for name in sorted(needed - set(claim.signed)):
        raise Refusal(code, f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in claim.signed:
        if name not in request.headers:
            raise Refusal(code, _MISMATCH)


def _canonical(claim: _Claim, request: Request) -> str:
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in claim.signed)
    return "\n".join(
        (
            request.method,
            quote(request.path, safe="/-_.~"),  # A second encoding: every service but S3.
            _canonical_query(request.query),
            headers,
            ";".join(claim.signed),
            hashlib.sha256(request.body).hexdigest(),
        )
    )


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    encoded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-_.~")
