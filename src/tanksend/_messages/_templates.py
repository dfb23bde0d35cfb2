"""Content that SES makes of a template and each recipient's data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(kw_only=True, repr=False)
class Template:
    """
    A template: stored in SES under *name*, or inline.

    Args:
        name: Of a template that is stored in SES.
        subject: Of an inline template.
        text: Plain part of an inline template.
        html: HTML part of an inline template.
    """

    name: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None


def read_only_data(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy of *value* that nobody can change."""
    if not isinstance(value, Mapping):
        raise TypeError(f"data must be a mapping, not {type(value).__name__}")
    return MappingProxyType(dict(value)) if value else _NOTHING
