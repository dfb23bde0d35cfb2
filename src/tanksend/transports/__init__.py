"""Ways to hand a message over, each behind the `Transport` protocol."""

from __future__ import annotations

from .._sigv4 import Credentials
from ._ses import SESTransport

__all__ = ["Credentials", "SESTransport"]
