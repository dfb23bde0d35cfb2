"""What goes in and out of the simulated account: `Request`, `Answer`, and `Refusal` with SES's codes and shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

# Everything not named here is a 400, as most of SES's refusals are. Source: SES API v2 reference, "Common Errors".
STATUS_BY_CODE = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignatureException": 403,
    "InternalFailure": 500,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "NotFoundException": 404,
    "RequestEntityTooLargeException": 413,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "TooManyRequestsException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
}


@attrs.frozen
class Request:
    """
    One request as it arrived.

    Args:
        method: As on the wire.
        path: As on the wire, still percent-encoded, without the query.
        query: What stood behind the ``?``, raw.
        headers: Names in lower case; of a repeated header, the last.
        body: All of it.
        monotonic: When it had arrived, by the simulator's clock.
        wall: The same moment as Unix time in seconds.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    monotonic: float = 0.0
    wall: float = 0.0

    @property
    def arguments(self) -> dict[str, list[str]]:
        """The query, decoded; a name may stand several times."""
        found: dict[str, list[str]] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True):
            found.setdefault(name, []).append(value)
        return found

    def __repr__(self) -> str:
        return f"<Request {self.method} {len(self.body)} bytes>"


@attrs.frozen(repr=False)
class Answer:
    """Status, headers and body to write. `error` is the code it carries, None for a success."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    error: str | None = None

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.error or 'ok'}>"


class Refusal(Exception):  # noqa: N818  (it is an answer, not a failure)
    """
    The account does not do what was asked.

    Args:
        code: SES's code.
        message: SES's text; None writes ``null``, as SES does for some.
        iam: Written by the layer before SES, whose body says ``Message`` instead of ``message``.
        status: What the entry of a SendBulkEmail request is answered with, if it is an entry that is refused.
    """

    def __init__(
        self, code: str, message: str | None = None, *, iam: bool = False, status: str = "INVALID_PARAMETER"
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.iam = iam
        self.status = status

    def answer(self, request_id: str) -> Answer:
        """The refusal as SES writes it. Source: SES API v2 reference, "Common Errors", and Smithy REST-JSON."""
        body = json.dumps({"Message" if self.iam else "message": self.message}).encode()
        return refusal_answer(self.code, body, request_id)


def refusal_answer(code: str, body: bytes, request_id: str) -> Answer:
    """An answer with *code* in its header, whatever its body."""
    headers = (
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", code),
        ("Content-Type", "application/json"),
    )
    return Answer(STATUS_BY_CODE.get(code, 400), body, headers, code)


def success(content: Mapping[str, Any], request_id: str) -> Answer:
    """A 200 with *content* as JSON."""
    headers = (("x-amzn-RequestId", request_id), ("Content-Type", "application/json"))
    return Answer(200, json.dumps(content).encode(), headers)


def bad_request(message: str | None) -> Refusal:
    """SES's code for most of what is wrong with a request."""
    return Refusal("BadRequestException", message)
