"""One message of a request, taken apart and held to SES's rules on shape, addresses, headers, tags and size."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import attrs

from .._messages import BLOCKED_EXTENSIONS
from ._answers import Refusal, bad_request
from ._syntax import check_length, mailbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._templates import Asked

# Source: SES Developer Guide, "Service quotas"; SES API v2, "MessageHeader", "MessageTag", "Attachment".
MAX_RECIPIENTS = 50
MAX_BYTES = 41_943_040
MAX_HEADERS = 15
_MAX_HEADER_UNITS = 996
_HEADER_NAME = re.compile(r"[!-9;-@A-~]{1,126}")
_HEADER_VALUE = re.compile(r"[ -~]{1,995}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_NO_TAGS: Mapping[str, str] = {}
# SES writes these itself or takes them elsewhere, so that a second one would be a duplicate.
_ONCE = frozenset(
    "bcc cc content-disposition content-transfer-encoding content-type date from message-id mime-version"
    " reply-to return-path sender subject to".split()
)


@attrs.define(repr=False)
class Submission:
    """
    What a SendEmail request, or one entry of a SendBulkEmail request, asks for.

    Args:
        action: The IAM action it needs; raw content and templates need others than simple content.
        sender: The From as written.
        recipients: To, Cc and Bcc as written.
        subject: As the reader will see it; of raw content, the header as it stands.
        tags: Message tags.
        configuration_set: The one named, None for none.
        identities: Bare addresses of those who must be verified to send: From, and Return-Path where given.
        mailboxes: Bare addresses of the recipients.
        content: The request's JSON.
        headers: The additional headers; of raw content, all.
        asked: The template, where there is one.
        data: The data for it.
        entry: Its position in a SendBulkEmail request.
        failure: Why the template cannot be rendered with the data.
    """

    action: str
    sender: str
    recipients: list[str]
    subject: str
    tags: Mapping[str, str]
    configuration_set: str | None
    identities: list[str]
    mailboxes: list[str]
    content: Mapping[str, Any]
    headers: Mapping[str, str] = attrs.field(factory=dict)
    asked: Asked | None = None
    data: Mapping[str, Any] | None = None
    entry: int | None = None
    failure: str | None = None

    def __repr__(self) -> str:
        return f"<Submission {self.action} recipients={len(self.recipients)}>"


def load(body: bytes) -> dict[str, Any]:
    """
    The request's JSON.

    Raises:
        Refusal: It is not a JSON object.
    """
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        raise Refusal("SerializationException") from None
    if not isinstance(content, dict):
        raise Refusal("SerializationException")
    return content


def text_at(content: Mapping[str, Any], name: str) -> str:
    """A string member, empty when it is absent."""
    value = content.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal("SerializationException", f"{name} must be a string")
    return value


def texts_at(content: Mapping[str, Any], name: str) -> list[str]:
    """A member that is a list of strings, empty when it is absent."""
    value = content.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal("SerializationException", f"{name} must be a list of strings")
    return value


def object_at(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is an object, empty when it is absent."""
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal("SerializationException", f"{name} must be an object")
    return value


