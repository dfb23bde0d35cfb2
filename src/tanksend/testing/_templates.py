"""Templates of the simulated account: stored ones, inline ones, and a request's data for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from .._messages import Template
from ._answers import Refusal, bad_request
from ._handlebars import Program, RenderingError, TemplateError, compile_template
from ._submission import Submission, destination, object_at, objects_at, tags_of, text_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Source: SES Developer Guide, "Using templates to send personalized email", and "EmailTemplateData" of the API.
MAX_TEMPLATES = 20_000
MAX_STORED_BYTES = 512_000
MAX_INLINE_BYTES = 1_048_576  # the template and its data together
MAX_DATA = 262_144
_PARTS = ("Subject", "Text", "Html")
_NOTHING: Mapping[str, Any] = {}


@attrs.frozen(repr=False)
class CompiledTemplate:
    """
    The parts of a template, read; absent ones are None.

    Attributes:
        subject: The subject.
        text: The plain part.
        html: The HTML part.
        size: Bytes of all, before any data.
        title: The subject as written.
    """

    subject: Program
    text: Program | None
    html: Program | None
    size: int
    title: str

    @property
    def is_simple(self) -> bool:
        """Whether it only puts variables in."""
        return all(part.is_simple for part in (self.subject, self.text, self.html) if part is not None)

    def failure(self, data: Mapping[str, Any]) -> str | None:
        """Why it cannot be rendered with *data*, in SES's words; None when it can."""
        try:
            self.subject.check(data)
            for part in (self.text, self.html):
                if part is not None:
                    part.check(data)
        except RenderingError as error:
            return str(error)
        return None


def compiled(content: Mapping[str, Any]) -> CompiledTemplate:
    """
    Read a template's parts.

    Raises:
        Refusal: None is there, or one is no template.
    """
    texts = [text_at(content, part) for part in _PARTS]
    if not any(text.strip() for text in texts):
        raise bad_request("The template must have a subject, a text part or an HTML part.")
    try:
        subject, text, html = (compile_template(each) for each in texts)
    except TemplateError as error:
        raise bad_request(f"Template is invalid. {error}") from None
    size = sum(len(each.encode("utf-8", "surrogatepass")) for each in texts)
    return CompiledTemplate(subject, text if texts[1] else None, html if texts[2] else None, size, texts[0])


def inline(content: Mapping[str, Any]) -> CompiledTemplate:
    """
    Read an inline template, which may hold simple variables only.

    Source: SES API v2 reference, "Template"; the text is one that SES has been seen to answer.

    Raises:
        Refusal: It is empty, or does more.
    """
    template = compiled(content)
    if not template.is_simple:
        raise bad_request("Template contains unsupported operations.")
    return template


