"""The templates that are stored in SES."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from .._classify import parse_v2_error
from .._clock import SystemClock
from .._messages import Template, TemplateData
from .._payload import TEMPLATES_PATH, parse_template, template_content
from ..exceptions import (
    AccessDeniedError,
    ConnectionFailedError,
    CredentialsError,
    InvalidMessageError,
    OutcomeUnknownError,
    ThrottlingError,
)
from ..limiters import TokenBucketLimiter
from ..typing import Demand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .._http1 import Answer
    from ..typing import Clock

_OK: Final = 200
_CALLS_PER_SECOND: Final = 1.0  # SES API v2, each operation's page
_READS_PER_SECOND: Final = 50.0  # SES API v2, "GetEmailTemplate"
_ATTEMPTS: Final = 5
_PER_PAGE: Final = "100"  # SES API v2, "ListEmailTemplates": at most


class ControlPlane(Protocol):
    """What can call any operation of SES's API; `SESTransport` is one."""

    async def request(
        self, method: str, path: str, *segments: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Make one call; see `SESTransport.request`."""
        ...


class HasTransport(Protocol):
    """Something that sends through a transport; `Sender` is one."""

    @property
    def transport(self) -> object:
        """Its way out."""
        ...


@attrs.frozen
class TemplateInfo:
    """
    One line of the list of stored templates.

    Attributes:
        name: Its name.
        created_at: Unix time in seconds, or None where SES does not say.
    """

    name: str
    created_at: float | None = None


class Templates:
    """
    Create, read, change, delete, list and try out the templates that are stored in SES.

    SES allows one such call a second, and 50 reads: calls wait for their turn, and are made again when SES throttles
    them all the same, because somebody else is calling too.

    Args:
        source: An `SESTransport`, or a `Sender` that has one.
        clock: Where time comes from.

    Raises:
        TypeError: *source* has no way to call SES's API.

    Source: Amazon SES API v2 reference, "CreateEmailTemplate" and its neighbours.
    """

    def __init__(self, source: ControlPlane | HasTransport, *, clock: Clock | None = None) -> None:
        transport: Any = getattr(source, "transport", source)
        if not hasattr(transport, "request"):
            raise TypeError(f"templates need an SESTransport, not {type(transport).__name__}")
        self._transport: ControlPlane = transport
        self._clock = clock or SystemClock()
        self._pace = TokenBucketLimiter(_CALLS_PER_SECOND, clock=self._clock)
        self._pace_of_reads = TokenBucketLimiter(_READS_PER_SECOND, clock=self._clock)

    async def create(self, name: str, template: Template) -> None:
        """
        Store *template*, which is an inline one, under *name*.

        Raises:
            InvalidMessageError: SES would refuse the name or the content; `problems` says where.
            InvalidParameterError: There is one of that name already.
            SendError: SES could not be asked, or said no.
        """
        _check(name, template)
        body = b'{"TemplateName":"%b","TemplateContent":%b}' % (name.encode(), template_content(template))
        await self._call("CreateEmailTemplate", "POST", body=body)
        self._forget(name)

    async def get(self, name: str) -> Template:
        """
        The content stored under *name*, as an inline template.

        Raises:
            ConfigurationError: There is none.
            SendError: SES could not be asked, or said no.
        """
        _check(name)
        answer = await self._call("GetEmailTemplate", "GET", name, pace=self._pace_of_reads)
        template = parse_template(answer.body)
        if template is None:
            raise _unreadable(answer)
        return template

    async def update(self, name: str, template: Template) -> None:
        """
        Replace what is stored under *name* by *template*, which is an inline one.

        Raises:
            InvalidMessageError: SES would refuse the name or the content; `problems` says where.
            ConfigurationError: There is none to replace.
            SendError: SES could not be asked, or said no.
        """
        _check(name, template)
        body = b'{"TemplateContent":%b}' % template_content(template)
        await self._call("UpdateEmailTemplate", "PUT", name, body=body)
        self._forget(name)

    async def delete(self, name: str) -> None:
        """
        Delete what is stored under *name*.

        Raises:
            ConfigurationError: There is none. Some regions of SES say nothing then.
            SendError: SES could not be asked, or said no.
        """
        _check(name)
        await self._call("DeleteEmailTemplate", "DELETE", name)
        self._forget(name)

    async def list(self) -> AsyncIterator[TemplateInfo]:
        """
        All that are stored, in SES's order; a hundred are fetched at a time, while they are read.

        Raises:
            SendError: SES could not be asked, or said no.
        """
        token: str | None = None
        while True:
            query = {"PageSize": _PER_PAGE} | ({"NextToken": token} if token else {})
            answer = await self._call("ListEmailTemplates", "GET", query=query)
            page = _object(answer)
            entries = page.get("TemplatesMetadata", [])
            if not isinstance(entries, list):
                raise _unreadable(answer)
            for entry in entries:
                yield _info(answer, entry)
            token = page.get("NextToken")
            if not token:
                return

    async def render(self, name: str, data: Mapping[str, Any]) -> str:
        """
        The mail that SES would make of the template and *data*, as MIME. Nothing is sent.

        Raises:
            InvalidMessageError: JSON cannot carry *data*.
            RenderingError: *data* lacks a variable; `field` says which.
            ConfigurationError: There is no such template.
            SendError: SES could not be asked, or said no.
        """
        _check(name)
        body = json.dumps({"TemplateData": TemplateData(data).encoded}).encode()
        answer = await self._call("TestRenderEmailTemplate", "POST", name, "render", body=body)
        rendered = _object(answer).get("RenderedTemplate")
        if not isinstance(rendered, str):
            raise _unreadable(answer)
        return rendered

    async def _call(
        self,
        operation: str,
        method: str,
        *segments: str,
        pace: TokenBucketLimiter | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        attempts = 0
        while True:
            slot = await (pace or self._pace).reserve(Demand(1))
            await self._clock.sleep(slot.delay)
            answer = await self._transport.request(method, TEMPLATES_PATH, *segments, query=query, body=body)
            attempts += 1
            if answer.status == _OK:
                return answer
            error = parse_v2_error(answer.status, answer.headers, answer.body)
            if not isinstance(error, ThrottlingError) or attempts == _ATTEMPTS:
                break
            await self._clock.sleep(attempts / _CALLS_PER_SECOND)
        error.attempts = attempts
        if isinstance(error, OutcomeUnknownError):
            raise _unreadable(answer)
        if isinstance(error, AccessDeniedError) and not isinstance(error, CredentialsError):
            error.remedy = f"Allow the action ses:{operation} in the IAM policy of these credentials"
        raise error

    def _forget(self, name: str) -> None:
        """What the transport knows of the template is of yesterday."""
        forget = getattr(self._transport, "forget_template", None)
        if forget is not None:
            forget(name)


def _check(name: str, template: Template | None = None) -> None:
    """Refuse what SES would, without asking it."""
    problems = list(Template(name=name).check())
    if template is not None:
        if template.name is not None:
            raise ValueError("what is to be stored is a Template with subject=, text= and html=, not one with a name")
        problems += template.check_stored()
    if problems:
        raise InvalidMessageError(problems=problems)


def _object(answer: Answer) -> dict[str, Any]:
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _unreadable(answer)
    return content


def _info(answer: Answer, entry: object) -> TemplateInfo:
    name = entry.get("TemplateName") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str):
        raise _unreadable(answer)
    created = entry.get("CreatedTimestamp")
    return TemplateInfo(name, float(created) if isinstance(created, int | float) else None)


def _unreadable(answer: Answer) -> ConnectionFailedError:
    """An answer that tells nothing. No mail is at stake: it may simply be asked again."""
    return ConnectionFailedError(
        "SES gave no usable answer about its templates",
        status=answer.status,
        request_id=answer.headers.get("x-amzn-requestid"),
        remedy="Try again, and look first whether it was done all the same",
    )
