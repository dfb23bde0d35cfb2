"""
What botocore's exceptions mean for the message in the request.

As on our own wire there are two kinds of failed connections: the request was certainly not handed over, or it may have
been. botocore's classes do not tell: an ``SSLError`` may come from the handshake or from the middle of an answer, and
with an older urllib3 everything that fails behind a proxy is a ``ProxyConnectionError``. What does tell is where it
happened. `http.client` opens a connection in a method named ``connect`` before it writes the first byte of a request,
so an error that came out of that method is about a request that never began. Before that botocore reads the proxy's
URL, and what is wrong with it every other message meets as well. Whatever cannot be told is unknown.

None of their texts is repeated: they quote parameters, addresses and URLs.
"""

from __future__ import annotations

import json
import re
import traceback
from typing import TYPE_CHECKING, Any

from .._http1 import Answer
from ..exceptions import (
    ConfigurationError,
    InvalidMessageError,
    OutcomeUnknownError,
    Scope,
    SendError,
)
from ._credentials import _botocore_failed
from ._failures import LinkError, no_connection, outcome_unknown, refused_by_proxy
from ._settings import _file_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["as_answer", "needs_crt", "refusal_of", "translate", "unusable"]

_NO_REGION = "No AWS region is set"
_SET_REGION = (
    "Give region=..., or set AWS_DEFAULT_REGION, or write region = ... into the profile in ~/.aws/config. "
    "Nothing was sent"
)
_NEEDS_CRT = "Signing for a global endpoint (SigV4A) needs the AWS Common Runtime, which is not installed"
_INSTALL_CRT = "Install it: pip install 'botocore[crt]'"
# Raised before a request is made, for a reason that every other message meets as well.
_UNUSABLE = frozenset(
    "EndpointProviderError EndpointResolutionError EndpointVariantError InvalidConfigError InvalidDefaultsMode"
    " InvalidEndpointConfigurationError InvalidProxiesConfigError InvalidRegionError NoRegionError"
    " UnknownEndpointError UnknownFIPSEndpointError UnknownSignatureVersionError"
    " UnsupportedSignatureVersionError".split()
)
_NO_KEYS = frozenset(
    "CredentialRetrievalError MetadataRetrievalError NoAuthTokenError NoCredentialsError PartialCredentialsError"
    " RefreshWithMFAUnsupportedError TokenRetrievalError UnknownCredentialError".split()
)
_ABOUT_FILES = frozenset({"ConfigNotFound", "ConfigParseError", "ProfileNotFound"})
# Where `connect` opens the connection of a request. botocore's own connections inherit it.
_HTTP_MODULES = ("urllib3.", "http.client")
# Where botocore looks at the proxy's URL. Two are private: under other names, what they raise would be unknown.
_CHOOSING_A_POOL = frozenset({"proxy_url_for", "proxy_headers_for", "_get_connection_manager"})
_OTHER_NAME = "Connect under a name that the certificate has, or look whether this is the server you mean"
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})\b")
_UNKNOWN_PARAMETER = re.compile(r'Unknown parameter in [\w.\[\]]+: "([A-Za-z]{1,40})"')


def needs_crt() -> ConfigurationError:
    """Say what to install for SigV4A."""
    return ConfigurationError(
        _NEEDS_CRT, remedy=_INSTALL_CRT, scope=Scope.ACCOUNT, cause_type="MissingDependencyException"
    )


def unusable(error: Exception, profile: str | None = None) -> ConfigurationError:
    """Say that there can be no client: a setting, a file or an installation is wrong."""
    name = type(error).__name__
    if name in _ABOUT_FILES:
        text = str(_file_error(error, profile))
        return ConfigurationError(text, remedy="Nothing was sent", scope=Scope.ACCOUNT, cause_type=name)
    if name == "MissingDependencyException":
        return needs_crt()
    if name == "NoRegionError":
        return ConfigurationError(_NO_REGION, remedy=_SET_REGION, scope=Scope.ACCOUNT, cause_type=name)
    return ConfigurationError(
        f"botocore cannot work with these settings ({name})",
        remedy="Look at the arguments, the AWS_... and ..._PROXY variables, and the AWS config file. Nothing was sent",
        scope=Scope.ACCOUNT,
        cause_type=name,
    )