@attrs.frozen(repr=False)
class StoredTemplate:
    """A template in the store: its content as SES returns it, its tags, and since when."""

    name: str
    content: Mapping[str, str]
    template: CompiledTemplate
    created: float = 0.0
    tags: tuple[Mapping[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"<StoredTemplate {self.name}>"


class TemplateStore:
    """The templates that are stored, by name. Assign a `Template`, or a mapping of Subject, Text and Html."""

    def __init__(self, templates: Mapping[str, Template | Mapping[str, str]] = _NOTHING) -> None:
        self._stored: dict[str, StoredTemplate] = {}
        for name, template in templates.items():
            self[name] = template

    def __setitem__(self, name: str, template: Template | Mapping[str, str]) -> None:
        content = _content(template)
        self.put(StoredTemplate(name, content, _stored(content)))

    def __getitem__(self, name: str) -> StoredTemplate:
        return self._stored[name]

    def __delitem__(self, name: str) -> None:
        del self._stored[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"<TemplateStore {len(self)}>"

    def put(self, stored: StoredTemplate) -> None:
        """Keep one under its name."""
        self._stored[stored.name] = stored

    def get(self, name: str) -> StoredTemplate:
        """
        The one called *name*.

        Raises:
            Refusal: There is none.
        """
        try:
            return self._stored[name]
        except KeyError:
            text = f"Template {name} does not exist."
            raise Refusal("NotFoundException", text, status="TEMPLATE_NOT_FOUND") from None


def _content(template: Template | Mapping[str, str]) -> dict[str, str]:
    if isinstance(template, Template):
        template = {"Subject": template.subject or "", "Text": template.text or "", "Html": template.html or ""}
    return {part: template[part] for part in _PARTS if template.get(part)}


def _stored(content: Mapping[str, str]) -> CompiledTemplate:
    try:
        return compiled(content)
    except Refusal as refusal:
        raise ValueError(refusal.message) from None


def merged(default: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    A recipient's data over everybody's: by key, objects in objects too, lists as a whole.

    The reference calls the default a fallback for an empty object; real accounts have been seen to merge.
    """
    if not default or not own:
        return own or default
    both = {**default, **own}
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(default.get(name), dict):
            both[name] = merged(default[name], value)
    return both


def data_of(text: str) -> Mapping[str, Any]:
    """
    Data for a template, which travel as a text of JSON.

    Raises:
        Refusal: They are no object of JSON.
    """
    if not text:
        return _NOTHING
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise bad_request("Template rendering data is invalid.")
    return data


def check_data_length(text: str, place: str) -> None:
    """
    Hold data to their length.

    Raises:
        Refusal: They are longer.
    """
    if len(text) > MAX_DATA:
        constraint = f"Member must have length less than or equal to {MAX_DATA}"
        found = f"1 validation error detected: Value at '{place}' failed to satisfy constraint: {constraint}"
        raise Refusal("ValidationException", found)


def check_inline_size(template: CompiledTemplate | None, text: str) -> None:
    """
    Hold an inline template and one message's data to their size together.

    Raises:
        Refusal: They are larger.
    """
    if template is not None and template.size + len(text.encode("utf-8", "surrogatepass")) > MAX_INLINE_BYTES:
        raise bad_request("Template content and data may have 1 MB at most.")


@attrs.define(repr=False)
class Asked:
    """Which template a request asks for: the name of a stored one, or an inline one, read."""

    name: str | None
    template: CompiledTemplate | None

    def find(self, store: TemplateStore) -> CompiledTemplate:
        """
        The template.

        Raises:
            Refusal: It is not in the store.
        """
        if self.template is None:
            self.template = store.get(self.name or "").template
        return self.template


def asked(template: Mapping[str, Any]) -> Asked:
    """
    Read which template is asked for.

    Raises:
        Refusal: None is, or several are, or an inline one is wrong.
    """
    name, arn = text_at(template, "TemplateName"), text_at(template, "TemplateArn")
    given = template.get("TemplateContent") is not None
    if bool(name) + bool(arn) + given != 1:
        raise bad_request("Exactly one of TemplateName, TemplateArn and TemplateContent must be given.")
    if given:
        return Asked(None, inline(object_at(template, "TemplateContent")))
    return Asked(name or arn.rpartition("template/")[2], None)


def headers_of(headers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Headers by name."""
    return {text_at(header, "Name"): text_at(header, "Value") for header in headers}


def templated_submission(content: Mapping[str, Any]) -> Submission:
    """
    Take a SendEmail request with a template apart. Whether a stored template exists is not looked at yet.

    Raises:
        Refusal: The shape, the data or an inline template are wrong, or the sender is missing.
    """
    template = object_at(object_at(content, "Content"), "Template")
    sender = text_at(content, "FromEmailAddress")
    if not sender:
        raise bad_request("Source cannot be empty")
    text = text_at(template, "TemplateData")
    check_data_length(text, "content.template.templateData")
    which = asked(template)
    check_inline_size(which.template, text)
    return Submission(
        action="ses:SendTemplatedEmail",
        sender=sender,
        recipients=destination(content),
        subject="",
        tags=tags_of(content),
        configuration_set=text_at(content, "ConfigurationSetName") or None,
        identities=[],
        mailboxes=[],
        content=content,
        headers=headers_of(objects_at(template, "Headers")),
        asked=which,
        data=data_of(text),
    )
