"""`SyncTemplates`: `Templates` for code without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from ._templates import Templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from .._messages import Template
    from ..typing import Clock
    from ._templates import ControlPlane, HasTransport, TemplateInfo


class SyncTemplates:
    """
    `Templates` for scripts, threads and notebook cells: the same methods without ``await``, and `list` gives them all.

    It runs on a loop thread of its own, as `SyncSender` does, which starts with the first call and ends with `close`.

    Args:
        source: An `SESTransport`, or a `Sender` or `SyncSender` that has one. It stays usable after `close`.
        clock: Where time comes from.

    Raises:
        TypeError: *source* has no way to call SES's API.
    """

    def __init__(self, source: ControlPlane | HasTransport, *, clock: Clock | None = None) -> None:
        from .._loop_thread import LoopThread  # loads when it is used

        self._templates = Templates(source, clock=clock)
        # Not a method of this object: what the thread refers to is not collected before it.
        self._loop = LoopThread(getattr(getattr(source, "transport", source), "aclose", _nothing))

    def create(self, name: str, template: Template) -> None:
        self._loop.call(self._templates.create, name, template)

    def get(self, name: str) -> Template:
        return self._loop.call(self._templates.get, name)

    def update(self, name: str, template: Template) -> None:
        self._loop.call(self._templates.update, name, template)

    def delete(self, name: str) -> None:
        self._loop.call(self._templates.delete, name)

    def list(self) -> Sequence[TemplateInfo]:
        """
        All that are stored, in SES's order.

        Raises:
            SendError: SES could not be asked, or said no.
        """
        return self._loop.call(_all, self._templates)

    def render(self, name: str, data: Mapping[str, Any]) -> str:
        return self._loop.call(self._templates.render, name, data)

    def close(self) -> None:
        """End the thread, and close idle connections. The next call starts it again."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _all(templates: Templates) -> Sequence[TemplateInfo]:
    return [info async for info in templates.list()]


async def _nothing() -> None:
    """To end with, where nothing is open."""


for _name in ("create", "get", "update", "delete", "render"):
    # The text stands once, at the method that does the work.
    getattr(SyncTemplates, _name).__doc__ = getattr(Templates, _name).__doc__