def as_answer(response: Mapping[str, Any]) -> Answer:
    """The answer as it came, of what botocore has made of it: status, headers and JSON."""
    metadata = response.get("ResponseMetadata") or {}
    headers = {str(key).lower(): str(value) for key, value in (metadata.get("HTTPHeaders") or {}).items()}
    if metadata.get("RequestId"):
        headers.setdefault("x-amzn-requestid", str(metadata["RequestId"]))
    refusal = response.get("Error")
    if refusal is None:
        body = {key: value for key, value in response.items() if key != "ResponseMetadata"}
    else:
        body = {"__type": refusal.get("Code"), "message": refusal.get("Message")}
    status = int(metadata.get("HTTPStatusCode") or 0)
    return Answer(status, headers, json.dumps(body, default=str).encode(), keep_alive=True)


def refusal_of(error: Exception, operation: str) -> Answer | None:
    """The answer in *error*, if it is one to *operation*: botocore also calls other services, for credentials."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict) or getattr(error, "operation_name", operation) != operation:
        return None
    return as_answer(response)


def translate(error: Exception, *, to: str) -> SendError:
    """
    Make the error of a call that raised *error* and has no answer; never raises.

    Args:
        error: What botocore raised, or anything that was called in it.
        to: The endpoint's host, for the text.
    """
    name = type(error).__name__
    if name == "ParamValidationError":
        return _bad_parameters(error)
    if name == "MissingDependencyException" or name in _UNUSABLE or _holds(error, "InvalidProxiesConfigError"):
        return unusable(error)
    of_another_service = isinstance(getattr(error, "response", None), dict)
    if of_another_service or name in _NO_KEYS or "SSO" in name or name.startswith("Login"):
        return _botocore_failed(error, None)
    return _broken(error, to)


def _bad_parameters(error: Exception) -> InvalidMessageError:
    """Say that botocore knows better. What it is too old for is no fault of the message's."""
    unknown = sorted(set(_UNKNOWN_PARAMETER.findall(str(error))))
    if unknown:
        return InvalidMessageError(
            f"The installed botocore does not know {', '.join(unknown)}",
            remedy="Install a newer botocore, or send this message through SESTransport",
            cause_type=type(error).__name__,
        )
    return InvalidMessageError("botocore refuses a parameter of the request", cause_type=type(error).__name__)


def _broken(error: Exception, to: str) -> SendError:
    cause = _cause(error)
    if _passed(error, _CHOOSING_A_POOL, "botocore.httpsession"):
        return unusable(_root(error))
    if not _before_request(error):
        return _unreadable(error) if cause is error and not _is_botocores(error) else outcome_unknown(cause)
    if _holds(error, "CertificateError"):  # urllib3's own, for a name that it looks at by itself
        wrong = LinkError("its certificate is for another name", error, remedy=_OTHER_NAME)
        return no_connection(to, wrong)
    tunnel = _TUNNEL_STATUS.search(str(cause))
    return no_connection(
        f"{to} through a proxy" if tunnel else to, refused_by_proxy(int(tunnel[1])) if tunnel else cause
    )


def _unreadable(error: Exception) -> OutcomeUnknownError:
    text = "The request was sent, and the answer that tells whether SES took the message cannot be read"
    return OutcomeUnknownError(text, cause_type=type(error).__name__)


def _before_request(error: Exception) -> bool:
    """Whether it is certain that no request was written."""
    if type(error).__name__ in {"EndpointConnectionError", "ConnectTimeoutError"}:
        return True
    return _passed(error, {"connect"}, *_HTTP_MODULES)


def _passed(error: Exception, functions: Collection[str], *modules: str) -> bool:
    """Whether *error*, or what it came from, passed through one of *functions* in one of *modules*."""
    return any(
        frame.f_code.co_name in functions and str(frame.f_globals.get("__name__")).startswith(modules)
        for each in _chain(error)
        for frame, _ in traceback.walk_tb(each.__traceback__)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and what it came from, the last being the root."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _root(error: Exception) -> Exception:
    return [each for each in _chain(error) if isinstance(each, Exception)][-1]


def _holds(error: Exception, name: str) -> bool:
    return any(type(each).__name__ == name for each in _chain(error))


def _cause(error: Exception) -> BaseException:
    """The error of the system, or of TLS, behind it; itself if there is none."""
    found = [each for each in _chain(error) if isinstance(each, OSError) and not _is_botocores(each)]
    return found[-1] if found else error


def _is_botocores(error: BaseException) -> bool:
    # Some of its classes are OSErrors through its copy of requests.
    return type(error).__module__.startswith("botocore.")
