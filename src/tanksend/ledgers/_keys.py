"""How keys are kept, and how SES's events find their way back to them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from .._messages import KEY_TAG

# SES has the message when any of these is told: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
_TAKEN = frozenset({"Send", "Delivery", "Bounce", "Complaint", "DeliveryDelay", "Open", "Click"})
_DIGEST_BYTES = 16


def digest(key: str) -> bytes:
    """
    The 16 bytes by which a key is found: those that its message tag (`key_tag`) says in hexadecimal.

    At 128 bits of SHA-256 two keys never share them, so nothing looks at the key itself.
    """
    return sha256(key.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def proof(event: Mapping[str, Any]) -> tuple[bytes, str | None] | None:
    """
    Whose message SES says it has taken: the key's digest, and SES's message id.

    None for an event that proves nothing of the kind, is not of a message of ours, or does not look as SES's do: events
    come from outside.

    Args:
        event: One event as SES publishes it, parsed from JSON: ``eventType`` and ``mail``.
    """
    if not isinstance(event, Mapping) or event.get("eventType") not in _TAKEN:
        return None
    mail = event.get("mail")
    if not isinstance(mail, Mapping):
        return None
    tag = _tag(mail.get("tags"))
    message_id = mail.get("messageId")
    return None if tag is None else (tag, message_id if isinstance(message_id, str) else None)


def _tag(tags: object) -> bytes | None:
    values = tags.get(KEY_TAG) if isinstance(tags, Mapping) else None
    if not isinstance(values, list | tuple) or len(values) != 1 or not isinstance(values[0], str):
        return None
    try:
        found = bytes.fromhex(values[0])
    except ValueError:
        return None
    return found if len(found) == _DIGEST_BYTES else None
