"""
Send mail through Amazon SES so that every message has exactly one known fate.
"""

from __future__ import annotations

__version__ = "0.1.0"
