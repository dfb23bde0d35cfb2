"""Awaiting what hardly ever has to wait, and being told when it does."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")


@types.coroutine
def with_notice(awaitable: Awaitable[T], notice: Callable[[], object]) -> Generator[Any, Any, T]:
    """
    Await *awaitable*, and call *notice* should it have to wait, before it does.

    A limiter answers at once nearly always. To be ready each time for the case that it does not, with a cancel scope or
    another task, would cost more than its answer.
    """
    steps = awaitable.__await__()
    try:
        step = next(steps)
        notice()
        while True:
            try:
                answer = yield step
            except BaseException as error:  # noqa: BLE001  (a cancellation, which is for the one that waits)
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value
