"""
Management of stored templates: create, get, update, delete, list, and render for a test.

Source: SES API v2 reference, the operations' pages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs

from ._answers import Refusal, bad_request
from ._handlebars import RenderingError
from ._paging import page_size, position, token
from ._submission import load, object_at, objects_at, text_at
from ._templates import (
    MAX_STORED_BYTES,
    MAX_TEMPLATES,
    CompiledTemplate,
    StoredTemplate,
    check_data_length,
    compiled,
    data_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._answers import Request
    from ._simulator import SimulatedAccount

TEMPLATES = "/v2/email/templates"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RENDER = "/render"
_MOST_PER_PAGE = 100

Content = dict[str, Any]


def find(request: Request) -> tuple[str, Callable[[SimulatedAccount, Request], Content]] | None:
    """The IAM action of a request about templates and what carries it out; None for a path that SES does not know."""
    rest = request.path.removeprefix(TEMPLATES)
    if not rest:
        return _LIST_ACTIONS.get(request.method)
    if not rest.startswith("/") or len(rest) == 1:
        return None
    if rest.endswith(_RENDER) and rest.count("/") == 2:
        return ("ses:TestRenderEmailTemplate", render_template) if request.method == "POST" else None
    return _TEMPLATE_ACTIONS.get(request.method) if rest.count("/") == 1 else None


def _name_in(request: Request) -> str:
    return unquote(request.path.removeprefix(f"{TEMPLATES}/").removesuffix(_RENDER))


def _parts(content: Mapping[str, Any]) -> tuple[dict[str, str], CompiledTemplate]:
    """The template of a request, as it came and as it was read."""
    given = object_at(content, "TemplateContent")
    template = compiled(given)
    if template.size > MAX_STORED_BYTES:
        raise bad_request("Template content may have 500 KB at most.")
    return {part: text_at(given, part) for part in ("Subject", "Text", "Html") if given.get(part) is not None}, template


def create_template(account: SimulatedAccount, request: Request) -> Content:
    """CreateEmailTemplate."""
    content = load(request.body)
    name = text_at(content, "TemplateName")
    if not _NAME.fullmatch(name):
        raise bad_request("TemplateName must have 1 to 64 alphanumeric ASCII characters, '_' and '-'.")
    parts, template = _parts(content)
    if name in account.templates:
        raise Refusal("AlreadyExistsException", f"Template {name} already exists.")
    if len(account.templates) >= MAX_TEMPLATES:
        text = "There are too many instances of the specified resource type."
        raise Refusal("LimitExceededException", text)
    tags = tuple(objects_at(content, "Tags"))
    account.templates.put(StoredTemplate(name, parts, template, request.wall, tags))
    return {}


def get_template(account: SimulatedAccount, request: Request) -> Content:
    """GetEmailTemplate."""
    stored = account.templates.get(_name_in(request))
    return {"TemplateName": stored.name, "TemplateContent": dict(stored.content), "Tags": list(stored.tags)}


def update_template(account: SimulatedAccount, request: Request) -> Content:
    """UpdateEmailTemplate: the whole content is replaced."""
    parts, template = _parts(load(request.body))
    stored = account.templates.get(_name_in(request))
    account.templates.put(attrs.evolve(stored, content=parts, template=template))
    return {}


def delete_template(account: SimulatedAccount, request: Request) -> Content:
    """DeleteEmailTemplate."""
    del account.templates[account.templates.get(_name_in(request)).name]
    return {}


def list_templates(account: SimulatedAccount, request: Request) -> Content:
    """ListEmailTemplates, by pages."""
    asked = request.arguments
    size = page_size(asked, _MOST_PER_PAGE)
    after = position(asked, code="BadRequestException")
    names = sorted(name for name in account.templates if name > after)
    content: Content = {"TemplatesMetadata": [_metadata(account.templates[name]) for name in names[:size]]}
    if len(names) > size:
        content["NextToken"] = token(names[size - 1])
    return content


def _metadata(stored: StoredTemplate) -> Content:
    return {"TemplateName": stored.name, "CreatedTimestamp": round(stored.created, 3)}


def render_template(account: SimulatedAccount, request: Request) -> Content:
    """TestRenderEmailTemplate: the whole mail, as MIME."""
    template = account.templates.get(_name_in(request)).template
    text = text_at(load(request.body), "TemplateData")
    check_data_length(text, "templateData")
    if not text:
        raise bad_request("Template rendering data is invalid.")
    try:
        return {"RenderedTemplate": _mime(template, data_of(text), request.wall)}
    except RenderingError as error:
        raise bad_request(str(error)) from None


def _mime(template: CompiledTemplate, data: Mapping[str, Any], wall: float) -> str:
    from email.message import EmailMessage  # Brings in the standard library's mail parser, which few need.
    from email.policy import SMTP
    from email.utils import formatdate

    mail = EmailMessage(SMTP)
    mail["Date"] = formatdate(wall)
    mail["Subject"] = " ".join(template.subject.render(data).splitlines())
    mail.set_content(template.text.render(data) if template.text else "")
    mail.add_alternative(template.html.render(data) if template.html else "", subtype="html")
    return mail.as_string()


_LIST_ACTIONS = {
    "POST": ("ses:CreateEmailTemplate", create_template),
    "GET": ("ses:ListEmailTemplates", list_templates),
}
_TEMPLATE_ACTIONS = {
    "GET": ("ses:GetEmailTemplate", get_template),
    "PUT": ("ses:UpdateEmailTemplate", update_template),
    "DELETE": ("ses:DeleteEmailTemplate", delete_template),
}
