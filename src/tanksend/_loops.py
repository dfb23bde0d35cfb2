"""The running event loop, whichever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable


def this_loop() -> Hashable:
    """The running event loop, as something to keep things by."""
    token: Any = current_token()
    return getattr(token, "native_token", token)  # type: ignore[no-any-return]  # wrapped since anyio 4.11


def killed() -> bool:
    """Whether the current task was cancelled by name, past all cancel scopes. Only asyncio knows such a thing."""
    if not hasattr(this_loop(), "call_soon_threadsafe"):
        return False
    import asyncio  # only where it runs already

    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def call_soon(loop: Any, callback: Callable[[], object]) -> bool:  # noqa: ANN401  (asyncio's loop, or trio's token)
    """Have *callback* called in *loop* (one that `this_loop` gave), from any thread; False when that loop has ended."""
    soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    try:
        soon(callback)
    except RuntimeError:  # the loop has ended, and with it whoever waited
        return False
    return True


def soon_in_this_loop(callback: Callable[[], object]) -> Callable[[], None]:
    """A function that has *callback* called in the running loop, from any thread and without waiting."""
    loop = this_loop()

    def ask() -> None:
        call_soon(loop, callback)

    return ask


def uninterrupted(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """
    *function* for a task that Ctrl-C must not hit between two steps.

    Trio raises KeyboardInterrupt in whichever task runs; where it may not, the main task gets it, as on asyncio.
    """
    if hasattr(this_loop(), "call_soon_threadsafe"):
        return function
    import trio  # it runs already

    @trio.lowlevel.enable_ki_protection
    async def protected(*arguments: object) -> None:
        await function(*arguments)

    return protected
