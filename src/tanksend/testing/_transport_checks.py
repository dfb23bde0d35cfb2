"""Does a transport keep its contract? See `tanksend.testing` for the other checks."""

from __future__ import annotations

import functools
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from .._messages import Attachment, Message, Template, Unsubscribe
from .._results import Receipt
from ..exceptions import SendError
from ..typing import BulkRequest
from ._checks import _require, sample_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from ..typing import SendRequest, Transport

_TEMPLATE = Template(subject="A check of a transport, number {{number}}", text="It works, {{name}}.")
_ONLY = "send raises SendError only"


def templated_request(request: SendRequest, number: int) -> SendRequest:
    """*request* with a template's content instead of its own."""
    data = {"number": number, "name": "김철수"}
    return attrs.evolve(request, message=Message.from_template(_TEMPLATE, to=request.to, data=data))


async def check_transport(
    factory: Callable[[], Transport],
    *,
    request: Callable[[int], SendRequest] = sample_request,
    broken: Callable[[], Transport] | None = None,
) -> None:
    """
    Hold a transport to `Transport`, and to `BulkTransport` if it has ``send_bulk``. Sends some 60 messages.

    Among them are odd ones: a transport may take or refuse them, but not fail in any other way. It is also used in a
    second event loop, asyncio's in a thread, while the first one goes on.

    Args:
        factory: Makes a transport whose messages are accepted.
        request: Makes the numbered requests that are sent, each to one recipient or more.
        broken: Makes one whose messages certainly fail, to see what it raises; None skips that part.

    Raises:
        AssertionError: It breaks its contract.
    """
    transport = factory()
    try:
        _require_receipt(await transport.send(request(0)))
        await _check_parallel(transport, request)
        await _check_cancelled(transport, request)
        await _check_closing(transport, request)
        await _check_other_loop(transport, request)
        await _check_odd_content(transport, request(80))
        if hasattr(transport, "send_bulk"):
            await _check_bulk(transport, request(90))
    finally:
        await transport.aclose()
    if broken is not None:
        await _check_broken(broken, request(100))


def _require_receipt(receipt: object) -> None:
    _require(isinstance(receipt, Receipt) and receipt.message_id, "send returns a Receipt with a message id")


async def _check_parallel(transport: Transport, request: Callable[[int], SendRequest]) -> None:
    found: list[str] = []

    async def one(number: int) -> None:
        found.append((await transport.send(request(number))).message_id)

    async with anyio.create_task_group() as tasks:
        for number in range(1, 11):
            tasks.start_soon(one, number)
    _require(len(set(found)) == len(found), "messages sent at the same time have different ids")


async def _check_cancelled(transport: Transport, request: Callable[[int], SendRequest]) -> None:
    """Cancel at every one of the first suspensions, one and a crowd; the transport has to work afterwards."""
    for patience in range(5):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                for number in range(1 + 4 * (patience % 2)):
                    tasks.start_soon(transport.send, request(20 + patience + number))
                for _ in range(patience):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        receipt = await transport.send(request(40 + patience))
        _require(receipt.message_id, "a cancelled send leaves nothing half-used behind")


async def _check_closing(transport: Transport, request: Callable[[int], SendRequest]) -> None:
    """Close it beside messages that are on their way, twice, and use it again."""

    async def one(number: int) -> None:
        await _outcome(transport.send(request(number)), "when it is closed meanwhile")

    async def close(patience: int) -> None:
        for _ in range(patience):
            await anyio.lowlevel.checkpoint()
        await transport.aclose()

    for patience in range(3):
        sending = [functools.partial(one, number) for number in range(50, 55)]
        await _together(*sending, functools.partial(close, patience))
    await transport.aclose()
    again = await transport.send(request(60))
    _require(again.message_id, "a closed transport opens again when it is used again")


async def _check_other_loop(transport: Transport, request: Callable[[int], SendRequest]) -> None:
    """As in a notebook: loops come and go, and some run at the same time."""

    async def elsewhere() -> None:
        _require_receipt(await transport.send(request(70)))
        await transport.aclose()

    await _together(
        functools.partial(anyio.to_thread.run_sync, functools.partial(_run_elsewhere, elsewhere)),
        functools.partial(transport.send, request(71)),
    )
    _require_receipt(await transport.send(request(72)))


def _run_elsewhere(function: Callable[[], Awaitable[None]]) -> None:
    try:
        anyio.run(function)
    except Exception as error:
        raise AssertionError(
            f"a transport works on any event loop, also a second one ({type(error).__name__})"
        ) from error


