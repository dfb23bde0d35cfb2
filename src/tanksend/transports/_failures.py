"""
What a failed connection means for the message on it, and in words.

Two kinds, and the difference is everything: either the request was certainly not handed over as a whole, then nobody
can have acted on it (`ConnectionFailedError`, safe to repeat); or it may have been (`OutcomeUnknownError`). Texts of
the operating system and of TLS are not repeated, they may hold addresses of this network; their types are kept.
"""

from __future__ import annotations

import errno

from ..exceptions import ConnectionFailedError, OutcomeUnknownError, Scope

__all__ = ["LinkError", "broken_off", "in_words", "no_connection", "outcome_unknown"]

CLOSED = "the connection was closed"
_RESET = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
_TRUST = "Set AWS_CA_BUNDLE to the certificates of whoever signed it: mostly that is a proxy that looks into TLS"
_PROXY_REFUSAL = "Look at the proxy's URL (HTTPS_PROXY): its user name, its password, whether it lets this host through"


class LinkError(Exception):
    """
    The connection is over.

    Args:
        reason: Why, in words.
        cause: The exception behind it.
        remedy: What to do about it. Given, the same would happen to every other message.
    """

    def __init__(self, reason: str, cause: BaseException | None = None, *, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause_type = type(cause).__name__ if cause is not None else None
        self.remedy = remedy


def in_words(error: BaseException | None) -> LinkError:
    """Say what *error*, or an end of the connection without one, means."""
    if isinstance(error, LinkError):
        return error
    name = type(error).__name__
    if error is None:
        return LinkError(CLOSED)
    if isinstance(error, _RESET):
        return LinkError("the connection was reset", error)
    if isinstance(error, ConnectionRefusedError):
        return LinkError("the connection was refused", error)
    if name == "gaierror":
        return LinkError("the name could not be resolved", error)
    if name == "SSLCertVerificationError":
        why = getattr(error, "verify_message", "") or "it could not be verified"
        return LinkError(f"its certificate is not trusted ({why})", error, remedy=_TRUST)
    if name.startswith("SSL"):
        return LinkError(f"TLS failed ({getattr(error, 'reason', None) or name})", error)
    number = getattr(error, "errno", None)
    return LinkError(f"the network failed ({errno.errorcode.get(number, name) if number else name})", error)


def refused_by_proxy(status: int) -> LinkError:
    """Say that the proxy did not open the tunnel; 4xx is about us, 5xx about its way onwards."""
    remedy = _PROXY_REFUSAL if 400 <= status < 500 else None
    return LinkError(f"it refused the tunnel with status {status}", remedy=remedy)


def no_connection(to: str, error: BaseException) -> ConnectionFailedError:
    """Make the error for a connection to *to* that did not come about."""
    found = in_words(error)
    text = f"No connection to {to}: {found.reason}"
    if found.remedy is None:
        return ConnectionFailedError(text, cause_type=found.cause_type)
    # Nothing about it gets better by the next message.
    return ConnectionFailedError(
        text, cause_type=found.cause_type, remedy=found.remedy, retryable=False, scope=Scope.ACCOUNT
    )


def no_connection_within(to: str, seconds: float) -> ConnectionFailedError:
    """Make the error for a connection to *to* that took too long."""
    return ConnectionFailedError(f"No connection to {to} within {seconds:g} s", cause_type="TimeoutError")


def broken_off(error: BaseException | None) -> ConnectionFailedError:
    """Make the error for a connection that was lost while some of the request was still here."""
    found = in_words(error)
    text = f"The request could not be handed over: {found.reason}"
    return ConnectionFailedError(text, cause_type=found.cause_type)


def outcome_unknown(error: BaseException | None) -> OutcomeUnknownError:
    """Make the error for a connection that was lost when the whole request had been handed over."""
    found = in_words(error)
    text = f"The request was sent and nothing tells whether SES took the message: {found.reason}"
    return OutcomeUnknownError(text, cause_type=found.cause_type)


def no_answer(seconds: float) -> LinkError:
    """Say that the time limit for an answer, or for taking the request, is over."""
    return LinkError(f"nothing came within {seconds:g} s", TimeoutError())