def objects_at(content: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """A member that is a list of objects, empty when it is absent."""
    value = content.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refusal("SerializationException", f"{name} must be a list of objects")
    return value


def submission(content: Mapping[str, Any]) -> Submission:
    """
    Take a SendEmail request apart: its shape, and who it is from and to. No rule is applied to the values yet.

    Raises:
        Refusal: The shape is wrong, or the sender or all recipients are missing.
    """
    body = object_at(content, "Content")
    kinds = [kind for kind in ("Simple", "Raw", "Template") if body.get(kind) is not None]
    if len(kinds) != 1:
        raise bad_request("Exactly one of Simple, Raw and Template content must be given.")
    if kinds[0] == "Template":
        from ._templates import templated_submission

        return templated_submission(content)
    if kinds[0] == "Raw":
        from ._raw import raw_submission  # Brings in the standard library's mail parser, which few need.

        return raw_submission(content)
    return _simple_submission(content, object_at(body, "Simple"))


def _simple_submission(content: Mapping[str, Any], simple: Mapping[str, Any]) -> Submission:
    sender = text_at(content, "FromEmailAddress")
    if not sender:
        raise bad_request(None)  # SES answers a null message here.
    return Submission(
        action="ses:SendEmail",
        sender=sender,
        recipients=destination(content),
        subject=text_at(object_at(simple, "Subject"), "Data"),
        tags=tags_of(content),
        configuration_set=text_at(content, "ConfigurationSetName") or None,
        identities=[],
        mailboxes=[],
        content=content,
        headers=_headers(simple) if "Headers" in simple else {},
    )


def _headers(part: Mapping[str, Any]) -> dict[str, str]:
    return {text_at(header, "Name"): text_at(header, "Value") for header in objects_at(part, "Headers")}


def destination(content: Mapping[str, Any]) -> list[str]:
    """To, Cc and Bcc of the request."""
    given = object_at(content, "Destination")
    if len(given) == 1 and "ToAddresses" in given:
        return texts_at(given, "ToAddresses")
    return [*texts_at(given, "ToAddresses"), *texts_at(given, "CcAddresses"), *texts_at(given, "BccAddresses")]


def tags_of(content: Mapping[str, Any], member: str = "EmailTags") -> Mapping[str, str]:
    """
    Message tags by name, not judged yet.

    Raises:
        Refusal: The shape is wrong.
    """
    given = objects_at(content, member)
    return {text_at(tag, "Name"): text_at(tag, "Value") for tag in given} if given else _NO_TAGS


def check_addresses(wanted: Submission) -> None:
    """
    Judge the syntax of everybody, sender first, and note their bare addresses.

    Raises:
        Refusal: With the text for the first bad address, or for too many.
    """
    check_number(wanted)
    wanted.identities.insert(0, mailbox(wanted.sender))
    wanted.mailboxes.extend([mailbox(text) for text in wanted.recipients])
    for text in texts_at(wanted.content, "ReplyToAddresses"):
        mailbox(text)
    feedback = text_at(wanted.content, "FeedbackForwardingEmailAddress")
    if feedback:
        wanted.identities.append(mailbox(feedback))


def check_number(wanted: Submission) -> None:
    """
    Hold the number of recipients to SES's limits.

    Raises:
        Refusal: There are none, or too many.
    """
    if not wanted.recipients:
        raise bad_request("There are no recipients specified")
    if len(wanted.recipients) > MAX_RECIPIENTS:
        raise bad_request("Recipient count exceeds 50.")


def check_lengths(wanted: Submission) -> None:
    """
    Hold every address, display names included, to its length.

    Raises:
        Refusal: One is too long.
    """
    for text in (wanted.sender, *wanted.recipients, *texts_at(wanted.content, "ReplyToAddresses")):
        check_length(text)


def check_content(wanted: Submission) -> None:
    """
    Hold tags, headers, attachments and the size to SES's limits.

    Raises:
        Refusal: With the text for the first that is over.
    """
    check_tags(wanted.tags)
    body = object_at(wanted.content, "Content")
    simple = object_at(body, "Simple")
    if simple:
        _check_simple(simple)
    if wanted.asked is not None:
        template = object_at(body, "Template")
        check_headers(objects_at(template, "Headers"), "content.template.headers")
        size = check_attachments(template)
        check_size(size + (wanted.asked.template.size if wanted.asked.template else 0))


def check_tags(tags: Mapping[str, str]) -> None:
    """
    Hold message tags to SES's alphabet and length.

    Raises:
        Refusal: A name or a value is of others.
    """
    for name, value in tags.items():
        if not _TAG.fullmatch(name) or not _TAG.fullmatch(value):
            raise bad_request(
                "Message tag names and values may have 1 to 256 of alphanumeric ASCII characters, '_' and '-'."
            )


def _check_simple(simple: Mapping[str, Any]) -> None:
    body = object_at(simple, "Body")
    parts = [text_at(object_at(body, kind), "Data") for kind in ("Text", "Html") if body.get(kind) is not None]
    if not parts:
        raise bad_request("Message body is missing.")
    if "Headers" in simple:
        check_headers(objects_at(simple, "Headers"))
    check_size(sum(_encoded(part) for part in parts) + check_attachments(simple))


def check_attachments(part: Mapping[str, Any]) -> int:
    """
    Hold the names of attachments to SES's rules, and tell their size.

    Raises:
        Refusal: One is missing, too long or of a kind that SES refuses.
    """
    if "Attachments" not in part:
        return 0
    attachments = objects_at(part, "Attachments")
    for attachment in attachments:
        check_attachment_name(text_at(attachment, "FileName"))
    return sum(_in_lines(len(text_at(attachment, "RawContent"))) for attachment in attachments)


def _encoded(part: str) -> int:
    """Bytes of a body part in base64."""
    length = len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass"))
    return _in_lines(-(-length // 3) * 4)


def _in_lines(length: int) -> int:
    """Bytes of base64 in the lines of 76 characters that a mail has."""
    return length + -(-length // 76) * 2


def check_size(size: int) -> None:
    """
    Hold the whole message to 40 MB after base64.

    Raises:
        Refusal: It is larger.
    """
    if size > MAX_BYTES:
        raise bad_request(f"Message length is more than {MAX_BYTES} bytes long: '{size}'.")


def check_headers(headers: Sequence[Mapping[str, Any]], where: str = "content.simple.headers") -> None:
    """
    Hold the additional headers to SES's count, characters and lengths.

    Args:
        headers: As in the request.
        where: Their place in the request, for the text.

    Raises:
        Refusal: With the text for the first that is wrong.
    """
    if len(headers) > MAX_HEADERS:
        raise _constraint(where, f"Member must have length less than or equal to {MAX_HEADERS}")
    seen: set[str] = set()
    for number, header in enumerate(headers, 1):
        name, value = text_at(header, "Name"), text_at(header, "Value")
        place = f"{where}.{number}.member"
        if not _HEADER_NAME.fullmatch(name):
            raise _constraint(f"{place}.name", "Member must satisfy regular expression pattern: ^[!-9;-@A-~]+$")
        if not _HEADER_VALUE.fullmatch(value) or len(name) + len(value) > _MAX_HEADER_UNITS:
            raise _constraint(f"{place}.value", "Member must satisfy regular expression pattern: [ -~]*")
        if name.lower() in seen or name.lower() in _ONCE:
            raise bad_request(f"Duplicate header '{name}'.")
        seen.add(name.lower())


def _constraint(place: str, constraint: str) -> Refusal:
    text = f"1 validation error detected: Value at '{place}' failed to satisfy constraint: {constraint}"
    return Refusal("ValidationException", text)


def check_attachment_name(name: str) -> None:
    """
    Refuse the extensions that SES refuses.

    Raises:
        Refusal: It is one of them, or the name is missing or too long.
    """
    if not 1 <= len(name) <= 255:
        raise bad_request("Attachment file names must have 1 to 255 characters.")
    if name.rpartition(".")[2].lower() in BLOCKED_EXTENSIONS and "." in name:
        raise bad_request("Unsupported attachment type.")