async def _check_odd_content(transport: Transport, request: SendRequest) -> None:
    for what, odd in _odd_requests(request):
        outcome = await _outcome(transport.send(odd), f"also for {what}")
        if isinstance(outcome, SendError):
            _check_error(outcome, odd)
        else:
            _require_receipt(outcome)


def _odd_requests(request: SendRequest) -> Iterable[tuple[str, SendRequest]]:
    files = [
        Attachment("보고서 🎉.pdf", b"%PDF-1.7"),
        Attachment("empty.txt", b""),
        Attachment("empty.txt", bytes(range(256)), content_type="application/octet-stream"),
        Attachment("logo.png", b"\x89PNG", content_type="image/png", content_id="logo"),
    ]
    unsubscribe = Unsubscribe(url="https://example.com/u?a=1", mailto="u@example.com")
    messages: dict[str, dict[str, Any]] = {
        "many scripts": {"subject": "안녕 🎉 שלום " * 40, "text": "Hello\u2028\u200d🎉", "html": "<p>日本語</p>"},
        "an empty text": {"subject": "", "text": ""},
        "control characters and long lines": {"text": "\x00\x07\r.\r\nFrom me\n" + "long " * 2_000 + "x" * 5_000},
        "half of a surrogate pair": {"subject": "\ud83d", "text": "\ude00"},
        "attachments": {"html": '<img src="cid:logo">', "attachments": files},
        "headers": {"text": "Hi", "headers": {"X-Odd": "a" * 800}, "unsubscribe": unsubscribe, "key": "k\n\x00é"},
    }
    for what, fields in messages.items():
        message = Message(request.to, **{"subject": "A check of a transport", **fields})
        yield what, attrs.evolve(request, message=message)
    mime = b"Subject: A check\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n\xf0\xd2\xc9\xd7\xc5\xd4\r\n"
    yield "MIME", attrs.evolve(request, message=Message.from_mime(mime, to=request.to))
    yield "a template", templated_request(request, 0)
    yield "no To", attrs.evolve(request, to=(), bcc=request.to, tags={"check": "1"})


async def _check_bulk(transport: Any, request: SendRequest) -> None:  # noqa: ANN401 - one that has `send_bulk`.
    requests = tuple(templated_request(request, number) for number in range(3))
    outcomes: Sequence[Receipt | SendError] = await transport.send_bulk(BulkRequest(requests))
    _require(len(outcomes) == len(requests), "send_bulk gives one outcome per entry")
    for outcome in outcomes:
        _require(isinstance(outcome, Receipt | SendError), "an outcome of send_bulk is a Receipt or a SendError")
    ids = [outcome.message_id for outcome in outcomes if isinstance(outcome, Receipt)]
    _require(all(ids) and len(set(ids)) == len(ids), "each entry that was taken has an id of its own")


async def _check_broken(broken: Callable[[], Transport], request: SendRequest) -> None:
    transport: Any = broken()
    try:
        outcome = await _outcome(transport.send(request), "when it fails")
        if hasattr(transport, "send_bulk"):
            # It may be another thing that is forbidden, so that this one succeeds.
            await _outcome(transport.send_bulk(BulkRequest((templated_request(request, 0),))), "when it fails")
    finally:
        await transport.aclose()
    _require(isinstance(outcome, SendError), "the broken transport was said to fail, and it did not")
    _check_error(outcome, request)


async def _together(*calls: Callable[[], Awaitable[object]]) -> None:
    """All at the same time. What breaks the contract is raised as it is, and not in a group."""
    broken: list[AssertionError] = []

    async def one(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except AssertionError as error:
            broken.append(error)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(one, call)
    if broken:
        raise broken[0]


async def _outcome(sending: Awaitable[object], when: str) -> object:
    """What came of it, errors included; a `SendError` is an outcome and any other exception is not."""
    try:
        return await sending
    except SendError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{_ONLY}, not {type(error).__name__}, {when}") from error


def _check_error(error: Any, request: SendRequest) -> None:  # noqa: ANN401 - known to be a `SendError`.
    text = str(error) + repr(error)
    _require(all(address.local not in text for address in request.recipients), "errors name no local part")
    _require(error.retryable is False or not error.maybe_sent, "what may have been sent is not retryable")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    _require(str(again) == str(error), "errors can be pickled")
