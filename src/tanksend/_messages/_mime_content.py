"""Content that is MIME already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from email.message import EmailMessage


@attrs.frozen(repr=False)
class MimeContent:
    """
    The parts of a mail, without the headers that a `Message` says for itself.

    Attributes:
        content: Bytes of the MIME entity.
    """

    content: bytes


def message_fields(mail: EmailMessage | bytes) -> dict[str, Any]:
    """What `Message` is made with, read from *mail*."""
    raise NotImplementedError
