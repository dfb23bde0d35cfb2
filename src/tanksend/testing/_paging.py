"""Lists that SES answers by pages."""

from __future__ import annotations

import base64
import binascii

from ._answers import Refusal, bad_request


def page_size(asked: dict[str, list[str]], most: int) -> int:
    """
    How many to a page: *most*, unless fewer are asked for.

    Raises:
        Refusal: It is no number from 1 to *most*.
    """
    text = asked.get("PageSize", [str(most)])[-1]
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise bad_request(f"PageSize must be between 1 and {most}.")
    return int(text)


def position(asked: dict[str, list[str]], *, code: str = "InvalidNextTokenException") -> str:
    """
    What the page begins behind; empty for the first.

    Raises:
        Refusal: The token is none of ours; with *code*.
    """
    try:
        return base64.b64decode(asked.get("NextToken", [""])[-1], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refusal(code, "The specified request includes an invalid token.") from None


def token(last: str) -> str:
    """The token for what follows *last*."""
    return base64.urlsafe_b64encode(last.encode()).decode()
