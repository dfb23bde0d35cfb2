"""
The password that SES's SMTP endpoint wants: made from a user's secret access key, by region.

It is the last link of a chain of HMACs as in Signature Version 4, over words that never change instead of a date, with
a version byte before it. So it holds for ever, in one region, and only for keys that do: those of a session come with a
token, for which SMTP has no place.

Source: Amazon SES Developer Guide, "Obtaining your SMTP credentials by converting existing AWS credentials".
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from ._endpoints import check_region

__all__ = ["is_temporary", "smtp_password"]

_WORDS: Final = ("11111111", "{region}", "ses", "aws4_request", "SendRawEmail")
_VERSION: Final = b"\x04"


def smtp_password(secret_key: str, region: str) -> str:
    """
    Make the SMTP password of an IAM user. The user name is the access key id.

    The user needs the IAM action ``ses:SendRawEmail``. The keys of a role or session (``ASIA...``) give a password too,
    and SES refuses it: SMTP knows no session tokens.

    Args:
        secret_key: The user's secret access key.
        region: The region whose endpoint is spoken to. Every region has its own password.

    Raises:
        SettingError: The region cannot be one.
    """
    key = f"AWS4{secret_key}".encode()
    check_region(region)
    for word in _WORDS:
        key = hmac.digest(key, word.format(region=region).encode(), "sha256")
    return base64.b64encode(_VERSION + key).decode()


def is_temporary(access_key: str, token: str | None) -> bool:
    """Whether keys are those of a session, which SMTP does not take."""
    return token is not None or access_key.startswith("ASIA")
