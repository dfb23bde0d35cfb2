"""Looking after an account: what is set up in SES once, and used by all mail from then on."""

from __future__ import annotations

from ._sync import SyncTemplates
from ._templates import ControlPlane, HasTransport, TemplateInfo, Templates

__all__ = ["ControlPlane", "HasTransport", "SyncTemplates", "TemplateInfo", "Templates"]
