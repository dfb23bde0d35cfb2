"""Raw content of a SendEmail request: the MIME headers that decide who it is from, who it is to and what it carries."""

from __future__ import annotations

import base64
import binascii
from email import message_from_bytes
from email.utils import getaddresses
from typing import TYPE_CHECKING, Any

from ._answers import bad_request
from ._submission import (
    Submission,
    check_attachment_name,
    check_size,
    destination,
    object_at,
    tags_of,
    text_at,
)
from ._syntax import mailbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message as Mime

_MAX_LINE = 1_000  # SES Developer Guide, "Sending raw email": characters of one line, line break included
_MAX_PARTS = 500  # SES Developer Guide, "Service quotas"
# SES Developer Guide, "Amazon SES header fields": these may stand once.
_ONCE = ("From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "List-Unsubscribe")


def raw_submission(content: Mapping[str, Any]) -> Submission:
    """
    Take raw content apart. Where the request names no sender or recipients, the MIME headers do.

    Raises:
        Refusal: It is not base64, no mail, or breaks a rule on MIME.
    """
    data = _decoded(text_at(object_at(object_at(content, "Content"), "Raw"), "Data"))
    mime = message_from_bytes(data)
    _check(mime, data)
    sender = text_at(content, "FromEmailAddress") or str(mime["From"])
    return_path = mime["Return-Path"]
    return Submission(
        action="ses:SendRawEmail",
        sender=sender,
        recipients=destination(content) or _named(mime),
        subject=str(mime["Subject"] or ""),
        tags=tags_of(content) or _tags_in_header(mime),
        configuration_set=text_at(content, "ConfigurationSetName") or _optional(mime["X-SES-CONFIGURATION-SET"]),
        identities=[mailbox(str(return_path))] if return_path else [],
        mailboxes=[],
        content=content,
        headers={name: str(value) for name, value in mime.items()},
    )


def raw_part(content: Mapping[str, Any], subtype: str) -> str | None:
    """The first part of raw content that is of ``text/``*subtype* and no attachment, decoded."""
    mime = message_from_bytes(_decoded(text_at(object_at(object_at(content, "Content"), "Raw"), "Data")))
    for part in mime.walk():
        if part.get_content_type() == f"text/{subtype}" and part.get_content_disposition() != "attachment":
            data = part.get_payload(decode=True)
            charset = part.get_content_charset("utf-8")
            return data.decode(charset, "replace") if isinstance(data, bytes) else None
    return None


def _optional(value: object) -> str | None:
    return None if value is None else str(value).strip()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("Raw content is not base64.") from None


def _check(mime: Mime, data: bytes) -> None:
    check_size(len(data))
    if mime["From"] is None:
        raise bad_request("Missing required header 'From'.")
    for name in _ONCE:
        if len(mime.get_all(name, [])) > 1:
            raise bad_request(f"Duplicate header '{name}'.")
    if any(len(line) >= _MAX_LINE for line in data.split(b"\n")):
        raise bad_request("Transaction failed: Line length exceeds 1000 characters.")
    parts = list(mime.walk())
    if len(parts) > _MAX_PARTS:
        raise bad_request("Transaction failed: Too many MIME parts.")
    for part in parts:
        attached = part.get_filename()
        if attached is not None:
            check_attachment_name(attached)


def _named(mime: Mime) -> list[str]:
    fields = [str(value) for name in ("To", "Cc", "Bcc") for value in mime.get_all(name, [])]
    return [address for _, address in getaddresses(fields)]


def _tags_in_header(mime: Mime) -> dict[str, str]:
    """Tags of the SMTP-style header. Source: SES Developer Guide, "Send email using event publishing"."""
    pairs = (pair.partition("=") for pair in str(mime["X-SES-MESSAGE-TAGS"] or "").split(",") if pair.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}
