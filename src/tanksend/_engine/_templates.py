"""
What stored templates need of their messages' data, for one run.

SES takes a templated mail whose data lacks a variable, and drops it. With an inline template that is seen when the
message is checked; about a stored one the transport is asked. Where it cannot tell, the mail goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._messages import Template
from .._results import Status
from ..exceptions import InvalidMessageError
from ..typing import TemplateSource
from ._parts import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._entry import Entry
    from ._run import Run

MANY = 1_000
"""Templates whose contents are kept, before all are forgotten."""


class StoredTemplates:
    """Those that the messages of one run use; each is asked for once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: dict[str, Template | None] = {}
        transport = run.parts.transport
        self._source = transport if isinstance(transport, TemplateSource) else None

    async def check(self, entries: Sequence[Entry]) -> None:
        """Settle those of *entries* whose data lacks what their template needs."""
        if self._source is None:
            return
        for entry in entries:
            template = None if entry.settled else entry.message.template
            if template is not None and template.name is not None:
                content = await self._content(self._source, template.name)
                problems = () if content is None else content.data_problems(entry.message.data)
                if problems:
                    self._run.fates.settle(entry, Status.INVALID, error=InvalidMessageError(problems=problems))

    async def _content(self, source: TemplateSource, name: str) -> Template | None:
        """What is stored under *name*; None where that cannot be told, and SES will say what it thinks of it."""
        if name not in self._known:
            if len(self._known) >= MANY:
                self._known.clear()
            self._known[name] = await self._ask(source, name)
        return self._known[name]

    async def _ask(self, source: TemplateSource, name: str) -> Template | None:
        try:
            found: object = await source.template(name)
        except Exception as error:  # noqa: BLE001  (it must not cost a mail)
            log.debug("a stored template could not be looked up: %s", type(error).__name__)
            return None
        return found if isinstance(found, Template) else None
