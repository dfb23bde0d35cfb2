"""Content that is MIME already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ..exceptions import Problem
from ._entities import Part

if TYPE_CHECKING:
    from email.message import EmailMessage


@attrs.frozen(repr=False)
class MimeContent:
    """
    The parts of a mail, without the headers that a `Message` says for itself.

    Attributes:
        part: The entity, safe to send.
        headers: Those that travel on, printable ASCII.
        problems: What was wrong with the mail.
    """

    part: Part
    headers: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def encoded_bytes(self) -> int:
        """How large the entity and its headers are in a mail."""
        return len(self.part.head) + len(self.part.body) + sum(len(name) + len(value) for name, value in self.headers)

    def check(self) -> tuple[Problem, ...]:
        """What was wrong with the mail, by field."""
        return self.problems


def message_fields(mail: EmailMessage | bytes) -> dict[str, Any]:
    """What `Message` is made with, read from *mail*."""
    raise NotImplementedError
