"""Mail as bytes: what goes out where SES's simple form cannot carry a message, over SMTP, and into files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .typing import SendRequest


def render(request: SendRequest) -> bytes:
    """The whole mail for *request*: headers and body, 7-bit safe, lines ended by CRLF."""
    raise NotImplementedError
