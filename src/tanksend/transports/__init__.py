"""Ways to hand a message over, each behind the `Transport` protocol."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .._sigv4 import Credentials
from ._ses import SESTransport

if TYPE_CHECKING:
    from .._smtp_password import smtp_password
    from ._botocore import BotocoreTransport
    from ._file import FileTransport
    from ._smtp import SMTPTransport

__all__ = ["BotocoreTransport", "Credentials", "FileTransport", "SESTransport", "SMTPTransport", "smtp_password"]

# Loaded when they are first asked for: most programs do without.
_LATER = {
    "BotocoreTransport": "._botocore",
    "FileTransport": "._file",
    "SMTPTransport": "._smtp",
    "smtp_password": ".._smtp_password",
}


def __getattr__(name: str) -> object:
    """All but the default transport."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What can be asked for, for completion and the reference; what is not loaded yet, too."""
    return sorted({*globals(), *__all__})
