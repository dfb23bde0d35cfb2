"""The contents of templates that are stored in SES, for those who check data against them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from .._loops import soon_in_this_loop
from .._payload import parse_template
from ..exceptions import AccessDeniedError, ConfigurationError, CredentialsError, Origin, SendError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._http1 import Answer
    from .._messages import Template

_PATIENCE: Final = 5.0  # Seconds for a look-up: mail waits for it, and goes without it after.
_GOOD_FOR: Final = 300.0  # Seconds: somebody may store another content under the name.
_AGAIN_AFTER: Final = 10.0  # Seconds after a look-up that failed.
_GONE_FOR: Final = 5.0  # Seconds for which a template that does not exist is not asked for again.
_MOST: Final = 1_024
_OK: Final = 200
_UNKNOWN_NAME: Final = frozenset({"NotFoundException", "TemplateDoesNotExist", "TemplateDoesNotExistException"})


@attrs.frozen
class _Known:
    """What is known of one name, until ``time.monotonic()`` says *until*."""

    template: Template | None
    until: float
    exists: bool = True
    request_id: str | None = None


class StoredTemplates:
    """
    Asks SES once for each name, however many tasks, threads and loops want to know, and keeps the answer.

    Args:
        ask: Makes the request for a name.
        judge: The error of an answer that is no success.
    """

    def __init__(
        self, ask: Callable[[str], Awaitable[Answer]], judge: Callable[[Answer], Awaitable[SendError]]
    ) -> None:
        self._ask = ask
        self._judge = judge
        self._known: dict[str, _Known] = {}
        self._renew()

    def _renew(self) -> None:
        """Begin without anybody asking: in a forked child nobody does, and the parent's lock may never open there."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    async def get(self, name: str) -> Template | None:
        """The content stored under *name*; see `TemplateSource.template`."""
        while (found := self._fresh(name)) is None:
            answered = anyio.Event()
            if self._is_first(name, soon_in_this_loop(answered.set)):
                found = await self._look_up(name)
                break
            await answered.wait()
        if not found.exists:
            raise ConfigurationError(
                f"The template {name} does not exist",
                code="NotFoundException",
                origin=Origin.TEMPLATE,
                request_id=found.request_id,
            )
        return found.template

    def forget(self, name: str) -> None:
        """Ask anew for *name*."""
        self._known.pop(name, None)

    def _fresh(self, name: str) -> _Known | None:
        found = self._known.get(name)
        return found if found is not None and time.monotonic() < found.until else None

    def _is_first(self, name: str, wake: Callable[[], None]) -> bool:
        """Whether nobody asks for *name* yet; whoever does is going to call *wake* else."""
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            waiting = self._waiting.get(name)
            if waiting is not None:
                waiting.append(wake)
            elif self._fresh(name) is None:
                self._waiting[name] = []
                return True
            else:  # answered in another thread since we looked
                wake()
            return False

    async def _look_up(self, name: str) -> _Known:
        try:
            found = await self._find(name)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[name] = found
        finally:
            # Cancelled, it leaves the question to the next.
            with self._lock:
                waiting = self._waiting.pop(name, ())
            for wake in waiting:
                wake()
        return found

    async def _find(self, name: str) -> _Known:
        failed = _Known(None, time.monotonic() + _AGAIN_AFTER)
        with anyio.move_on_after(_PATIENCE):
            try:
                answer = await self._ask(name)
                if answer.status == _OK:
                    template = parse_template(answer.body)
                    return _Known(template, time.monotonic() + _GOOD_FOR) if template else failed
                error = await self._judge(answer)
            except SendError:
                return failed
            if isinstance(error, AccessDeniedError) and not isinstance(error, CredentialsError):
                return _Known(None, float("inf"))
            if error.code in _UNKNOWN_NAME:
                return _Known(None, time.monotonic() + _GONE_FOR, exists=False, request_id=error.request_id)
        return failed
