"""How texts for people are worded, and what they may say of an address: its domain at most."""

from __future__ import annotations

import re

# A dotted name, ASCII or not; anything else after the "@" is not a domain and may be somebody's data.
_DOMAIN = re.compile(r"(?=.{1,255}\Z)[\w-]+(?:\.[\w-]+)*\.?\Z")
_LOCAL_PART = re.compile(r"(?:\"(?:[^\"\\]|\\.){0,320}\"|(?<![^\s@<>\"'`(),;:\[\]])[^\s@<>\"'`(),;:\[\]]+)(?=@)")


def at_domain(address: str) -> str:
    """
    Name *address* in a text for people by its domain alone: ``an address at example.com``.

    Text without a plausible domain is called ``an address``.
    """
    domain = address.strip().removesuffix(">").rpartition("@")[2] if "@" in address else ""
    return f"an address at {domain.lower()}" if _DOMAIN.match(domain) else "an address"


def without_local_parts(text: str) -> str:
    """Blot out what stands before each "@": the last net under texts that somebody else composed."""
    return _LOCAL_PART.sub("…", text) if "@" in text else text


def sentence(text: str) -> str:
    """*text* with a full stop, unless it ends like a sentence already."""
    return text if text.endswith((".", "!", "?")) else text + "."
